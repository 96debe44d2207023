"""The sizes and the dtype of an `LSTMCell`'s state, and its zeros.

Knows no weights and no arithmetic.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from lstm_core.layers.rnn_cell_arguments import LSTMStateTuple, checked_batch_size

Tensor: TypeAlias = Any


class CellState:
    """Mixin of a cell: what its state is like, and where it begins."""

    num_units: int
    num_proj: int | None
    state_is_tuple: bool
    variable_dtype: str

    _is_dtype_known = False

    @property
    def dtype(self) -> str | None:
        """The dtype of the weights and of a state, None until it is known."""
        return self.variable_dtype if self._is_dtype_known else None

    @property
    def output_size(self) -> int:
        """The length of one step's output."""
        return self.num_units if self.num_proj is None else self.num_proj

    @property
    def state_size(self) -> LSTMStateTuple | int:
        """The lengths of c and h, or their sum without `state_is_tuple`."""
        return self._state_sizes if self.state_is_tuple else sum(self._state_sizes)

    @property
    def _state_sizes(self) -> LSTMStateTuple:
        return LSTMStateTuple(self.num_units, self.output_size)

    def zero_state(self, batch_size: Any, dtype: Any) -> LSTMStateTuple | Tensor:
        """Return a state of zeros, in the structure of `state_size`.

        Args:
            batch_size: A whole number, or an integer tensor or array of one element.
            dtype: Of the state.

        Raises:
            ValueError: `batch_size` is no whole number, or has more than one element.
        """
        rows = checked_batch_size(batch_size)
        with tf.name_scope(f"{type(self).__name__}ZeroState"):
            zeros = [tf.zeros((rows, size), dtype) for size in self._state_sizes]
            if self.state_is_tuple:
                return LSTMStateTuple(*zeros)
            return tf.concat(zeros, axis=1)

    def get_initial_state(
        self, inputs: Any = None, batch_size: Any = None, dtype: Any = None
    ) -> LSTMStateTuple | Tensor:
        """Return a state of zeros, for the batch size and the dtype of `inputs` or those given.

        Args:
            inputs: `(batch, ...)`, or None.
            batch_size: As for `zero_state`; with `inputs` it must agree with them.
            dtype: With `inputs` it must agree with them; None means the cell's, if it is known.

        Raises:
            ValueError: Batch size or dtype are not known, or do not agree with `inputs`.
        """
        if inputs is not None:
            inputs = tf.convert_to_tensor(inputs)
            known = tf.compat.dimension_value(inputs.shape[0])
            given = None if batch_size is None else tf.get_static_value(batch_size)
            if known is not None and given is not None and int(given) != known:
                raise ValueError(
                    "batch size from input tensor is different from the input param. Input tensor "
                    f"batch: {known}, batch_size: {given}"
                )
            if dtype is not None and tf.as_dtype(dtype) != inputs.dtype:
                raise ValueError(
                    "dtype from input tensor is different from the input param. Input tensor "
                    f"dtype: {inputs.dtype.name}, dtype: {tf.as_dtype(dtype).name}"
                )
            batch_size, dtype = tf.shape(inputs)[0] if known is None else known, inputs.dtype
        dtype = dtype or self.dtype
        if batch_size is None or dtype is None:
            raise ValueError(
                "batch_size and dtype cannot be None while constructing initial state: "
                f"batch_size={batch_size}, dtype={dtype}"
            )
        return self.zero_state(batch_size, dtype)
