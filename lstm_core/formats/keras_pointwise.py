"""Keras's layers without a state: from their configs and variables to pointwise layers.

Owns what each class's arguments and variables mean, and which of them cannot be served.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lstm_core.errors import SpecError
from lstm_core.formats.keras_config import (
    LayerConfig,
    activation_name,
    check_precision,
    number,
    numbers,
    vector,
)
from lstm_core.formats.variables import Variables
from lstm_core.pointwise import (
    Activation,
    Affine,
    Dense,
    Embedding,
    LayerNormalization,
    Masking,
    Pointwise,
    PReLU,
)

Float32 = npt.NDArray[np.float32]

_MIN_DEVIATION = 1e-7
"""Keras's `backend.epsilon()`, the least that `Normalization` divides by."""
_ZERO = np.float32(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """What is known of a value between layers.

    Attributes:
        features: Length of the last axis, or None behind a layer that could not be read.
        has_time: Whether there is a time axis, or None where that is not known.
        is_masked: Whether a mask can reach this place.
    """

    features: int | None
    has_time: bool | None = True
    is_masked: bool = False


Reader = Callable[[LayerConfig, Variables, Position], tuple[Pointwise, ...]]


def nothing(
    _layer: LayerConfig, _variables: Variables, _position: Position
) -> tuple[Pointwise, ...]:
    """Read a layer that does nothing at inference."""
    return ()


def _dense(layer: LayerConfig, variables: Variables, position: Position) -> tuple[Pointwise, ...]:
    units = layer.integer("units")
    name = activation_name(layer, layer.config.get("activation"))
    kernel = variables.read(0, "kernel", (position.features, units))
    bias = variables.read(1, "bias", (units,)) if layer.flag("use_bias", default=True) else None
    return (Dense(name=layer.name, kernel=kernel, bias=bias, activation=name),)


def _activation(
    layer: LayerConfig, _variables: Variables, _position: Position
) -> tuple[Pointwise, ...]:
    name = activation_name(layer, layer.config.get("activation"))
    return () if name == "linear" else (Activation(name=layer.name, function=name),)


def _softmax(
    layer: LayerConfig, _variables: Variables, position: Position
) -> tuple[Pointwise, ...]:
    check_last_axis(layer, position)
    if position.is_masked:
        problem = (
            "Keras applies the time steps' mask to a Softmax layer's features, which fails or "
            "distorts them: use the activation instead"
        )
        raise SpecError(layer.name, problem)
    return (Activation(name=layer.name, function="softmax"),)


def _with_parameters(function: str, *names: str) -> Reader:
    """Return the reader of an activation layer with numbers for parameters, None left out."""

    def read(
        layer: LayerConfig, _variables: Variables, _position: Position
    ) -> tuple[Pointwise, ...]:
        values = {name: layer.config.get(name) for name in names}
        parameters = {
            name: number(layer, name, value) for name, value in values.items() if value is not None
        }
        return (Activation(name=layer.name, function=function, parameters=parameters),)

    return read


def _prelu(layer: LayerConfig, variables: Variables, position: Position) -> tuple[Pointwise, ...]:
    rank = 1 if position.has_time is False else 2
    alpha = variables.read(0, "alpha", (None,) * rank)
    if alpha.shape[:-1] != (1,) * (rank - 1):
        raise SpecError(layer.name, "has slopes of its own for each time step")
    return (PReLU(name=layer.name, alpha=vector(layer, "alpha", alpha)),)


def _batch_normalization(
    layer: LayerConfig, variables: Variables, position: Position
) -> tuple[Pointwise, ...]:
    check_last_axis(layer, position)
    names = [name for name, field in (("gamma", "scale"), ("beta", "center")) if layer.flag(field)]
    names += ["moving_mean", "moving_variance"]
    arrays = {
        name: variables.read(index, name, (position.features,)) for index, name in enumerate(names)
    }
    epsilon = number(layer, "epsilon", layer.config.get("epsilon"))
    # In float64: one rounding where Keras makes several.
    scale = arrays.get("gamma", np.float32(1)) / np.sqrt(
        arrays["moving_variance"].astype(np.float64) + epsilon
    )
    offset = arrays.get("beta", np.zeros_like(arrays["moving_mean"]))
    return (_affine(layer, center=arrays["moving_mean"], scale=scale, offset=offset),)


def _layer_normalization(
    layer: LayerConfig, variables: Variables, position: Position
) -> tuple[Pointwise, ...]:
    check_last_axis(layer, position)
    rms_scaling = layer.flag("rms_scaling", default=False)
    has_gamma = layer.flag("scale") or rms_scaling
    has_beta = layer.flag("center") and not rms_scaling
    shape = (position.features,)
    return (
        LayerNormalization(
            name=layer.name,
            gamma=variables.read(0, "gamma", shape) if has_gamma else None,
            beta=variables.read(int(has_gamma), "beta", shape) if has_beta else None,
            epsilon=number(layer, "epsilon", layer.config.get("epsilon")),
            rms_scaling=rms_scaling,
        ),
    )


def _normalization(
    layer: LayerConfig, variables: Variables, position: Position
) -> tuple[Pointwise, ...]:
    axis = layer.config.get("axis")
    is_one_for_all = axis is None or axis == []
    if not is_one_for_all:
        check_last_axis(layer, position)
    if layer.config.get("mean") is None:
        shape = () if is_one_for_all else (position.features,)
        mean = variables.read(0, "mean", shape)
        variance = variables.read(1, "variance", shape)
    else:
        mean = numbers(layer, "mean")
        variance = numbers(layer, "variance")
    deviation = np.maximum(np.sqrt(variance.astype(np.float64)), _MIN_DEVIATION)
    if layer.flag("invert", default=False):
        return (_affine(layer, center=_ZERO, scale=deviation, offset=mean),)
    return (_affine(layer, center=mean, scale=1 / deviation, offset=_ZERO),)


def _rescaling(
    layer: LayerConfig, _variables: Variables, _position: Position
) -> tuple[Pointwise, ...]:
    scale, offset = numbers(layer, "scale"), numbers(layer, "offset")
    return (_affine(layer, center=_ZERO, scale=scale, offset=offset),)


def _masking(
    layer: LayerConfig, _variables: Variables, _position: Position
) -> tuple[Pointwise, ...]:
    mask_value = numbers(layer, "mask_value")
    if mask_value.ndim:
        raise SpecError(layer.name, "mask_value is not one number for all features")
    return (Masking(name=layer.name, mask_value=float(mask_value)),)


def _embedding(
    layer: LayerConfig, variables: Variables, _position: Position
) -> tuple[Pointwise, ...]:
    table = variables.read(
        0, "embeddings", (layer.integer("input_dim"), layer.integer("output_dim"))
    )
    return (Embedding(name=layer.name, table=table, mask_zero=layer.flag("mask_zero")),)


def _time_distributed(
    layer: LayerConfig, variables: Variables, position: Position
) -> tuple[Pointwise, ...]:
    inner = layer.part("layer")
    reader = None if inner.kind in {"Masking", "Embedding"} else READERS.get(inner.kind)
    if reader is None or reader is _time_distributed:
        raise SpecError(layer.name, f"cannot serve a {inner.kind} for each time step")
    if position.has_time is False:
        raise SpecError(layer.name, "needs a time axis, but a layer before it ended it")
    check_precision(inner)
    inside = Position(features=position.features, has_time=False, is_masked=position.is_masked)
    return reader(inner, variables.child("layer"), inside)


READERS: dict[str, Reader] = {
    "Activation": _activation,
    "ActivityRegularization": nothing,
    "AlphaDropout": nothing,
    "BatchNormalization": _batch_normalization,
    "Dense": _dense,
    "Dropout": nothing,
    "ELU": _with_parameters("elu", "alpha"),
    "Embedding": _embedding,
    "GaussianDropout": nothing,
    "GaussianNoise": nothing,
    "Identity": nothing,
    "LayerNormalization": _layer_normalization,
    "LeakyReLU": _with_parameters("leaky_relu", "negative_slope"),
    "Masking": _masking,
    "Normalization": _normalization,
    "PReLU": _prelu,
    "ReLU": _with_parameters("relu", "negative_slope", "max_value", "threshold"),
    "Rescaling": _rescaling,
    "Softmax": _softmax,
    "SpatialDropout1D": nothing,
    "TimeDistributed": _time_distributed,
}
"""The reader of each class."""


def check_last_axis(layer: LayerConfig, position: Position) -> None:
    """Refuse a layer that works along another axis than the features'.

    Raises:
        SpecError: It does.
    """
    axis = layer.config.get("axis", -1)
    axes = axis if isinstance(axis, list) else [axis]
    last = {True: {-1, 2}, False: {-1, 1}, None: {-1, 1, 2}}[position.has_time]
    if len(axes) != 1 or not isinstance(axes[0], int) or axes[0] not in last:
        raise SpecError(layer.name, f"works along axis {axis!r:.80}; only the features' is served")


def _affine(
    layer: LayerConfig, *, center: npt.ArrayLike, scale: npt.ArrayLike, offset: npt.ArrayLike
) -> Affine:
    vectors = [vector(layer, "scale or offset", np.asarray(v)) for v in (center, scale, offset)]
    return Affine(name=layer.name, center=vectors[0], scale=vectors[1], offset=vectors[2])
