"""The recurrence on TensorFlow operations: every case, on any device, eagerly or in a graph.

Knows weights as tensors and activations as functions. Knows no Keras layer, keeps no state and
draws no random numbers: dropout masks come from the caller. Differentiable, and XLA takes it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import tensorflow as tf

Tensor: TypeAlias = Any  # TensorFlow ships no types.
Activation: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights:
    """One LSTM's weights as tensors of the inputs' dtype, gates in `spec.GATE_ORDER`.

    Attributes:
        kernel: `(features, 4 * units)`.
        recurrent_kernel: `(units, 4 * units)`.
        bias: `(4 * units,)`, or None.
    """

    kernel: Tensor
    recurrent_kernel: Tensor
    bias: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Options:
    """How the recurrence runs.

    Attributes:
        activation: Of the cell candidate and of the cell state on its way out.
        recurrent_activation: Of the input, forget and output gates.
        split_gates: One product a gate instead of one for all four (`implementation=1`).
        go_backwards: Process the time steps from the last to the first.
        zero_output_for_mask: Give zeros for masked steps, instead of the previous output.
        return_sequences: Whether to collect the output of every step.
        unroll: Lay the time steps out in the graph instead of looping.
    """

    activation: Activation
    recurrent_activation: Activation
    split_gates: bool = False
    go_backwards: bool = False
    zero_output_for_mask: bool = False
    return_sequences: bool = True
    unroll: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DropoutMasks:
    """Factors of the inputs and of `h`, held over all time steps.

    Attributes:
        inputs: No tensor (no dropout), one for all gates, or one a gate; each
            `(batch, features)`.
        recurrent: The same for `h`, each `(batch, units)`.
    """

    inputs: tuple[Tensor, ...] = ()
    recurrent: tuple[Tensor, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """What a sequence gives, in the dtype of the states.

    Attributes:
        outputs: `(time, batch, units)` in the order of processing, or None if not asked for.
        last_output: `(batch, units)`, zeros where there was no step.
        h: `(batch, units)`, the hidden state after the last step.
        c: `(batch, units)`, the cell state after the last step.
    """

    outputs: Tensor | None
    last_output: Tensor
    h: Tensor
    c: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Carry:
    """What one time step hands to the next, each `(batch, units)`."""

    output: Tensor
    h: Tensor
    c: Tensor


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
    """Take every time step of a batch of sequences.

    A masked step keeps `h` and `c` and repeats the previous output, which before the first live
    step is zeros and not `h`. Products run in the dtype of `inputs`, all else in that of the
    states, so that 16-bit inputs keep a 32-bit cell state.

    Args:
        weights: In the dtype of `inputs`.
        options: How to run.
        inputs: `(time, batch, features)` floating; either of the first two may be 0.
        h: `(batch, units)`, the first hidden state.
        c: `(batch, units)`, the first cell state, of the dtype of `h`.
        mask: `(time, batch)` bool, true where a step is live; None means everywhere.
        dropout: None means none.

    Raises:
        ValueError: `unroll` is on and the number of time steps is not known.

    References:
        `lstm_core.equations`, the same in NumPy.
    """
    dropout = dropout or DropoutMasks()
    if mask is not None:
        # Whatever the padding holds, the gates of masked steps stay finite, and so do gradients.
        shape, live = inputs.shape, mask[:, :, tf.newaxis]
        inputs = tf.where(live, inputs, tf.zeros([], inputs.dtype))
        inputs.set_shape(shape)  # Which a mask of unknown shape takes away.
    projected = _product(
        inputs, _gate_kernels(weights.kernel, options, dropout.inputs), dropout.inputs
    )
    if weights.bias is not None:
        projected += weights.bias
    projected.set_shape((*inputs.shape[:2], weights.kernel.shape[-1]))
    recurrent_kernels = _gate_kernels(weights.recurrent_kernel, options, dropout.recurrent)
    batch = inputs.shape[1] if inputs.shape[1] is not None else h.shape[0]

    def step(x: Tensor, is_live: Tensor | None, carry: _Carry) -> _Carry:
        product = _product(tf.cast(carry.h, x.dtype), recurrent_kernels, dropout.recurrent)
        z = tf.cast(x + product, carry.c.dtype)
        z_i, z_f, z_c, z_o = tf.split(z, 4, axis=-1)
        i = options.recurrent_activation(z_i)
        f = options.recurrent_activation(z_f)
        o = options.recurrent_activation(z_o)
        c_next = f * carry.c + i * options.activation(z_c)
        h_next = o * options.activation(c_next)
        for state in (h_next, c_next):
            state.set_shape((batch, h.shape[-1]))
        after = _Carry(output=h_next, h=h_next, c=c_next)
        return after if is_live is None else _mask(after, carry, is_live, options)

    # XLA cannot compile a loop over nothing.
    run = _unrolled if options.unroll or inputs.shape[0] == 0 else _looped
    return run(step, options, projected, mask, _Carry(output=tf.zeros_like(h), h=h, c=c))


def _gate_kernels(
    kernel: Tensor, options: Options, masks: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """Return the kernel whole, or one a gate where gates are multiplied one by one."""
    if options.split_gates or len(masks) > 1:
        return tuple(tf.split(kernel, 4, axis=-1))
    return (kernel,)


def _product(x: Tensor, kernels: tuple[Tensor, ...], masks: tuple[Tensor, ...]) -> Tensor:
    """Multiply `(..., n)` under its dropout masks by each kernel; gates along the last axis."""
    masked = [x * mask for mask in masks] or [x]
    masked *= len(kernels) // len(masked)
    products = [
        tf.matmul(part, kernel) if x.shape.rank == 2 else tf.tensordot(part, kernel, 1)
        for part, kernel in zip(masked, kernels, strict=True)
    ]
    return products[0] if len(products) == 1 else tf.concat(products, axis=-1)


def _mask(after: _Carry, before: _Carry, is_live: Tensor, options: Options) -> _Carry:
    """Undo a step in the rows where `is_live`, `(batch,)` bool, is false."""
    live = is_live[:, tf.newaxis]
    idle = tf.zeros_like(after.output) if options.zero_output_for_mask else before.output
    return _Carry(
        output=tf.where(live, after.output, idle),
        h=tf.where(live, after.h, before.h),
        c=tf.where(live, after.c, before.c),
    )


_Step: TypeAlias = Callable[[Tensor, Tensor | None, _Carry], _Carry]


def _unrolled(
    step: _Step, options: Options, projected: Tensor, mask: Tensor | None, carry: _Carry
) -> Result:
    time = projected.shape[0]
    if time is None:
        raise ValueError(
            "unroll=True needs a known number of time steps, but the time dimension of the inputs "
            "is None: give it in keras.Input(shape=...), or leave unroll off"
        )
    outputs = []
    for t in reversed(range(time)) if options.go_backwards else range(time):
        carry = step(projected[t], None if mask is None else mask[t], carry)
        outputs.append(carry.output)
    stacked = tf.stack(outputs) if outputs else tf.zeros_like(carry.output)[tf.newaxis][:0]
    return Result(
        outputs=stacked if options.return_sequences else None,
        last_output=carry.output,
        h=carry.h,
        c=carry.c,
    )


def _looped(
    step: _Step, options: Options, projected: Tensor, mask: Tensor | None, carry: _Carry
) -> Result:
    time = num_slots = projected.shape[0]
    if time is None:
        time = tf.shape(projected)[0]
        num_slots = tf.maximum(time, 1)
    projections = by_step(projected, num_slots)
    live = None if mask is None else by_step(mask, num_slots)
    # Slot 0 holds the zeros before the first step: an array without elements has no shape to stack.
    arrays: tuple[Tensor, ...] = ()
    if options.return_sequences:
        array = tf.TensorArray(
            carry.output.dtype, time + 1, element_shape=carry.output.shape, clear_after_read=False
        )
        arrays = (array.write(0, carry.output),)

    def body(t: Tensor, arrays: tuple[Tensor, ...], *states: Tensor) -> tuple[Any, ...]:
        at = time - 1 - t if options.go_backwards else t
        before = _Carry(output=states[0], h=states[1], c=states[2])
        after = step(projections.read(at), None if live is None else live.read(at), before)
        arrays = tuple(array.write(t + 1, after.output) for array in arrays)
        return t + 1, arrays, after.output, after.h, after.c

    _, arrays, last_output, h, c = tf.while_loop(
        lambda t, *_: t < time,
        body,
        (tf.constant(0), arrays, carry.output, carry.h, carry.c),
        maximum_iterations=num_slots,
    )
    return Result(
        outputs=arrays[0].stack()[1:] if arrays else None, last_output=last_output, h=h, c=c
    )


def by_step(steps: Tensor, num_slots: Any) -> Tensor:
    """Return `(time, ...)` steps as a `tf.TensorArray`, with a slot never read where time is 0.

    An array, since the gradient of a slice in a loop costs the whole sequence every step. The slot,
    since XLA compiles the body of a loop that never runs, and its gradient, and has to find
    something there. Where there are steps the padding is none, and copies nothing.
    """
    if steps.shape[0] is None:
        num_missing = num_slots - tf.shape(steps)[0]
        steps = tf.pad(steps, [[0, num_missing], *[[0, 0]] * (steps.shape.rank - 1)])
    return tf.TensorArray(steps.dtype, num_slots).unstack(steps)
