"""A GRU's recurrence on cuDNN, through the operation of `cudnn`.

Owns what masked steps give, which the operation leaves zero. Whether it may run is for the caller
to ask, as of an LSTM.

Unverified: nobody has run the operation itself yet; see `cudnn`.

References:
    `tf.raw_ops.CudnnRNNV3`; `gpu_gru` of tf_keras and `_cudnn_gru` of Keras 3.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from lstm_core.kernels import cudnn
from lstm_core.kernels.cudnn_gru_layout import CUDA_GATE_ORDER, ROCM_GATE_ORDER

Tensor: TypeAlias = Any


def gate_order() -> str:
    """Return the order of the gates in the buffer of this build of TensorFlow."""
    return ROCM_GATE_ORDER if cudnn.is_rocm_build() else CUDA_GATE_ORDER


def sequence(
    params: Tensor,
    inputs: Tensor,
    *,
    h: Tensor,
    mask: Tensor | None = None,
    zero_output_for_mask: bool = False,
) -> tuple[Tensor, Tensor]:
    """Take every time step of a batch of sequences. It has no gradient.

    Args:
        params: The buffer of `cudnn_gru_layout.pack`, its gates in `gate_order()`, in the dtype of
            `inputs`.
        inputs: `(time, batch, features)` floating, neither of the first two 0.
        h: `(batch, units)`, the first state, in the dtype of `inputs`.
        mask: `(time, batch)` bool, right-padded, at least one live step in each row; None means
            that every step is live.
        zero_output_for_mask: Give zeros for masked steps, instead of the previous output.

    Returns:
        Outputs `(time, batch, units)`, and the state `(batch, units)` after each row's last step.
    """
    outputs, last_h, _ = cudnn.operation(
        rnn_mode="gru",
        input=inputs,
        input_h=h[tf.newaxis],
        input_c=tf.zeros((), inputs.dtype),  # a GRU has none, and the operation wants something
        params=params,
        sequence_lengths=cudnn.sequence_lengths(inputs, mask),
        time_major=True,
        is_training=False,
    )
    last_h = last_h[0]
    outputs.set_shape((*inputs.shape[:2], h.shape[-1]))
    last_h.set_shape((inputs.shape[1], h.shape[-1]))
    if mask is not None:
        idle = tf.zeros_like(outputs) if zero_output_for_mask else last_h[tf.newaxis]
        outputs = tf.where(mask[..., tf.newaxis], outputs, idle)
    return outputs, last_h
