"""The parameter buffer of cuDNN's GRU: where each gate's matrix and biases stand in it.

NumPy only, no TensorFlow, as `cudnn_layout` of the LSTM. Unverified: nobody has run it on a GPU
yet; `tests/gpu/test_cudnn_packing_torch.py` compares it with PyTorch's.

References:
    NVIDIA's documentation of `cudnnRNNMode_t` and `cudnnGetRNNWeightParams`; `gpu_gru` of tf_keras
    and `_cudnn_gru` of Keras 3, which fill the buffer in the same order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

GATE_ORDER = "zrh"
"""Keras's: update gate, reset gate, candidate."""
CUDA_GATE_ORDER = "rzh"
ROCM_GATE_ORDER = GATE_ORDER


def pack(
    kernel: Array, recurrent_kernel: Array, bias: Array, *, gate_order: str = CUDA_GATE_ORDER
) -> Array:
    """Return the buffer of one layer that resets after its product: all matrices, then the biases.

    Args:
        kernel: `(features, 3 * units)`, gates in `GATE_ORDER`.
        recurrent_kernel: `(units, 3 * units)`, likewise.
        bias: `(2, 3 * units)`, likewise: that of the inputs' product, then of the recurrent one.
        gate_order: Of the buffer.

    Returns:
        `(3 * units * (features + units + 2),)` in their dtype.
    """
    at = [GATE_ORDER.index(gate) for gate in gate_order]

    def reordered(array: Array) -> Array:
        rows = array.shape[0]
        return array.reshape(rows, len(GATE_ORDER), -1)[:, at].reshape(rows, -1)

    parts = (reordered(kernel).T, reordered(recurrent_kernel).T, reordered(bias))
    return np.concatenate([part.ravel() for part in parts])
