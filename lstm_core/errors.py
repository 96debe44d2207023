"""Everything that `lstm_core` raises on purpose. Knows no framework."""

from __future__ import annotations


class LSTMCoreError(Exception):
    """Root of the errors of this package."""


class SpecError(LSTMCoreError, ValueError):
    """A layer's configuration makes no sense, or no kernel knows it.

    Attributes:
        field: The argument at fault.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field


class WeightsError(LSTMCoreError, ValueError):
    """Weights do not fit the configuration that they were given for.

    Attributes:
        name: Which of the arrays.
        expected: The shape that the configuration asks for.
        actual: The shape that came.
    """

    def __init__(self, name: str, expected: tuple[int, ...], actual: tuple[int, ...]) -> None:
        super().__init__(f"{name} has shape {actual}, expected {expected}")
        self.name = name
        self.expected = expected
        self.actual = actual


class FormatError(LSTMCoreError, ValueError):
    """A model file is damaged, or holds something that cannot be served.

    Attributes:
        path: The file.
        problems: One sentence for each thing that stands in the way, with the layer's name.
        written_by: The program and version that wrote it, or None where that is not known.
    """

    def __init__(self, path: str, problems: list[str], written_by: str | None = None) -> None:
        listed = problems[0] if len(problems) == 1 else "".join(f"\n  - {p}" for p in problems)
        writer = f" (written by {written_by})" if written_by else ""
        super().__init__(f"{path}{writer}: {listed}")
        self.path = path
        self.problems = problems
        self.written_by = written_by


class NotStreamableError(LSTMCoreError, ValueError):
    """A step was asked of a network that needs the whole sequence at once.

    Attributes:
        reasons: One sentence for each layer that cannot stream.
    """

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


class MissingFirstInputError(LSTMCoreError, ValueError):
    """A forecast has nothing to begin with: no last output feeds all of the first input."""

    def __init__(self) -> None:
        super().__init__("the first input is missing, and no last output feeds all of it")


class SequenceLengthError(LSTMCoreError, ValueError):
    """A model was built for one number of time steps, and another came.

    Attributes:
        expected: What it was built for.
        actual: What came.
    """

    def __init__(self, expected: int, actual: int) -> None:
        super().__init__(f"the model takes {expected} time steps at once, not {actual}")
        self.expected = expected
        self.actual = actual


class InputRangeError(LSTMCoreError, ValueError):
    """A model takes integers for one of its inputs, and something else came.

    Attributes:
        name: The input's.
        vocabulary: The integers are in [0, vocabulary).
    """

    def __init__(self, name: str, vocabulary: int) -> None:
        super().__init__(f"expected integers from 0 to {vocabulary - 1} for the input {name}")
        self.name = name
        self.vocabulary = vocabulary


class DeviceMemoryError(LSTMCoreError, MemoryError):
    """The device that computes has no memory left. No state was changed.

    Attributes:
        what: What there was no memory for.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"the device has no memory for {what}")
        self.what = what


class NoGraphError(LSTMCoreError, RuntimeError, AttributeError):
    """A layer of TensorFlow 1.4 was asked for something that only a graph has.

    A `RuntimeError`, as its documentation promises, and an `AttributeError`, so that `hasattr` on
    one of its properties is false and does not fail.

    Attributes:
        member: The method or property.
        advice: What to do instead.
    """

    def __init__(self, member: str, advice: str) -> None:
        super().__init__(f"{member} is not supported in eager mode: {advice}")
        self.member = member
        self.advice = advice
