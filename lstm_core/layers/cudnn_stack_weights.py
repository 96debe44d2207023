"""The weights of `CudnnLSTM`: how they begin, and the ways in and out of its one variable.

Knows the layout of the buffer through `lstm_core.kernels.cudnn_layout`. Knows no call and no state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lstm_core.kernels import cudnn_layout
from lstm_core.kernels.cudnn_layout import Stack
from lstm_core.weights import LSTMWeights

Tensor: TypeAlias = Any
Array: TypeAlias = npt.NDArray[Any]


class StackWeights:
    """Mixin of a `keras.Layer` whose weights are `opaque_kernel`, laid out as `stack` tells."""

    name: str
    num_layers: int
    num_units: int
    direction: str
    kernel_initializer: Any
    bias_initializer: Any
    opaque_kernel: Any

    _stack: Stack | None = None

    @property
    def num_dirs(self) -> int:
        """1 or 2."""
        return 2 if self.direction == "bidirectional" else 1

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

    def lstm_weights(self) -> list[LSTMWeights]:
        """Return the weights of every layer, forward before backward, NumPy."""
        return cudnn_layout.unpack(self.stack, np.asarray(self.opaque_kernel))

    def set_lstm_weights(self, layers: Sequence[LSTMWeights]) -> None:
        """Set the weights of every layer: the inverse of `lstm_weights`.

        Args:
            layers: With a bias each, which is halved: each of cuDNN's two biases gets a half, as in
                contrib.

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

    def _initial_params(self, _: Any, dtype: Any = None) -> Tensor:
        draw, draw_bias = _varying(self.kernel_initializer), _varying(self.bias_initializer)
        matrices = [draw(shape, dtype=dtype) for shape in self.stack.matrix_shapes]
        biases = [draw_bias(shape, dtype=dtype) for shape in self.stack.bias_shapes]
        return tf.concat([tf.reshape(array, [-1]) for array in (*matrices, *biases)], axis=0)


def _varying(initializer: Any) -> Any:
    """Return an initializer that draws anew at each call, from the same seed.

    One of Keras draws the same numbers for the same shape: all gates would begin alike.
    """
    # Those of TensorFlow 1 vary by themselves, and take no generator.
    is_keras = isinstance(initializer, keras.initializers.Initializer)
    if not is_keras or not isinstance(getattr(initializer, "seed", None), int):
        return initializer
    varying = initializer.__class__.from_config(initializer.get_config())
    varying.seed = keras.random.SeedGenerator(initializer.seed)
    return varying
