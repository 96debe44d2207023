"""`CuDNNLSTM` of `tf.compat.v1.keras.layers` and `CudnnLSTM` of `tf.contrib.cudnn_rnn`.

The first is here, the second in `cudnn_stack`. Both run on cuDNN where it can be had and on
TensorFlow's operations elsewhere, with the same weights; what runs on cuDNN is unverified so far
(see `lstm_core.kernels.cudnn`).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import keras
import tensorflow as tf

from lstm_core.errors import WeightsError
from lstm_core.kernels import tensorflow as recurrence
from lstm_core.layers.cudnn_stack import CudnnLSTM
from lstm_core.layers.lstm import LSTM

Tensor: TypeAlias = Any
Shape: TypeAlias = tuple[int | None, ...]

__all__ = ["CuDNNLSTM", "CudnnLSTM"]


ABSENT = (
    "activation", "recurrent_activation", "use_bias", "dropout", "recurrent_dropout",
    "implementation", "unroll", "seed", "zero_output_for_mask",
)  # fmt: skip
"""Arguments of `LSTM` that cuDNN's layer does not have."""


@keras.saving.register_keras_serializable(package="lstm_core")
class CuDNNLSTM(LSTM):
    """Long Short-Term Memory layer with tanh and sigmoid, whose weights lie as cuDNN wants them.

    Weights are those of `tf.compat.v1.keras.layers.CuDNNLSTM`, so files of it need no conversion.
    Each gate's part of `kernel`, `(features, units)`, read row by row is cuDNN's matrix `(units,
    features)`; each gate's part of `recurrent_kernel` is transposed; `bias`, `(8 * units,)`, has
    two halves that are added. As there, no mask is taken.

    Args:
        units: Length of the output and of both states, at least 1.
        kernel_initializer: Of `kernel`, `(features, 4 * units)`.
        recurrent_initializer: Of `recurrent_kernel`, `(units, 4 * units)`.
        bias_initializer: Of `bias`, `(8 * units,)`.
        unit_forget_bias: Start the forget gate's bias at one, in the second half.
        kernel_regularizer: Of `kernel`.
        recurrent_regularizer: Of `recurrent_kernel`.
        bias_regularizer: Of `bias`.
        activity_regularizer: Of the outputs.
        kernel_constraint: Of `kernel`.
        recurrent_constraint: Of `recurrent_kernel`.
        bias_constraint: Of `bias`.
        return_sequences: Return the output of every step, not only the last.
        return_state: Return h and c after the output.
        go_backwards: Process the time steps from the last to the first. Under `time_major` tf_keras
            reverses the batch instead; here it is time in both layouts.
        stateful: Begin each call with the states that the last one ended with.
        **kwargs: `time_major`, `use_cudnn`, and what `keras.Layer` and `DeclaredInputs` take.

    Raises:
        ValueError: `units` is not positive.
        TypeError: An argument is one of `ABSENT`.

    References:
        `tf_keras/src/layers/rnn/cudnn_lstm.py`.
    """

    _num_biases = 2

    def __init__(
        self,
        units: int,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        **kwargs: Any,
    ) -> None:
        if absent := [name for name in ABSENT if name in kwargs]:
            raise TypeError(f"CuDNNLSTM has no argument {', '.join(absent)}: lstm_core.LSTM has")
        super().__init__(
            units,
            kernel_initializer=kernel_initializer,
            recurrent_initializer=recurrent_initializer,
            bias_initializer=bias_initializer,
            unit_forget_bias=unit_forget_bias,
            kernel_regularizer=kernel_regularizer,
            recurrent_regularizer=recurrent_regularizer,
            bias_regularizer=bias_regularizer,
            activity_regularizer=activity_regularizer,
            kernel_constraint=kernel_constraint,
            recurrent_constraint=recurrent_constraint,
            bias_constraint=bias_constraint,
            return_sequences=return_sequences,
            return_state=return_state,
            go_backwards=go_backwards,
            stateful=stateful,
            **kwargs,
        )
        self.supports_masking = False

    def build(self, inputs_shape: Shape, initial_state_shape: Any = None) -> None:
        """Create the weights, and the states of a stateful layer.

        Raises:
            ValueError: As `LSTM.build`.
        """
        super().build(inputs_shape, initial_state_shape)

    # Names and order are those of tf_keras's layer.
    def call(  # type: ignore[override]
        self, inputs: Tensor, mask: Any = None, training: Any = None, initial_state: Any = None
    ) -> Any:
        """Run the recurrence.

        Args:
            inputs: `(batch, time, features)` floating, or time-major.
            mask: None.
            training: Without effect: there is no dropout.
            initial_state: `[h, c]`, each `(batch, units)`; None means the recorded states of a
                stateful layer, else zeros.

        Returns:
            As `LSTM.call`.

        Raises:
            ValueError: There is a mask, or as `LSTM.call`.
        """
        masks = [*tf.nest.flatten(mask), getattr(inputs, "_keras_mask", None)]
        if any(each is not None for each in masks):
            raise ValueError(
                f"Masking is not supported for CuDNN RNNs, but a mask came to layer {self.name}: "
                "lstm_core.LSTM takes one, and the same weights after `lstm_weights`"
            )
        return super().call(inputs, initial_state=initial_state)

    def compute_output_shape(self, inputs_shape: Shape, initial_state_shape: Any = None) -> Any:
        """Return the shapes of the output and, with `return_state`, of h and c."""
        return super().compute_output_shape(inputs_shape, initial_state_shape)

    def get_config(self) -> dict[str, Any]:
        """Return every argument of this layer, serialised."""
        config = super().get_config()
        for name in ABSENT:
            del config[name]
        return config

    def lstm_weights(self) -> list[Any]:
        """Return the weights as `lstm_core.LSTM` has them: what its `set_weights` takes.

        Returns:
            Kernel `(features, 4 * units)`, recurrent kernel `(units, 4 * units)`, bias
            `(4 * units,)`, NumPy.
        """
        weights = self._kernel_weights()
        assert weights.bias is not None
        return [w.numpy() for w in (weights.kernel, weights.recurrent_kernel, weights.bias)]

    def set_lstm_weights(self, weights: Any) -> None:
        """Set the weights from those of an `lstm_core.LSTM`: the inverse of `lstm_weights`.

        Args:
            weights: As `lstm_weights` returns them. Half of the bias goes to either half.

        Raises:
            WeightsError: A shape differs.
        """
        kernel, recurrent_kernel, bias = (tf.convert_to_tensor(w) for w in weights)
        for name, tensor, shape in (
            ("kernel", kernel, self.kernel.shape),
            ("recurrent_kernel", recurrent_kernel, self.recurrent_kernel.shape),
            ("bias", bias, (4 * self.units,)),
        ):
            if tensor.shape != shape:
                raise WeightsError(name, tuple(shape), tuple(tensor.shape))
        self.set_weights(
            [
                _from_matrices(tf.transpose(kernel)).numpy(),
                _transpose_gates(recurrent_kernel).numpy(),
                tf.tile(bias / 2, [2]).numpy(),
            ]
        )

    def _kernel_weights(self) -> recurrence.Weights:
        stored = super()._kernel_weights()
        input_bias, recurrent_bias = tf.split(stored.bias, 2)
        return recurrence.Weights(
            kernel=tf.transpose(_to_matrices(stored.kernel)),
            recurrent_kernel=_transpose_gates(stored.recurrent_kernel),
            bias=input_bias + recurrent_bias,
        )


def _to_matrices(kernel: Tensor) -> Tensor:
    """Return cuDNN's input matrices, `(4 * units, features)`, of a stored kernel."""
    features = kernel.shape[0]
    return tf.concat([tf.reshape(k, (-1, features)) for k in tf.split(kernel, 4, axis=1)], axis=0)


def _from_matrices(matrices: Tensor) -> Tensor:
    """Return the stored kernel, `(features, 4 * units)`, of cuDNN's input matrices."""
    features = matrices.shape[1]
    return tf.concat([tf.reshape(m, (features, -1)) for m in tf.split(matrices, 4, axis=0)], axis=1)


def _transpose_gates(recurrent_kernel: Tensor) -> Tensor:
    """Transpose each gate's `(units, units)`: its own inverse."""
    gates = tf.split(recurrent_kernel, 4, axis=1)
    return tf.concat([tf.transpose(gate) for gate in gates], axis=1)
