"""Layers packed for the native kernel, and those without a state run alone on it.

Knows no arena.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from lstm_core.kernels import native
from lstm_core.network import Layer
from lstm_core.runtime.plan import is_pointwise

Float32 = npt.NDArray[np.float32]
Packed = dict[Layer, list[native.Layer]]
Pointwises = dict[Layer, Callable[[Float32], Float32]]


def stateless(layers: Iterable[Layer], packed: Packed) -> Pointwises:
    """Return what runs each of the layers without a state that run in C."""
    return {
        layer: run_all_steps(packed[layer])
        for layer in layers
        if is_pointwise(layer) and layer in packed
    }


def run_all_steps(packed: Sequence[native.Layer]) -> Callable[[Float32], Float32]:
    """Return what runs a chain of such layers on `(..., features)`, each time step on its own."""
    runner = native.stateless_runner(packed)

    def run(x: Float32) -> Float32:
        y = runner.advance(None, None, x.reshape(1, -1, x.shape[-1]), None, None)[0]
        return y.reshape(*x.shape[:-1], -1)

    return run
