"""The recurrence in TensorFlow's fused LSTM operations, differentiable as often as plain ones.

Owns how forward and backward step become one differentiable operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any, TypeAlias

import tensorflow as tf

from lstm_core.kernels.block_gradients import Gradients, backward
from lstm_core.kernels.block_operations import Form, Operands, Saved, forward, plain

Tensor: TypeAlias = Any  # TensorFlow ships no types.
_WithGradient: TypeAlias = tuple[Any, Callable[..., Gradients]]
"""What `tf.custom_gradient` asks of a function: results, and the function of their gradients."""


def recur(operands: Operands, form: Form) -> tuple[Tensor, Tensor]:
    """Take every time step.

    Differentiable by all operands, and twice: the first gradient takes the fused operations too,
    the second goes through plain ones. By tapes and `tf.gradients` only: under a
    `tf.autodiff.ForwardAccumulator` TensorFlow raises a LookupError.

    Args:
        operands: What to compute with.
        form: How.

    Returns:
        The hidden states `(time, batch, units)`, and the cell states: all of them, or only the
        last one `(min(time, 1), batch, units)`.

    References:
        `tensorflow/core/kernels/rnn/lstm_ops.cc`; `lstm_core.equations`, the same in NumPy.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
    def differentiable(*tensors: Tensor) -> _WithGradient:
        operands = _operands(tensors)
        saved = forward(operands, form)
        saved = saved._make(_constants(saved))

        def gradient(d_h: Tensor, d_c: Tensor) -> Gradients:
            return _twice_differentiable_backward(operands, form, saved, d_h, d_c)

        return (saved.h, saved.cs if form.returns_every_cell else saved.cs[-1:]), gradient

    h, c = differentiable(*(tf.convert_to_tensor(tensor) for tensor in _tensors(operands)))
    shape = (*operands.inputs.shape[:2], operands.h.shape[-1])
    h.set_shape(shape)
    c.set_shape(shape if form.returns_every_cell else (None, *shape[1:]))
    return h, c


def _twice_differentiable_backward(
    operands: Operands, form: Form, saved: Saved, d_h: Tensor, d_c: Tensor
) -> Gradients:
    """Return the gradients of `Operands`' fields, themselves differentiable by plain operations."""

    @tf.custom_gradient  # type: ignore[untyped-decorator, unused-ignore]
    def differentiable(d_h: Tensor, d_c: Tensor, *tensors: Tensor) -> _WithGradient:
        def gradient(*upstream: Tensor) -> Gradients:
            sources = (d_h, d_c, *tensors)
            with tf.GradientTape() as outer:
                outer.watch(sources)
                with tf.GradientTape() as inner:
                    inner.watch(tensors)
                    outputs = plain(_operands(tensors), form)
                first = inner.gradient(outputs, tensors, (d_h, d_c), tf.UnconnectedGradients.ZERO)
            return tuple(outer.gradient(first, sources, upstream, tf.UnconnectedGradients.ZERO))

        first = backward(_operands(tensors), form, saved, d_h, d_c)
        return _constants(first), gradient

    # Copies in name only: in a `tf.function` the operands are of its own graph, and the second
    # gradient is made in another one, which reaches the tensors of this graph only.
    return tuple(differentiable(*(tf.identity(t) for t in (d_h, d_c, *_tensors(operands)))))


def _constants(tensors: Iterable[Tensor]) -> Gradients:
    """Return tensors through which nothing is differentiated but by the gradients given here.

    A `tf.function` hands what its gradient needs out as further results, and TensorFlow, asked for
    a second gradient, goes through those to the operations themselves, whose own gradients have
    none.
    """
    return tuple(tf.stop_gradient(tensor) for tensor in tensors)


def _tensors(operands: Operands) -> Gradients:
    return tuple(getattr(operands, field.name) for field in fields(Operands))


def _operands(tensors: Gradients) -> Operands:
    names = (field.name for field in fields(Operands))
    return Operands(**dict(zip(names, tensors, strict=True)))
