"""`LSTMCell` of `tf.compat.v1.nn.rnn_cell`, which TensorFlow no longer has with Keras 3.

Owns the arguments and the call. Variables and their scopes are `variable_scopes`', the state's
sizes `rnn_cell_state`'s, configuration and copies `rnn_cell_config`'s, the way to and from `spec`
and `weights` `rnn_cell_core`'s; the arithmetic is a kernel's.

The cell is a `keras.Layer`, because `keras.layers.RNN` trains and saves no other kind of cell; but
a call does not pass through Keras's own, which would cast inputs and states in silence and knows no
variable scope. So one object serves plain loops, `keras.layers.RNN` (whose states are then `[c, h]`
in this order), functional models, `tf.function`, and graphs of TensorFlow 1 with
`tf.compat.v1.nn.dynamic_rnn` and its kind, which TensorFlow 2.21 still has.
"""

from __future__ import annotations

import warnings
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from lstm_core.kernels import tensorflow_cell
from lstm_core.layers.activations_v1 import get_v1
from lstm_core.layers.arguments import is_symbolic, require_tensorflow_backend
from lstm_core.layers.initializers_v1 import get_initializer_v1
from lstm_core.layers.quantities import checked_clip, checked_number, checked_size
from lstm_core.layers.rnn_cell_arguments import (
    LSTMStateTuple,
    check_floating,
    checked_dtype,
    checked_inputs,
    checked_reuse,
    checked_state,
)
from lstm_core.layers.rnn_cell_config import CellConfig
from lstm_core.layers.rnn_cell_core import CoreCell
from lstm_core.layers.rnn_cell_state import CellState

require_tensorflow_backend()

__all__ = ["LSTMCell", "LSTMStateTuple"]

Tensor: TypeAlias = Any


@keras.saving.register_keras_serializable(package="lstm_core")
class LSTMCell(CellConfig, CoreCell, CellState, keras.Layer):
    """One time step of an LSTM with peepholes, clipping and projection, each if asked for.

    The state is `LSTMStateTuple(c, h)`; h is the output, projected where there is a projection.
    Weights are `kernel`, `bias`, `w_f_diag`, `w_i_diag`, `w_o_diag` and `projection_kernel`, gates
    in the order input, candidate, forget, output, under the names of TensorFlow 1's checkpoints
    (`lstm_cell/kernel`, ..., `lstm_cell/projection/kernel`).

    Args:
        num_units: Length of c, at least 1.
        use_peepholes: Whether the gates see the cell state.
        cell_clip: The new c is clipped to this absolute value, before anything sees it.
        initializer: Of every weight but the bias, which begins with zeros; None means the variable
            scope's, or else Glorot-uniform.
        num_proj: Length of h where it is a projection; None: no projection, and h is as long as c.
        proj_clip: The projection is clipped to this absolute value; without `num_proj` it does
            nothing, as documented, and brings a warning.
        num_unit_shards: Deprecated. Parts that a graph splits the kernel's variable into; no more
            than a warning in eager code.
        num_proj_shards: Deprecated. The same for the projection.
        forget_bias: Added to the forget gate's input at run time; no part of `bias`.
        state_is_tuple: False takes and gives the state as one tensor, c and h side by side.
        activation: A function, or the name of one of Keras 2's; None means tanh.
        reuse: Whether to share the variables that the scope already has: True insists on that,
            None takes the scope's word, `tf.compat.v1.AUTO_REUSE` makes what is not there. Scopes
            go by the same rules in eager code (see `variable_scopes`).
        name: Of the cell, and of its scope if the first call gives none.
        dtype: Of weights and computation, or a Keras dtype policy; None means that of the first
            input, or Keras's global policy where `build` comes first, as under
            `keras.layers.RNN`.
        **kwargs: `trainable` and the rest of `keras.Layer`.

    Raises:
        ValueError: A size or a clip is not positive, `forget_bias` is no number, `reuse` is none
            of its values, the activation or initializer is not known, or the dtype is not floating.

    References:
        Hochreiter and Schmidhuber 1997; Gers et al. 1999; peepholes, clipping and projection of
        Sak et al. 2014; the documentation of `tf.compat.v1.nn.rnn_cell.LSTMCell`.
    """

    def __init__(
        self,
        num_units: int,
        use_peepholes: bool = False,
        cell_clip: float | None = None,
        initializer: Any = None,
        num_proj: int | None = None,
        proj_clip: float | None = None,
        num_unit_shards: int | None = None,
        num_proj_shards: int | None = None,
        forget_bias: float = 1.0,
        state_is_tuple: bool = True,
        activation: Any = None,
        reuse: Any = None,
        name: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> None:
        policy = None if dtype is None else checked_dtype(dtype)
        super().__init__(name=name, dtype=policy, **{"autocast": False, **kwargs})
        self._is_dtype_known = dtype is not None
        self._base_name = name or "lstm_cell"
        self._reuse = checked_reuse(reuse)
        self.num_units = checked_size("num_units", num_units)
        self.num_proj = None if num_proj is None else checked_size("num_proj", num_proj)
        self.use_peepholes = use_peepholes
        self.cell_clip = checked_clip("cell_clip", cell_clip)
        self.proj_clip = checked_clip("proj_clip", proj_clip)
        self.initializer = get_initializer_v1(initializer)
        self.num_unit_shards = num_unit_shards
        self.num_proj_shards = num_proj_shards
        self.forget_bias = checked_number("forget_bias", forget_bias)
        self.state_is_tuple = state_is_tuple
        self.activation = get_v1(activation) if activation else tf.tanh
        self._warn_of_arguments()

    def _warn_of_arguments(self) -> None:
        if self.proj_clip is not None and self.num_proj is None:
            warnings.warn(
                f"{self.name}: proj_clip={self.proj_clip} clips a projection, but num_proj is "
                "None, so there is none, and nothing is clipped. Give num_proj, or cell_clip to "
                "clip the cell state.",
                UserWarning,
                stacklevel=3,
            )
        if not self.state_is_tuple:
            warnings.warn(
                f"{self.name}: Using a concatenated state is slower and will soon be deprecated. "
                "Use state_is_tuple=True.",
                DeprecationWarning,
                stacklevel=3,
            )
        if self.num_unit_shards is not None or self.num_proj_shards is not None:
            warnings.warn(
                f"{self.name}: The num_unit_shards and num_proj_shards parameters are deprecated, "
                "and mean nothing outside a graph. Use a variable scope with a partitioner "
                "instead.",
                DeprecationWarning,
                stacklevel=3,
            )

    def build(self, inputs_shape: Any) -> None:
        """Create the weights, or share those of the scope.

        Args:
            inputs_shape: `(batch, features)`, the batch size known or not.

        Raises:
            ValueError: The number of features is unknown, or see `ScopedVariables`.
        """
        shape = tuple(tf.TensorShape(inputs_shape).as_list())
        features = shape[-1]
        if features is None:
            raise ValueError(f"Expected inputs.shape[-1] to be known, saw shape: {shape}")
        self._is_dtype_known = True
        units, outputs = self.num_units, self.output_size
        shapes: dict[str, tuple[int, ...]] = {
            "kernel": (features + outputs, 4 * units),
            "bias": (4 * units,),
        }
        if self.use_peepholes:
            shapes |= dict.fromkeys(("w_f_diag", "w_i_diag", "w_o_diag"), (units,))
        if self.num_proj is not None:
            shapes["projection/kernel"] = (units, outputs)
        initializers = dict.fromkeys(shapes, self.initializer)
        initializers["bias"] = keras.initializers.Zeros()
        shards = {"kernel": self.num_unit_shards, "projection/kernel": self.num_proj_shards}
        made = self._create_variables(shapes, initializers, shards)
        of = dict(zip(shapes, made, strict=True))
        self.kernel, self.bias = of["kernel"], of["bias"]
        for gate in "fio":
            setattr(self, f"w_{gate}_diag", of.get(f"w_{gate}_diag"))
        self.projection_kernel = of.get("projection/kernel")

    def __call__(
        self, inputs: Any, state: Any, scope: Any = None, training: Any = None
    ) -> tuple[Tensor, Any]:
        """Take one time step, building the cell first where it is not built.

        Args:
            inputs: `(batch, features)` floating.
            state: `LSTMStateTuple(c, h)` or another pair, `(batch, units)` and
                `(batch, output_size)`; or both side by side without `state_is_tuple`.
            scope: The variable scope, or its name, of a cell that has none yet.
            training: Without effect; Keras hands it to every layer of a functional model.

        Returns:
            The output `(batch, output_size)`, and the state after the step in the structure of
            `state`.

        Raises:
            ValueError: Anything has another shape, structure or dtype than the cell; or the cell
                was built in another graph.
        """
        self._check_graph()
        if not self._is_dtype_known:
            inputs = inputs if hasattr(inputs, "dtype") else tf.convert_to_tensor(inputs)
            self._settle_dtype(inputs.dtype)
        self._find_scope(scope)
        if is_symbolic((inputs, state)) or self.activity_regularizer is not None:
            return super().__call__(inputs, state)
        if not self.built:
            inputs = tf.convert_to_tensor(inputs)
            check_floating(inputs.dtype, f"inputs of cell {self.name}")
            self.build(inputs.shape)
        return self.call(inputs, state)

    def call(self, inputs: Any, state: Any) -> tuple[Tensor, Any]:
        """Take one time step of a built cell, as `__call__`."""
        features = int(self.kernel.shape[0]) - self.output_size
        x = checked_inputs(inputs, features, self.name)
        c, h = checked_state(
            state,
            self._state_sizes,
            x.shape.as_list()[0],
            is_tuple=self.state_is_tuple,
            cell_name=self.name,
        )
        self._check_dtypes(x, c)
        c_next, h_next = tensorflow_cell.step(
            self._kernel_weights(),
            tensorflow_cell.CellOptions(
                activation=self.activation,
                forget_bias=self.forget_bias,
                cell_clip=self.cell_clip,
                projection_clip=self.proj_clip,
            ),
            tf.cast(x, self.compute_dtype),
            c=c,
            h=h,
        )
        if c_next.shape != c.shape:
            c_next = tf.ensure_shape(c_next, c.shape)
        output = tf.cast(h_next, self.compute_dtype)
        if self.state_is_tuple:
            return output, LSTMStateTuple(c_next, h_next)
        return output, tf.concat([c_next, h_next], axis=1)

    def _settle_dtype(self, dtype: Any) -> None:
        """Compute in the dtype of the first input from here on.

        Raises:
            ValueError: It is not real floating.
        """
        self.dtype_policy = checked_dtype(keras.backend.standardize_dtype(dtype))
        self._is_dtype_known = True

    def _check_dtypes(self, x: Tensor, c: Tensor) -> None:
        """Refuse what would be cast in silence; a mixed policy says that casting is meant.

        Raises:
            ValueError: Inputs or state have another dtype than the cell.
        """
        for what, dtype in (("inputs", x.dtype.name), ("state", c.dtype.name)):
            if self.compute_dtype == self.variable_dtype != dtype:
                raise ValueError(
                    f"{what} of cell {self.name} must be {self.variable_dtype}, the dtype that it "
                    f"was made with or first saw, but they are {dtype}: cast them, or make the "
                    f"cell with dtype={dtype!r}"
                )

    def _kernel_weights(self) -> tensorflow_cell.CellWeights:
        peepholes = None
        if self.use_peepholes:
            forget, inputs, output = self.w_f_diag, self.w_i_diag, self.w_o_diag
            peepholes = (
                tf.convert_to_tensor(forget),
                tf.convert_to_tensor(inputs),
                tf.convert_to_tensor(output),
            )
        return tensorflow_cell.CellWeights(
            kernel=tf.convert_to_tensor(self.kernel),
            bias=tf.convert_to_tensor(self.bias),
            peepholes=peepholes,
            projection=None
            if self.projection_kernel is None
            else tf.convert_to_tensor(self.projection_kernel),
        )
