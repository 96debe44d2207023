"""The names of TensorFlow 1.4 that later releases changed.

`LSTM` is `tf.keras.layers.LSTM` as it was in November 2017, with the base class `Recurrent`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lstm_core.layers.recurrent_tf14 import LSTM

__all__ = ["LSTM"]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("lstm_core.layers.recurrent_tf14"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
