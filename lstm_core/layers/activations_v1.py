"""The activations of Keras 1 and 2 that share a name with another function of Keras 3.

Knows functions and their names in a layer's config. Knows no layer.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import tensorflow as tf

Tensor: TypeAlias = Any
Activation: TypeAlias = Callable[[Tensor], Tensor]


@keras.saving.register_keras_serializable(package="lstm_core")
def hard_sigmoid_v1(x: Tensor) -> Tensor:
    """Return `clip(0.2 x + 0.5, 0, 1)`, the `hard_sigmoid` of Keras 1 and 2."""
    return tf.clip_by_value(0.2 * x + 0.5, 0.0, 1.0)


# A config says "hard_sigmoid" and means the function of its day, so that files of TensorFlow 1 and
# 2 read as they were meant; Keras 3's function needs another name here.
_BY_NAME: dict[str, Activation] = {
    "hard_sigmoid": hard_sigmoid_v1,
    "hard_sigmoid_v1": hard_sigmoid_v1,
    "hard_sigmoid_v3": keras.activations.hard_sigmoid,
}


def get_v1(identifier: Any) -> Activation:
    """Return the activation that `identifier` names in a config of Keras 1 or 2.

    Args:
        identifier: A name, a function, None for linear, or what `serialize_v1` gave.
    """
    if isinstance(identifier, str) and identifier in _BY_NAME:
        return _BY_NAME[identifier]
    return keras.activations.get(identifier)


def serialize_v1(function: Activation) -> Any:
    """Return what `get_v1` makes the same function of."""
    for name, known in _BY_NAME.items():
        if function is known:
            return name
    return keras.activations.serialize(function)
