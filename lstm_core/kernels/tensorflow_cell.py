"""One step of `rnn_cell.LSTMCell` on TensorFlow operations, on any device, eagerly or in a graph.

Knows weights as tensors, in the layout of that cell. Knows no layer, no variable and no scope, and
keeps no state. Differentiable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import tensorflow as tf

Tensor: TypeAlias = Any  # TensorFlow ships no types.


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CellWeights:
    """The weights of one cell as tensors, gates in the order input, candidate, forget, output.

    Attributes:
        kernel: `(features + output_size, 4 * units)`, of the inputs and h side by side.
        bias: `(4 * units,)`.
        peepholes: Of the forget, input and output gate, each `(units,)`; or None.
        projection: `(units, output_size)`, or None.
    """

    kernel: Tensor
    bias: Tensor
    peepholes: tuple[Tensor, Tensor, Tensor] | None = None
    projection: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CellOptions:
    """How a step goes.

    Attributes:
        activation: Of the cell candidate and of the cell state on its way out.
        forget_bias: Added to the forget gate's input.
        cell_clip: The new cell state is clipped to this absolute value; None: it is not.
        projection_clip: So is the projection.
    """

    activation: Callable[[Tensor], Tensor]
    forget_bias: float = 0.0
    cell_clip: float | None = None
    projection_clip: float | None = None


def step(
    weights: CellWeights, options: CellOptions, x: Tensor, *, c: Tensor, h: Tensor
) -> tuple[Tensor, Tensor]:
    """Take one time step.

    Products run in the dtype of `x`, all else in that of the states, so that 16-bit inputs keep a
    32-bit cell state.

    Args:
        weights: Of any floating dtype.
        options: How the step goes.
        x: `(batch, features)` floating.
        c: `(batch, units)`, the cell state before the step.
        h: `(batch, output_size)`, the hidden state before the step, of the dtype of `c`.

    Returns:
        The cell state `(batch, units)` and the hidden state `(batch, output_size)` after the step,
        of the dtype of `c`.

    References:
        Sak et al. 2014; `lstm_core.equations`, the same in NumPy.
    """
    operand = tf.concat([x, tf.cast(h, x.dtype)], axis=1)
    z = tf.matmul(operand, tf.cast(weights.kernel, x.dtype))
    z = tf.cast(tf.nn.bias_add(z, tf.cast(weights.bias, x.dtype)), c.dtype)
    z_i, z_c, z_f, z_o = tf.split(z, 4, axis=1)
    w_f = w_i = w_o = None
    if weights.peepholes is not None:
        w_f, w_i, w_o = (tf.cast(w, c.dtype) for w in weights.peepholes)
    i = tf.sigmoid(_peep(z_i, w_i, c))
    f = tf.sigmoid(_peep(z_f + options.forget_bias, w_f, c))
    c_next = _clip(f * c + i * options.activation(z_c), options.cell_clip)
    o = tf.sigmoid(_peep(z_o, w_o, c_next))
    h_next = o * options.activation(c_next)
    if weights.projection is not None:
        projected = tf.matmul(tf.cast(h_next, x.dtype), tf.cast(weights.projection, x.dtype))
        h_next = _clip(tf.cast(projected, c.dtype), options.projection_clip)
    return c_next, h_next


def _peep(z: Tensor, w: Tensor | None, c: Tensor) -> Tensor:
    return z if w is None else z + w * c


def _clip(x: Tensor, limit: float | None) -> Tensor:
    return x if limit is None else tf.clip_by_value(x, -limit, limit)
