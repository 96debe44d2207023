"""The first gradient of TensorFlow's fused LSTM operations.

Knows what they computed, and no mask, layer or options.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from lstm_core.kernels.block_operations import Form, Operands, Saved, as_icfo, weight_arguments

Tensor: TypeAlias = Any  # TensorFlow ships no types.
TensorArray: TypeAlias = Any
Tensors: TypeAlias = tuple[Tensor, ...]
Gradients: TypeAlias = Tensors
"""Of the fields of `Operands`, in their order."""

MAX_WEIGHTS_OF_GRADIENT_OPERATION = 2**15
"""TensorFlow's gradient operation adds to all weight gradients at each step. Below this number of
weights that is cheaper than a loop of operations over the steps, far above it ten times dearer."""


def backward(operands: Operands, form: Form, saved: Saved, d_h: Tensor, d_c: Tensor) -> Gradients:
    """Return the gradients of `Operands`' fields.

    Args:
        operands: Of the forward step.
        form: Of the forward step.
        saved: The outputs of the forward step.
        d_h: `(time, batch, units)`.
        d_c: As the cell states that were returned.
    """
    num_weights = operands.kernel.shape.num_elements()
    if operands.inputs.shape[0] == 1 or num_weights <= MAX_WEIGHTS_OF_GRADIENT_OPERATION:
        return _backward_in_one_operation(operands, form, saved, d_h, d_c)
    d_z, d_first_h, d_first_c = _backward_in_a_loop(operands, form, saved, d_h, d_c)
    inputs, kernel = operands.inputs, as_icfo(operands.kernel, form)
    features, units = inputs.shape[-1], operands.h.shape[-1]
    flat = tf.reshape(d_z, (-1, 4 * units))
    before = tf.concat([operands.h[tf.newaxis], saved.h], axis=0)[:-1]
    rows = tf.reshape(tf.concat([inputs, before], axis=-1), (-1, features + units))
    # All time steps in one product: added up step by step it takes most of the time.
    d_kernel = tf.matmul(rows, flat, transpose_a=True)
    d_inputs = tf.reshape(tf.matmul(flat, kernel[:features], transpose_b=True), tf.shape(inputs))
    return (
        d_inputs,
        d_first_h,
        d_first_c,
        as_icfo(d_kernel, form),
        as_icfo(tf.reduce_sum(flat, axis=0), form),
        _peephole_gradients(operands, form, saved, d_z),
    )


def _backward_in_one_operation(
    operands: Operands, form: Form, saved: Saved, d_h: Tensor, d_c: Tensor
) -> Gradients:
    time = tf.shape(operands.inputs)[0]
    is_icfo = form.gate_order == "icfo"
    operation = tf.raw_ops.BlockLSTMGrad if is_icfo else tf.raw_ops.BlockLSTMGradV2
    gradient = operation(
        seq_len_max=tf.cast(time, tf.int64),
        x=operands.inputs,
        cs_prev=operands.c,
        h_prev=operands.h,
        **saved._asdict(),
        cs_grad=tf.pad(d_c, [[time - tf.shape(d_c)[0], 0], [0, 0], [0, 0]]),
        h_grad=d_h,
        **weight_arguments(operands, form),
    )
    sums = (
        gradient.w_grad,
        gradient.b_grad,
        tf.stack([gradient.wci_grad, gradient.wcf_grad, gradient.wco_grad])
        if form.use_peepholes
        else tf.zeros_like(operands.peepholes),
    )
    # Without rows the operation leaves what the memory held before.
    has_rows = tf.shape(operands.inputs)[1] > 0
    sums = tuple(tf.where(has_rows, total, tf.zeros_like(total)) for total in sums)
    return gradient.x_grad, gradient.h_prev_grad, gradient.cs_prev_grad, *sums


def _backward_in_a_loop(
    operands: Operands, form: Form, saved: Saved, d_h: Tensor, d_c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the gates' inputs, in the order `icfo`, and of the first h and c."""
    shape, dtype, units = operands.h.shape, operands.h.dtype, operands.h.shape[-1]
    recurrent_kernel = as_icfo(operands.kernel[-units:], form)
    # Once: a product that transposes takes twice as long.
    transposed = tf.transpose(recurrent_kernel)
    time, batch = tf.unstack(tf.shape(d_h)[:2])

    def by_step(sequence: Tensor) -> TensorArray:
        return tf.TensorArray(dtype, time, element_shape=shape).unstack(sequence)

    names = ("i", "cs_prev", "f", "o", "ci", "co", "h_grad")
    sequences = (saved.i, _cells_before(operands, saved), saved.f, saved.o, saved.ci, saved.co, d_h)
    arrays = {name: by_step(s) for name, s in zip(names, sequences, strict=True)}
    cell_gradients = by_step(d_c) if form.returns_every_cell else None
    w_i, w_f, w_o = tf.unstack(operands.peepholes)
    weights = weight_arguments(operands, form) | {
        "w": recurrent_kernel,
        "x": tf.zeros((batch, 0), dtype),
        # In a graph the operation takes the memory of the peepholes for their gradients, and clears
        # it before it reads them: they are added here instead.
        "use_peephole": False,
    }

    def body(steps_left: Tensor, d_z: TensorArray, d_h: Tensor, d_c: Tensor) -> tuple[Any, ...]:
        t = steps_left - 1
        step = {name: array.read(t) for name, array in arrays.items()}
        step["h_grad"] += d_h
        if cell_gradients is not None:
            d_c += cell_gradients.read(t)
        if form.use_peepholes:
            d_c += step["h_grad"] * step["co"] * step["o"] * (1 - step["o"]) * w_o
        # It reads neither h_prev nor cs.
        gradient = tf.raw_ops.LSTMBlockCellGrad(
            cs_grad=d_c, h_prev=d_c, cs=step["cs_prev"], **step, **weights
        )
        d_h = tf.matmul(gradient.dicfo, transposed)
        d_h.set_shape(shape)
        d_c = gradient.cs_prev_grad
        if form.use_peepholes:
            d_i, _, d_f, _ = tf.split(gradient.dicfo, 4, axis=-1)
            d_c += d_i * w_i + d_f * w_f
        d_c.set_shape(shape)
        return t, d_z.write(steps_left, gradient.dicfo), d_h, d_c

    # Slot 0 is there for no steps at all: an array without elements has no shape to stack.
    d_z = tf.TensorArray(dtype, time + 1, element_shape=(shape[0], 4 * units))
    d_z = d_z.write(0, tf.zeros((batch, 4 * units), dtype))
    zeros = tf.zeros_like(operands.h)
    last = zeros if form.returns_every_cell else zeros + tf.reduce_sum(d_c, axis=0)
    _, d_z, d_first_h, d_first_c = tf.while_loop(
        lambda steps_left, *_: steps_left > 0,
        body,
        (time, d_z, zeros, last),
        maximum_iterations=time,
    )
    return d_z.stack()[1:], d_first_h, d_first_c


def _cells_before(operands: Operands, saved: Saved) -> Tensor:
    return tf.concat([operands.c[tf.newaxis], saved.cs], axis=0)[:-1]


def _peephole_gradients(operands: Operands, form: Form, saved: Saved, d_z: Tensor) -> Tensor:
    if not form.use_peepholes:
        return tf.zeros_like(operands.peepholes)
    before = _cells_before(operands, saved)
    d_i, _, d_f, d_o = tf.split(d_z, 4, axis=-1)
    products = (d_i * before, d_f * before, d_o * saved.cs)
    return tf.stack([tf.reduce_sum(product, axis=(0, 1)) for product in products])
