"""One time step of TensorFlow 1.4's LSTM, and the gates' columns of its weights.

Knows the order of the gates and the dropout masks of a call. Knows no time, no mask of steps and no
state between calls.
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


class GateStep(GateColumns):
    """Mixin of a layer: its step as a method, and what the step takes besides the states."""

    kernel: Any
    recurrent_kernel: Any
    bias: Any
    units: int
    activation: Any
    recurrent_activation: Any
    dropout: float
    recurrent_dropout: float
    implementation: int
    _draw: Any

    def preprocess_input(self, inputs: Tensor, training: Any = None) -> Tensor:
        """Return what the steps take of the inputs.

        Args:
            inputs: `(batch, time, features)`.
            training: Whether dropout applies.

        Returns:
            With `implementation` 0 the products with the kernel, and the bias, `(batch, time,
            4 * units)`; else the inputs.
        """
        if self.implementation != 0:
            return inputs
        masks = self._masks(self.dropout, _zeros_of_a_step(inputs), training)
        over_time = [mask if isinstance(mask, float) else mask[:, tf.newaxis] for mask in masks]
        return self._with_bias(_gate_products(inputs, self.kernel, over_time))

    def get_constants(self, inputs: Tensor, training: Any = None) -> list[list[Any]]:
        """Draw the dropout masks of one call: what `step` takes behind the states.

        Args:
            inputs: `(batch, time, features)`.
            training: Whether dropout applies.

        Returns:
            Four factors of the inputs, `(batch, features)`, and four of h, `(batch, units)`: one a
            gate, each 1.0 where nothing is dropped.
        """
        h = tf.zeros((tf.shape(inputs)[0], self.units), inputs.dtype)
        dropout = 0.0 if self.implementation == 0 else self.dropout
        return [
            self._masks(dropout, _zeros_of_a_step(inputs), training),
            self._masks(self.recurrent_dropout, h, training),
        ]

    def step(self, inputs: Tensor, states: list[Any]) -> tuple[Tensor, list[Tensor]]:
        """Take one time step.

        Args:
            inputs: `(batch, features)`, or with `implementation` 0 `(batch, 4 * units)`: one step
                of `preprocess_input`.
            states: `[h, c, *get_constants(...)]`, h and c each `(batch, units)`.

        Returns:
            The output, `(batch, units)`, and `[h, c]`; output and h are the same.
        """
        h, c, input_masks, recurrent_masks = states
        if self.implementation == 2:
            input_masks, recurrent_masks = input_masks[:1], recurrent_masks[:1]
        x = inputs
        if self.implementation != 0:
            x = self._with_bias(_gate_products(inputs, self.kernel, input_masks))
        h = tf.cast(h, x.dtype)
        z = tf.cast(x + _gate_products(h, self.recurrent_kernel, recurrent_masks), c.dtype)
        z_i, z_f, z_c, z_o = tf.split(z, 4, axis=-1)
        i = self.recurrent_activation(z_i)
        f = self.recurrent_activation(z_f)
        o = self.recurrent_activation(z_o)
        c_next = f * c + i * self.activation(z_c)
        h_next = o * self.activation(c_next)
        return h_next, [h_next, c_next]

    def _masks(self, rate: float, like: Tensor, training: Any) -> list[Any]:
        if not 0 < rate < 1 or not (tf.is_tensor(training) or training):
            return [1.0] * 4
        return list(self._draw(like, rate, training, 4))

    def _with_bias(self, products: Tensor) -> Tensor:
        return products if self.bias is None else products + tf.cast(self.bias, products.dtype)


def _gate_products(x: Tensor, kernel: Any, masks: list[Any]) -> Tensor:
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
    # Not `tf.matmul`: with a time axis it reads beyond its inputs under `tf.vectorized_map`.
    if all(isinstance(mask, float) for mask in masks):
        return tf.tensordot(x, kernel, 1)
    if len(masks) == 1:
        return tf.tensordot(x * masks[0], kernel, 1)
    kernels = tf.split(kernel, 4, axis=-1)
    products = [tf.tensordot(x * mask, k, 1) for mask, k in zip(masks, kernels, strict=True)]
    return tf.concat(products, axis=-1)


def _zeros_of_a_step(inputs: Tensor) -> Tensor:
    """Return `(batch, features)` zeros for `(batch, time, features)`, where time may be 0."""
    return tf.zeros((tf.shape(inputs)[0], inputs.shape[-1]), inputs.dtype)
