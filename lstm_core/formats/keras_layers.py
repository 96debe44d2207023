"""The layers of a network as Keras 3 describes them: class, config and variables of each.

Owns what Keras has a layer for, and what it has not. The inverse of the readers of `.keras` files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt

from lstm_core.errors import SpecError
from lstm_core.merge import Merge
from lstm_core.network import Bidirectional, Layer, Recurrent
from lstm_core.pointwise import (
    Activation,
    Affine,
    Dense,
    Embedding,
    LastStep,
    LayerNormalization,
    Masking,
    Pointwise,
    PReLU,
    Slice,
)

Array = npt.NDArray[np.float32]

OPERATIONS = "keras.src.ops.numpy"
"""The module of what is no layer."""
_ALL = slice(None)
_LAYERS = {"relu": "ReLU", "leaky_relu": "LeakyReLU", "elu": "ELU"}
"""Activations that have a layer of their own, and so may have parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KerasLayer:
    """One layer.

    Attributes:
        kind: Its class.
        config: Its arguments, without the name.
        variables: Its arrays by their place in the layer's HDF5 group, as `cell/vars/0`.
        module: Where that class is; an operation, which is no layer, has no more than a name.
        arguments: What it is called with behind its tensors.
    """

    kind: str
    config: dict[str, Any]
    variables: dict[str, Array] = field(default_factory=dict)
    module: str = "keras.layers"
    arguments: tuple[Any, ...] = ()


def keras_layer(layer: Layer, features: int, *, has_time: bool, is_masked: bool) -> KerasLayer:
    """Return a layer of a network as one of Keras.

    Args:
        layer: The layer.
        features: How many it takes.
        has_time: Whether what it takes has a time axis.
        is_masked: Whether a mask can come with something that it takes.

    Raises:
        SpecError: Keras has no such layer.
    """
    match layer:
        case Recurrent():
            return _lstm(layer)
        case Bidirectional():
            return _bidirectional(layer)
        case Merge():
            return _merge(layer, is_masked=is_masked)
        case _:
            return _pointwise(layer, features, has_time=has_time, is_masked=is_masked)


def _pointwise(layer: Pointwise, features: int, *, has_time: bool, is_masked: bool) -> KerasLayer:
    match layer:
        case Dense():
            made = _dense(layer)
        case Activation():
            made = _activation(layer)
        case PReLU():
            made = _prelu(layer, features, has_time=has_time)
        case Affine():
            made = _affine(layer, features)
        case LayerNormalization():
            made = _layer_normalization(layer)
        case Masking():
            made = KerasLayer(kind="Masking", config={"mask_value": layer.mask_value})
        case Embedding():
            made = _embedding(layer)
        case Slice():
            made = _slice(layer, has_time=has_time, is_masked=is_masked)
        case LastStep():
            made = _get_item(layer.name, (_ALL, -1, _ALL), is_masked=is_masked)
        case _:
            assert_never(layer)
    return made


def _embedding(layer: Embedding) -> KerasLayer:
    rows, columns = layer.table.shape
    config = {"input_dim": rows, "output_dim": columns, "mask_zero": layer.mask_zero}
    return KerasLayer(kind="Embedding", config=config, variables=_numbered([layer.table]))


def _lstm(layer: Recurrent) -> KerasLayer:
    """Return an LSTM; a forget bias becomes a part of the bias."""
    spec = layer.spec
    for is_there, what in (
        (spec.use_peepholes, "peepholes"),
        (spec.projection_size is not None, "a projection"),
        (spec.cell_clip is not None, "a clipped cell state"),
        (spec.gate_clip is not None, "clipped gates"),
    ):
        if is_there:
            raise SpecError(layer.name, f"has {what}, which Keras's LSTM has not")
    for function in (spec.activation, spec.recurrent_activation):
        _check_function(layer.name, function)
    weights = layer.weights.with_forget_bias(spec.forget_bias)
    config = {
        "units": spec.units,
        "activation": spec.activation,
        "recurrent_activation": spec.recurrent_activation,
        "use_bias": weights.bias is not None,
        "return_sequences": layer.return_sequences,
        "go_backwards": layer.go_backwards,
        "zero_output_for_mask": layer.zero_output_for_mask,
    }
    arrays = _numbered([weights.kernel, weights.recurrent_kernel, weights.bias])
    variables = {f"cell/{place}": array for place, array in arrays.items()}
    return KerasLayer(kind="LSTM", config=config, variables=variables)


def _bidirectional(layer: Bidirectional) -> KerasLayer:
    config: dict[str, Any] = {"merge_mode": layer.merge_mode}
    variables: dict[str, Array] = {}
    for argument, group, part in (
        ("layer", "forward_layer", layer.forward),
        ("backward_layer", "backward_layer", layer.backward),
    ):
        if part.zero_output_for_mask != part.return_sequences:
            problem = "masks its outputs otherwise than Keras's Bidirectional does"
            raise SpecError(layer.name, problem)
        inner = _lstm(part)
        config[argument] = serialized(inner, f"{group}_lstm")
        variables |= {f"{group}/{place}": array for place, array in inner.variables.items()}
    return KerasLayer(kind="Bidirectional", config=config, variables=variables)


def serialized(layer: KerasLayer, name: str) -> dict[str, Any]:
    """Return a layer as it stands in `config.json`."""
    training = {} if layer.module == OPERATIONS else {"trainable": True, "dtype": "float32"}
    return {
        "module": layer.module,
        "class_name": layer.kind,
        "config": {"name": name, **training, **layer.config},
        "registered_name": None,
    }


def _dense(layer: Dense) -> KerasLayer:
    _check_function(layer.name, layer.activation)
    config: dict[str, Any] = {
        "units": layer.kernel.shape[1],
        "activation": layer.activation,
        "use_bias": layer.bias is not None,
    }
    variables = _numbered([layer.kernel, layer.bias])
    return KerasLayer(kind="Dense", config=config, variables=variables)


def _prelu(layer: PReLU, features: int, *, has_time: bool) -> KerasLayer:
    alpha = _vector(layer.alpha, features)
    shared_axes, shape = ([1], (1, features)) if has_time else (None, (features,))
    variables = _numbered([alpha.reshape(shape)])
    return KerasLayer(kind="PReLU", config={"shared_axes": shared_axes}, variables=variables)


def _activation(layer: Activation) -> KerasLayer:
    _check_function(layer.name, layer.function)
    if layer.function in _LAYERS and layer.parameters:
        config: dict[str, Any] = dict(layer.parameters)
        return KerasLayer(kind=_LAYERS[layer.function], config=config)
    given: Mapping[str, Any] = {
        name: value
        for name, value in layer.parameters.items()
        if (layer.function, name, value) not in {("celu", "alpha", 1.0), ("gelu", "approximate", 0)}
    }
    if given:
        problem = f"is {layer.function} with {dict(given)!s:.80}, which is no layer of Keras"
        raise SpecError(layer.name, problem)
    return KerasLayer(kind="Activation", config={"activation": layer.function})


def _affine(layer: Affine, features: int) -> KerasLayer:
    if layer.scale.ndim == layer.offset.ndim == 0 and not layer.center.any():
        config: dict[str, Any] = {"scale": float(layer.scale), "offset": float(layer.offset)}
        return KerasLayer(kind="Rescaling", config=config)
    parts = [_vector(part, features) for part in (layer.scale, layer.offset, layer.center)]
    # A deviation of exactly 1, so that the scale is the one that was there.
    variables = _numbered([*parts, np.ones(features, np.float32)])
    config = {"axis": -1, "epsilon": 0.0, "center": True, "scale": True}
    return KerasLayer(kind="BatchNormalization", config=config, variables=variables)


def _layer_normalization(layer: LayerNormalization) -> KerasLayer:
    config: dict[str, Any] = {
        "axis": -1,
        "epsilon": layer.epsilon,
        "scale": layer.gamma is not None,
        "center": layer.beta is not None,
    }
    if layer.rms_scaling:
        config["rms_scaling"] = True
        if layer.beta is not None or layer.gamma is None:
            problem = "is an RMS normalisation without a scale or with an offset"
            raise SpecError(layer.name, problem)
    variables = _numbered([layer.gamma, layer.beta])
    return KerasLayer(kind="LayerNormalization", config=config, variables=variables)


def _merge(layer: Merge, *, is_masked: bool) -> KerasLayer:
    kind = layer.operation.capitalize()
    config = {"axis": -1} if layer.operation == "concatenate" else {}
    if layer.operation == "divide" and (layer.masks == "none" or not is_masked):
        return KerasLayer(kind=kind, config=config, module=OPERATIONS)
    if not is_masked:
        return KerasLayer(kind=kind, config=config)
    if layer.masks == "none" and layer.operation != "average":
        return KerasLayer(kind=kind, config=config, module=OPERATIONS)
    if layer.masks != "any":
        problem = f"goes on where {layer.masks} of its masks say so, which Keras 3 does not"
        raise SpecError(layer.name, problem)
    if layer.operation in ("divide", "maximum", "minimum", "multiply"):
        problem = f"is a {layer.operation} of what is masked, of which Keras 3 makes other numbers"
        raise SpecError(layer.name, problem)
    return KerasLayer(kind=kind, config=config)


def _slice(layer: Slice, *, has_time: bool, is_masked: bool) -> KerasLayer:
    before = (_ALL, _ALL) if has_time else (_ALL,)
    chosen = slice(layer.begin, layer.end)
    return _get_item(layer.name, (*before, chosen), is_masked=is_masked)


def _get_item(name: str, chosen: tuple[slice | int, ...], *, is_masked: bool) -> KerasLayer:
    if is_masked:
        raise SpecError(name, "cuts what is masked, which Keras has no mask behind")
    cuts = [
        {
            "class_name": "__slice__",
            "config": {"start": each.start, "stop": each.stop, "step": None},
        }
        if isinstance(each, slice)
        else each
        for each in chosen
    ]
    return KerasLayer(kind="GetItem", config={}, module=OPERATIONS, arguments=(cuts,))


def _check_function(layer: str, name: str) -> None:
    if name == "hard_sigmoid_v1":
        problem = "has the hard_sigmoid of Keras 1 and 2, which Keras 3 has not"
        raise SpecError(layer, problem)


def _numbered(arrays: list[Array | None]) -> dict[str, Array]:
    given = [array for array in arrays if array is not None]
    return {f"vars/{index}": array for index, array in enumerate(given)}


def _vector(array: Array, features: int) -> Array:
    return np.array(np.broadcast_to(array, (features,)))
