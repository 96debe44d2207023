"""ONNX's LSTM operator: its weights, attributes and outputs, into a layer of a network.

References:
    https://onnx.ai/onnx/operators/onnx__LSTM.html
    ONNX Runtime, onnxruntime/core/providers/cpu/rnn: which functions take which parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lstm_core.errors import SpecError
from lstm_core.formats.onnx_axes import Atom, Axes, Axis, kinds
from lstm_core.formats.onnx_model import Node
from lstm_core.formats.onnx_values import (
    MAX_LAYERS,
    Sequences,
    State,
    Value,
    without_sequences,
)
from lstm_core.network import Bidirectional, Recurrent
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights, reorder_gates

Float32 = npt.NDArray[np.float32]

_ORDER = "iofc"
_PEEPHOLES = [0, 2, 1]
"""Input, output and forget gate's, in the order input, forget, output."""
_NUM_DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}
_INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")

_FUNCTIONS: dict[str, dict[tuple[float, ...], str]] = {
    "affine": {(1.0, 0.0): "linear"},
    "elu": {(1.0,): "elu"},
    "hardsigmoid": {(0.2, 0.5): "hard_sigmoid_v1", (1 / 6, 0.5): "hard_sigmoid"},
    "leakyrelu": {(0.2,): "leaky_relu"},
    "relu": {(): "relu"},
    "sigmoid": {(): "sigmoid"},
    "softplus": {(): "softplus"},
    "softsign": {(): "softsign"},
    "tanh": {(): "tanh"},
}
"""Our function of each of ONNX's, by its parameters, alpha and beta."""
_DEFAULTS: dict[str, tuple[float, ...]] = {
    "affine": (1.0, 0.0),
    "elu": (1.0,),
    "hardsigmoid": (0.2, 0.5),
    "leakyrelu": (0.01,),
}


def read_lstm(node: Node, inputs: Sequence[Value | None]) -> list[Value]:
    """Return what an LSTM gives: Y, Y_h and Y_c.

    Raises:
        SpecError: It asks for something that cannot be served.
    """
    given = dict(zip(_INPUTS, [*inputs, *[None] * len(_INPUTS)], strict=False))
    x = given["X"]
    if not isinstance(x, Sequences):
        raise SpecError(node.name, "its input does not come from the graph's")
    x.check_whole()
    direction = node.attribute("direction", "forward")
    if direction not in _NUM_DIRECTIONS:
        raise SpecError(node.name, f"its direction is {direction!r:.80}")
    is_batch_first = node.attribute("layout", 0) == 1
    time, batch = time_and_batch(node, x, is_batch_first=is_batch_first)
    weights = _Weights.of(node, given, _NUM_DIRECTIONS[direction], x.features)
    _check_states(node, given, time, weights.units)
    layer = _layer(node, weights, direction)
    axes = _Axes(time, batch, len(weights.kernels), weights.units, is_batch_first)
    if len(x.layers) >= MAX_LAYERS:
        raise SpecError(node.name, f"is behind more than {MAX_LAYERS} layers")
    before = x.whole_layers()
    layers = (*before, layer)
    reverse = 1 if direction == "reverse" else None
    y = Sequences(axes=axes.of_sequence(), layers=layers, direction=reverse)
    last = (*before, without_sequences(layer))
    return [y, Sequences(axes=axes.of_state(), layers=last, is_state=True), State()]


@dataclass(frozen=True, slots=True)
class _Axes:
    """The axes of what an LSTM gives."""

    time: Axis
    batch: Axis
    num_directions: int
    units: int
    is_batch_first: bool

    def of_sequence(self) -> Axes:
        direction, features = self._own()
        if self.is_batch_first:
            return (self.batch, self.time, direction, features)
        return (self.time, direction, self.batch, features)

    def of_state(self) -> Axes:
        direction, features = self._own()
        if self.is_batch_first:
            return (self.batch, direction, features)
        return (direction, self.batch, features)

    def _own(self) -> tuple[Axis, Axis]:
        return (Atom("direction", self.num_directions),), (Atom("features", self.units),)


def time_and_batch(node: Node, x: Sequences, *, is_batch_first: bool) -> tuple[Axis, Axis]:
    """Return the two axes under the names that they have from here on.

    Raises:
        SpecError: They are no time and no batch.
    """
    if len(x.axes) != 3 or x.is_integer:
        raise SpecError(node.name, f"takes {len(x.axes)} axes, not three of real numbers")
    pair = x.axes[:2][::-1] if is_batch_first else x.axes[:2]
    named = []
    for axis, name in zip(pair, ("time", "batch"), strict=True):
        known = {kind for kind in kinds(axis) if not kind.startswith("input")}
        if len(axis) > 1 or known - {name}:
            raise SpecError(node.name, f"its {name} axis is made of {' and '.join(kinds(axis))}")
        named.append(tuple(Atom(name, atom.size) for atom in axis))
    return named[0], named[1]


def _check_states(node: Node, given: dict[str, Value | None], time: Axis, units: int) -> None:
    lengths = given["sequence_lens"]
    num_steps = time[0].size if time else 1
    if lengths is not None and not (
        isinstance(lengths, np.ndarray) and bool((lengths == num_steps).all())
    ):
        problem = "has sequence_lens; leave them out, since each session has its own length"
        raise SpecError(node.name, problem)
    for name in ("initial_h", "initial_c"):
        state = given[name]
        is_zero = isinstance(state, np.ndarray) and not state.any()
        if isinstance(state, np.ndarray) and state.shape[2:] != (units,):
            raise SpecError(node.name, f"its {name} of shape {state.shape} is not of {units} units")
        is_given = isinstance(state, State) and state.is_given
        if not (state is None or is_zero or is_given):
            raise SpecError(node.name, f"its {name} is neither zeros nor an input of the graph")
    if node.attribute("input_forget", 0):
        raise SpecError(node.name, "couples the input and forget gates (input_forget)")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Weights:
    """The arrays of an LSTM, with one axis for the directions before the others."""

    kernels: Float32
    recurrent_kernels: Float32
    biases: Float32 | None
    peepholes: Float32 | None

    @classmethod
    def of(
        cls, node: Node, given: dict[str, Value | None], num_directions: int, features: int
    ) -> _Weights:
        """Check the shapes; SpecError where they do not fit."""
        recurrent = _array(node, given, "R", (num_directions, None, None))
        if recurrent is None:
            raise SpecError(node.name, "lacks R")
        units = recurrent.shape[2]
        if units < 1 or node.attribute("hidden_size", units) != units:
            raise SpecError(node.name, f"has {units} units, and hidden_size tells another number")
        if recurrent.shape[1] != 4 * units:
            raise SpecError(node.name, f"R has the shape {recurrent.shape}")
        kernels = _array(node, given, "W", (num_directions, 4 * units, features))
        if kernels is None:
            raise SpecError(node.name, "lacks W")
        return cls(
            kernels=kernels,
            recurrent_kernels=recurrent,
            biases=_array(node, given, "B", (num_directions, 8 * units)),
            peepholes=_array(node, given, "P", (num_directions, 3 * units)),
        )

    @property
    def units(self) -> int:
        """Length of h."""
        return int(self.recurrent_kernels.shape[2])

    def lstm(self, direction: int) -> LSTMWeights:
        """Return the weights of one direction in our layout."""
        bias = None
        if self.biases is not None:
            both = np.split(self.biases[direction], 2)
            bias = reorder_gates(both[0] + both[1], _ORDER)
        peepholes = None
        if self.peepholes is not None:
            peepholes = self.peepholes[direction].reshape(3, -1)[_PEEPHOLES]
        return LSTMWeights(
            kernel=reorder_gates(self.kernels[direction].T, _ORDER),
            recurrent_kernel=reorder_gates(self.recurrent_kernels[direction].T, _ORDER),
            bias=bias,
            peepholes=peepholes,
        ).astype(np.float32)


def _array(
    node: Node, given: dict[str, Value | None], name: str, shape: tuple[int | None, ...]
) -> Float32 | None:
    value = given[name]
    if value is None:
        return None
    if not isinstance(value, np.ndarray) or value.dtype != np.float32:
        raise SpecError(node.name, f"its {name} is not stored in the file as real numbers")
    fits = len(shape) == value.ndim and all(
        want in (None, have) for want, have in zip(shape, value.shape, strict=True)
    )
    if not fits:
        raise SpecError(node.name, f"its {name} has the shape {value.shape}")
    if not np.isfinite(value).all():
        raise SpecError(node.name, f"its {name} has values that are not finite in float32")
    return value


def _layer(node: Node, weights: _Weights, direction: str) -> Recurrent | Bidirectional:
    functions = _functions(node, len(weights.kernels))
    is_both = direction == "bidirectional"
    lstms = []
    for index, (recurrent_activation, activation) in enumerate(functions):
        part = weights.lstm(index)
        spec = LSTMSpec(
            input_size=part.kernel.shape[0],
            units=weights.units,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=part.bias is not None,
            use_peepholes=part.peepholes is not None,
            gate_clip=node.attribute("clip", 0.0) if "clip" in node.attributes else None,
        )
        lstms.append(
            Recurrent(
                name=f"{node.name}/{('forward', 'backward')[index]}" if is_both else node.name,
                spec=spec,
                weights=part,
                go_backwards=index == 1 or direction == "reverse",
                # As Keras's `Bidirectional`; these graphs have no masks.
                zero_output_for_mask=is_both,
            )
        )
    if is_both:
        return Bidirectional(name=node.name, forward=lstms[0], backward=lstms[1])
    return lstms[0]


def _functions(node: Node, num_directions: int) -> list[tuple[str, str]]:
    """Return the functions of the gates and of the states, for each direction."""
    names = node.listed("activations", str) or ["Sigmoid", "Tanh", "Tanh"] * num_directions
    alphas = iter(node.listed("activation_alpha", float) or [])
    betas = iter(node.listed("activation_beta", float) or [])
    if len(names) != 3 * num_directions:
        raise SpecError(node.name, f"has {len(names)} activations for {num_directions} directions")
    ours = []
    for name in names:
        defaults = _DEFAULTS.get(name.lower(), ())
        # Parameters are given to those functions only that have some.
        given = [next(values, d) for values, d in zip((alphas, betas), defaults, strict=False)]
        known = _FUNCTIONS.get(name.lower(), {})
        parameters = next((p for p in known if np.allclose(p, given, rtol=1e-6, atol=0)), None)
        if parameters is None:
            raise SpecError(node.name, f"has the activation {name:.40} with {given}, not served")
        ours.append(known[parameters])
    triples = [ours[at : at + 3] for at in range(0, len(ours), 3)]
    for _, candidate, output in triples:
        if candidate != output:
            problem = f"has two activations, {candidate} of the candidate and {output} of the cell"
            raise SpecError(node.name, problem)
    return [(gate, candidate) for gate, candidate, _ in triples]
