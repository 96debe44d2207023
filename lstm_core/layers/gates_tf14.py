"""The gates of a weight: each one's columns, as a property and as a factor.

Knows the order of the gates. Knows no recurrence.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from lstm_core.spec import GATE_ORDER

Tensor: TypeAlias = Any


def _columns(weight: str, gate: str) -> property:
    def columns(self: Any) -> Tensor | None:
        whole = getattr(self, weight)
        return None if whole is None else tf.split(whole, 4, axis=-1)[GATE_ORDER.index(gate)]

    return property(columns, doc=f"The columns of `{weight}` for one gate; None without a bias.")


class GateColumns:
    """Mixin of a layer with the weights `kernel`, `recurrent_kernel` and `bias`.

    Each property is a tensor made anew of the weight, `(..., units)`.
    """

    kernel_i = _columns("kernel", "i")
    kernel_f = _columns("kernel", "f")
    kernel_c = _columns("kernel", "c")
    kernel_o = _columns("kernel", "o")
    recurrent_kernel_i = _columns("recurrent_kernel", "i")
    recurrent_kernel_f = _columns("recurrent_kernel", "f")
    recurrent_kernel_c = _columns("recurrent_kernel", "c")
    recurrent_kernel_o = _columns("recurrent_kernel", "o")
    bias_i = _columns("bias", "i")
    bias_f = _columns("bias", "f")
    bias_c = _columns("bias", "c")
    bias_o = _columns("bias", "o")


def gate_products(x: Tensor, kernel: Any, masks: list[Any]) -> Tensor:
    """Multiply inputs under dropout masks by a kernel.

    Args:
        x: `(..., n)` floating.
        kernel: `(n, 4 * units)`.
        masks: One factor of `x` for all gates or one for each; where all are the number 1.0,
            nothing is dropped.

    Returns:
        `(..., 4 * units)`, of the dtype of `x`.
    """
    kernel = tf.cast(kernel, x.dtype)
    if all(isinstance(mask, float) for mask in masks):
        return tf.matmul(x, kernel)
    if len(masks) == 1:
        return tf.matmul(x * masks[0], kernel)
    kernels = tf.split(kernel, 4, axis=-1)
    products = [tf.matmul(x * mask, k) for mask, k in zip(masks, kernels, strict=True)]
    return tf.concat(products, axis=-1)
