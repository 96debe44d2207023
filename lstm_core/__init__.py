"""The LSTM layer family of TensorFlow and Keras, and nothing about serving.

The Keras layers are lazy attributes: importing this package does not import TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lstm_core.layers.cudnn import CuDNNLSTM, CudnnLSTM
    from lstm_core.layers.fused import (
        CudnnCompatibleLSTMCell,
        LSTMBlockCell,
        LSTMBlockFusedCell,
    )
    from lstm_core.layers.lstm import LSTM
    from lstm_core.layers.rnn_cell import LSTMCell, LSTMStateTuple

_ROOMS = {
    "CuDNNLSTM": "cudnn",
    "CudnnLSTM": "cudnn",
    "CudnnCompatibleLSTMCell": "fused",
    "LSTMBlockCell": "fused",
    "LSTMBlockFusedCell": "fused",
    "LSTM": "lstm",
    "LSTMCell": "rnn_cell",
    "LSTMStateTuple": "rnn_cell",
}

__all__ = [
    "LSTM",
    "CuDNNLSTM",
    "CudnnCompatibleLSTMCell",
    "CudnnLSTM",
    "LSTMBlockCell",
    "LSTMBlockFusedCell",
    "LSTMCell",
    "LSTMStateTuple",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return getattr(import_module(f"lstm_core.layers.{_ROOMS[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
