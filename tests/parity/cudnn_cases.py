"""What the tests of cuDNN's kernel and layers share: sizes, masks, and a machine with cuDNN.

The operation itself needs a GPU: `tests/gpu`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import lstm_core
from lstm_core.kernels import cudnn
from tests.parity.cudnn_stand_in import StandIn

BATCH, TIME, FEATURES, UNITS = 4, 5, 3, 4
CLOSE = {"rtol": 0, "atol": 2e-6}
LIVE = np.arange(TIME)

RIGHT_PADDED: dict[str, Any] = {
    "none": None,
    "all_live": np.ones((BATCH, TIME), bool),
    "right_padded": LIVE < np.array([[5], [3], [1], [4]]),
}
OTHERS: dict[str, Any] = {
    "left_padded": LIVE >= np.array([[0], [2], [4], [1]]),
    "holes": np.array([[1, 0, 1, 1, 0], [1] * 5, [1, 1, 0, 0, 1], [1] * 5], bool),
    "a_row_without_steps": LIVE < np.array([[0], [4], [5], [1]]),
    "no_step_at_all": np.zeros((BATCH, TIME), bool),
}


def put_in_place(monkeypatch: pytest.MonkeyPatch, gates: str = "ifco") -> StandIn:
    """Make this a machine with a GPU, as far as TensorFlow tells, and a stand-in its cuDNN."""
    stand_in = StandIn(gates)
    monkeypatch.setattr(cudnn, "operation", stand_in)
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind=None: [f"a fake {kind}"])
    return stand_in


def assert_same(actual: Any, expected: Any, **tolerance: Any) -> None:
    """Compare all outputs."""
    for a, e in zip(tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(a, e, **(tolerance or CLOSE))


def make_stack(num_layers: int, direction: str = "unidirectional", **options: Any) -> Any:
    """Build a `CudnnLSTM` whose biases are not zero."""
    layer = lstm_core.CudnnLSTM(
        num_layers, UNITS, direction=direction, bias_initializer="random_normal", **options
    )
    layer.build((None, None, FEATURES))
    return layer
