"""What every parity test needs: a quiet TensorFlow, and weights that no test has to invent."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

Arrays = list[np.ndarray[Any, Any]]


@pytest.fixture(scope="session")
def draw_weights() -> Callable[..., Arrays]:
    """Draw kernel, recurrent kernel and bias, none of them zero anywhere."""

    def draw(features: int, units: int, *, use_bias: bool = True, seed: int = 0) -> Arrays:
        random = np.random.default_rng(seed)
        shapes = [(features, 4 * units), (units, 4 * units), (4 * units,)]
        arrays = [random.normal(0, 0.6, shape).astype(np.float32) for shape in shapes]
        return arrays if use_bias else arrays[:2]

    return draw


@pytest.fixture(scope="session")
def draw_inputs() -> Callable[..., np.ndarray[Any, Any]]:
    """Draw standard normal float32 inputs of any shape."""

    def draw(*shape: int, seed: int = 1) -> np.ndarray[Any, Any]:
        return np.random.default_rng(seed).normal(size=shape).astype(np.float32)

    return draw
