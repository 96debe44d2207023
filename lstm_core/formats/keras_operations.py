"""What joins or cuts values in a Keras model: its merge layers, and operations that are no layers.

Owns what their arguments mean, and which of them cannot be served.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from lstm_core.errors import SpecError
from lstm_core.formats.keras_config import MERGES, Json, LayerConfig, numbers
from lstm_core.formats.keras_graph import Call
from lstm_core.formats.keras_masks import is_operation
from lstm_core.formats.keras_pointwise import Position, check_last_axis
from lstm_core.merge import Merge
from lstm_core.pointwise import Activation, Affine, LastStep, Slice

Read = tuple[Merge | Affine | Activation | Slice | LastStep, ...]

_MODULES = ("keras.src.ops.numpy.", "keras.src.ops.nn.")
_JOINS = {
    "Add": "add",
    "Divide": "divide",
    "Maximum": "maximum",
    "Minimum": "minimum",
    "Multiply": "multiply",
    "Subtract": "subtract",
    "TrueDivide": "divide",
}
"""What is made of two values."""
_FUNCTIONS = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Silu": "silu",
    "Softmax": "softmax",
    "Softplus": "softplus",
    "Tanh": "tanh",
}
_CHANGED_BY_MASKS = ("Maximum", "Minimum", "Multiply")
"""Layers of Keras 3 that give something else at masked time steps."""
_RANK = 3
"""Of `(batch, time, features)`."""
_ZERO, _ONE = np.asarray(0, np.float32), np.asarray(1, np.float32)


def is_joining(kind: str) -> bool:
    """Whether a kind is read here."""
    return kind in MERGES or (is_operation(kind) and _operation(kind) is not None)


def read_joining(call: Call, positions: Sequence[Position]) -> Read:
    """Read a merge layer or an operation.

    Args:
        call: Its call.
        positions: What is known of each value that it takes.

    Raises:
        SpecError: It cannot be served.
    """
    layer = call.layer
    if layer.kind in MERGES:
        return (_merge(layer, positions),)
    name = _operation(layer.kind)
    is_masked = any(position.is_masked for position in positions)
    if is_masked and layer.config.get("drops_mask") is True:
        raise SpecError(layer.name, f"is the operation {name} of Keras 2 behind a mask")
    if name == "Concatenate":
        check_last_axis(layer, positions[0])
    if name == "Concatenate" or (name in _JOINS and len(call.takes) == 2):
        # Where no mask comes, it is the merge layer of that name.
        masks = "none" if is_masked else "any"
        operation = _JOINS.get(name, "concatenate")
        return (Merge(name=layer.name, operation=operation, masks=masks),)
    if positions[0].is_masked:
        problem = f"is the operation {name}, which Keras has no mask behind"
        raise SpecError(layer.name, f"{problem}; put it before what makes the mask")
    if name == "GetItem":
        return _slice(layer, call.arguments, positions[0])
    if name in _FUNCTIONS:
        if name == "Softmax":
            check_last_axis(layer, positions[0])
        return (Activation(name=layer.name, function=_FUNCTIONS[name]),)
    return (_with_constant(layer, name or "", call.arguments),)


def _operation(kind: str) -> str | None:
    """Return the name of an operation that is read here."""
    for module in _MODULES:
        name = kind.removeprefix(module)
        if name in {*_JOINS, *_FUNCTIONS, "Concatenate", "GetItem"}:
            return name
    return None


def _merge(layer: LayerConfig, positions: Sequence[Position]) -> Merge:
    is_masked = any(position.is_masked for position in positions)
    masks = "all" if is_masked and layer.config.get("joins_masks") == "all" else "any"
    if layer.kind == "Concatenate":
        check_last_axis(layer, positions[0])
    if masks == "any" and is_masked and layer.kind in _CHANGED_BY_MASKS:
        problem = f"is a {layer.kind} behind a mask, which Keras 3 makes other numbers of"
        raise SpecError(layer.name, f"{problem} at masked time steps")
    return Merge(name=layer.name, operation=layer.kind.lower(), masks=masks)


def _with_constant(layer: LayerConfig, name: str, arguments: Sequence[Json]) -> Affine:
    """Read an operation on a value and a constant, `(x - center) * scale + offset`."""
    if len(arguments) != 2 or arguments.count(None) != 1:
        raise SpecError(layer.name, f"is the operation {name} with unusual arguments")
    is_constant_first = arguments[1] is None
    given = arguments[0] if is_constant_first else arguments[1]
    constant = numbers(replace(layer, config={"its constant": given}), "its constant")
    scale: npt.NDArray[np.float32] = _ONE
    offset: npt.NDArray[np.float32] = _ZERO
    if name == "Add":
        offset = constant
    elif name == "Subtract":
        scale, offset = (-_ONE, constant) if is_constant_first else (_ONE, -constant)
    elif name == "Multiply":
        scale = constant
    elif name in ("Divide", "TrueDivide") and not is_constant_first and constant.all():
        scale = (1 / constant.astype(np.float64)).astype(np.float32)
    else:
        raise SpecError(layer.name, f"is the operation {name} with a constant, which is not served")
    # What NumPy computes of arrays without axes are no arrays.
    parts = (np.asarray(part, np.float32) for part in (_ZERO, scale, offset))
    center, scale, offset = parts
    return Affine(name=layer.name, center=center, scale=scale, offset=offset)


def _slice(layer: LayerConfig, arguments: Sequence[Json], position: Position) -> Read:
    """Read `x[:, :, begin:end]`, or the same without a time axis; or `x[:, -1]`."""
    given = arguments[1] if len(arguments) == 2 else None
    others = given[:1] + given[2:] if isinstance(given, list) and given[1:2] == [-1] else []
    if position.has_time and 0 < len(others) < _RANK and all(map(_is_all, others)):
        return (LastStep(name=layer.name),)
    rank = _RANK - 1 if position.has_time is False else _RANK
    cuts = [_bounds(each) for each in given] if isinstance(given, list) else []
    is_of_features = len(cuts) == rank and all(cut == (None, None) for cut in cuts[:-1])
    if not is_of_features or cuts[-1] is None or position.features is None:
        problem = "takes a part of something else than the features, from one number to another"
        raise SpecError(layer.name, problem)
    begin, end, _ = slice(*cuts[-1]).indices(position.features)
    return (Slice(name=layer.name, begin=begin, end=end),)


def _is_all(serialized: Json) -> bool:
    return _bounds(serialized) == (None, None)


def _bounds(serialized: Json) -> tuple[int | None, int | None] | None:
    """Return the ends of a serialised slice of all between them; None for anything else."""
    config = serialized.get("config") if isinstance(serialized, dict) else None
    if not isinstance(config, dict) or config.get("step") not in (None, 1):
        return None
    ends = config.get("start"), config.get("stop")
    is_plain = all(end is None or type(end) is int for end in ends)
    return ends if is_plain else None
