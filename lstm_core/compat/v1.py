"""The names of `tf.compat.v1`.

`LSTM` is `tf.compat.v1.keras.layers.LSTM`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lstm_core.layers.keras_v1 import LSTM

__all__ = ["LSTM"]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(import_module("lstm_core.layers.keras_v1"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
