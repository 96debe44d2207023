"""ONNX's operators beside the LSTM, where sequences go through them: what they make of the axes.

Owns which operators there are, and which of their attributes can be served.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from lstm_core.errors import SpecError
from lstm_core.formats.onnx_axes import (
    Atom,
    Axes,
    at,
    kinds,
    reshaped,
    sizes,
    squeezed,
    transposed,
    unsqueezed,
)
from lstm_core.formats.onnx_constants import axes_of, integers, slices_of
from lstm_core.formats.onnx_lstm import read_lstm
from lstm_core.formats.onnx_model import FLOAT_TYPES, Node
from lstm_core.formats.onnx_pointwise import POINTWISE
from lstm_core.formats.onnx_values import (
    Constant,
    Sequences,
    State,
    Value,
    joined,
    take_step,
)
from lstm_core.pointwise import Embedding

Values = Sequence[Value | None]
Reader = Callable[[Node, Values, int], list[Value]]
"""Takes a node, its inputs, at least one of them `Sequences`, and the version of the operators."""

_STATE_OPERATORS = frozenset(
    {"Concat", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose"}
    | {"Unsqueeze", "Cast"}
)
"""What takes states apart and brings them together, one for each layer."""


def read_node(node: Node, inputs: Values, opset: int) -> list[Value]:
    """Return what a node gives that is not given constants only.

    Raises:
        SpecError: It cannot be served.
    """
    if node.operator == "LSTM":
        return read_lstm(node, inputs)
    given = [value for value in inputs if not isinstance(value, np.ndarray) and value is not None]
    are_states = all(
        isinstance(value, State) or (isinstance(value, Sequences) and value.is_state)
        for value in given
    )
    has_state = any(isinstance(value, State) for value in given)
    if are_states and node.operator in _STATE_OPERATORS and (has_state or len(given) > 1):
        return [State() for _ in node.outputs]
    if has_state:
        raise SpecError(node.name, f"is a {node.operator} of a state, which no LSTM gives on")
    if node.operator in POINTWISE:
        return [POINTWISE[node.operator](node, inputs, opset)]
    reader = _READERS.get(node.operator)
    if reader is None:
        known = "LSTMs and operators that treat each time step on its own"
        raise SpecError(node.name, f"is a {node.operator}; served are {known}")
    return reader(node, inputs, opset)


def _only(node: Node, inputs: Values) -> Sequences:
    """Return the first input; SpecError where that is not what comes from the graph's input."""
    first = inputs[0] if inputs else None
    if not isinstance(first, Sequences):
        raise SpecError(node.name, "takes what comes from the input elsewhere than first")
    return first


def _constants(node: Node, inputs: Values) -> list[Constant | None]:
    """Return the inputs without the first, which must be constants."""
    rest = inputs[1:]
    if not all(value is None or isinstance(value, np.ndarray) for value in rest):
        raise SpecError(node.name, f"its {node.operator} depends on the input")
    return [None, *(value if isinstance(value, np.ndarray) else None for value in rest)]


def _identity(node: Node, inputs: Values, _opset: int) -> list[Value]:
    return [_only(node, inputs), *[State()] * (len(node.outputs) - 1)]


def _cast(node: Node, inputs: Values, _opset: int) -> list[Value]:
    value = _only(node, inputs)
    if not value.is_integer and node.attributes.get("to") not in FLOAT_TYPES:
        raise SpecError(node.name, "turns real numbers into others")
    return [value]


def _transpose(node: Node, inputs: Values, _opset: int) -> list[Value]:
    value = _only(node, inputs)
    order = node.attributes.get("perm") or list(range(len(value.axes)))[::-1]
    return [replace(value, axes=transposed(value.axes, order))]


def _squeeze(node: Node, inputs: Values, _opset: int) -> list[Value]:
    value = _only(node, inputs)
    return [replace(value, axes=squeezed(value.axes, axes_of(node, _constants(node, inputs))))]


def _unsqueeze(node: Node, inputs: Values, _opset: int) -> list[Value]:
    value = _only(node, inputs)
    indices = axes_of(node, _constants(node, inputs)) or []
    return [replace(value, axes=unsqueezed(value.axes, indices))]


def _reshape(node: Node, inputs: Values, _opset: int) -> list[Value]:
    value = _only(node, inputs)
    shape = node.attributes.get("shape") or integers(_constants(node, inputs)[1])
    keeps_zero = bool(node.attributes.get("allowzero", 0))
    return [replace(value, axes=reshaped(value.axes, shape, keeps_zero=keeps_zero))]


def _flatten(node: Node, inputs: Values, _opset: int) -> list[Value]:
    value = _only(node, inputs)
    axis = node.attributes.get("axis", 1)
    lengths = sizes(value.axes)
    axis = axis if axis == len(lengths) else at(value.axes, axis)
    shape = [int(np.prod(lengths[:axis])), int(np.prod(lengths[axis:]))]
    return [replace(value, axes=reshaped(value.axes, shape))]


def _gather(node: Node, inputs: Values, _opset: int) -> list[Value]:
    table, indices = (*inputs, None, None)[:2]
    if isinstance(table, np.ndarray) and isinstance(indices, Sequences):
        return [_embedded(node, table, indices)]
    value = _only(node, inputs)
    chosen = integers(_constants(node, inputs)[1])
    axis = at(value.axes, node.attributes.get("axis", 0))
    length = sizes(value.axes)[axis]
    is_scalar = isinstance(indices, np.ndarray) and indices.ndim == 0
    if len(chosen) != 1 or not -length <= chosen[0] < length:
        raise SpecError(node.name, "chooses other than one time step or direction")
    return [take_step(value, axis, chosen[0] % length, keeps_axis=not is_scalar)]


def _embedded(node: Node, table: Constant, indices: Sequences) -> Value:
    is_table = table.ndim == 2 and node.attributes.get("axis", 0) == 0
    if not indices.is_integer or indices.layers or not is_table or table.dtype != np.float32:
        raise SpecError(node.name, "is a Gather that is no embedding of the graph's input")
    if not table.size or not np.isfinite(table).all():
        raise SpecError(node.name, "its table is empty or has values that are not finite")
    layer = Embedding(name=node.name, table=np.ascontiguousarray(table), mask_zero=False)
    features: Axes = ((Atom("features", table.shape[1]),),)
    return Sequences(axes=indices.axes + features, layers=(layer,))


def _slice(node: Node, inputs: Values, _opset: int) -> list[Value]:
    value = _only(node, inputs)
    for axis, start, end, step in slices_of(node, _constants(node, inputs)):
        index = at(value.axes, axis)
        length = sizes(value.axes)[index]
        chosen = range(length)[start:end:step]
        if len(chosen) == 1:
            value = take_step(value, index, chosen[0], keeps_axis=True)
        elif chosen != range(length):
            what = " and ".join(kinds(value.axes[index])) or "nothing"
            raise SpecError(node.name, f"takes a part of the axis {what}")
    return [value]


def _split(node: Node, inputs: Values, _opset: int) -> list[Value]:
    value = _only(node, inputs)
    axis = at(value.axes, node.attributes.get("axis", 0))
    num_parts = len(node.outputs)
    if num_parts == 1:
        return [value]
    is_direction = kinds(value.axes[axis]) == ["direction"]
    if num_parts != 2 or not is_direction:
        raise SpecError(node.name, "parts what is not the two directions of an LSTM")
    return [take_step(value, axis, index, keeps_axis=True) for index in range(2)]


def _concat(node: Node, inputs: Values, _opset: int) -> list[Value]:
    values = [value for value in inputs if isinstance(value, Sequences)]
    if len(values) != len(inputs):
        raise SpecError(node.name, "joins constants to the sequences")
    if len(values) == 1:
        return [values[0]]
    axis = at(values[0].axes, node.attributes.get("axis", 0))
    return [joined(values, axis, "concat")]


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
