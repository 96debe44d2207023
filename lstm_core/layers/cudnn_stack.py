"""`CudnnLSTM` of `tf.contrib.cudnn_rnn`: a stack of layers over one parameter buffer of cuDNN.

Owns the arguments and the call; the weights are `cudnn_stack_weights`'. Runs on cuDNN where it can
be had, unverified so far, and layer by layer on TensorFlow's operations elsewhere.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import keras
import tensorflow as tf

from lstm_core.dispatch import Dispatch, LayerOptions, dispatch_layer
from lstm_core.kernels import cudnn_stack as stack_kernel
from lstm_core.kernels.cudnn_layout import Stack
from lstm_core.layers.arguments import checked_sequences
from lstm_core.layers.cudnn_stack_states import first_states
from lstm_core.layers.cudnn_stack_weights import StackWeights
from lstm_core.layers.initializers_v1 import get_initializer_v1, serialize_initializer_v1
from lstm_core.layers.quantities import checked_rate, checked_size
from lstm_core.layers.selection import find_hardware
from lstm_core.layers.sequence_lengths import check_not_ragged, checked_lengths

Tensor: TypeAlias = Any

INPUT_MODES = ("linear_input", "skip_input", "auto_select")
DIRECTIONS = ("unidirectional", "bidirectional")
DTYPES = ("float16", "float32", "float64")


@keras.saving.register_keras_serializable(package="lstm_core")
class CudnnLSTM(StackWeights, keras.Layer):
    """A stack of LSTM layers with tanh and sigmoid, in one direction or both.

    The one variable, `opaque_kernel`, is laid out as `lstm_core.kernels.cudnn_layout` tells. The
    state is `(h, c)`, each `(num_layers * num_dirs, batch, num_units)`.

    Args:
        num_layers: Layers on top of each other, at least 1.
        num_units: Length of h and of c, at least 1.
        input_mode: `linear_input` multiplies the inputs with a matrix; `skip_input` adds them to
            the first layer's gates as they are, which needs `num_units` features; `auto_select`
            skips where it can.
        direction: `unidirectional` or `bidirectional`.
        dropout: Fraction to drop in training of the outputs of each layer except the last, 0 to 1.
            cuDNN and TensorFlow's operations draw different masks from one seed.
        seed: Of the dropout and of the default initializer.
        dtype: float16, float32 or float64, of the weights and of all else.
        kernel_initializer: Of each matrix; None means Glorot-uniform.
        bias_initializer: Of each bias; None means zeros.
        name: Of the layer.
        **kwargs: The rest of `keras.Layer`.

    Raises:
        ValueError: `direction`, `input_mode` or `dtype` is none of these, a size is not a positive
            integer, or `dropout` is no number.

    References:
        `tensorflow/contrib/cudnn_rnn/python/layers/cudnn_rnn.py` of TensorFlow 1.15.
    """

    rnn_mode = "lstm"

    def __init__(
        self,
        num_layers: int,
        num_units: int,
        input_mode: str = "linear_input",
        direction: str = "unidirectional",
        dropout: float = 0.0,
        seed: int | None = None,
        dtype: Any = "float32",
        kernel_initializer: Any = None,
        bias_initializer: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        dtype_name = dtype if isinstance(dtype, keras.DTypePolicy) else tf.as_dtype(dtype).name
        super().__init__(dtype=dtype_name, name=name, **kwargs)
        for field, value, known in (
            ("direction", direction, DIRECTIONS),
            ("input_mode", input_mode, INPUT_MODES),
        ):
            if value not in known:
                raise ValueError(f"Invalid {field}: {value!r}, expecting one of {', '.join(known)}")
        if self.compute_dtype not in DTYPES or self.variable_dtype != self.compute_dtype:
            raise ValueError(f"Only support float16, float32, float64, provided {dtype}")
        self.num_layers = checked_size("num_layers", num_layers)
        self.num_units = checked_size("num_units", num_units)
        self.input_mode = input_mode
        self.direction = direction
        self.dropout = checked_rate("dropout", dropout)
        self.seed = seed
        self.kernel_initializer = get_initializer_v1(
            kernel_initializer or keras.initializers.GlorotUniform(seed)
        )
        self.bias_initializer = get_initializer_v1(bias_initializer or "zeros")
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.input_spec = keras.layers.InputSpec(ndim=3)
        # Keras turns XLA on by itself in `compile`, and XLA does not take cuDNN's operation.
        self.supports_jit = find_hardware().num_gpus == 0

    def state_shape(self, batch_size: int) -> tuple[list[int], list[int]]:
        """Return the shapes of h and c, time-major."""
        shape = [self.num_layers * self.num_dirs, batch_size, self.num_units]
        return shape, list(shape)

    def build(self, inputs_shape: Any) -> None:
        """Create `opaque_kernel`.

        Raises:
            ValueError: Not three dimensions, an unknown number of features, or one that
                `skip_input` does not take.
        """
        if len(inputs_shape) != 3:
            raise ValueError(f"Expecting input_shape with 3 dims, got {len(inputs_shape)}")
        features = inputs_shape[-1]
        if features is None:
            raise ValueError(
                "The last dimension of the inputs to `CudnnRNN` should be defined. Found `None`."
            )
        if self.input_mode == "skip_input" and features != self.num_units:
            raise ValueError(
                f"skip_input needs as many features as num_units, {self.num_units}, not {features}"
            )
        is_skipped = self.input_mode != "linear_input" and features == self.num_units
        stack = self._stack = Stack(
            input_size=features,
            units=self.num_units,
            num_layers=self.num_layers,
            num_directions=self.num_dirs,
            has_input_matrix=not is_skipped,
        )
        self.input_spec = keras.layers.InputSpec(ndim=3, axes={-1: features})
        self.opaque_kernel = self.add_weight(
            shape=(stack.num_params,), name="opaque_kernel", initializer=self._initial_params
        )

    def call(
        self,
        inputs: Tensor,
        initial_state: Any = None,
        sequence_lengths: Any = None,
        time_major: bool = True,
        training: Any = True,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run every layer.

        Args:
            inputs: `(time, batch, features)`, or batch-major.
            initial_state: `(h, c)`, each `(num_layers * num_dirs, batch, num_units)`, or
                batch-major `(batch, num_layers * num_dirs, num_units)`; None means zeros. A list is
                taken too, where contrib refuses it: files of models turn tuples into lists.
            sequence_lengths: `(batch,)` integers from 0 to time; None means time. Outputs past a
                row's length are zeros, its states are those after its last step.
            time_major: Of inputs, outputs and states alike.
            training: Whether dropout applies.

        Returns:
            The outputs, `(time, batch, num_dirs * num_units)` or batch-major, forward before
            backward; and h and c, shaped as `initial_state`.

        Raises:
            TypeError: `initial_state` is neither tuple nor list.
            ValueError: The inputs are ragged or carry a mask; the states are not two, have another
                shape or hold no real numbers; or the lengths have another shape, hold no integers
                or one that is out of range. What a graph knows only when it runs raises
                `tf.errors.InvalidArgumentError` then; but XLA drops the check of the range.
        """
        self._check_kind(inputs)
        inputs = checked_sequences(inputs, self.compute_dtype, self.name)
        if not time_major:
            inputs = tf.transpose(inputs, (1, 0, 2))
        inputs = tf.ensure_shape(inputs, (None, None, self.stack.input_size))
        h, c = first_states(
            initial_state,
            inputs,
            (self.num_layers * self.num_dirs, self.num_units),
            time_major=time_major,
            layer_name=self.name,
        )
        lengths = None
        if sequence_lengths is not None:
            subject = f"sequence_lengths of layer {self.name}"
            lengths = checked_lengths(sequence_lengths, inputs, subject)
        outputs, h, c = self._run(inputs, h, c, lengths, training)
        outputs.set_shape((*inputs.shape[:2], self.num_dirs * self.num_units))
        if not time_major:
            outputs, h, c = (tf.transpose(x, (1, 0, 2)) for x in (outputs, h, c))
        return outputs, (h, c)

    def explain_dispatch(self) -> Dispatch:
        """Return the kernel that a call made here and now would run on, its device, and why."""
        obstacles = []
        if self._stack is not None and not self._stack.has_input_matrix:
            obstacles.append("skip_input is on, and the layout of its buffer is not documented")
        return dispatch_layer(
            LayerOptions(), find_hardware(), layer_name=self.name, obstacles=obstacles
        )

    def get_config(self) -> dict[str, Any]:
        """Return every argument, serialised."""
        return {
            **super().get_config(),
            "num_layers": self.num_layers,
            "num_units": self.num_units,
            "input_mode": self.input_mode,
            "direction": self.direction,
            "dropout": self.dropout,
            "seed": self.seed,
            "kernel_initializer": serialize_initializer_v1(self.kernel_initializer),
            "bias_initializer": serialize_initializer_v1(self.bias_initializer),
        }

    def _check_kind(self, inputs: Any) -> None:
        """Refuse inputs that would run as if all their steps were live.

        Raises:
            ValueError: They are ragged, or carry a mask.
        """
        check_not_ragged(inputs, f"layer {self.name}", "sequence_lengths")
        if getattr(inputs, "_keras_mask", None) is not None:
            raise ValueError(
                f"layer {self.name} takes no mask, but its inputs carry one: give the number of "
                "live steps of each row as `sequence_lengths`"
            )

    def _run(
        self, inputs: Tensor, h: Tensor, c: Tensor, lengths: Tensor | None, training: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        params = tf.cast(self.opaque_kernel.value, self.compute_dtype)

        def drop(inputs: Tensor) -> Tensor:
            dropped = keras.random.dropout(inputs, self.dropout, seed=self.seed_generator)
            return tf.where(tf.cast(training, tf.bool), dropped, inputs)

        def on_tensorflow() -> tuple[Tensor, Tensor, Tensor]:
            drops = self.dropout and (tf.is_tensor(training) or training)
            return stack_kernel.sequence_tensorflow(
                self.stack, params, inputs, h, c, lengths, drop if drops else None
            )

        def on_cudnn() -> tuple[Tensor, Tensor, Tensor]:
            dropout = self.dropout if training else 0.0
            return stack_kernel.sequence_cudnn(
                self.stack, params, inputs, h, c, lengths, dropout=dropout, seed=self.seed or 0
            )

        # The operation has no tensor to switch its dropout with.
        is_random = self.dropout and tf.is_tensor(training)
        if self.explain_dispatch().kernel != "cudnn" or is_random or 0 in inputs.shape[:2]:
            return on_tensorflow()
        has_steps = tf.reduce_all(tf.shape(inputs)[:2] > 0)
        if lengths is not None:
            has_steps = tf.logical_and(has_steps, tf.reduce_all(lengths > 0))
        return tuple(tf.cond(has_steps, on_cudnn, on_tensorflow))
