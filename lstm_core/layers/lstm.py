"""`LSTM`, the layer of `tf.keras.layers.LSTM` (TensorFlow 2), for Keras 3 on TensorFlow.

Owns the arguments, the weights and the state between calls. The recurrence itself is a kernel's;
`explain_dispatch` says which one.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import keras
import tensorflow as tf

from lstm_core.dispatch import checked_use_cudnn, cudnn_obstacles, require_cudnn_configuration
from lstm_core.errors import SpecError
from lstm_core.kernels import tensorflow as recurrence
from lstm_core.layers.arguments import (
    activation_name,
    checked_implementation,
    checked_mask,
    checked_sequences,
    require_tensorflow_backend,
)
from lstm_core.layers.declared import DeclaredInputs
from lstm_core.layers.dropout import DropoutMaskCache
from lstm_core.layers.output_shapes import OutputShapes
from lstm_core.layers.quantities import checked_rate, checked_size
from lstm_core.layers.selection import KernelSelection, find_hardware
from lstm_core.layers.states import StatefulLayer
from lstm_core.layers.weights import GateWeights
from lstm_core.spec import LSTMSpec

require_tensorflow_backend()

Tensor: TypeAlias = Any
Shape: TypeAlias = tuple[int | None, ...]


@keras.saving.register_keras_serializable(package="lstm_core")
class LSTM(
    GateWeights,
    DropoutMaskCache,
    StatefulLayer,
    DeclaredInputs,
    KernelSelection,
    OutputShapes,
    keras.Layer,
):
    """Long Short-Term Memory layer.

    A masked time step keeps the state and repeats the last output (zeros before the first live
    step). The mask is data: each call looks at it anew. Products run in the compute dtype, the
    state is carried in the variables' dtype, so that mixed precision keeps a float32 cell state.

    Args:
        units: Length of the output and of both states, at least 1.
        activation: Of the cell candidate and of the output; None means linear.
        recurrent_activation: Of the three gates; None means linear.
        use_bias: Whether there is a bias.
        kernel_initializer: Of `kernel`, `(features, 4 * units)`.
        recurrent_initializer: Of `recurrent_kernel`, `(units, 4 * units)`.
        bias_initializer: Of `bias`, `(4 * units,)`.
        unit_forget_bias: Start the forget gate's bias at one. The other three parts keep
            `bias_initializer`, in every release, whatever its documentation says.
        kernel_regularizer: Of `kernel`.
        recurrent_regularizer: Of `recurrent_kernel`.
        bias_regularizer: Of `bias`.
        activity_regularizer: Of the outputs.
        kernel_constraint: Of `kernel`.
        recurrent_constraint: Of `recurrent_kernel`.
        bias_constraint: Of `bias`.
        dropout: Fraction of the inputs to drop in training, 0 to 1, the same ones at every step.
        recurrent_dropout: Fraction of the hidden state to drop in training, 0 to 1. Above 0 it
            makes `implementation` 1, as in every release.
        implementation: 1 multiplies gate by gate, with a dropout mask for each; 2 at once, with
            one mask. 0 means 1, as in every release from 1.5 on.
        return_sequences: Return the output of every step, not only the last.
        return_state: Return h and c after the output.
        go_backwards: Process the time steps from the last to the first; outputs keep that order.
        stateful: Begin each call with the states that the last one ended with. The batch size is
            then part of the built layer.
        time_major: Inputs, outputs and mask are `(time, batch, ...)`.
        unroll: Lay the steps out in the graph; needs a known number of them. TensorFlow Lite, which
            knows no fused operations, converts such a layer.
        seed: Of the dropout masks; None draws one.
        zero_output_for_mask: Give zeros for masked steps instead of the last output.
        use_cudnn: `auto` runs on cuDNN where it can, `always` (True) there or not at all, `never`
            (False) elsewhere; kept as `auto`, True or False, as in Keras 3. A SavedModel exported
            where there is a GPU needs one to run, unless it is `never`.
        **kwargs: `name`, `dtype`, `trainable` and the rest of `keras.Layer`; and those of older
            releases: `batch_input_shape`, `input_shape`, `input_dim`, `input_length`, `batch_size`
            and `weights` (see `DeclaredInputs`).

    Raises:
        ValueError: `units` is not a positive integer, `implementation` is not 0 to 2, a dropout is
            not a number, or `use_cudnn` is True beside an option that cuDNN does not have.

    References:
        Hochreiter and Schmidhuber 1997; the documentation of `tf.keras.layers.LSTM`.
    """

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
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
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        implementation: int = 2,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        time_major: bool = False,
        unroll: bool = False,
        *,
        seed: int | None = None,
        zero_output_for_mask: bool = False,
        use_cudnn: Any = "auto",
        **kwargs: Any,
    ) -> None:
        self._take_declared_inputs(kwargs)
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self._declare_to_keras()
        self.units = checked_size("units", units)
        self.activation = keras.activations.get(activation)
        self.recurrent_activation = keras.activations.get(recurrent_activation)
        self.use_bias = use_bias
        self.unit_forget_bias = unit_forget_bias
        for part, initializer, regularizer, constraint in (
            ("kernel", kernel_initializer, kernel_regularizer, kernel_constraint),
            ("recurrent", recurrent_initializer, recurrent_regularizer, recurrent_constraint),
            ("bias", bias_initializer, bias_regularizer, bias_constraint),
        ):
            self._keep_weight_arguments(part, initializer, regularizer, constraint)
        self.dropout = checked_rate("dropout", dropout)
        self.recurrent_dropout = checked_rate("recurrent_dropout", recurrent_dropout)
        self.implementation = checked_implementation(implementation, self.recurrent_dropout)
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.go_backwards = go_backwards
        self.stateful = stateful
        self.time_major = time_major
        self.unroll = unroll
        self.seed = seed
        self.zero_output_for_mask = zero_output_for_mask
        self.use_cudnn = checked_use_cudnn(use_cudnn)
        require_cudnn_configuration(self._layer_options(), self.name)
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.supports_masking = True
        # Keras turns XLA on by itself in `compile`, and XLA does not take cuDNN's operation.
        can_use_cudnn = self.use_cudnn and not cudnn_obstacles(self._layer_options())
        self.supports_jit = not (can_use_cudnn and find_hardware().num_gpus)
        self.input_spec = keras.layers.InputSpec(ndim=3)

    def build(self, sequences_shape: Shape, initial_state_shape: Any = None) -> None:
        """Create the weights, and the states of a stateful layer.

        Raises:
            ValueError: The number of features is unknown, or the layer is stateful and the batch
                size is, or is 0.
        """
        features = sequences_shape[-1]
        if features is None:
            raise ValueError(
                f"Layer {self.name} needs to know the number of features, the last dimension of "
                f"its input, but the shape of the input is {tuple(sequences_shape)}"
            )
        if self.stateful:
            at = 1 if self.time_major else 0
            declared = self.batch_input_shape or sequences_shape
            self._create_states(sequences_shape[at] or declared[at])
        self._create_weights(features)
        self._set_initial_weights()
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: features})

    def call(
        self,
        sequences: Tensor,
        initial_state: Any = None,
        mask: Any = None,
        training: Any = False,
    ) -> Tensor | tuple[Tensor, Tensor, Tensor]:
        """Run the recurrence.

        Args:
            sequences: `(batch, time, features)` floating, or time-major; time and batch may be 0.
            initial_state: `[h, c]`, each `(batch, units)`; None means the recorded states of a
                stateful layer, else zeros.
            mask: `(batch, time)` bool, or time-major, true where a step is live; None means the
                mask that the inputs carry, if any.
            training: Whether dropout applies.

        Returns:
            `(batch, units)`, or with `return_sequences` `(batch, time, units)` or time-major; with
            `return_state` a tuple of that, h and c, each `(batch, units)`. In the compute dtype.

        Raises:
            ValueError: The inputs are ragged or no real numbers, `initial_state` or `mask` does not
                fit, the batch of a stateful layer has another size than the states, `unroll` meets
                an unknown number of steps, or `use_cudnn` is True where cuDNN cannot run. What only
                the data tell raises `tf.errors.InvalidArgumentError` when a graph runs.
        """
        if mask is None:
            # Keras fills this argument in only where no other tensor came with the inputs.
            mask = getattr(sequences, "_keras_mask", None)
        sequences = checked_sequences(sequences, self.compute_dtype, self.name)
        mask = checked_mask(mask, sequences, self.name)
        if not self.time_major:
            sequences = tf.transpose(sequences, (1, 0, 2))
            mask = None if mask is None else tf.transpose(mask)
        sequences = self._with_stateful_batch(sequences)
        h, c = self._first_states(sequences, initial_state)
        result = self._run_kernel(
            self._kernel_weights(),
            self._kernel_options(),
            sequences,
            h=h,
            c=c,
            mask=mask,
            dropout=recurrence.DropoutMasks(
                inputs=self._draw_input_masks(sequences, training),
                recurrent=self._draw_recurrent_masks(h, training),
            ),
        )
        self._record_states(result.h, result.c)
        output = result.outputs if self.return_sequences else result.last_output
        if self.return_sequences and not self.time_major:
            output = tf.transpose(output, (1, 0, 2))
        output = tf.cast(output, self.compute_dtype)
        if not self.return_state:
            return output
        return output, tf.cast(result.h, self.compute_dtype), tf.cast(result.c, self.compute_dtype)

    @property
    def spec(self) -> LSTMSpec:
        """The configuration as inference sees it.

        Raises:
            SpecError: The layer is not built, or an activation is not in `spec.ACTIVATIONS`.
        """
        if not self.built:
            raise SpecError("input_size", f"layer {self.name} is not built, so it is not known yet")
        return LSTMSpec(
            input_size=int(self.kernel.shape[0]),
            units=self.units,
            activation=activation_name(self.activation, "activation"),
            recurrent_activation=activation_name(self.recurrent_activation, "recurrent_activation"),
            use_bias=self.use_bias,
        )

    def get_config(self) -> dict[str, Any]:
        """Return every argument, serialised: `from_config` makes an equal layer of it."""
        return {
            **super().get_config(),
            **self._weight_config(),
            **self._declared_config(),
            "units": self.units,
            "activation": keras.activations.serialize(self.activation),
            "recurrent_activation": keras.activations.serialize(self.recurrent_activation),
            "use_bias": self.use_bias,
            "unit_forget_bias": self.unit_forget_bias,
            "activity_regularizer": keras.regularizers.serialize(self.activity_regularizer),
            "dropout": self.dropout,
            "recurrent_dropout": self.recurrent_dropout,
            "implementation": self.implementation,
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
            "stateful": self.stateful,
            "time_major": self.time_major,
            "unroll": self.unroll,
            "seed": self.seed,
            "zero_output_for_mask": self.zero_output_for_mask,
            "use_cudnn": self.use_cudnn,
        }

    def _kernel_weights(self) -> recurrence.Weights:
        """Return the weights in the compute dtype."""
        return recurrence.Weights(
            kernel=tf.cast(self.kernel.value, self.compute_dtype),
            recurrent_kernel=tf.cast(self.recurrent_kernel.value, self.compute_dtype),
            bias=None if self.bias is None else tf.cast(self.bias.value, self.compute_dtype),
        )

    def _kernel_options(self) -> recurrence.Options:
        return recurrence.Options(
            activation=self.activation,
            recurrent_activation=self.recurrent_activation,
            split_gates=self.implementation == 1,
            go_backwards=self.go_backwards,
            zero_output_for_mask=self.zero_output_for_mask,
            return_sequences=self.return_sequences,
            unroll=self.unroll,
        )
