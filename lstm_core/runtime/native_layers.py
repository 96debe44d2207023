"""What each layer of a network is to the native kernel.

Owns the translation, and so which layers run in C. Packs nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import inf

import numpy as np
import numpy.typing as npt

from lstm_core.kernels import native
from lstm_core.network import Bidirectional, Layer, Recurrent
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
from lstm_core.runtime.plan import Plan, is_pointwise

Float32 = npt.NDArray[np.float32]

Recipe = Callable[[str], native.Layer]
"""Packs one of the kernel's layers for an instruction set."""
Recipes = dict[Layer, tuple[Recipe, ...]]


def recipes_of(plan: Plan[Layer]) -> Recipes:
    """Return what each layer is to the kernel; those that it does not run are left out.

    Args:
        plan: Of a network's layers. Of a `Bidirectional` its two LSTMs are translated.
    """
    recipes: Recipes = {}
    sizes = [part.size for part in plan.inputs]
    for step in plan.steps:
        layer, taken = step.part, [sizes[value] for value in step.takes]
        if isinstance(layer, Bidirectional):
            for lstm in (layer.forward, layer.backward):
                recipes[lstm] = (_lstm(lstm),)
        elif isinstance(layer, Recurrent):
            recipes[layer] = (_lstm(layer),)
        elif is_pointwise(layer) and (translated := _pointwise(layer, taken[0])):
            recipes[layer] = translated
        sizes.append(layer.output_size(*taken))
    return recipes


def _lstm(layer: Recurrent) -> Recipe:
    zero = layer.zero_output_for_mask
    return partial(native.lstm_layer, layer.spec, layer.weights, zero_output_for_mask=zero)


def _pointwise(layer: Pointwise, size: int) -> tuple[Recipe, ...]:
    if isinstance(layer, Dense) and layer.activation in native.ACTIVATIONS:
        return (partial(native.dense_layer, layer.kernel, layer.bias, layer.activation),)
    if isinstance(layer, Embedding):
        return (partial(native.embedding_layer, layer.table, mask_zero=layer.mask_zero),)
    if isinstance(layer, Activation):
        return _activation(layer, size)
    return _of_one_size(layer, size)


def _of_one_size(layer: Pointwise, size: int) -> tuple[Recipe, ...]:
    """Translate a layer that gives as many features as it takes."""
    match layer:
        case PReLU():
            return (_slopes(layer.alpha, inf, size),)
        case Affine():
            center, scale = _wide(layer.center, size), _wide(layer.scale, size)
            return (partial(native.affine_layer, center, scale, _wide(layer.offset, size)),)
        case LayerNormalization():
            gamma = _wide(1 if layer.gamma is None else layer.gamma, size)
            beta = _wide(0 if layer.beta is None else layer.beta, size)
            pack = partial(native.normalization_layer, gamma, beta, layer.epsilon)
            return (partial(pack, rms_scaling=layer.rms_scaling),)
        case Masking():
            return (partial(native.masking_layer, size, layer.mask_value),)
        case _:
            return ()


def _activation(layer: Activation, size: int) -> tuple[Recipe, ...]:
    given = layer.parameters
    if layer.function in native.ACTIVATIONS:
        plain = partial(native.activation_layer, size, layer.function)
        if not given:
            return (plain,)
        if layer.function == "elu":
            return plain, _slopes(given["alpha"], inf, size)
    if layer.function in ("leaky_relu", "relu") and not given.get("threshold"):
        slope, ceiling = given.get("negative_slope", 0.0), given.get("max_value", inf)
        bent = _slopes(slope, ceiling, size)
        # First to zero, where no slope would be that of minus infinity: 0 times it is no number.
        return (bent,) if slope else (partial(native.activation_layer, size, "relu"), bent)
    return ()


def _slopes(alpha: npt.ArrayLike, ceiling: float, size: int) -> Recipe:
    return partial(native.slopes_layer, _wide(alpha, size), ceiling)


def _wide(values: npt.ArrayLike, size: int) -> Float32:
    return np.broadcast_to(np.asarray(values, np.float32), (size,))
