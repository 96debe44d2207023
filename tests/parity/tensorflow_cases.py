"""What the tests of the TensorFlow runtime share: models with weights that none starts with."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from lstm_core.runtime.base import ZERO_SLOT

TOLERANCE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6}
FEATURES = 3


def randomised(model, seed=0):
    """Return a model with weights that none starts with."""
    random = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(random.normal(0, 0.5, variable.shape))
    return model


def sequential(*chain, time=None):
    """Return a chain over real features, with random weights."""
    return randomised(keras.Sequential([keras.Input((time, FEATURES)), *chain]))


def draw(*shape, seed=1):
    """Return float32 from -1 to 1."""
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def in_pieces(runtime, inputs, cuts, mask=None):
    """Return the outputs of sequences that are advanced in pieces of so many time steps."""
    batch = len(inputs)
    slots = [[runtime.allocate() for _ in range(batch)] for _ in range(2)]
    source, begin, outputs = [ZERO_SLOT] * batch, 0, []
    for index, length in enumerate(cuts):
        span, target = slice(begin, begin + length), slots[index % 2]
        one = None if mask is None else mask[:, span]
        advanced = runtime.advance(source, target, inputs[:, span], [length] * batch, one)
        outputs.append(advanced.outputs)
        source, begin = target, begin + length
    for slot in [*slots[0], *slots[1]]:
        runtime.free(slot)
    return np.concatenate(outputs, axis=1)


def whole(model, inputs):
    """Return what Keras gives, layer after layer."""
    return np.asarray(model(inputs, training=False))
