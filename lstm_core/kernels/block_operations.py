"""TensorFlow's fused LSTM operations, and how they are called: all time steps in one.

Knows no gradient, no mask, no layer and no options: a sequence here has all its steps. For CPUs:
the choices below were measured on one. XLA does not take these operations.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeAlias

import tensorflow as tf

Tensor: TypeAlias = Any  # TensorFlow ships no types.
Saved: TypeAlias = Any
"""The outputs of an operation: i, cs, f, o, ci, co and h, each `(time, batch, units)`."""

MIN_ROWS_PER_PART = 16
"""Of a batch that is split, so that every part's products are worth a thread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """What is fixed when the operations are built.

    Attributes:
        gate_order: `ifco` (`BlockLSTMV2`) or `icfo` (`BlockLSTM`), along the last axis of weights.
        cell_clip: The new cell state is clipped to this absolute value; 0: it is not. The gradient
            passes the clip as if it were not there, as that of the operations does.
        forget_bias: Added to the forget gate's input; of `icfo` only, since `BlockLSTMV2` has none.
        use_peepholes: Whether `Operands.peepholes` counts.
        returns_every_cell: Whether the cell state of every step is returned, not only the last.
    """

    gate_order: Literal["ifco", "icfo"] = "ifco"
    cell_clip: float = 0.0
    forget_bias: float = 0.0
    use_peepholes: bool = False
    returns_every_cell: bool = False

    def __post_init__(self) -> None:
        if self.gate_order == "ifco" and self.forget_bias:
            raise ValueError(
                f"forget_bias is {self.forget_bias}, but BlockLSTMV2, whose gate_order is ifco, "
                "adds none: add it to the bias, or take icfo"
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Operands:
    """What the recurrence is differentiated by, all of the same dtype, float32 or float16.

    Attributes:
        inputs: `(time, batch, features)`; either of the first two may be 0.
        h: `(batch, units)`, the first hidden state.
        c: `(batch, units)`, the first cell state.
        kernel: `(features + units, 4 * units)`, of the inputs and h one below the other.
        bias: `(4 * units,)`.
        peepholes: `(3, units)`, of the input, forget and output gate.
    """

    inputs: Tensor
    h: Tensor
    c: Tensor
    kernel: Tensor
    bias: Tensor
    peepholes: Tensor


def forward(operands: Operands, form: Form) -> Saved:
    """Return the operation's outputs: i, cs, f, o, ci, co and h of every step.

    Rows are independent, and two operations of half the rows use two cores better than one of all
    rows, whose products are too small to share: 1.3 to 1.7 times faster at 32 rows.
    """
    bounds = part_bounds(operands.inputs)
    if len(bounds) == 2:
        return _operation(operands.inputs, operands.h, operands.c, operands, form)
    parts = []
    for start, stop in pairwise(bounds):
        inputs = operands.inputs[:, start:stop]
        parts.append(
            _operation(inputs, operands.h[start:stop], operands.c[start:stop], operands, form)
        )
    return type(parts[0])._make(tf.concat(outputs, axis=1) for outputs in zip(*parts, strict=True))


def _operation(inputs: Tensor, h: Tensor, c: Tensor, operands: Operands, form: Form) -> Saved:
    arguments: dict[str, Any] = {
        "seq_len_max": tf.shape(inputs, tf.int64)[0],
        "x": inputs,
        "cs_prev": c,
        "h_prev": h,
        "cell_clip": form.cell_clip,
        **weight_arguments(operands, form),
    }
    if form.gate_order == "icfo":
        return tf.raw_ops.BlockLSTM(forget_bias=form.forget_bias, **arguments)
    return tf.raw_ops.BlockLSTMV2(**arguments)


def weight_arguments(operands: Operands, form: Form) -> dict[str, Any]:
    """Return the arguments about weights, which all of the operations have."""
    w_i, w_f, w_o = tf.unstack(operands.peepholes)
    return {
        "w": operands.kernel,
        "wci": w_i,
        "wcf": w_f,
        "wco": w_o,
        "b": operands.bias,
        "use_peephole": form.use_peepholes,
    }


def part_bounds(inputs: Tensor) -> list[Any]:
    """Return the row where each part of the batch begins, and the number of rows."""
    time, batch, _ = inputs.shape
    num_parts = num_cores()
    # Eager operations run one after another, whatever their number.
    if tf.executing_eagerly() or time == 1 or num_parts == 1:
        return [0, batch]
    if batch is not None:
        num_parts = max(1, min(num_parts, batch // MIN_ROWS_PER_PART))
        return [part * batch // num_parts for part in range(num_parts + 1)]
    # The batch is known when the graph runs: parts beyond those in use are empty, and free.
    batch = tf.shape(inputs)[1]
    num_busy = tf.clip_by_value(batch // MIN_ROWS_PER_PART, 1, num_parts)
    return [tf.minimum(part, num_busy) * batch // num_busy for part in range(num_parts + 1)]


def num_cores() -> int:
    """Return how many operations TensorFlow runs at a time, at most 4: more were not measured."""
    available = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return min(tf.config.threading.get_inter_op_parallelism_threads() or available, available, 4)


def as_icfo(array: Tensor, form: Form) -> Tensor:
    """Swap the two gates in the middle, or not: the way there is the way back."""
    if form.gate_order == "icfo":
        return array
    i, f, c, o = tf.split(array, 4, axis=-1)
    return tf.concat([i, c, f, o], axis=-1)


def plain(operands: Operands, form: Form) -> tuple[Tensor, Tensor]:
    """Do what `recur` does in operations that TensorFlow differentiates as often as one likes."""
    features = operands.inputs.shape[-1]
    kernel, recurrent_kernel = operands.kernel[:features], operands.kernel[features:]
    w_i, w_f, w_o = tf.unstack(operands.peepholes * float(form.use_peepholes))

    def step(x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        z = as_icfo(x + tf.matmul(h, recurrent_kernel), form)
        z_i, z_c, z_f, z_o = tf.split(z, 4, axis=-1)
        i = tf.sigmoid(z_i + w_i * c)
        f = tf.sigmoid(z_f + w_f * c + form.forget_bias)
        c_next = f * c + i * tf.tanh(z_c)
        if form.cell_clip > 0:
            clipped = tf.clip_by_value(c_next, -form.cell_clip, form.cell_clip)
            c_next += tf.stop_gradient(clipped - c_next)
        o = tf.sigmoid(z_o + w_o * c_next)
        return o * tf.tanh(c_next), c_next

    projected = tf.tensordot(operands.inputs, kernel, 1) + operands.bias
    time = tf.shape(projected)[0]
    steps = tf.TensorArray(projected.dtype, time).unstack(projected)
    # Slot 0 holds the first state: `tf.scan` has none, and cannot stack the results of no steps
    # where the batch is not known.
    arrays = tuple(
        tf.TensorArray(
            first.dtype, time + 1, element_shape=first.shape, clear_after_read=False
        ).write(0, first)
        for first in (operands.h, operands.c)
    )

    def body(t: Tensor, arrays: tuple[Any, Any], h: Tensor, c: Tensor) -> tuple[Any, ...]:
        after = step(steps.read(t), h, c)
        for state, before in zip(after, (h, c), strict=True):
            state.set_shape(before.shape)
        arrays = tuple(a.write(t + 1, state) for a, state in zip(arrays, after, strict=True))
        return t + 1, arrays, *after

    _, arrays, _, _ = tf.while_loop(
        lambda t, *_: t < time,
        body,
        (tf.constant(0), arrays, operands.h, operands.c),
        maximum_iterations=time,
    )
    h, c = (array.stack()[1:] for array in arrays)
    return h, c if form.returns_every_cell else c[-1:]
