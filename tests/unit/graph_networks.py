"""Random graphs of layers, and what they give in float64 by `equations`, value by value."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from lstm_core import equations
from lstm_core.merge import Merge
from lstm_core.network import Layer, Network, Recurrent
from lstm_core.pointwise import Affine, Dense, Embedding, LastStep, Masking, Slice
from lstm_core.spec import LSTMSpec
from lstm_core.weights import initialize
from lstm_core.wiring import Wiring

UNITS = 4
REALS, WORDS = 3, 6
"""Features of the input of real numbers, and the vocabulary of the other one."""
INPUT_SIZE = REALS + 1

KINDS = (
    "lstm", "lstm", "last", "zeros", "dense", "log_softmax", "scale", "slice", "final", "masking",
    "concatenate", "add", "subtract", "multiply", "average", "maximum", "minimum",
)  # fmt: skip
STEPS = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=9
)
"""What each step is, and what it takes, counted back from the last value."""
MERGE_MASKS = ("any", "all", "none")


class Building:
    """Layers so far, each on the values that it takes; every value but the inputs has a size."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.layers: list[Layer] = []
        self.takes: list[tuple[int, ...]] = []
        self.sizes = [REALS, 1]
        self.has_time = [True, True]

    def put(self, layer: Layer, *takes: int) -> int:
        """Append a layer and return its value."""
        self.layers.append(layer)
        self.takes.append(takes)
        self.sizes.append(layer.output_size(*(self.sizes[value] for value in takes)))
        ends = isinstance(layer, LastStep) or (
            isinstance(layer, Recurrent) and not layer.return_sequences
        )
        self.has_time.append(self.has_time[takes[0]] and not ends)
        return len(self.sizes) - 1

    def draw(self, *shape: int) -> np.ndarray[Any, Any]:
        """Draw float32 so small that nothing saturates."""
        return self.random.uniform(-0.8, 0.8, shape).astype(np.float32)

    def dense(self, value: int, activation: str = "linear") -> int:
        """Append a layer of `UNITS` outputs."""
        kernel, bias = self.draw(self.sizes[value], UNITS), self.draw(UNITS)
        name = f"dense{len(self.layers)}"
        return self.put(Dense(name=name, kernel=kernel, bias=bias, activation=activation), value)

    def lstm(self, value: int, **options: Any) -> int:
        """Append an LSTM of `UNITS`."""
        spec = LSTMSpec(input_size=self.sizes[value], units=UNITS)
        weights = initialize(spec, int(self.random.integers(1 << 31)))
        name = f"lstm{len(self.layers)}"
        return self.put(Recurrent(name=name, spec=spec, weights=weights, **options), value)

    def step(self, kind: str, first: int, second: int) -> None:
        """Append a step of a kind, with what it takes to fit."""
        name = f"{kind}{len(self.layers)}"
        timed = [v for v, has_time in enumerate(self.has_time) if has_time and v != 1]
        one, other = (timed[-1 - number % len(timed)] for number in (first, second))
        match kind:
            case "lstm":
                self.lstm(one)
            case "last":
                self.lstm(one, return_sequences=False)
            case "zeros":
                self.lstm(one, zero_output_for_mask=True)
            case "dense" | "log_softmax":
                self.dense(one, "tanh" if kind == "dense" else kind)
            case "scale":
                center, scale, offset = self.draw(3, self.sizes[one])
                self.put(Affine(name=name, center=center, scale=scale, offset=offset), one)
            case "slice":
                self.put(Slice(name=name, begin=1, end=UNITS), self.dense(one))
            case "final":
                self.put(LastStep(name=name), one)
            case "masking":
                self.put(Masking(name=name, mask_value=0.0), 0)
            case _:
                masks = MERGE_MASKS[(first + second) % 3]
                pair = one, other
                if kind != "concatenate":
                    pair = self.dense(one), self.dense(other)
                self.put(Merge(name=name, operation=kind, masks=masks), *pair)


def graph(steps: list[tuple[str, int, int]], seed: int) -> Network:
    """Return a network of two inputs, whose outputs are what nothing else takes."""
    building = Building(seed)
    table = building.draw(WORDS, UNITS)
    words = building.put(Embedding(name="words", table=table, mask_zero=bool(seed % 2)), 1)
    both = building.put(Merge(name="both", operation="concatenate"), 0, words)
    building.lstm(both)
    for step in steps:
        building.step(*step)
    used = {value for taken in building.takes for value in taken}
    loose = [value for value in range(2, len(building.sizes)) if value not in used]
    wiring = Wiring(
        inputs=(("reals", REALS), ("words", 1)),
        takes=tuple(building.takes),
        outputs=tuple((f"out{value}", value) for value in loose),
    )
    return Network("graph", INPUT_SIZE, tuple(building.layers), wiring=wiring)


def inputs_of(batch: int, time: int, seed: int) -> np.ndarray[Any, Any]:
    """Draw `(batch, time, INPUT_SIZE)` float32, some steps zero."""
    random = np.random.default_rng(seed)
    reals = random.uniform(-1, 1, (batch, time, REALS)) * (random.random((batch, time, 1)) > 0.3)
    words = random.integers(0, WORDS, (batch, time, 1))
    return np.concatenate([reals, words], axis=-1).astype(np.float32)


def expected(
    network: Network, inputs: np.ndarray[Any, Any], given: np.ndarray[Any, Any]
) -> np.ndarray[Any, Any]:
    """Return every output at every step in float64, a value without time as if each were the last.

    Args:
        network: Of `graph`.
        inputs: `(batch, time, INPUT_SIZE)` float32.
        given: `(batch, time)` bool, the caller's mask.
    """
    x = inputs.astype(np.float64)
    values, masks = [x[..., :REALS], x[..., REALS:]], [given, given]
    for layer, taken in zip(network.layers, network.wiring.takes, strict=True):
        operands, live = [values[v] for v in taken], [masks[v] for v in taken]
        value, mask = operands[0], live[0]
        if isinstance(layer, Recurrent):
            zero = layer.zero_output_for_mask
            value = equations.sequence(
                layer.spec, layer.weights, value, mask=mask, zero_output_for_mask=zero
            ).outputs
        elif isinstance(layer, Merge):
            value = MERGES[layer.operation](operands)
            mask = {"any": np.any(live, axis=0), "all": np.all(live, axis=0), "none": given}[
                layer.masks
            ]
        elif isinstance(layer, Masking):
            mask = (value != 0).any(axis=-1) & given
        elif isinstance(layer, Embedding):
            tokens = value[..., 0].astype(int)
            value = layer.table.astype(np.float64)[tokens]
            mask = (tokens != 0) & given if layer.mask_zero else given
        else:
            value = pointwise(layer, value)
        values.append(value)
        masks.append(mask)
    return np.concatenate([values[value] for _, value in network.wiring.outputs], axis=-1)


MERGES: dict[str, Any] = {
    "concatenate": lambda operands: np.concatenate(operands, axis=-1),
    "add": sum,
    "subtract": lambda operands: operands[0] - operands[1],
    "multiply": lambda operands: np.prod(operands, axis=0),
    "average": lambda operands: np.mean(operands, axis=0),
    "maximum": lambda operands: np.max(operands, axis=0),
    "minimum": lambda operands: np.min(operands, axis=0),
}


def pointwise(layer: Layer, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return what a layer without a state gives, in float64."""
    match layer:
        case Dense():
            y = x @ layer.kernel.astype(np.float64) + layer.bias
            if layer.activation == "log_softmax":
                return y - np.log(np.exp(y).sum(axis=-1, keepdims=True))
            return np.tanh(y) if layer.activation == "tanh" else y
        case Affine():
            return (x - layer.center) * layer.scale + layer.offset
        case Slice():
            return x[..., layer.begin : layer.end]
        case LastStep():
            return x
    raise TypeError(layer.name)
