"""`CudnnLSTM` of `tf.contrib.cudnn_rnn`: a stack of layers over one parameter buffer of cuDNN.

Owns the buffer and the states between the layers. Runs on cuDNN where it can be had, unverified so
far, and layer by layer on TensorFlow's operations elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lstm_core.dispatch import Dispatch, LayerOptions, dispatch_layer
from lstm_core.kernels import cudnn_layout
from lstm_core.kernels import cudnn_stack as stack_kernel
from lstm_core.kernels.cudnn_layout import Stack
from lstm_core.layers.selection import find_hardware
from lstm_core.weights import LSTMWeights

Tensor: TypeAlias = Any
Array: TypeAlias = npt.NDArray[Any]

INPUT_MODES = ("linear_input", "skip_input", "auto_select")
DIRECTIONS = ("unidirectional", "bidirectional")
DTYPES = ("float16", "float32", "float64")


@keras.saving.register_keras_serializable(package="lstm_core")
class CudnnLSTM(keras.Layer):
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
        dropout: Fraction of each layer's outputs to drop in training, 0 to 1, but the last one's.
            cuDNN and TensorFlow's operations draw different masks from one seed.
        seed: Of the dropout and of the default initializer.
        dtype: float16, float32 or float64, of the weights and of all else.
        kernel_initializer: Of each matrix; None means Glorot-uniform.
        bias_initializer: Of each bias; None means zeros.
        name: Of the layer.
        **kwargs: The rest of `keras.Layer`.

    Raises:
        ValueError: `direction`, `input_mode` or `dtype` is none of these, or a number too small.

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
        if num_layers < 1 or num_units < 1:
            raise ValueError(
                f"num_layers and num_units must be at least 1, not {num_layers} and {num_units}"
            )
        self.num_layers = num_layers
        self.num_units = num_units
        self.input_mode = input_mode
        self.direction = direction
        self.dropout = dropout
        self.seed = seed
        self.kernel_initializer = keras.initializers.get(
            kernel_initializer or keras.initializers.GlorotUniform(seed)
        )
        self.bias_initializer = keras.initializers.get(bias_initializer or "zeros")
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.input_spec = keras.layers.InputSpec(ndim=3)
        # Keras turns XLA on by itself in `compile`, and XLA does not take cuDNN's operation.
        self.supports_jit = find_hardware().num_gpus == 0
        self._stack: Stack | None = None

    @property
    def num_dirs(self) -> int:
        """1 or 2."""
        return 1 + DIRECTIONS.index(self.direction)

    @property
    def input_size(self) -> int:
        """The number of features.

        Raises:
            ValueError: The layer is not built.
        """
        if self._stack is None:
            raise ValueError("'input_size' is unknown since layer has not been built.")
        return self._stack.input_size

    @property
    def stack(self) -> Stack:
        """The sizes, and with them the layout of `opaque_kernel`.

        Raises:
            RuntimeError: The layer is not built.
        """
        if self._stack is None:
            raise RuntimeError(f"layer {self.name} was asked before its input shape is known")
        return self._stack

    @property
    def canonical_weight_shapes(self) -> list[tuple[int, int]]:
        """Shapes of the matrices, four input and four recurrent ones each layer and direction.

        With `skip_input` the first layer has no input matrices.

        Raises:
            RuntimeError: The layer is not built.
        """
        return self.stack.matrix_shapes

    @property
    def canonical_bias_shapes(self) -> list[list[int]]:
        """Shapes of the biases, eight each layer and direction."""
        return [[self.num_units]] * 8 * self.num_layers * self.num_dirs

    def state_shape(self, batch_size: int) -> tuple[list[int], list[int]]:
        """Return the shapes of h and c, time-major."""
        shape = [self.num_layers * self.num_dirs, batch_size, self.num_units]
        return shape, list(shape)

    def build(self, inputs_shape: Any, **_: Any) -> None:
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
            initial_state: A tuple of h and c, each `(num_layers * num_dirs, batch, num_units)`, or
                batch-major `(batch, num_layers * num_dirs, num_units)`; None means zeros.
            sequence_lengths: `(batch,)` integers from 0 to time; None means time. Outputs past a
                row's length are zeros, its states are those after its last step.
            time_major: Of inputs, outputs and states alike.
            training: Whether dropout applies.

        Returns:
            The outputs, `(time, batch, num_dirs * num_units)` or batch-major, forward before
            backward; and h and c, shaped as `initial_state`.

        Raises:
            TypeError: `initial_state` is not a tuple.
            ValueError: It is not two states, or one has another shape.
        """
        if initial_state is not None and not isinstance(initial_state, tuple):
            raise TypeError(f"Invalid initial_state type: {initial_state}, expecting tuple.")
        inputs = tf.cast(tf.convert_to_tensor(inputs), self.compute_dtype)
        if not time_major:
            inputs = tf.transpose(inputs, (1, 0, 2))
        h, c = self._first_states(inputs, initial_state, time_major=time_major)
        lengths = None if sequence_lengths is None else tf.cast(sequence_lengths, tf.int32)
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

    def lstm_weights(self) -> list[LSTMWeights]:
        """Return the weights of every layer, forward before backward, NumPy."""
        return cudnn_layout.unpack(self.stack, np.asarray(self.opaque_kernel))

    def set_lstm_weights(self, layers: Sequence[LSTMWeights]) -> None:
        """Set the weights of every layer: the inverse of `lstm_weights`.

        Args:
            layers: With a bias each, half of which goes beside either matrix, as contrib does.

        Raises:
            WeightsError: A shape differs.
        """
        self.opaque_kernel.assign(cudnn_layout.pack(self.stack, layers, halve_biases=True))

    def canonical_weights(self) -> tuple[list[Array], list[Array]]:
        """Return the matrices and the biases, shaped as `canonical_weight_shapes` and so on."""
        return cudnn_layout.split(self.stack, np.asarray(self.opaque_kernel))

    def set_canonical_weights(self, weights: Sequence[Array], biases: Sequence[Array]) -> None:
        """Set the matrices and the biases: the inverse of `canonical_weights`.

        Raises:
            WeightsError: Another number of arrays, or another shape.
        """
        self.opaque_kernel.assign(cudnn_layout.join(self.stack, weights, biases))

    def checkpoint_arrays(self) -> dict[str, Array]:
        """Return what contrib's saveable writes, by name below the layer's scope."""
        return cudnn_layout.to_checkpoint(self.stack, self.lstm_weights())

    def set_checkpoint_arrays(self, arrays: Mapping[str, Array]) -> None:
        """Set the weights from a contrib checkpoint; `opaque_kernel` in it is not looked at.

        Raises:
            KeyError: An array is missing.
            WeightsError: A shape differs.
        """
        self.set_lstm_weights(cudnn_layout.from_checkpoint(self.stack, arrays))

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
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }

    def _initial_params(self, _: Any, dtype: Any = None) -> Tensor:
        draw, draw_bias = _varying(self.kernel_initializer), _varying(self.bias_initializer)
        matrices = [draw(shape, dtype=dtype) for shape in self.stack.matrix_shapes]
        biases = [draw_bias(shape, dtype=dtype) for shape in self.stack.bias_shapes]
        return tf.concat([tf.reshape(array, [-1]) for array in (*matrices, *biases)], axis=0)

    def _first_states(
        self, inputs: Tensor, initial_state: tuple[Any, ...] | None, *, time_major: bool
    ) -> list[Tensor]:
        """Return h and c, each `(num_layers * num_dirs, batch, num_units)`."""
        num_states = self.num_layers * self.num_dirs
        if initial_state is None:
            shape = (num_states, tf.shape(inputs)[1], self.num_units)
            return [tf.zeros(shape, inputs.dtype)] * 2
        if len(initial_state) != 2:
            raise ValueError(f"initial_state must be (h, c), but it has {len(initial_state)} parts")
        expected = tf.TensorShape(
            (num_states, inputs.shape[1], self.num_units)
            if time_major
            else (inputs.shape[1], num_states, self.num_units)
        )
        states = [tf.cast(tf.convert_to_tensor(state), inputs.dtype) for state in initial_state]
        for name, state in zip("hc", states, strict=True):
            if not expected.is_compatible_with(state.shape):
                raise ValueError(
                    f"{name} of the initial_state of layer {self.name} must have shape "
                    f"{tuple(expected)}, but it has {tuple(state.shape)}"
                )
        return states if time_major else [tf.transpose(state, (1, 0, 2)) for state in states]

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


def _varying(initializer: Any) -> Any:
    """Return an initializer that draws anew at each call, from the same seed.

    One of Keras draws the same numbers for the same shape: all gates would begin alike.
    """
    if not isinstance(getattr(initializer, "seed", None), int):
        return initializer
    varying = initializer.__class__.from_config(initializer.get_config())
    varying.seed = keras.random.SeedGenerator(initializer.seed)
    return varying
