"""The fused cells of `tf.contrib`, which TensorFlow 2 no longer has.

Owns what the fused cell does with sequences and row lengths; the cells of one step are in
`block_cell`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import keras
import tensorflow as tf

from lstm_core.kernels.block_recurrence import recur
from lstm_core.layers.block_cell import CudnnCompatibleLSTMCell, LSTMBlockCell
from lstm_core.layers.rnn_cell_arguments import LSTMStateTuple, check_floating
from lstm_core.layers.sequence_lengths import check_not_ragged, checked_lengths

Tensor: TypeAlias = Any

__all__ = ["CudnnCompatibleLSTMCell", "LSTMBlockCell", "LSTMBlockFusedCell"]


@keras.saving.register_keras_serializable(package="lstm_core")
class LSTMBlockFusedCell(LSTMBlockCell):
    """All time steps in one fused operation, of `tf.contrib.rnn.LSTMBlockFusedCell`.

    The arguments and weights of `LSTMBlockCell`; it is called with sequences.
    """

    def __init__(
        self,
        num_units: int,
        forget_bias: float = 1.0,
        cell_clip: float | None = None,
        use_peephole: bool = False,
        dtype: Any = None,
        reuse: Any = None,
        name: str | None = "lstm_fused_cell",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_units, forget_bias, cell_clip, use_peephole, dtype, reuse, name, **kwargs
        )

    def __call__(  # type: ignore[override]
        self,
        inputs: Any,
        initial_state: Any = None,
        dtype: Any = None,
        sequence_length: Any = None,
        scope: Any = None,
    ) -> tuple[Any, LSTMStateTuple]:
        """Run the sequences, building the cell first where it is not built.

        Args:
            inputs: `(time, batch, features)`, either of the first two may be 0; or a list of at
                least one tensor `(batch, features)`.
            initial_state: `(c, h)`, each `(batch, num_units)`; None means zeros.
            dtype: Of the zeros, and needed for them.
            sequence_length: `(batch,)` integer, 0 to time: beyond it a row's outputs are zeros,
                and its final state is the one after that many steps. None means all steps.
            scope: The variable scope, or its name, of a cell that has none yet.

        Returns:
            The outputs `(time, batch, num_units)`, or a list as `inputs` is; and
            `LSTMStateTuple(c, h)`, each `(batch, num_units)`.

        Raises:
            ValueError: Anything has another shape, structure or dtype than the cell, the inputs
                are ragged, neither `initial_state` nor `dtype` is given, or a length is out of
                range.
            InvalidArgumentError: The same of lengths and rows that are only known when a graph
                runs.
        """
        self._check_graph()
        check_not_ragged(inputs, f"cell {self.name}", "sequence_length")
        is_list = isinstance(inputs, list | tuple)
        x = tf.stack(inputs) if is_list else tf.convert_to_tensor(inputs)
        check_floating(x.dtype, f"inputs of cell {self.name}")
        if x.shape.rank != 3 or x.shape[-1] is None:
            raise ValueError(
                f"inputs of cell {self.name} must be (time, batch, features) with a known number "
                f"of features, but their shape is {x.shape}"
            )
        if not self._is_dtype_known:
            self._settle_dtype(x.dtype)
        self._find_scope(scope)
        if not self.built:
            self.build(x.shape[1:])
        outputs, state = self.call(x, initial_state, dtype, sequence_length)
        return (tf.unstack(outputs, num=len(inputs)) if is_list else outputs), state

    def call(
        self,
        inputs: Any,
        initial_state: Any = None,
        dtype: Any = None,
        sequence_length: Any = None,
    ) -> tuple[Tensor, LSTMStateTuple]:
        """Run the sequences through a built cell, as `__call__` does with one tensor."""
        if initial_state is None:
            if dtype is None:
                raise ValueError(
                    f"cell {self.name}: either initial_state or dtype needs to be specified"
                )
            initial_state = self.zero_state(tf.shape(inputs)[1], dtype)
        if inputs.shape[-1] != self._num_features:
            raise ValueError(
                f"inputs of cell {self.name} must have {self._num_features} features, as those "
                f"that it was built for, but their shape is {inputs.shape}"
            )
        c, h = self._checked_pair(initial_state, inputs)
        if sequence_length is not None:
            subject = f"sequence_length of cell {self.name}"
            lengths = checked_lengths(sequence_length, inputs, subject)
            return self._run_rows(inputs, c, h, lengths)
        outputs, cells = recur(self._operands(inputs, c, h), self._form())
        # The first state is there for sequences without steps.
        final = [
            tf.concat([first[tf.newaxis], steps[-1:]], axis=0)[-1]
            for first, steps in ((c, cells), (h, outputs))
        ]
        return outputs, LSTMStateTuple(*final)

    def _run_rows(
        self, inputs: Tensor, c: Tensor, h: Tensor, lengths: Tensor
    ) -> tuple[Tensor, LSTMStateTuple]:
        time = tf.shape(inputs)[0]
        # The largest of no rows is the smallest integer.
        num_steps = tf.maximum(tf.reduce_max(lengths), 0)
        is_live = (tf.range(num_steps)[:, tf.newaxis] < lengths)[:, :, tf.newaxis]
        # Whatever the padding holds, the gates beyond a row's end stay finite, and so do gradients.
        inputs = tf.where(is_live, inputs[:num_steps], tf.zeros([], inputs.dtype))
        outputs, cells = recur(self._operands(inputs, c, h), self._form(returns_every_cell=True))
        ends = tf.stack([lengths, tf.range(tf.shape(lengths)[0])], axis=-1)
        final = [
            tf.gather_nd(tf.concat([first[tf.newaxis], steps], axis=0), ends)
            for first, steps in ((c, cells), (h, outputs))
        ]
        outputs = tf.where(is_live, outputs, tf.zeros([], outputs.dtype))
        return tf.pad(outputs, [[0, time - num_steps], [0, 0], [0, 0]]), LSTMStateTuple(*final)
