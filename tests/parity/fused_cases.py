"""What the tests of the fused cells share: sizes, options, drawn weights and comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import lstm_core
from tests.parity.record import Row, agree_in_rows

FORWARD: dict[str, Any] = {"rtol": 0, "atol": 1e-6}
FEATURES, UNITS = 3, 4
OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "no_forget_bias": {"forget_bias": 0.0},
    "peepholes": {"use_peephole": True},
    "clipped": {"cell_clip": 0.4},
    "all": {"forget_bias": 0.5, "use_peephole": True, "cell_clip": 0.4},
}
CELLS = {"cell": lstm_core.LSTMBlockCell, "fused": lstm_core.LSTMBlockFusedCell}


def normal(*shape: int, seed: int = 1) -> Any:
    """Draw float32 numbers."""
    return np.random.default_rng(seed).normal(0, 0.8, shape).astype(np.float32)


def built(cell: Any, features: int = FEATURES) -> Any:
    """Build a cell, none of its weights zero."""
    cell.build((None, features))
    cell.set_weights([normal(*w.shape, seed=n) for n, w in enumerate(cell.get_weights())])
    return cell


def close(actual: Any, expected: Any, tolerance: Any, rows: Sequence[Row] = ()) -> None:
    """Compare several arrays, for these rows of the parity table."""
    agree_in_rows(list(actual), list(expected), rows=rows, **tolerance)
