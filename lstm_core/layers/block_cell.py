"""The cells of `tf.contrib` that take one time step in a fused operation.

Owns their arguments. Variables, state and conversions are those of `LSTMCell`, whose weights have
the same layout; the arithmetic is a kernel's.
"""

from __future__ import annotations

from typing import Any, Self, TypeAlias

import keras
import tensorflow as tf

from lstm_core.errors import SpecError
from lstm_core.kernels.block_operations import Form, Operands
from lstm_core.kernels.block_recurrence import recur
from lstm_core.layers.arguments import with_batch_of
from lstm_core.layers.quantities import checked_number
from lstm_core.layers.rnn_cell import LSTMCell
from lstm_core.layers.rnn_cell_arguments import LSTMStateTuple, checked_inputs, checked_state
from lstm_core.spec import LSTMSpec

Tensor: TypeAlias = Any


@keras.saving.register_keras_serializable(package="lstm_core")
class LSTMBlockCell(LSTMCell):
    """One time step of an LSTM in one fused operation, of `tf.contrib.rnn.LSTMBlockCell`.

    The numbers are those of `LSTMCell` with the same weights: `kernel`, `(features + num_units,
    4 * num_units)`, gates in the order input, candidate, forget, output; `bias`; with peepholes
    `w_i_diag`, `w_f_diag`, `w_o_diag`. The gradient passes `cell_clip` as if it were not there, as
    contrib's does. XLA does not take the operation.

    Args:
        num_units: Length of c and of h, at least 1.
        forget_bias: Added to the forget gate's input at run time; no part of `bias`.
        cell_clip: The new c is clipped to this absolute value; None, 0 or less: it is not.
        use_peephole: Whether the gates see the cell state.
        dtype: float32 or float16; None means that of the first input.
        reuse: Whether to share the variables that the scope already has (see `LSTMCell`).
        name: Of the cell, and of its scope.
        **kwargs: `trainable` and the rest of `keras.Layer`.

    Raises:
        ValueError: `num_units` is not positive, `cell_clip` is not a number, or the dtype is
            another one.
    """

    def __init__(
        self,
        num_units: int,
        forget_bias: float = 1.0,
        cell_clip: float | None = None,
        use_peephole: bool = False,
        dtype: Any = None,
        reuse: Any = None,
        name: str | None = "lstm_cell",
        **kwargs: Any,
    ) -> None:
        super().__init__(
            num_units,
            use_peepholes=use_peephole,
            cell_clip=_positive_or_none(cell_clip),
            forget_bias=forget_bias,
            reuse=reuse,
            name=name,
            dtype=dtype,
            **kwargs,
        )
        if self._is_dtype_known:
            self._check_operation_dtype()

    def build(self, inputs_shape: Any) -> None:
        """Create the weights, or share those of the scope.

        Args:
            inputs_shape: `(batch, features)`, the batch size known or not.

        Raises:
            ValueError: The number of features is unknown, the dtype is neither float32 nor
                float16, or as for `LSTMCell`.
        """
        self._check_operation_dtype()
        super().build(inputs_shape)

    def call(self, inputs: Any, state: Any) -> tuple[Tensor, LSTMStateTuple]:
        """Take one time step of a built cell.

        Args:
            inputs: `(batch, features)` of the cell's dtype; batch may be 0.
            state: `LSTMStateTuple(c, h)` or another pair, each `(batch, num_units)`.

        Returns:
            h `(batch, num_units)`, and `LSTMStateTuple(c, h)`.

        Raises:
            ValueError: Anything has another shape, structure or dtype than the cell.
        """
        x = checked_inputs(inputs, self._num_features, self.name)
        c, h = self._checked_pair(state, x)
        outputs, cells = recur(self._operands(x[tf.newaxis], c, h), self._form())
        return outputs[0], LSTMStateTuple(cells[0], outputs[0])

    @property
    def _num_features(self) -> int:
        return int(self.kernel.shape[0]) - self.num_units

    def _checked_pair(self, state: Any, x: Tensor) -> LSTMStateTuple:
        pair = checked_state(
            state, self._state_sizes, x.shape[-2], is_tuple=True, cell_name=self.name
        )
        self._check_dtypes(x, pair.c)
        # The operations compare the rows as well, but not where there are none to take.
        steps = x if x.shape.rank == 3 else x[tf.newaxis]
        return LSTMStateTuple(*(with_batch_of(steps, part, self.num_units) for part in pair))

    def _check_operation_dtype(self) -> None:
        if {self.compute_dtype, self.variable_dtype} not in ({"float32"}, {"float16"}):
            raise ValueError(
                f"{type(self).__name__} {self.name} computes in float32 or float16, as the fused "
                f"operations do, not in {self.dtype_policy.name}: LSTMCell takes every dtype"
            )

    def _operands(self, inputs: Tensor, c: Tensor, h: Tensor) -> Operands:
        peepholes = tf.zeros((3, self.num_units), inputs.dtype)
        if self.use_peepholes:
            diagonals = (self.w_i_diag, self.w_f_diag, self.w_o_diag)
            peepholes = tf.stack([tf.convert_to_tensor(diagonal) for diagonal in diagonals])
        return Operands(
            inputs=inputs,
            h=h,
            c=c,
            kernel=tf.convert_to_tensor(self.kernel),
            bias=tf.convert_to_tensor(self.bias),
            peepholes=peepholes,
        )

    def _form(self, *, returns_every_cell: bool = False) -> Form:
        return Form(
            gate_order="icfo",
            cell_clip=self.cell_clip or 0.0,
            forget_bias=self.forget_bias,
            use_peepholes=self.use_peepholes,
            returns_every_cell=returns_every_cell,
        )

    @classmethod
    def from_spec(cls, spec: LSTMSpec, **kwargs: Any) -> Self:
        """Return a cell with the configuration of `spec`, not built yet.

        Args:
            spec: Of an LSTM that the fused operations know. Without a bias its cell has one of
                zeros.
            **kwargs: The cell's other arguments.

        Raises:
            SpecError: It has other activations than tanh and sigmoid, or a projection.
        """
        cls._require(spec, activation="tanh", recurrent_activation="sigmoid", projection_size=None)
        return cls(**cls._arguments(spec), **kwargs)

    @classmethod
    def _require(cls, spec: LSTMSpec, **expected: object) -> None:
        """Refuse a spec with another value of a field than the cell has.

        Raises:
            SpecError: It has one.
        """
        for field, only in expected.items():
            value = getattr(spec, field)
            if value != only:
                raise SpecError(field, f"must be {only} for {cls.__name__}, not {value}")

    @classmethod
    def _arguments(cls, spec: LSTMSpec) -> dict[str, Any]:
        return {
            "num_units": spec.units,
            "forget_bias": spec.forget_bias,
            "cell_clip": spec.cell_clip,
            "use_peephole": spec.use_peepholes,
        }

    def get_config(self) -> dict[str, Any]:
        """Return every argument, serialised: `from_config` makes an equal cell of it."""
        config = super().get_config()
        kept = ("name", "trainable", "dtype", "num_units", "forget_bias", "cell_clip", "reuse")
        return {key: config[key] for key in kept} | {"use_peephole": self.use_peepholes}


@keras.saving.register_keras_serializable(package="lstm_core")
class CudnnCompatibleLSTMCell(LSTMBlockCell):
    """The cell of `tf.contrib.cudnn_rnn` that restores a `CudnnLSTM`'s checkpoint on a CPU.

    An `LSTMBlockCell` without forget bias, clipping and peepholes, which cuDNN does not have
    either.

    Args:
        num_units: Length of c and of h, at least 1.
        reuse: As for `LSTMBlockCell`.
        **kwargs: `name`, `dtype`, `trainable` and the rest of `keras.Layer`.
    """

    def __init__(self, num_units: int, reuse: Any = None, **kwargs: Any) -> None:
        kwargs.setdefault("name", "cudnn_compatible_lstm_cell")
        super().__init__(num_units, forget_bias=0.0, reuse=reuse, **kwargs)

    @classmethod
    def _arguments(cls, spec: LSTMSpec) -> dict[str, Any]:
        cls._require(spec, forget_bias=0, cell_clip=None, use_peepholes=False)
        return {"num_units": spec.units}

    def get_config(self) -> dict[str, Any]:
        """Return every argument, serialised: `from_config` makes an equal cell of it."""
        config = super().get_config()
        return {key: config[key] for key in ("name", "trainable", "dtype", "num_units", "reuse")}


def _positive_or_none(cell_clip: Any) -> float | None:
    """Return a limit, None where there is none: the operations take 0 and less for no clipping.

    Raises:
        ValueError: It is not a number.
    """
    limit = 0.0 if cell_clip is None else checked_number("cell_clip", cell_clip)
    return limit if limit > 0 else None
