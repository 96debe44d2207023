"""The dropout masks of a recurrent layer: drawn once a call, held over time, kept until reset.

Owns the documented methods of Keras's recurrent cells. Knows no recurrence.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class DropoutMaskCache:
    """Mixin of a `keras.Layer` with the attributes below.

    One mask is held over all time steps (Gal and Ghahramani 2016), also where TensorFlow 2's
    cuDNN path draws a new one each step (keras #19993).
    """

    dropout: float
    recurrent_dropout: float
    implementation: int
    seed_generator: Any
    compute_dtype: Any

    _dropout_mask: Any = None
    _recurrent_dropout_mask: Any = None

    def get_dropout_mask_for_cell(self, inputs: Any, training: Any, count: int = 1) -> Any:
        """Return the cached mask of the inputs, or draw it.

        Args:
            inputs: `(batch, features)`: its shape and dtype are the mask's.
            training: Boolean, or a boolean scalar tensor: nothing is dropped where it is false.
            count: How many masks: 4 for one a gate.

        Returns:
            None where `dropout` is 0, a tensor like `inputs` where `count` is 1, else a list of
            them; each element is 0 or `1 / (1 - dropout)`.
        """
        if self.dropout == 0:
            return None
        if self._dropout_mask is None:
            self._dropout_mask = self._draw(inputs, self.dropout, training, count)
        return self._dropout_mask

    def get_recurrent_dropout_mask_for_cell(
        self, inputs: Any, training: Any, count: int = 1
    ) -> Any:
        """Return the cached mask of the hidden state, or draw it.

        Args:
            inputs: `(batch, units)`: its shape and dtype are the mask's.
            training: As above.
            count: As above.

        Returns:
            As above, for `recurrent_dropout`.
        """
        if self.recurrent_dropout == 0:
            return None
        if self._recurrent_dropout_mask is None:
            self._recurrent_dropout_mask = self._draw(
                inputs, self.recurrent_dropout, training, count
            )
        return self._recurrent_dropout_mask

    def reset_dropout_mask(self) -> None:
        """Forget the mask of the inputs: the next call draws another."""
        self._dropout_mask = None

    def reset_recurrent_dropout_mask(self) -> None:
        """Forget the mask of the hidden state: the next call draws another."""
        self._recurrent_dropout_mask = None

    def _draw_input_masks(self, sequences: Any, training: Any) -> tuple[Any, ...]:
        """Draw the masks of one call: none, one, or with `implementation` 1 one a gate.

        Args:
            sequences: `(time, batch, features)`.
            training: As above.
        """
        self.reset_dropout_mask()
        if not (tf.is_tensor(training) or training):
            return ()
        step = tf.zeros(tf.shape(sequences)[1:], sequences.dtype)
        masks = self.get_dropout_mask_for_cell(step, training, self._num_masks)
        if not tf.executing_eagerly():
            self.reset_dropout_mask()  # A tensor of a graph must not outlive it.
        return _as_tuple(masks)

    def _draw_recurrent_masks(self, h: Any, training: Any) -> tuple[Any, ...]:
        """Draw the masks of one call, as above, for `h` `(batch, units)`."""
        self.reset_recurrent_dropout_mask()
        if not (tf.is_tensor(training) or training):
            return ()
        step = tf.zeros_like(h, self.compute_dtype)
        masks = self.get_recurrent_dropout_mask_for_cell(step, training, self._num_masks)
        if not tf.executing_eagerly():
            self.reset_recurrent_dropout_mask()
        return _as_tuple(masks)

    @property
    def _num_masks(self) -> int:
        return 4 if self.implementation == 1 else 1

    def _draw(self, like: Any, rate: float, training: Any, count: int) -> Any:
        ones = tf.ones_like(like)
        masks = []
        for _ in range(count):
            mask = ones
            if tf.is_tensor(training) or training:
                mask = keras.random.dropout(ones, rate, seed=self.seed_generator)
            if tf.is_tensor(training):
                mask = tf.where(tf.cast(training, tf.bool), mask, ones)
            masks.append(mask)
        return masks[0] if count == 1 else masks


def _as_tuple(masks: Any) -> tuple[Any, ...]:
    if masks is None:
        return ()
    return (masks,) if tf.is_tensor(masks) else tuple(masks)
