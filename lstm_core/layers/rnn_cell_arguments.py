"""Checks of what callers hand to `LSTMCell`, with messages that name the cell.

Knows sizes, dtypes and structures. Knows no layer and no kernel.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from lstm_core.layers.quantities import as_integer

Tensor: TypeAlias = Any


class LSTMStateTuple(NamedTuple):
    """The state of an `LSTMCell`, and what `state_size` and `zero_state` give, in this order.

    Attributes:
        c: `(batch, units)`, the cell state; or its length.
        h: `(batch, output_size)`, the hidden state, which is the output; or its length.
    """

    c: Any
    h: Any

    @property
    def dtype(self) -> Any:
        """The dtype of both.

        Raises:
            TypeError: They have different ones.
        """
        if self.c.dtype != self.h.dtype:
            raise TypeError(f"Inconsistent internal state: {self.c.dtype} vs {self.h.dtype}")
        return self.c.dtype


def checked_batch_size(batch_size: Any) -> Any:
    """Return a number of rows as an integer or a scalar tensor.

    Args:
        batch_size: A whole number of any type, or an integer tensor or array of one element.

    Raises:
        ValueError: It is no whole number, or has more than one element.
    """
    if isinstance(batch_size, np.ndarray) and batch_size.size == 1:
        batch_size = batch_size.item()
    if tf.is_tensor(batch_size):
        if batch_size.shape.num_elements() not in (None, 1) or not batch_size.dtype.is_integer:
            raise ValueError(
                "batch_size must be an integer tensor of one element, not one of shape "
                f"{tuple(batch_size.shape)} and dtype {batch_size.dtype.name}"
            )
        static = tf.get_static_value(batch_size)
        return tf.reshape(batch_size, ()) if static is None else int(static.item())
    number = as_integer(batch_size)
    if number is None or number < 0:
        raise ValueError(f"batch_size must be a whole number, not {batch_size!r}")
    return number


def checked_reuse(reuse: Any) -> Any:
    """Return whether to share variables: True, False, None or `tf.compat.v1.AUTO_REUSE`.

    Args:
        reuse: One of them, or the name "AUTO_REUSE", which stands in configs.

    Raises:
        ValueError: It is something else.
    """
    auto_reuse = tf.compat.v1.AUTO_REUSE
    if reuse is None or isinstance(reuse, bool) or reuse is auto_reuse:
        return reuse
    if reuse == auto_reuse.name:
        return auto_reuse
    raise ValueError(f"reuse must be True, False, None or tf.compat.v1.AUTO_REUSE, not {reuse!r}")


def checked_dtype(dtype: Any) -> Any:
    """Return the Keras dtype policy of a name, a type, a policy or a policy's config.

    Raises:
        ValueError: It does not compute in real floating numbers.
    """
    if not isinstance(dtype, str | dict | keras.DTypePolicy):
        dtype = tf.as_dtype(dtype).name
    policy = keras.dtype_policies.get(dtype)
    check_floating(policy.compute_dtype, "dtype")
    return policy


def check_floating(dtype: Any, what: str) -> None:
    """Refuse what is not real floating.

    Raises:
        ValueError: It is not.
    """
    dtype = tf.as_dtype(dtype)
    if not dtype.is_floating:
        raise ValueError(
            f"RNN cell only supports floating point inputs, but saw dtype: {dtype.name} ({what})"
        )


def checked_inputs(inputs: Any, features: int, cell_name: str) -> Tensor:
    """Return inputs as a tensor of rank 2.

    Args:
        inputs: `(batch, features)` floating.
        features: What the cell was built for.
        cell_name: For messages.

    Raises:
        ValueError: Another rank, another or an unknown number of features, or not floating.
    """
    x = tf.convert_to_tensor(inputs)
    check_floating(x.dtype, f"inputs of cell {cell_name}")
    x = x if x.shape.rank is not None else tf.ensure_shape(x, (None, None))
    # Numbers, where `tf.compat.v1.disable_v2_behavior` makes the shape's own elements objects.
    shape = tuple(x.shape.as_list())
    if len(shape) != 2:
        raise ValueError(
            f"inputs of cell {cell_name} must be one time step, (batch, features), but their shape "
            f"is {shape}"
        )
    if shape[-1] is None:
        raise ValueError(
            f"Could not infer input size from the inputs of cell {cell_name}, of shape {shape}: "
            "set it with tf.ensure_shape"
        )
    if shape[-1] != features:
        raise ValueError(
            f"inputs of cell {cell_name} must have {features} features, as those that it was built "
            f"for, but their shape is {shape}"
        )
    return x


def checked_state(
    state: Any, size: LSTMStateTuple, batch: int | None, *, is_tuple: bool, cell_name: str
) -> LSTMStateTuple:
    """Return the two states as tensors, of known lengths.

    Args:
        state: `(c, h)`, or both side by side `(batch, c + h)` without `is_tuple`.
        size: Their lengths.
        batch: The inputs' batch size, or None.
        is_tuple: Whether two tensors are expected.
        cell_name: For messages.

    Raises:
        ValueError: Another structure, shape or dtype.
    """
    is_sequence = isinstance(state, list | tuple)
    if is_tuple:
        if not is_sequence or len(state) != 2:
            given = f"{len(state)} of them" if is_sequence else f"a {type(state).__name__}"
            raise ValueError(
                f"the state of cell {cell_name} must be two tensors, LSTMStateTuple(c, h), but it "
                f"is {given}"
            )
        c = _checked_part("c of the state", state[0], (batch, size.c), cell_name)
        h = _checked_part("h of the state", state[1], (batch, size.h), cell_name)
    else:
        if is_sequence and len(state) == 1:
            state = state[0]  # keras.layers.RNN hands over a list, whatever the cell's state is.
        elif is_sequence:
            raise ValueError(
                f"the state of cell {cell_name} must be one tensor, c and h side by side, because "
                f"state_is_tuple is False, but it is {len(state)} of them"
            )
        both = _checked_part("the state", state, (batch, sum(size)), cell_name)
        c, h = tf.split(both, list(size), axis=1)
    if c.dtype != h.dtype:
        raise ValueError(
            f"c and h of the state of cell {cell_name} must have one dtype, but they have "
            f"{c.dtype.name} and {h.dtype.name}"
        )
    return LSTMStateTuple(c, h)


def _checked_part(
    what: str, value: Any, expected: tuple[int | None, int], cell_name: str
) -> Tensor:
    tensor = tf.convert_to_tensor(value)
    check_floating(tensor.dtype, f"{what} of cell {cell_name}")
    if not tensor.shape.is_compatible_with(expected):
        raise ValueError(
            f"{what} of cell {cell_name} must have shape {expected}, but it has "
            f"{tuple(tensor.shape)}"
        )
    # Broadcasting would take a single row, or a single unit, for all of them.
    return tensor if tensor.shape.is_fully_defined() else tf.ensure_shape(tensor, expected)
