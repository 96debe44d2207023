"""A stack of recurrent and pointwise layers with its state layout, as the runtimes see it.

Owns what a model *is* for inference, and its fingerprint. Runs nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from lstm_core.errors import SpecError
from lstm_core.pointwise import Embedding, Masking, Pointwise
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights

MERGE_MODES = ("concat", "sum", "mul", "ave")
_LATER_FIELDS = frozenset({"gate_clip"})
"""Not part of a fingerprint where they are None: they came when there were states already."""


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


Layer = Recurrent | Bidirectional | Pointwise


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
    """A chain of layers, from one time step's features to one time step's outputs.

    Attributes:
        name: The model's name in its file.
        written_by: The program that wrote the file, with its version where that is known, or None.
        layers: The chain, layers that do nothing at inference left out.
        input_size: Features of one time step; 1 where they are integers for an embedding.
        output_size: Outputs of one time step.
        inputs: The one input, under its name in the file.
        outputs: The one output, likewise.
        output_sizes: Values that each layer gives for a time step.
        widest: The most values that a layer gives for a time step.
        returns_sequences: Whether the file's own output has a time axis.
        vocabulary: The embedding's number of rows, or None where inputs are real numbers.
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
    ) -> None:
        """Check that the layers fit together.

        Raises:
            SpecError: Sizes do not fit, there is no recurrent layer, an embedding is not the first
                layer, or a layer that needs a time axis comes behind the last one that has it.
        """
        self.name = name
        self.written_by = written_by
        self.layers = layers
        self.input_size = input_size
        sizes, self.returns_sequences = _check_chain(input_size, layers)
        self.output_size = sizes[-1]
        self.widest = max(sizes)
        self.output_sizes = sizes
        first = layers[0]
        self.vocabulary = first.table.shape[0] if isinstance(first, Embedding) else None
        self.streaming_obstacles = [
            obstacle for layer in layers if (obstacle := _streaming_obstacle(layer)) is not None
        ]
        self.inputs = (
            TensorPart(name=input_name, offset=0, size=input_size, vocabulary=self.vocabulary),
        )
        self.outputs = (TensorPart(name=output_name, offset=0, size=self.output_size),)
        self.state_layout = _layout(self.recurrent)
        self.state_size = sum(part.size for part in self.state_layout)
        self.num_recurrent = len(self.recurrent)
        self.fingerprint = _fingerprint(input_size, layers)

    @property
    def recurrent(self) -> tuple[Recurrent, ...]:
        """The recurrent layers that keep a state from step to step."""
        return tuple(layer for layer in self.layers if isinstance(layer, Recurrent))


def _check_chain(input_size: int, layers: tuple[Layer, ...]) -> tuple[list[int], bool]:
    size = input_size
    sizes: list[int] = []
    has_time = True
    for index, layer in enumerate(layers):
        if isinstance(layer, Embedding) and index:
            raise SpecError(layer.name, "an embedding must be the first layer")
        if not has_time and isinstance(layer, Recurrent | Bidirectional | Masking):
            raise SpecError(layer.name, "needs a time axis, but a layer before it ended it")
        size = layer.output_size(size)
        sizes.append(size)
        if isinstance(layer, Recurrent | Bidirectional):
            has_time = layer.return_sequences
    if not any(isinstance(layer, Recurrent | Bidirectional) for layer in layers):
        raise SpecError("layers", "there is no recurrent layer, so there is no state to keep")
    return sizes, has_time


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


def _fingerprint(input_size: int, layers: tuple[Layer, ...]) -> str:
    digest = hashlib.sha256(json.dumps({"fingerprint": 1, "input_size": input_size}).encode())
    for layer in layers:
        for name, value in _canonical(layer, type(layer).__name__):
            if isinstance(value, np.ndarray):
                digest.update(json.dumps([name, value.shape]).encode())
                digest.update(np.ascontiguousarray(value, "<f4").tobytes())
            else:
                digest.update(json.dumps([name, value]).encode())
    return digest.hexdigest()


def _canonical(part: Layer | LSTMSpec | LSTMWeights, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every field below a layer but the names, in the order of their definition."""
    for field in fields(part):
        value = getattr(part, field.name)
        if field.name == "name" or (field.name in _LATER_FIELDS and value is None):
            continue
        if isinstance(value, Recurrent | LSTMSpec | LSTMWeights):
            yield from _canonical(value, f"{path}.{field.name}")
        else:
            yield f"{path}.{field.name}", dict(value) if field.name == "parameters" else value
