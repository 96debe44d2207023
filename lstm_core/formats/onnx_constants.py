"""What a graph computes of constants and of shapes: weights turned round, and zeros of some size.

Owns the few operators that exporters build these of, and how large a result may be. Knows no
layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_core.errors import SpecError
from lstm_core.formats.onnx_model import Node, Tensor

Array = npt.NDArray[Any]
Inputs = Sequence[Array | None]

MAX_NUMBERS = 1 << 24
"""Of a result that is computed, or of zeros that are looked at."""
_INTEGER_TYPES = frozenset({2, 3, 4, 5, 6, 7, 9, 12, 13})


def evaluate(node: Node, inputs: Inputs) -> list[Array] | None:
    """Return what a node gives, or None where constants cannot be computed with its operator.

    Args:
        node: The node.
        inputs: What it takes, None where something is left out.

    Raises:
        SpecError: It does not fit, or the result would be too large.
    """
    function = _FUNCTIONS.get(node.operator)
    if function is None:
        return None
    try:
        result = function(node, inputs)
    except (ValueError, IndexError, TypeError, AttributeError, ArithmeticError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(node.name, f"its constants do not fit: {error}") from error
    # NumPy gives a number where an array has no axes.
    return [np.asarray(each) for each in (result if isinstance(result, list) else [result])]


def integers(value: Array | None) -> list[int]:
    """Return a constant as a list of integers; an empty one where it is left out."""
    if value is None:
        return []
    if value.dtype.kind not in "iu" or value.size > MAX_NUMBERS:
        raise SpecError("shape", "is of numbers that are no integers")
    return [int(each) for each in value.reshape(-1)]


def axes_of(node: Node, inputs: Inputs, index: int = 1) -> list[int] | None:
    """Return the axes of Squeeze and the like: an attribute in old graphs, an input in new ones."""
    listed = node.listed("axes", int)
    if listed is not None:
        return listed
    given = inputs[index] if len(inputs) > index else None
    return None if given is None else integers(given)


def slices_of(node: Node, inputs: Inputs) -> list[tuple[int, int, int, int]]:
    """Return the axis, start, end and step of each slice."""
    if "starts" in node.attributes:
        starts, ends = node.listed("starts", int) or [], node.listed("ends", int) or []
        axes: Sequence[int] = node.listed("axes", int) or range(len(starts))
        return [(*place, 1) for place in zip(axes, starts, ends, strict=True)]
    given = [integers(value) for value in inputs[1:]] + [[], []]
    starts, ends = given[0], given[1]
    return list(
        zip(
            given[2] or range(len(starts)),
            starts,
            ends,
            given[3] or [1] * len(starts),
            strict=True,
        )
    )


def _bounded(arrays: Sequence[Array]) -> None:
    if sum(array.size for array in arrays) > MAX_NUMBERS:
        raise ValueError(f"more than {MAX_NUMBERS} numbers")


def _first(inputs: Inputs) -> Array:
    value = inputs[0] if inputs else None
    if value is None:
        raise ValueError("its first input is left out")
    return value


def _given(inputs: Inputs) -> list[Array]:
    return [value for value in inputs if value is not None]


def _constant(node: Node, _inputs: Inputs) -> Array:
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        value = node.attributes.get(name)
        if isinstance(value, Tensor):
            return value.load()
        if value is not None:
            dtype = np.float32 if "float" in name else np.int64
            return np.array(value, dtype)
    raise ValueError("it is no number")


def _elementwise(function: Callable[[Array, Array], Array]) -> Callable[[Node, Inputs], Array]:
    def compute(_node: Node, inputs: Inputs) -> Array:
        a, b = _given(inputs)
        if math.prod(np.broadcast_shapes(a.shape, b.shape)) > MAX_NUMBERS:
            raise ValueError(f"more than {MAX_NUMBERS} numbers")
        with np.errstate(all="ignore"):
            return np.asarray(function(a, b))

    return compute


def _divide(a: Array, b: Array) -> Array:
    return a / b if a.dtype.kind == "f" else a // b


def _filled(shape: Sequence[int], value: Array) -> Array:
    """Return an array of one value, which takes no memory."""
    if min(shape, default=1) < 0 or math.prod(shape) > MAX_NUMBERS:
        raise ValueError(f"a shape of {tuple(shape)!s:.80}")
    return np.broadcast_to(value, tuple(shape))


def _constant_of_shape(node: Node, inputs: Inputs) -> Array:
    value = node.attributes.get("value")
    one = value.load().reshape(-1)[:1] if isinstance(value, Tensor) else np.zeros(1, np.float32)
    return _filled(integers(_first(inputs)), one.reshape(()))


def _expand(_node: Node, inputs: Inputs) -> Array:
    value = _first(inputs)
    return _filled(np.broadcast_shapes(value.shape, tuple(integers(inputs[1]))), value)


def _cast(node: Node, inputs: Inputs) -> Array:
    is_integer = node.attribute("to", 0) in _INTEGER_TYPES
    return _first(inputs).astype(np.int64 if is_integer else np.float32)


def _concat(node: Node, inputs: Inputs) -> Array:
    arrays = _given(inputs)
    _bounded(arrays)
    return np.concatenate(arrays, axis=node.attribute("axis", 0))


def _gather(node: Node, inputs: Inputs) -> Array:
    value, indices = _given(inputs)
    axis = node.attribute("axis", 0)
    if indices.size * (value.size // max(1, value.shape[axis])) > MAX_NUMBERS:
        raise ValueError(f"more than {MAX_NUMBERS} numbers")
    return np.take(value, indices, axis=axis)


def _reshape(_node: Node, inputs: Inputs) -> Array:
    value = _first(inputs)
    shape = integers(inputs[1])
    return value.reshape([value.shape[i] if n == 0 else n for i, n in enumerate(shape)])


def _slice(node: Node, inputs: Inputs) -> Array:
    value = _first(inputs)
    for axis, start, end, step in slices_of(node, inputs):
        index: list[slice] = [slice(None)] * value.ndim
        # Beyond the other end where a step is negative.
        stop = None if step < 0 and end < -value.shape[axis] else end
        index[axis] = slice(start, stop, step)
        value = value[tuple(index)]
    return value


def _squeeze(node: Node, inputs: Inputs) -> Array:
    axes = axes_of(node, inputs)
    return np.squeeze(_first(inputs), None if axes is None else tuple(axes))


def _split(node: Node, inputs: Inputs) -> list[Array]:
    value, axis = _first(inputs), node.attribute("axis", 0)
    parts = node.listed("split", int) or integers(inputs[1] if len(inputs) > 1 else None)
    if parts:
        if len(parts) != len(node.outputs):
            raise ValueError(f"{len(parts)} parts for {len(node.outputs)} outputs")
        return np.split(value, np.cumsum(parts)[:-1], axis=axis)
    return np.split(value, len(node.outputs), axis=axis)


def _range(_node: Node, inputs: Inputs) -> Array:
    start, limit, step = (integers(value)[0] for value in _given(inputs))
    if len(range(start, limit, step)) > MAX_NUMBERS:
        raise ValueError(f"more than {MAX_NUMBERS} numbers")
    return np.arange(start, limit, step)


def _product(node: Node, inputs: Inputs) -> Array:
    axes = axes_of(node, inputs)
    keeps = bool(node.attribute("keepdims", 1))
    value = _first(inputs)
    _bounded([value])
    return np.asarray(np.prod(value, axis=None if axes is None else tuple(axes), keepdims=keeps))


_FUNCTIONS: dict[str, Callable[[Node, Inputs], Array | list[Array]]] = {
    "Add": _elementwise(np.add),
    "Cast": _cast,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _constant_of_shape,
    "Div": _elementwise(_divide),
    "Equal": _elementwise(np.equal),
    "Expand": _expand,
    "Gather": _gather,
    "Identity": lambda _, inputs: _first(inputs),
    "Max": _elementwise(np.maximum),
    "Min": _elementwise(np.minimum),
    "Mul": _elementwise(np.multiply),
    "Range": _range,
    "ReduceProd": _product,
    "Reshape": _reshape,
    "Shape": lambda _, inputs: np.array(_first(inputs).shape, np.int64),
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": _elementwise(np.subtract),
    "Transpose": lambda node, inputs: np.transpose(_first(inputs), node.listed("perm", int)),
    "Unsqueeze": lambda node, inputs: np.expand_dims(
        _first(inputs), tuple(axes_of(node, inputs) or ())
    ),
}
