"""The recurrence on cuDNN, through `tf.raw_ops.CudnnRNNV3`, with the interface of `tensorflow`.

Owns what has to be done before and after the operation so that it answers as the generic kernel
does. Whether it may run at all is for the caller to ask: `dispatch` for the configuration and the
hardware, `takes` for the data. XLA does not take the operation (keras #18456).

Unverified: nobody has run the operation itself yet. Tests put a stand-in with its documented
contract in the place of `operation`; `make test-gpu` runs the real one.

References:
    `tf.raw_ops.CudnnRNNV3`; `gpu_lstm` of tf_keras and `_cudnn_lstm` of Keras 3.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from lstm_core.kernels.cudnn_layout import CUDA_GATE_ORDER, ROCM_GATE_ORDER
from lstm_core.kernels.tensorflow import DropoutMasks, Options, Result, Weights
from lstm_core.spec import GATE_ORDER

Tensor: TypeAlias = Any


def operation(
    *, rnn_mode: str = "lstm", is_training: bool = True, **arguments: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the operation and return outputs, h and c: the one place that knows it.

    Args:
        rnn_mode: `lstm`, or `gru`, which has no c: there `input_c` is a scalar, and c means
            nothing.
        is_training: Whether it keeps what its gradient needs, which is several times its outputs.
            Without dropout nothing else differs.
        **arguments: As `tf.raw_ops.CudnnRNNV3` takes them. Time-major: `input`
            `(time, batch, features)`; `input_h` and `input_c`, each
            `(layers * directions, batch, units)`; `params` as in `cudnn_layout`;
            `sequence_lengths` `(batch,)` int32 from 1 to time.

    Returns:
        `(time, batch, directions * units)`, zeros past each row's length; and h and c as they came,
        after each row's length.
    """
    outputs, h, c, _, _ = tf.raw_ops.CudnnRNNV3(
        rnn_mode=rnn_mode, is_training=is_training, **arguments
    )
    return outputs, h, c


def gate_order() -> str:
    """Return the order of the gates in the buffer of this build of TensorFlow."""
    return ROCM_GATE_ORDER if is_rocm_build() else CUDA_GATE_ORDER


def is_rocm_build() -> bool:
    """Tell whether this build of TensorFlow has MIOpen in the place of cuDNN."""
    return bool(tf.sysconfig.get_build_info().get("is_rocm_build", False))


def pack(weights: Weights, order: str = CUDA_GATE_ORDER) -> Tensor:
    """Return the buffer of one layer, as `cudnn_layout.pack`, differentiable.

    Args:
        weights: With a bias.
        order: Of the gates in the buffer.
    """
    kernel, recurrent_kernel, bias = (
        _reorder_gates(tensor, order)
        for tensor in (weights.kernel, weights.recurrent_kernel, weights.bias)
    )
    return tf.concat(
        [
            tf.reshape(tf.transpose(kernel), [-1]),
            tf.reshape(tf.transpose(recurrent_kernel), [-1]),
            tf.zeros_like(bias),
            bias,
        ],
        axis=0,
    )


def takes(inputs: Tensor, mask: Tensor | None) -> bool | Tensor:
    """Tell whether the operation takes these data: something to do, and a right-padded mask.

    Args:
        inputs: `(time, batch, features)`.
        mask: `(time, batch)` bool, or None.

    Returns:
        A bool where the shapes alone tell, else a bool scalar tensor.
    """
    if 0 in inputs.shape[:2]:
        return False
    is_known = None not in inputs.shape[:2]
    if mask is None:
        return True if is_known else tf.reduce_all(tf.shape(inputs)[:2] > 0)
    return tf.logical_and(tf.reduce_all(tf.shape(inputs)[:2] > 0), is_right_padded(mask))


def is_right_padded(mask: Tensor) -> Tensor:
    """Tell, as a bool scalar, whether each row has all its live steps first, and at least one.

    Args:
        mask: `(time, batch)` bool. cuDNN takes no row without a live step.
    """
    starts_live = tf.reduce_all(mask[:1])
    comes_back = tf.reduce_any(tf.logical_and(mask[1:], tf.logical_not(mask[:-1])))
    return tf.logical_and(starts_live, tf.logical_not(comes_back))


def sequence(
    weights: Weights,
    options: Options,
    inputs: Tensor,
    *,
    h: Tensor,
    c: Tensor,
    mask: Tensor | None = None,
    dropout: DropoutMasks | None = None,
    params: Tensor | None = None,
    is_training: bool = True,
) -> Result:
    """Take every time step of a batch of sequences, as `kernels.tensorflow.sequence`.

    Everything runs in the dtype of `inputs`, the states too: 16-bit inputs keep no 32-bit cell
    state here.

    Args:
        weights: With a bias, in the dtype of `inputs`.
        options: Their activations are not looked at: cuDNN has tanh and sigmoid.
        inputs: `(time, batch, features)` floating, neither of the first two 0.
        h: `(batch, units)`, the first hidden state.
        c: `(batch, units)`, the first cell state.
        mask: `(time, batch)` bool, right-padded, at least one live step in each row; None means
            that every step is live.
        dropout: At most one mask, of the inputs.
        params: `pack(weights, gate_order())`, of who calls often with the same weights; None: they
            are packed in this call, which has a gradient.
        is_training: As for `operation`; False has no gradient.
    """
    if dropout is not None and dropout.inputs:
        inputs *= dropout.inputs[0]
    lengths = sequence_lengths(inputs, mask)
    if options.go_backwards:
        inputs = _reversed(inputs, lengths, mask)
    outputs, last_h, last_c = operation(
        input=inputs,
        input_h=tf.cast(h, inputs.dtype)[tf.newaxis],
        input_c=tf.cast(c, inputs.dtype)[tf.newaxis],
        params=pack(weights, gate_order()) if params is None else params,
        sequence_lengths=lengths,
        time_major=True,
        is_training=is_training,
    )
    last_h, last_c = tf.cast(last_h[0], h.dtype), tf.cast(last_c[0], c.dtype)
    outputs = tf.cast(outputs, h.dtype)
    outputs.set_shape((*inputs.shape[:2], h.shape[-1]))
    for state in (last_h, last_c):
        state.set_shape((inputs.shape[1], h.shape[-1]))
    last_output = last_h
    if mask is not None:
        outputs, last_output = _fill_masked_steps(outputs, last_h, lengths, mask, options)
    return Result(
        outputs=outputs if options.return_sequences else None,
        last_output=last_output,
        h=last_h,
        c=last_c,
    )


def sequence_lengths(inputs: Tensor, mask: Tensor | None) -> Tensor:
    """Return the number of live steps of each row, `(batch,)` int32."""
    if mask is None:
        return tf.fill([tf.shape(inputs)[1]], tf.shape(inputs)[0])
    return tf.reduce_sum(tf.cast(mask, tf.int32), axis=0)


def _reversed(inputs: Tensor, lengths: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return tf.reverse(inputs, axis=[0])
    return tf.reverse_sequence(inputs, lengths, seq_axis=0, batch_axis=1)


def _fill_masked_steps(
    outputs: Tensor, h: Tensor, lengths: Tensor, mask: Tensor, options: Options
) -> tuple[Tensor, Tensor]:
    """Put in the masked steps what the generic kernel puts there, and return the last output too.

    The operation leaves zeros behind each row's length (tensorflow #49241), where a masked step
    repeats the last output, which is h. Backwards the masked steps come first, before any output:
    zeros, and the live ones move to the end.
    """
    live = mask[..., tf.newaxis]
    if options.go_backwards:
        outputs = tf.where(live, outputs, tf.zeros_like(outputs))
        in_time = tf.reverse_sequence(outputs, lengths, seq_axis=0, batch_axis=1)
        return tf.reverse(in_time, axis=[0]), h
    if options.zero_output_for_mask:
        return (
            tf.where(live, outputs, tf.zeros_like(outputs)),
            tf.where(live[-1], h, tf.zeros_like(h)),
        )
    return tf.where(live, outputs, h[tf.newaxis]), h


def _reorder_gates(tensor: Tensor, order: str) -> Tensor:
    if order == GATE_ORDER:
        return tensor
    gates = dict(zip(GATE_ORDER, tf.split(tensor, 4, axis=-1), strict=True))
    return tf.concat([gates[gate] for gate in order], axis=-1)
