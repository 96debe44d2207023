"""The recurrence on TensorFlow's fused LSTM operations: fast on a CPU, for the common case.

Takes the same arguments as `kernels.tensorflow.sequence` and gives the same numbers. Owns masks,
direction and what is asked of a sequence; `block_recurrence` computes it.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from lstm_core.kernels.block_operations import Form, Operands
from lstm_core.kernels.block_recurrence import recur
from lstm_core.kernels.tensorflow import DropoutMasks, Options, Result, Weights

Tensor: TypeAlias = Any  # TensorFlow ships no types.


def obstacles(
    *,
    activation: str = "tanh",
    recurrent_activation: str = "sigmoid",
    dropout: float = 0.0,
    recurrent_dropout: float = 0.0,
    implementation: int = 2,
    unroll: bool = False,
    compute_dtype: str = "float32",
    variable_dtype: str = "float32",
    num_gpus: int = 0,
    is_in_xla: bool = False,
) -> list[str]:
    """Name each condition of this kernel that a layer and its call break; empty: it fits.

    Every mask, initial state, direction and size fits, empty ones too.

    Args:
        activation: By its Keras name.
        recurrent_activation: By its Keras name.
        dropout: Rate of the inputs' dropout.
        recurrent_dropout: Rate of the hidden state's dropout.
        implementation: 1 draws a dropout mask for each gate.
        unroll: Whether the time steps shall be laid out in the graph.
        compute_dtype: Of the inputs.
        variable_dtype: Of the states.
        num_gpus: GPUs that the call could run on.
        is_in_xla: Whether XLA compiles the call.
    """
    return [
        obstacle
        for is_broken, obstacle in (
            (activation != "tanh", f"activation is {activation}, not tanh"),
            (
                recurrent_activation != "sigmoid",
                f"recurrent_activation is {recurrent_activation}, not sigmoid",
            ),
            (recurrent_dropout != 0, f"recurrent_dropout is {recurrent_dropout}, not 0"),
            (
                bool(dropout) and implementation == 1,
                "implementation 1 draws a dropout mask for each gate",
            ),
            (unroll, "unroll is on"),
            (
                {compute_dtype, variable_dtype} != {"float32"},
                f"dtypes are {compute_dtype} and {variable_dtype}, not float32",
            ),
            (num_gpus > 0, "it was measured on CPUs only, and TensorFlow sees a GPU"),
            (is_in_xla, "XLA (jit_compile) does not take the fused operations"),
        )
        if is_broken
    ]


def sequence(
    weights: Weights,
    options: Options,
    inputs: Tensor,
    *,
    h: Tensor,
    c: Tensor,
    mask: Tensor | None = None,
    dropout: DropoutMasks | None = None,
) -> Result:
    """Take every time step of a batch of sequences, as `kernels.tensorflow.sequence` does.

    `options.activation`, `recurrent_activation`, `split_gates` and `unroll` do not count:
    `obstacles` tells where they must not differ, and the rest is the same up to rounding.

    Args:
        weights: float32.
        options: How to run.
        inputs: `(time, batch, features)` float32; either of the first two may be 0.
        h: `(batch, units)` float32, the first hidden state.
        c: `(batch, units)` float32, the first cell state.
        mask: `(time, batch)` bool, any pattern, true where a step is live; None means everywhere.
        dropout: At most one mask of the inputs and none of `h`; None means none.

    Raises:
        ValueError: There are more dropout masks than that.
    """
    masks = dropout or DropoutMasks()
    if masks.recurrent or len(masks.inputs) > 1:
        raise ValueError(
            "the fused operations take one dropout mask of the inputs and none of h, not "
            f"{len(masks.inputs)} and {len(masks.recurrent)}: kernels.tensorflow takes them"
        )
    for factor in masks.inputs:
        inputs *= factor
    if options.go_backwards:
        inputs = tf.reverse(inputs, [0])
        mask = None if mask is None else tf.reverse(mask, [0])
    bias = weights.bias
    operands = Operands(
        inputs=inputs,
        h=h,
        c=c,
        kernel=tf.concat([weights.kernel, weights.recurrent_kernel], axis=0),
        bias=tf.zeros(weights.kernel.shape[-1:], inputs.dtype) if bias is None else bias,
        peepholes=tf.zeros((3, h.shape[-1]), inputs.dtype),
    )
    return _whole(operands, options) if mask is None else _masked(operands, options, mask)


def _whole(operands: Operands, options: Options) -> Result:
    outputs, cells = recur(operands, Form())
    # Of nothing but the last step, so that no copy of all steps is made; the first state is there
    # for a sequence without steps.
    return Result(
        outputs=outputs if options.return_sequences else None,
        last_output=_last(tf.zeros_like(operands.h), outputs),
        h=_last(operands.h, outputs),
        c=_last(operands.c, cells),
    )


def _last(first: Tensor, steps: Tensor) -> Tensor:
    if steps.shape[0] is not None and steps.shape[0] > 0:
        return steps[-1]
    return tf.concat([first[tf.newaxis], steps[-1:]], axis=0)[-1]


def _masked(operands: Operands, options: Options, mask: Tensor) -> Result:
    """Run the live steps of each row, moved together, and put the results where they belong.

    A masked step changes nothing, so that a row is its live steps, one after another.
    """
    num_done = tf.cumsum(tf.cast(mask, tf.int32))
    lengths = tf.reduce_sum(tf.cast(mask, tf.int32), axis=0)
    num_steps = tf.minimum(tf.reduce_max(lengths, axis=0), tf.shape(mask)[0])
    num_steps = tf.maximum(num_steps, 0)  # the largest of no rows is the smallest integer
    order = tf.argsort(tf.cast(~mask, tf.int32), axis=0, stable=True)[:num_steps]
    # Steps beyond a row's end run, on zeros: whatever the masked inputs hold, their gates stay
    # finite, and so do the gradients.
    is_live = (tf.range(num_steps)[:, tf.newaxis] < lengths)[:, :, tf.newaxis]
    gathered = _rows_at(operands.inputs, order)
    together = Operands(
        inputs=tf.where(is_live, gathered, tf.zeros_like(gathered)),
        h=operands.h,
        c=operands.c,
        kernel=operands.kernel,
        bias=operands.bias,
        peepholes=operands.peepholes,
    )
    outputs, cells = recur(together, Form(returns_every_cell=True))
    # Before its first live step a row has put out zeros, and not h.
    since_start = tf.concat([tf.zeros_like(operands.h)[tf.newaxis], outputs], axis=0)
    last = _rows_at(since_start, lengths[tf.newaxis])[0]
    has_step = lengths[:, tf.newaxis] > 0
    last_output = last
    if options.zero_output_for_mask:
        last_output = tf.where(_last_live(mask)[:, tf.newaxis], last, tf.zeros_like(last))
    every_output = None
    if options.return_sequences:
        every_output = _rows_at(since_start, num_done)
        if options.zero_output_for_mask:
            zeros = tf.zeros_like(every_output)
            every_output = tf.where(mask[:, :, tf.newaxis], every_output, zeros)
    return Result(
        outputs=every_output,
        last_output=last_output,
        h=tf.where(has_step, last, operands.h),
        c=_rows_at(tf.concat([operands.c[tf.newaxis], cells], axis=0), lengths[tf.newaxis])[0],
    )


def _last_live(mask: Tensor) -> Tensor:
    """Return `(batch,)` bool: whether the last step, if there is one, is live."""
    return _last(tf.zeros(tf.shape(mask)[1:], tf.bool), mask)


def _rows_at(sequence: Tensor, times: Tensor) -> Tensor:
    """Return `(n, batch, features)`: of each row of the batch the steps `times`, `(n, batch)`."""
    rows = tf.broadcast_to(tf.range(tf.shape(times)[1]), tf.shape(times))
    return tf.gather_nd(sequence, tf.stack([times, rows], axis=-1))
