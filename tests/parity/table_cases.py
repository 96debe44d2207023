"""The one small case on which the parity table compares features that no law has a row for.

Owns its sizes, weights and data. Knows no feature and no peer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights

BATCH, TIME, FEATURES, UNITS = 4, 6, 3, 4
SPEC = LSTMSpec(input_size=FEATURES, units=UNITS)
MASK = np.array([[0, 1, 1, 0, 1, 0], [1] * 6, [0] * 6, [1, 1, 0, 0, 0, 0]], bool)
ALL = {"return_sequences": True, "return_state": True}


def _normal(seed: int, *shape: int, scale: float = 1.0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32)


WEIGHTS = [
    _normal(0, FEATURES, 4 * UNITS, scale=0.3),
    _normal(1, UNITS, 4 * UNITS, scale=0.3),
    _normal(2, 4 * UNITS, scale=0.3),
]
"""Kernel, recurrent kernel and bias, as a layer takes them."""

CORE = LSTMWeights(kernel=WEIGHTS[0], recurrent_kernel=WEIGHTS[1], bias=WEIGHTS[2])
"""The same for `SPEC`."""

X = _normal(3, BATCH, TIME, FEATURES)
"""Inputs of a batch of sequences."""

STATES = [_normal(4, BATCH, UNITS), _normal(5, BATCH, UNITS)]
"""An h and a c."""


def built(layer: Any, weights: Any = WEIGHTS, shape: Any = (BATCH, None, FEATURES)) -> Any:
    """Return the layer with these weights."""
    layer.build(shape)
    layer.set_weights(weights)
    return layer
