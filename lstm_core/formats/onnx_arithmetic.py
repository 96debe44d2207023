"""ONNX's arithmetic on sequences: products with weights, sums and factors, limits, batch norms.

Where two values that come from the sequences meet, `onnx_formulas` or the two directions of an LSTM
explain it, or they are merged.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lstm_core.errors import SpecError
from lstm_core.formats.onnx_axes import transposed
from lstm_core.formats.onnx_formulas import combined, scaled
from lstm_core.formats.onnx_inputs import Float32, Values, sequences_of, stored, vector
from lstm_core.formats.onnx_junctions import MERGES, met
from lstm_core.formats.onnx_model import Node
from lstm_core.formats.onnx_values import Sequences, Value, joined
from lstm_core.pointwise import Activation, Affine, Dense, LayerNormalization

_ZERO, _ONE = np.float32(0), np.float32(1)
_TINY = np.finfo(np.float32).tiny
_LARGEST_LIMIT = 10.0
"""Limits other than 0 are made of sums, which lose the more digits the larger they are."""


def matrix_product(node: Node, inputs: Values, _opset: int) -> Value:
    """Read MatMul of sequences and weights."""
    value, kernel = sequences_of(node, inputs), stored(node, inputs, 1)
    if kernel is None or kernel.ndim != 2:
        raise SpecError(node.name, "multiplies by something else than a matrix of weights")
    kernel = np.ascontiguousarray(kernel)
    return value.through(Dense(name=node.name, kernel=kernel, bias=None))


def gemm(node: Node, inputs: Values, _opset: int) -> Value:
    """Read Gemm of sequences and weights."""
    value, kernel = sequences_of(node, inputs), stored(node, inputs, 1)
    if kernel is None or kernel.ndim != 2 or node.attribute("transA", 0):
        raise SpecError(node.name, "multiplies by something else than a matrix of weights")
    if node.attribute("transB", 0):
        kernel = kernel.T
    kernel = _scaled(node, kernel, node.attribute("alpha", 1.0))
    added = stored(node, inputs, 2)
    bias = None
    if added is not None:
        added = vector(node, added, kernel.shape[1])
        bias = _scaled(node, np.broadcast_to(added, kernel.shape[1:]), node.attribute("beta", 1.0))
    return value.through(Dense(name=node.name, kernel=kernel, bias=bias))


def _scaled(node: Node, array: Float32, factor: float) -> Float32:
    with np.errstate(over="ignore"):
        product = np.ascontiguousarray(array * np.float32(factor))
    if not np.isfinite(product).all():
        raise SpecError(node.name, "has numbers that are not finite in float32")
    return product


def arithmetic(node: Node, inputs: Values, _opset: int) -> Value:
    """Read Add, Sub, Mul or Div of sequences and a number for each feature, or of two values."""
    both = [value for value in inputs if isinstance(value, Sequences)]
    modes = {"Add": "sum", "Mul": "mul"}
    if len(both) == 2 and (function := combined(node, both[0], both[1])) is not None:
        return function
    if len(both) == 2 and node.operator in modes and any(v.direction is not None for v in both):
        in_order = sorted(both, key=lambda value: value.direction or 0)
        return joined(in_order, -1, modes[node.operator])
    if len(both) == 2 and node.operator in MERGES:
        return met(node, both)
    is_first = bool(inputs) and isinstance(inputs[0], Sequences)
    numbers = stored(node, inputs, 1 if is_first else 0)
    value = both[0]
    if numbers is None:
        raise SpecError(node.name, "lacks an input")
    if numbers.ndim > len(value.axes):
        raise SpecError(node.name, f"has numbers of the shape {numbers.shape}")
    given = vector(node, numbers, value.features)
    if node.operator in modes and (merged := _merged(node, value, given)) is not None:
        return merged
    if node.operator == "Div" and (not is_first or not (np.abs(given) > _TINY).all()):
        raise SpecError(node.name, "divides by the sequences, or by zero")
    center, scale, offset = {
        "Add": (_ZERO, _ONE, given),
        "Mul": (_ZERO, given, _ZERO),
        "Sub": (given, _ONE, _ZERO) if is_first else (_ZERO, -_ONE, given),
        "Div": (_ZERO, 1 / given if node.operator == "Div" else given, _ZERO),
    }[node.operator]
    if not (given.ndim or center or offset):
        return scaled(node, value, float(scale))
    parts = [np.asarray(part, np.float32) for part in (center, scale, offset)]
    return value.through(Affine(name=node.name, center=parts[0], scale=parts[1], offset=parts[2]))


def _merged(node: Node, value: Sequences, numbers: Float32) -> Sequences | None:
    """Return the sequences with numbers put into the layer before them, if it has a place."""
    last = value.layers[-1] if value.layers else None
    layer: Dense | LayerNormalization | None = None
    if isinstance(last, Dense) and last.bias is None and last.activation == "linear":
        if node.operator == "Add":
            bias = np.ascontiguousarray(np.broadcast_to(numbers, last.kernel.shape[1:]))
            layer = replace(last, bias=bias)
    elif isinstance(last, LayerNormalization) and last.beta is None and numbers.ndim:
        if node.operator == "Add":
            layer = replace(last, beta=numbers)
        elif last.gamma is None:
            layer = replace(last, gamma=numbers)
    return None if layer is None else replace(value, layers=(*value.layers[:-1], layer))


def batch_normalization(node: Node, inputs: Values, _opset: int) -> Value:
    """Read BatchNormalization, whose features are the second axis."""
    value = sequences_of(node, inputs)
    if len(value.axes) < 2 or len(inputs) != 5 or node.attribute("training_mode", 0):
        raise SpecError(node.name, "is no normalisation of features with stored statistics")
    order = [index for index in range(len(value.axes)) if index != 1] + [1]
    turned = replace(value, axes=transposed(value.axes, order))
    given = [stored(node, inputs, index) for index in range(1, 5)]
    if any(each is None or each.shape != (turned.features,) for each in given):
        raise SpecError(node.name, f"lacks numbers for each of {turned.features} features")
    gamma, beta, mean, variance = (each for each in given if each is not None)
    spread = variance + np.float32(node.attribute("epsilon", 1e-5))
    if not (spread > 0).all():
        raise SpecError(node.name, "has a variance that is not positive")
    scale = (gamma / np.sqrt(spread)).astype(np.float32)
    layer = Affine(name=node.name, center=mean, scale=scale, offset=beta)
    through = turned.through(layer)
    return replace(through, axes=transposed(through.axes, np.argsort(order).tolist()))


def clip(node: Node, inputs: Values, _opset: int) -> Value:
    """Read Clip, Max or Min of sequences and numbers."""
    if node.operator == "Clip":
        lowest, highest = (
            node.attribute(name, 0.0) if name in node.attributes else _number(node, inputs, index)
            for index, name in ((1, "min"), (2, "max"))
        )
        value = sequences_of(node, inputs)
    else:
        values = [value for value in inputs if isinstance(value, Sequences)]
        if len(values) > 1 and len(values) == len(inputs):
            return met(node, values)
        value, limit = _value_and_number(node, inputs)
        lowest, highest = (limit, None) if node.operator == "Max" else (None, limit)
    if lowest is None and highest is None:
        return value
    if lowest == 0 and not (highest is not None and highest <= 0):
        return _limited(node, value, highest)
    limits = [each for each in (lowest, highest) if each is not None]
    if sorted(set(limits)) != limits or max(map(abs, limits)) > _LARGEST_LIMIT:
        shown = " and ".join(
            "no number" if each is None else f"{each:g}" for each in (lowest, highest)
        )
        problem = f"clips to {shown}; served is from 0 on, or within {_LARGEST_LIMIT:g} of it"
        raise SpecError(node.name, problem)
    if lowest is None:
        below = _limited(node, _shifted(node, value, -1.0, limits[0]), None)
        return _shifted(node, below, -1.0, limits[0])
    width = None if highest is None else highest - lowest
    return _shifted(node, _limited(node, _shifted(node, value, 1.0, -lowest), width), 1.0, lowest)


def _value_and_number(node: Node, inputs: Values) -> tuple[Sequences, float]:
    """Return the sequences and the one number, in whatever order they are given."""
    values = [value for value in inputs if isinstance(value, Sequences)]
    others = [index for index, value in enumerate(inputs) if not isinstance(value, Sequences)]
    number = _number(node, inputs, others[0]) if len(others) == 1 else None
    if number is None or len(values) != 1:
        raise SpecError(node.name, f"is a {node.operator} of other than sequences and a number")
    return values[0], number


def _number(node: Node, inputs: Values, index: int) -> float | None:
    array = stored(node, inputs, index)
    if array is not None and array.size != 1:
        raise SpecError(node.name, f"is a {node.operator} with {array.size} numbers, not one")
    return None if array is None else float(array.reshape(()))


def _limited(node: Node, value: Sequences, highest: float | None) -> Sequences:
    parameters = {} if highest is None else {"max_value": highest}
    return value.through(Activation(name=node.name, function="relu", parameters=parameters))


def _shifted(node: Node, value: Sequences, scale: float, offset: float) -> Sequences:
    """Return `scale * value + offset`."""
    parts = [np.asarray(part, np.float32) for part in (0, scale, offset)]
    return value.through(Affine(name=node.name, center=parts[0], scale=parts[1], offset=parts[2]))


def negative(node: Node, inputs: Values, _opset: int) -> Value:
    """Read Neg."""
    return scaled(node, sequences_of(node, inputs), -1.0)
