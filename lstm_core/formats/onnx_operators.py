"""ONNX's operators beside the LSTM, where sequences go through them: what they make of the axes.

Owns which operators there are, and which of their attributes can be served.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from lstm_core.errors import SpecError
from lstm_core.formats.onnx_axes import (
    STAND_INS,
    Atom,
    Axes,
    Axis,
    at,
    kinds,
    reshaped,
    sizes,
    squeezed,
    transposed,
    unsqueezed,
)
from lstm_core.formats.onnx_constants import axes_of, integers, slices_of
from lstm_core.formats.onnx_ends import STATE_OPERATORS
from lstm_core.formats.onnx_inputs import Values, sequences_of
from lstm_core.formats.onnx_junctions import met
from lstm_core.formats.onnx_lstm import read_lstm
from lstm_core.formats.onnx_model import FLOAT_TYPES, Node
from lstm_core.formats.onnx_pointwise import POINTWISE
from lstm_core.formats.onnx_rnn_cell import CELL, STEPS, read_rnn_cell, read_steps
from lstm_core.formats.onnx_values import (
    SERVED,
    Constant,
    Sequences,
    State,
    Value,
    joined,
    take_half,
    take_step,
)
from lstm_core.pointwise import Embedding, Slice

Reader = Callable[[Node, Values, int], list[Value]]
"""Takes a node, its inputs, at least one of them `Sequences`, and the version of the operators."""

_LOOPS: dict[str, Callable[[Node, Values], list[Value]]] = {
    "LSTM": read_lstm,
    CELL: read_rnn_cell,
    STEPS: read_steps,
}
"""What runs through time."""
_FAR = (1 << 31) - 1
"""From here on the end of a slice stands for that of its axis."""
_MAX_INPUTS = 5
"""Of the operators here."""


def read_node(node: Node, inputs: Values, opset: int) -> list[Value]:
    """Return what a node gives that is not given constants only.

    Raises:
        SpecError: It cannot be served.
    """
    if node.operator in _LOOPS:
        return _LOOPS[node.operator](node, inputs)
    first = inputs[0] if inputs else None
    if isinstance(first, State) and first.parts and node.operator in {"Gather", "Slice"}:
        return [_chosen_states(node, first, inputs)]
    if node.operator == "Concat" and (stack := _stacked(node, inputs)) is not None:
        return [stack]
    given = [value for value in inputs if not isinstance(value, np.ndarray) and value is not None]
    are_states = all(
        isinstance(value, State) or (isinstance(value, Sequences) and value.is_state)
        for value in given
    )
    has_state = any(isinstance(value, State) for value in given)
    if are_states and has_state and node.operator in STATE_OPERATORS:
        are_given = all(isinstance(value, State) and value.is_given for value in given)
        return [State(is_given=are_given) for _ in node.outputs]
    if has_state:
        raise SpecError(node.name, f"is a {node.operator} of a state, which no LSTM gives on")
    if node.operator in POINTWISE:
        return [POINTWISE[node.operator](node, inputs, opset)]
    reader = _READERS.get(node.operator)
    if reader is None:
        raise SpecError(node.name, f"is a {node.operator}; {SERVED}")
    return reader(node, inputs, opset)


def _stacked(node: Node, inputs: Values) -> State | None:
    """Return the h of several LSTMs one after another, or None where that is not what is joined."""
    parts = tuple(value for value in inputs if isinstance(value, Sequences) and value.is_state)
    if len(parts) != len(inputs) or any(part.direction is not None for part in parts):
        return None
    axis = at(parts[0].axes, node.attribute("axis", 0))
    are_stacks = all(
        len(part.axes) == len(parts[0].axes) and set(kinds(part.axes[axis])) <= {"direction"}
        for part in parts
    )
    return State(parts, axis) if are_stacks else None


def _chosen_states(node: Node, state: State, inputs: Values) -> Value:
    """Return one h, or those of one LSTM, out of those of several."""
    places = [
        (part, index) for part in state.parts for index in range(sizes(part.axes)[state.axis])
    ]
    rank = len(state.parts[0].axes)
    if node.operator == "Gather":
        ranges = [(node.attribute("axis", 0), integers(_constants(node, inputs)[1]))]
        keeps_axis = isinstance(inputs[1], np.ndarray) and inputs[1].ndim > 0
    else:
        ranges = [
            (axis, list(range(len(places))[start:end:step]))
            for axis, start, end, step in slices_of(node, _constants(node, inputs))
        ]
        keeps_axis = True
    if len(ranges) != 1 or ranges[0][0] % rank != state.axis:
        return State()
    chosen = [places[at(places, index)] for index in ranges[0][1]]
    if len(chosen) == 1:
        part, index = chosen[0]
        return take_step(part, state.axis, index, keeps_axis=keeps_axis)
    whole = [place for place in places if chosen and place[0] is chosen[0][0]]
    return chosen[0][0] if chosen and chosen == whole else State()


def _constants(node: Node, inputs: Values) -> list[Constant | None]:
    """Return the inputs with None for the first and for those left out at the end.

    Raises:
        SpecError: One of them is no constant.
    """
    rest = inputs[1:]
    if not all(value is None or isinstance(value, np.ndarray) for value in rest):
        raise SpecError(node.name, f"its {node.operator} depends on the input")
    constants = [value if isinstance(value, np.ndarray) else None for value in rest]
    return [None, *constants, *[None] * _MAX_INPUTS]


def _identity(node: Node, inputs: Values, _opset: int) -> list[Value]:
    return [sequences_of(node, inputs), *[State()] * (len(node.outputs) - 1)]


def _cast(node: Node, inputs: Values, _opset: int) -> list[Value]:
    value = sequences_of(node, inputs)
    if not value.is_integer and node.attribute("to", 0) not in FLOAT_TYPES:
        raise SpecError(node.name, "turns real numbers into others")
    return [value]


def _transpose(node: Node, inputs: Values, _opset: int) -> list[Value]:
    value = sequences_of(node, inputs)
    # TensorFlow's comes behind the values.
    order = node.listed("perm", int) or integers(_constants(node, inputs)[1])
    order = order or list(range(len(value.axes)))[::-1]
    return [replace(value, axes=transposed(value.axes, order))]


def _squeeze(node: Node, inputs: Values, _opset: int) -> list[Value]:
    value = sequences_of(node, inputs)
    return [replace(value, axes=squeezed(value.axes, axes_of(node, _constants(node, inputs))))]


def _unsqueeze(node: Node, inputs: Values, _opset: int) -> list[Value]:
    value = sequences_of(node, inputs)
    indices = axes_of(node, _constants(node, inputs)) or []
    return [replace(value, axes=unsqueezed(value.axes, indices))]


def _reshape(node: Node, inputs: Values, _opset: int) -> list[Value]:
    value = sequences_of(node, inputs)
    shape = node.listed("shape", int) or integers(_constants(node, inputs)[1])
    keeps_zero = bool(node.attribute("allowzero", 0))
    return [replace(value, axes=reshaped(value.axes, shape, keeps_zero=keeps_zero))]


def _flatten(node: Node, inputs: Values, _opset: int) -> list[Value]:
    value = sequences_of(node, inputs)
    axis = node.attribute("axis", 1)
    lengths = sizes(value.axes)
    axis = axis if axis == len(lengths) else at(value.axes, axis)
    shape = [int(np.prod(lengths[:axis])), int(np.prod(lengths[axis:]))]
    return [replace(value, axes=reshaped(value.axes, shape))]


def _gather(node: Node, inputs: Values, _opset: int) -> list[Value]:
    table, indices = (*inputs, None, None)[:2]
    if isinstance(table, np.ndarray) and isinstance(indices, Sequences):
        return [_embedded(node, table, indices)]
    value = sequences_of(node, inputs)
    chosen = integers(_constants(node, inputs)[1])
    axis = at(value.axes, node.attribute("axis", 0))
    length = sizes(value.axes)[axis]
    is_scalar = isinstance(indices, np.ndarray) and indices.ndim == 0
    if len(chosen) != 1 or not -length <= chosen[0] < length:
        raise SpecError(node.name, "chooses other than one time step or direction")
    return [take_step(value, axis, chosen[0] % length, keeps_axis=not is_scalar)]


def _embedded(node: Node, table: Constant, indices: Sequences) -> Value:
    is_table = table.ndim == 2 and node.attribute("axis", 0) == 0
    if (
        not indices.is_integer
        or len(indices.layers) > 1
        or not is_table
        or table.dtype != np.float32
    ):
        raise SpecError(node.name, "is a Gather that is no embedding of the graph's input")
    if not table.size or not np.isfinite(table).all():
        raise SpecError(node.name, "its table is empty or has values that are not finite")
    layer = Embedding(name=node.name, table=np.ascontiguousarray(table), mask_zero=False)
    features: Axes = ((Atom("features", table.shape[1]),),)
    return Sequences(axes=indices.axes + features, layers=(*indices.layers, layer))


def _slice(node: Node, inputs: Values, _opset: int) -> list[Value]:
    value = sequences_of(node, inputs)
    for axis, start, end, step in slices_of(node, _constants(node, inputs)):
        index = at(value.axes, axis)
        length = sizes(value.axes)[index]
        chosen = range(length)[start:end:step]
        is_of_features = index == len(value.axes) - 1 and kinds(value.axes[index]) == ["features"]
        if is_of_features and value.direction is None:
            value = _cut(node, value, chosen)
        elif len(chosen) == 1:
            value = take_step(value, index, chosen[0], keeps_axis=True)
        elif (half := take_half(value, index, chosen)) is not None:
            value = half
        elif chosen != range(length) or _is_bound(value.axes[index], start, end):
            what = " and ".join(kinds(value.axes[index])) or "nothing"
            raise SpecError(node.name, f"takes a part of the axis {what}")
    return [value]


def _cut(node: Node, value: Sequences, chosen: range) -> Sequences:
    """Return some features, one next to the other."""
    if not chosen or chosen.step != 1:
        raise SpecError(node.name, "takes features that are not one next to the other")
    if len(chosen) == value.features:
        return value
    return value.through(Slice(name=node.name, begin=chosen.start, end=chosen.stop))


def _is_bound(axis: Axis, start: int, end: int) -> bool:
    """Whether a part of an axis is all of it only where that is no longer than a fixed number."""
    if not any(atom.size in STAND_INS for atom in axis):
        return False
    length = sizes((axis,))[0]
    return -_FAR < start < -length or length < end < _FAR


def _split(node: Node, inputs: Values, _opset: int) -> list[Value]:
    value = sequences_of(node, inputs)
    axis = at(value.axes, node.attribute("axis", 0))
    num_parts = len(node.outputs)
    if num_parts == 1:
        return [value]
    if axis == len(value.axes) - 1 and kinds(value.axes[axis]) == ["features"]:
        return _split_features(node, inputs, value)
    is_direction = kinds(value.axes[axis]) == ["direction"]
    if num_parts != 2 or not is_direction:
        raise SpecError(node.name, "parts what is not the two directions of an LSTM")
    return [take_step(value, axis, index, keeps_axis=True) for index in range(2)]


def _split_features(node: Node, inputs: Values, value: Sequences) -> list[Value]:
    num_parts = len(node.outputs)
    lengths = node.listed("split", int) or integers(_constants(node, inputs)[1])
    if not lengths:
        length = -(-value.features // num_parts)
        lengths = [length] * (num_parts - 1) + [value.features - length * (num_parts - 1)]
    if len(lengths) != num_parts or sum(lengths) != value.features:
        raise SpecError(node.name, f"parts {value.features} features into {lengths!s:.80}")
    ends = np.cumsum(lengths).tolist()
    return [
        _cut(node, value, range(end - length, end))
        for end, length in zip(ends, lengths, strict=True)
    ]


def _concat(node: Node, inputs: Values, _opset: int) -> list[Value]:
    values = [value for value in inputs if isinstance(value, Sequences)]
    if len(values) != len(inputs):
        raise SpecError(node.name, "joins constants to the sequences")
    if len(values) == 1:
        return [values[0]]
    axis = at(values[0].axes, node.attribute("axis", 0))
    if any(value.direction is not None for value in values):
        return [joined(values, axis, "concat")]
    if axis != len(values[0].axes) - 1:
        raise SpecError(node.name, "joins values along another axis than the features")
    return [met(node, values)]


_READERS: dict[str, Reader] = {
    "Cast": _cast,
    "Concat": _concat,
    "Dropout": _identity,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": _identity,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
