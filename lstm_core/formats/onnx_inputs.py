"""What a node takes: the sequences, and stored numbers that fit them.

Knows no operator.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lstm_core.errors import SpecError
from lstm_core.formats.onnx_model import Node
from lstm_core.formats.onnx_values import Constant, Sequences, Value

Float32 = npt.NDArray[np.float32]
Values = Sequence[Value | None]


def sequences_of(node: Node, inputs: Values) -> Sequences:
    """Return the first input; SpecError where that is not what comes from the graph's input."""
    first = inputs[0] if inputs else None
    if not isinstance(first, Sequences):
        raise SpecError(node.name, "takes what comes from the input elsewhere than first")
    return first


def stored(node: Node, inputs: Values, index: int) -> Float32 | None:
    """Return a stored input of real, finite numbers, or None where it is left out."""
    value = inputs[index] if len(inputs) > index else None
    if value is None:
        return None
    if not isinstance(value, np.ndarray):
        raise SpecError(node.name, f"is a {node.operator} of two values, which is not served")
    if value.dtype != np.float32 or not np.isfinite(value).all():
        raise SpecError(node.name, "has numbers that are not real and finite in float32")
    return value


def vector(node: Node, value: Constant, features: int) -> Float32:
    """Return `()` or `(features,)` of numbers that are the same for each step of each sequence."""
    shape = value.shape
    if value.size == 1:
        return np.ascontiguousarray(value, np.float32).reshape(())
    if value.size != features or shape[-1] != features:
        raise SpecError(node.name, f"has numbers of the shape {shape} for {features} features")
    return np.ascontiguousarray(value, np.float32).reshape(-1)
