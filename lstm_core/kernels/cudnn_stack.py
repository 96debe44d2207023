"""A stack of LSTM layers over one parameter buffer of cuDNN: on cuDNN at once, or layer by layer.

Knows the buffer's layout and no Keras layer. What runs on cuDNN is unverified (see `cudnn`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import tensorflow as tf

from lstm_core.kernels import cudnn
from lstm_core.kernels import tensorflow as recurrence
from lstm_core.kernels.cudnn_layout import CUDA_GATE_ORDER, Block, Stack

Tensor: TypeAlias = Any

_OPTIONS = recurrence.Options(
    activation=tf.tanh, recurrent_activation=tf.sigmoid, zero_output_for_mask=True
)


def sequence_cudnn(
    stack: Stack,
    params: Tensor,
    inputs: Tensor,
    h: Tensor,
    c: Tensor,
    lengths: Tensor | None,
    *,
    dropout: float = 0.0,
    seed: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the whole stack in cuDNN's operation.

    Args:
        stack: The sizes, with an input matrix.
        params: `(stack.num_params,)`, gates in the order of CUDA.
        inputs: `(time, batch, input_size)`, neither of the first two 0.
        h: `(num_layers * num_directions, batch, units)`.
        c: As `h`.
        lengths: `(batch,)` int32 from 1 to time; None means time.
        dropout: Fraction to drop of the outputs of each layer except the last.
        seed: Of the dropout.

    Returns:
        Outputs `(time, batch, num_directions * units)`, zeros past each length; h and c as above.
    """
    order = cudnn.gate_order()
    return cudnn.operation(
        input=inputs,
        input_h=h,
        input_c=c,
        params=params if order == CUDA_GATE_ORDER else reorder_gates(stack, params, order),
        sequence_lengths=cudnn.sequence_lengths(inputs, None) if lengths is None else lengths,
        direction="unidirectional" if stack.num_directions == 1 else "bidirectional",
        dropout=dropout,
        seed=seed,
        time_major=True,
    )


def sequence_tensorflow(
    stack: Stack,
    params: Tensor,
    inputs: Tensor,
    h: Tensor,
    c: Tensor,
    lengths: Tensor | None,
    drop: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run the stack layer by layer on TensorFlow's operations, with the same answers.

    Args:
        stack: The sizes.
        params: As above.
        inputs: As above; time and batch may be 0.
        h: As above.
        c: As above.
        lengths: As above, from 0.
        drop: What to do to a layer's outputs before the next one; None means nothing.

    Returns:
        As above.
    """
    mask = None
    if lengths is not None:
        mask = tf.transpose(tf.sequence_mask(lengths, tf.shape(inputs)[0]))
    last_h: list[Tensor] = []
    last_c: list[Tensor] = []
    outputs: list[Tensor] = []
    for at, block in enumerate(stack.blocks()):
        direction = at % stack.num_directions
        if direction == 0 and at:
            inputs = outputs[0] if len(outputs) == 1 else tf.concat(outputs, axis=-1)
            inputs = inputs if drop is None else drop(inputs)
            outputs = []
        weights = _block_weights(stack, block, params)
        result = _run_direction(
            weights, inputs, h[at], c[at], mask, lengths, is_backward=direction == 1
        )
        outputs.append(result.outputs)
        last_h.append(result.h)
        last_c.append(result.c)
    return tf.concat(outputs, axis=-1), tf.stack(last_h), tf.stack(last_c)


def reorder_gates(stack: Stack, params: Tensor, order: str) -> Tensor:
    """Return a buffer, gates in the order of CUDA, with its gates in another order."""

    def reorder(part: Tensor, num_groups: int) -> Tensor:
        gates = tf.reshape(part, (num_groups, 4, -1))
        places = [CUDA_GATE_ORDER.index(gate) for gate in order]
        return tf.reshape(tf.gather(gates, places, axis=1), [-1])

    parts, biases = [], []
    for block in stack.blocks():
        parts += [reorder(params[block.kernel], 1), reorder(params[block.recurrent_kernel], 1)]
        biases.append(reorder(params[block.bias], 2))
    return tf.concat(parts + biases, axis=0)


def _block_weights(stack: Stack, block: Block, params: Tensor) -> recurrence.Weights:
    units = stack.units
    if block.kernel.stop > block.kernel.start:
        kernel = tf.transpose(tf.reshape(params[block.kernel], (4 * units, block.input_size)))
    else:
        kernel = tf.tile(tf.eye(units, dtype=params.dtype), (1, 4))
    recurrent_kernel = tf.reshape(params[block.recurrent_kernel], (4 * units, units))
    return recurrence.Weights(
        kernel=kernel,
        recurrent_kernel=tf.transpose(recurrent_kernel),
        bias=tf.reduce_sum(tf.reshape(params[block.bias], (2, 4 * units)), axis=0),
    )


def _run_direction(
    weights: recurrence.Weights,
    inputs: Tensor,
    h: Tensor,
    c: Tensor,
    mask: Tensor | None,
    lengths: Tensor | None,
    *,
    is_backward: bool,
) -> recurrence.Result:
    """Run one layer in one direction; its outputs stand in the order of time."""
    if not is_backward:
        return recurrence.sequence(weights, _OPTIONS, inputs, h=h, c=c, mask=mask)

    def reverse(tensor: Tensor) -> Tensor:
        if lengths is None:
            return tf.reverse(tensor, axis=[0])
        return tf.reverse_sequence(tensor, lengths, seq_axis=0, batch_axis=1)

    result = recurrence.sequence(weights, _OPTIONS, reverse(inputs), h=h, c=c, mask=mask)
    return recurrence.Result(
        outputs=reverse(result.outputs), last_output=result.last_output, h=result.h, c=result.c
    )
