"""Checks of sequences that come with a length for each row, and of the lengths.

For the layers and cells of `tf.contrib`, which take lengths where those of Keras take a mask. Knows
shapes only: no layer and no kernel.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

Tensor: TypeAlias = Any


def check_not_ragged(inputs: Any, subject: str, argument: str) -> None:
    """Refuse ragged inputs, which would be made dense in silence or fail far from here.

    Args:
        inputs: What a caller gave.
        subject: Who takes them, for the message.
        argument: The name of the lengths there.

    Raises:
        ValueError: They are ragged.
    """
    if isinstance(inputs, tf.RaggedTensor):
        raise ValueError(  # noqa: TRY004 - what every other misfit of the inputs raises.
            f"{subject} takes no ragged inputs: make them dense with `.to_tensor()`, and give "
            f"the lengths of the rows as `{argument}`"
        )


def checked_lengths(lengths: Any, sequences: Tensor, subject: str) -> Tensor:
    """Return the number of live steps of each row, `(batch,)` int32.

    Args:
        lengths: `(batch,)` integer, 0 to time.
        sequences: `(time, batch, features)`, the rank known.
        subject: Whose lengths they are, for messages.

    Raises:
        ValueError: They have another shape, are no integers, or one is out of range. What a graph
            knows only when it runs raises `tf.errors.InvalidArgumentError` then; but XLA drops the
            check of the range.
    """
    tensor = tf.convert_to_tensor(lengths)
    time, batch, _ = sequences.shape
    if not tensor.dtype.is_integer or not tensor.shape.is_compatible_with((batch,)):
        raise ValueError(
            f"{subject} must be integer, of shape ({batch},), not {tensor.dtype.name} of shape "
            f"{tensor.shape}"
        )
    # In 64 bits before anything is compared: what 32 bits cut off could fit by accident.
    tensor = _with_batch_of(sequences, tf.cast(tensor, tf.int64))
    known = tf.get_static_value(tensor)
    if known is None or time is None:
        message = f"{subject} must be 0 to the number of time steps"
        limits = (
            tf.debugging.assert_non_negative(tensor, message),
            tf.debugging.assert_less_equal(tensor, tf.shape(sequences, tf.int64)[0], message),
        )
        with tf.control_dependencies([limit for limit in limits if limit is not None]):
            return tf.cast(tensor, tf.int32)
    if known.size and (known.min() < 0 or known.max() > time):
        raise ValueError(
            f"{subject} must be 0 to {time}, the number of time steps, but it is {known.tolist()}"
        )
    return tf.cast(tensor, tf.int32)


def _with_batch_of(sequences: Tensor, lengths: Tensor) -> Tensor:
    """Return lengths as they are, made to fail when they run if their number is not the batch's."""
    if lengths.shape.is_fully_defined() and sequences.shape[1] is not None:
        return lengths
    # As in `arguments`: joining no columns compares the rows, also under XLA, and the op's name
    # stands in the message.
    name = "sequence_lengths_must_have_the_batch_size_of_the_inputs"
    no_columns = tf.zeros((tf.shape(sequences)[1], 0), lengths.dtype)
    lengths = tf.ensure_shape(lengths, sequences.shape[1:2])
    return tf.concat([no_columns, lengths[:, tf.newaxis]], -1, name)[:, 0]
