"""The recurrence in TensorFlow's fused LSTM operations, differentiable as often as plain ones.

Owns how forward and backward step become one differentiable operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any, TypeAlias

import tensorflow as tf

from lstm_core.kernels.block_gradients import Gradients, Tensors, backward
from lstm_core.kernels.block_operations import Form, Operands, Saved, forward, plain

Tensor: TypeAlias = Any  # TensorFlow ships no types.
_WithGradient: TypeAlias = tuple[Any, Callable[..., Tensors]]
"""What `tf.custom_gradient` asks of a function: results, and the function of their gradients."""


def recur(operands: Operands, form: Form) -> tuple[Tensor, Tensor]:
    """Take every time step.

    Differentiable by all operands, and twice: the first gradient takes the fused operations too,
    the second goes through plain ones, and so does a `tf.autodiff.ForwardAccumulator`, which has
    to be made outside of any `tf.function`: inside one TensorFlow raises a LookupError.

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
        saved = forward(_operands(_unseen(tensors)), form)
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
        def gradient(*upstream: Tensor) -> Tensors:
            run = _second_gradients_eagerly if tf.executing_eagerly() else _second_gradients
            return run(form, tensors, (d_h, d_c), upstream)

        first = backward(_operands(_unseen(tensors)), form, saved, *_unseen((d_h, d_c)))
        return _constants(first), gradient

    # Copies in name only: in a `tf.function` the operands are of its own graph, and the second
    # gradient is made in another one, which reaches the tensors of this graph only.
    return tuple(differentiable(*(tf.identity(t) for t in (d_h, d_c, *_tensors(operands)))))


def _second_gradients(
    form: Form, tensors: Tensors, d_results: tuple[Tensor, Tensor], upstream: Gradients
) -> Tensors:
    """Return how the first gradients depend on what they were made of, by plain operations.

    In a graph, and not by tapes: where a `tf.autodiff.ForwardAccumulator` asks, TensorFlow has
    stopped all tapes, and everything would be unconnected.

    Args:
        form: Of the forward step.
        tensors: The fields of `Operands`.
        d_results: The gradients of the results, which the first gradients were made with.
        upstream: The gradients of the first gradients.

    Returns:
        The gradients of `d_results` and of `tensors`.
    """
    results = plain(_operands(tensors), form)
    first = tf.gradients(results, tensors, d_results, unconnected_gradients="zero")
    sources = (*d_results, *tensors)
    return tuple(tf.gradients(first, sources, upstream, unconnected_gradients="zero"))


_second_gradients_eagerly = tf.function(_second_gradients, autograph=False, reduce_retracing=True)


def _constants(tensors: Iterable[Tensor]) -> Tensors:
    """Return tensors through which nothing is differentiated but by the gradients given here.

    A `tf.function` hands what its gradient needs out as further results, and TensorFlow, asked for
    a second gradient, goes through those to the operations themselves, whose own gradients have
    none.
    """
    return tuple(tf.stop_gradient(tensor) for tensor in tensors)


def _unseen(tensors: Tensors) -> Tensors:
    """Return tensors that an eager `tf.autodiff.ForwardAccumulator` does not follow further.

    It would into the operations, whose gradients have none. In a graph it must: there it does not
    look at the gradients given here, and the error is better than zeros.
    """
    return _constants(tensors) if tf.executing_eagerly() else tensors


def _tensors(operands: Operands) -> Tensors:
    return tuple(getattr(operands, field.name) for field in fields(Operands))


def _operands(tensors: Tensors) -> Operands:
    names = (field.name for field in fields(Operands))
    return Operands(**dict(zip(names, tensors, strict=True)))
