"""The LSTM layer family of TensorFlow and Keras, and nothing about serving.

The Keras layers are lazy attributes: importing this package does not import TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lstm_core.layers.lstm import LSTM

__all__ = ["LSTM"]


def __getattr__(name: str) -> Any:
    if name == "LSTM":
        from lstm_core.layers.lstm import LSTM

        return LSTM
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
