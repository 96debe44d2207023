"""What the tests of the kernel on fused operations share: drawn operands, results, gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from lstm_core.kernels import tensorflow as generic
from tests.parity.record import Row, agree

FORWARD = {"rtol": 0, "atol": 1e-6}
GRADIENT = {"rtol": 1e-5, "atol": 1e-5}
FEATURES, UNITS = 3, 4
BY_LOOP, BY_OPERATION = 0, 2**15
GRADIENTS_BY = {"loop": BY_LOOP, "operation": BY_OPERATION}


def draw(time: int, batch: int, features: int = FEATURES, units: int = UNITS, seed: int = 0) -> Any:
    """Draw kernel, recurrent kernel, bias, inputs, h and c."""
    random = np.random.default_rng(seed)
    shapes = [
        (features, 4 * units), (units, 4 * units), (4 * units,),
        (time, batch, features), (batch, units), (batch, units),
    ]  # fmt: skip
    return [tf.constant(random.normal(0, 0.6, shape).astype(np.float32)) for shape in shapes]


def draw_mask(time: int, batch: int, seed: int = 0) -> Any:
    """Draw a mask with holes, one row of it without a live step."""
    mask = np.random.default_rng(seed).random((time, batch)) < 0.6
    mask[:, :1] = False
    return tf.constant(mask)


def run(kernel: Any, tensors: Any, mask: Any = None, dropout: Any = None, **options: Any) -> Any:
    """Return outputs, last output, h and c."""
    k, r, b, x, h, c = tensors
    result = kernel.sequence(
        generic.Weights(kernel=k, recurrent_kernel=r, bias=b),
        generic.Options(activation=tf.tanh, recurrent_activation=tf.sigmoid, **options),
        x,
        h=h,
        c=c,
        mask=mask,
        dropout=dropout,
    )
    return [t for t in (result.outputs, result.last_output, result.h, result.c) if t is not None]


def gradients(kernel: Any, tensors: Any, mask: Any = None, **options: Any) -> Any:
    """Return the gradients of all tensors, through all results, each weighted by other numbers."""
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss = sum(
            tf.reduce_sum(result * np.random.default_rng(n).normal(size=result.shape))
            for n, result in enumerate(run(kernel, tensors, mask, **options))
        )
    return tape.gradient(loss, tensors, unconnected_gradients="zero")


BY_EQUATIONS = ("kernels.block", "forward", "lstm_core.equations")
BY_LOOP_FORWARD = ("kernels.block", "forward", "tensorflow.while_loop")
BY_LOOP_GRADIENT = ("kernels.block", "gradients", "tensorflow.while_loop")
BY_DIFFERENCES = ("kernels.block", "gradients", "lstm_core.equations")
"""Rows of the parity table. The generic kernel is a loop that TensorFlow differentiates."""


def assert_close(actual: Any, expected: Any, tolerance: Any, row: Row = BY_LOOP_FORWARD) -> None:
    """Compare several arrays."""
    agree(list(actual), list(expected), row=row, **tolerance)
