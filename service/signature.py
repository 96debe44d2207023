"""What a model takes and gives, as the transports and the engine see it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSummary:
    """A layer of a model, for people.

    Attributes:
        name: Its name in the file.
        kind: Its class.
        output_size: Features that it gives for a time step.
        kernel: Which kernel runs it, for a recurrent layer; else None.
        device: Where that runs; else None.
        reason: Why that kernel; else None.
    """

    name: str
    kind: str
    output_size: int
    kernel: str | None = None
    device: str | None = None
    reason: str | None = None


FIRST_ROLES = ("h", "state_0")
"""Roles of the first vector of a recurrent layer's state."""


class StateVector(NamedTuple):
    """One vector of a state row, in the row's order.

    Attributes:
        layer: The recurrent layer's name.
        role: `h` or `c`; of a cell that is no LSTM, GRU or simple RNN `state_0` and so on, then
            `output`.
        size: Its length.
    """

    layer: str
    role: str
    size: int


class TensorSummary(NamedTuple):
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
    vocabulary: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What a model takes and gives.

    Attributes:
        model: The name that it is served under.
        fingerprint: SHA-256 of its inference configuration and weights.
        input_size: Features of one time step.
        output_size: Outputs of one time step.
        vocabulary: Inputs are one integer a step in [0, vocabulary); None means real numbers.
        returns_sequences: Whether the outputs of `predict` have a time axis.
        state_layout: The vectors of a state row.
        streaming_obstacles: Why it has no sessions, one sentence a layer; empty if it has.
        layers: Those of its file.
        version: Of the model, a decimal number.
        labels: A name for each output, or None.
        feedback: For each input the index of the output that feeds it in a forecast, or None, where
            it keeps its first value; None as a whole: every input its own output, if they are as
            many.
        inputs: The file's inputs, side by side in a time step's values.
        outputs: The file's outputs, likewise.
        runtime: What computes it, `cpu` or `tensorflow`.
        runtime_reason: Why.
    """

    model: str
    fingerprint: str
    input_size: int
    output_size: int
    vocabulary: int | None
    returns_sequences: bool
    state_layout: tuple[StateVector, ...]
    streaming_obstacles: tuple[str, ...]
    layers: tuple[LayerSummary, ...]
    version: str = "1"
    labels: tuple[str, ...] | None = None
    feedback: tuple[int | None, ...] | None = None
    inputs: tuple[TensorSummary, ...] = ()
    outputs: tuple[TensorSummary, ...] = ()
    runtime: str = "cpu"
    runtime_reason: str = ""

    @property
    def num_recurrent(self) -> int:
        """How many recurrent layers keep a state."""
        return sum(vector.role in FIRST_ROLES for vector in self.state_layout)

    @property
    def state_size(self) -> int:
        """The length of a state row."""
        return sum(vector.size for vector in self.state_layout)
