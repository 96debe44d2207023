"""What the tests of `lstm_core.LSTMCell` as a layer share: one full configuration, and its step."""

from __future__ import annotations

from typing import Any

import numpy as np

FEATURES = 3
FULL: dict[str, Any] = {
    "num_units": 4,
    "use_peepholes": True,
    "cell_clip": 0.5,
    "num_proj": 2,
    "proj_clip": 0.3,
    "forget_bias": 0.25,
    "activation": "softsign",
}


def built(cell, features=FEATURES):
    """Build a cell."""
    cell.build((None, features))
    return cell


def step_of(cell, seed=0, **options):
    """Call a cell on random inputs from a random state."""
    random = np.random.default_rng(seed)
    dtype = cell.dtype or "float32"
    x = random.normal(size=(2, FEATURES)).astype(dtype)
    state = [random.normal(size=(2, size)).astype(dtype) for size in cell.state_size]
    return cell(x, state, **options)
