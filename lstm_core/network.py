"""A graph of recurrent and other layers with its state layout, as the runtimes see it.

Owns what a model *is* for inference. Runs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lstm_core.errors import SpecError
from lstm_core.fingerprint import fingerprint_of
from lstm_core.merge import Merge
from lstm_core.pointwise import Embedding, LastStep, Masking, Pointwise, makes_mask
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights
from lstm_core.wiring import Wiring, chain

MERGE_MODES = ("concat", "sum", "mul", "ave")
_MAX_MERGED = 1 << 22
"""Values that all merges of a network give for a time step: a few that double them have any number
else, without a weight in the file."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recurrent:
    """One LSTM of the stack.

    Attributes:
        name: The layer's name in its file.
        spec: Its configuration.
        weights: Its weights, float32.
        return_sequences: Whether its file gives every time step on, or the last only.
        go_backwards: Whether it takes the time steps from the last to the first.
        zero_output_for_mask: Whether a masked step gives zeros instead of the last output.
    """

    name: str
    spec: LSTMSpec
    weights: LSTMWeights
    return_sequences: bool = True
    go_backwards: bool = False
    zero_output_for_mask: bool = False

    def output_size(self, input_size: int) -> int:
        """Return the length of one step's output; SpecError for another input size."""
        if input_size != self.spec.input_size:
            problem = f"takes {self.spec.input_size} features, but gets {input_size}"
            raise SpecError(self.name, problem)
        return self.spec.output_size


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Bidirectional:
    """Two LSTMs over the same input, one of them against time.

    Attributes:
        name: The layer's name in its file.
        forward: The one in time's direction.
        backward: The other, with `go_backwards` set.
        merge_mode: One of `MERGE_MODES`.
    """

    name: str
    forward: Recurrent
    backward: Recurrent
    merge_mode: str = "concat"

    @property
    def return_sequences(self) -> bool:
        """Whether every time step is given on, or the last only."""
        return self.forward.return_sequences

    def output_size(self, input_size: int) -> int:
        """Return the merged size; SpecError if the two do not fit together."""
        sizes = [layer.output_size(input_size) for layer in (self.forward, self.backward)]
        if self.merge_mode == "concat":
            return sum(sizes)
        if sizes[0] != sizes[1]:
            raise SpecError(self.name, f"cannot merge {sizes[0]} and {sizes[1]} outputs")
        return sizes[0]


Layer = Recurrent | Bidirectional | Pointwise | Merge


def is_masked_behind(layer: Layer, is_masked: Sequence[bool]) -> bool:
    """Tell whether a mask can come behind a layer, by whether one comes with what it takes."""
    if isinstance(layer, Merge):
        return {"any": all(is_masked), "all": any(is_masked), "none": False}[layer.masks]
    if isinstance(layer, Recurrent | Bidirectional):
        return is_masked[0] and layer.return_sequences
    return is_masked[0] or makes_mask(layer)


@dataclass(frozen=True, slots=True, kw_only=True)
class StatePart:
    """One vector of the state row.

    Attributes:
        layer: The name of the layer that it belongs to.
        role: `h` or `c`; of a cell that is neither an LSTM nor a GRU, what its position tells.
        offset: Where it begins in the row.
        size: Its length.
    """

    layer: str
    role: str
    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorPart:
    """One of a model's inputs or outputs, as a part of a time step's values.

    Attributes:
        name: Its name.
        offset: Where it begins among the step's values.
        size: How many they are.
        vocabulary: They are integers in [0, vocabulary); None means real numbers.
    """

    name: str
    offset: int
    size: int
    vocabulary: int | None = None


class Network:
    """A graph of layers, from one time step's features to one time step's outputs.

    Most often it is a chain, each layer behind the one before it. Several inputs lie side by side
    in a time step's values, and so do several outputs.

    Attributes:
        name: The model's name in its file.
        written_by: The program that wrote the file, with its version where that is known, or None.
        layers: In an order in which they can run, those left out that do nothing at inference.
        wiring: What each of them takes.
        input_size: Features of one time step, those of all inputs; 1 for integers to be embedded.
        output_size: Outputs of one time step, those of all outputs.
        inputs: The inputs, under their names in the file.
        outputs: The outputs, likewise.
        output_sizes: Values that each layer gives for a time step.
        widest: The most values that a layer gives, or the network takes or gives, for a time step.
        has_time: For each of the wiring's values, whether it has a time axis in the file; if not,
            it is that of the last time step.
        returns_sequences: Whether some output of the file has a time axis.
        vocabulary: Rows of the table that the one input's integers are embedded with; None where
            the inputs are real numbers or several, where `inputs` tells it of each.
        state_layout: The parts of a state row in Keras's order: h, c of the first recurrent layer,
            then of the next. Empty parts for the layers that cannot stream are left out.
        state_size: The length of a state row.
        num_recurrent: How many recurrent layers keep a state.
        streaming_obstacles: One sentence for each layer that needs the whole sequence at once.
        fingerprint: SHA-256, in hexadecimal, of the inference configuration and the weights.
    """

    def __init__(
        self,
        name: str,
        input_size: int,
        layers: tuple[Layer, ...],
        *,
        input_name: str = "inputs",
        output_name: str = "outputs",
        written_by: str | None = None,
        wiring: Wiring | None = None,
    ) -> None:
        """Check that the layers fit together.

        Args:
            name: The model's name.
            input_size: Features of one time step, those of all inputs.
            layers: In an order in which they can run.
            input_name: The input's name, where there is no wiring.
            output_name: The output's, likewise.
            written_by: The program that wrote the file.
            wiring: What each layer takes; None for a chain.

        Raises:
            SpecError: Sizes do not fit, there is no recurrent layer, an embedding takes something
                else than an input, a layer that needs a time axis comes behind the last one that
                has it, a merge joins values with and without one, or the wiring is no graph.
        """
        self.name = name
        self.written_by = written_by
        self.layers = layers
        self.input_size = input_size
        self.wiring = wiring or chain(input_name, input_size, len(layers), output_name)
        sizes, self.has_time = _check(self.wiring, layers)
        if input_size != (total := sum(size for _, size in self.wiring.inputs)):
            raise SpecError("input_size", f"is {input_size}, but the inputs have {total} features")
        self.output_sizes = sizes[len(self.wiring.inputs) :]
        self.inputs, self.outputs = _ends(self.wiring, layers, sizes)
        self.output_size = sum(part.size for part in self.outputs)
        self.widest = max(*self.output_sizes, self.output_size)
        self.returns_sequences = any(self.has_time[value] for _, value in self.wiring.outputs)
        self.vocabulary = self.inputs[0].vocabulary if len(self.inputs) == 1 else None
        self.streaming_obstacles = [
            obstacle for layer in layers if (obstacle := _streaming_obstacle(layer)) is not None
        ]
        self.state_layout = _layout(self.recurrent)
        self.state_size = sum(part.size for part in self.state_layout)
        self.num_recurrent = len(self.recurrent)
        self.fingerprint = fingerprint_of(self.wiring, layers)

    @property
    def is_chain(self) -> bool:
        """Whether each layer takes what the one before it gives, and nothing else is there."""
        return self.wiring.is_chain

    @property
    def recurrent(self) -> tuple[Recurrent, ...]:
        """The recurrent layers that keep a state from step to step."""
        return tuple(layer for layer in self.layers if isinstance(layer, Recurrent))


def _check(wiring: Wiring, layers: tuple[Layer, ...]) -> tuple[list[int], tuple[bool, ...]]:
    """Return the size of each value, and whether it has a time axis.

    Raises:
        SpecError: Something does not fit.
    """
    wiring.check([layer.name for layer in layers])
    sizes = [size for _, size in wiring.inputs]
    has_time = [True] * len(sizes)
    num_merged = 0
    for layer, taken in zip(layers, wiring.takes, strict=True):
        if len(taken) > 1 and not isinstance(layer, Merge):
            raise SpecError(layer.name, f"takes {len(taken)} values; only a merge takes several")
        if isinstance(layer, Embedding) and taken[0] >= len(wiring.inputs):
            raise SpecError(layer.name, "an embedding must be the first layer behind an input")
        timed = [has_time[value] for value in taken]
        if not timed[0] and isinstance(layer, Recurrent | Bidirectional | Masking | LastStep):
            raise SpecError(layer.name, "needs a time axis, but a layer before it ended it")
        if any(timed) and not all(timed):
            problem = "joins what is there at each time step with what only the last one gives"
            raise SpecError(layer.name, problem)
        sizes.append(layer.output_size(*(sizes[value] for value in taken)))
        num_merged += sizes[-1] if isinstance(layer, Merge) else 0
        if num_merged > _MAX_MERGED:
            problem = f"with the merges before it gives more than {_MAX_MERGED} values a time step"
            raise SpecError(layer.name, problem)
        ends_time = isinstance(layer, LastStep) or (
            isinstance(layer, Recurrent | Bidirectional) and not layer.return_sequences
        )
        has_time.append(timed[0] and not ends_time)
    if not any(isinstance(layer, Recurrent | Bidirectional) for layer in layers):
        raise SpecError("layers", "there is no recurrent layer, so there is no state to keep")
    return sizes, tuple(has_time)


def _ends(
    wiring: Wiring, layers: tuple[Layer, ...], sizes: list[int]
) -> tuple[tuple[TensorPart, ...], tuple[TensorPart, ...]]:
    """Return the inputs and the outputs, each side by side in its order."""
    vocabularies: dict[int, int] = {}
    for layer, (value, *_) in zip(layers, wiring.takes, strict=True):
        if isinstance(layer, Embedding):
            rows = layer.table.shape[0]
            vocabularies[value] = min(rows, vocabularies.get(value, rows))
    inputs = [(name, number) for number, (name, _) in enumerate(wiring.inputs)]
    both = []
    for ends in (inputs, wiring.outputs):
        parts: list[TensorPart] = []
        offset = 0
        for name, value in ends:
            vocabulary = vocabularies.get(value) if ends is inputs else None
            parts.append(
                TensorPart(name=name, offset=offset, size=sizes[value], vocabulary=vocabulary)
            )
            offset += sizes[value]
        both.append(tuple(parts))
    return both[0], both[1]


def _streaming_obstacle(layer: Layer) -> str | None:
    if isinstance(layer, Bidirectional):
        return f"{layer.name} runs in both directions, so it needs the whole sequence at once"
    if isinstance(layer, Recurrent) and layer.go_backwards:
        return f"{layer.name} runs backwards, so it needs the whole sequence at once"
    return None


def _layout(recurrent: tuple[Recurrent, ...]) -> tuple[StatePart, ...]:
    parts: list[StatePart] = []
    offset = 0
    for layer in recurrent:
        for role, size in (("h", layer.spec.output_size), ("c", layer.spec.units)):
            parts.append(StatePart(layer=layer.name, role=role, offset=offset, size=size))
            offset += size
    return tuple(parts)
