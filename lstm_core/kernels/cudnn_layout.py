"""The parameter buffer of cuDNN's LSTM: where each gate's matrix and bias stand in it.

NumPy only, no TensorFlow: any binding of cuDNN can be handed what this packs. Unverified: nobody
has run it on a GPU yet; `tests/gpu/test_cudnn_packing_torch.py` compares it with PyTorch's.

References:
    `tf.raw_ops.CudnnRNNV3`; NVIDIA's documentation of `cudnnGetRNNWeightParams`; the layers of
    tf_keras, which fill the buffer of one layer in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_core.errors import SpecError, WeightsError
from lstm_core.spec import GATE_ORDER
from lstm_core.weights import LSTMWeights, reorder_gates

Array = npt.NDArray[Any]

CUDA_GATE_ORDER = GATE_ORDER
ROCM_GATE_ORDER = "ifoc"
"""MIOpen wants the output gate before the cell candidate."""

COMPATIBLE_GATE_ORDER = "icfo"
"""Of the kernels that `tf.contrib.cudnn_rnn` writes into checkpoints."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Where one layer's one direction stands in the buffer. A gate is `units` rows of a matrix.

    Attributes:
        kernel: Of the four input matrices, `(4 * units, input_size)` row by row; empty where the
            stack has no input matrix there.
        recurrent_kernel: Of the four recurrent matrices, `(4 * units, units)` row by row.
        bias: Of the eight biases, `(8 * units,)`: four beside the input matrices, four beside the
            recurrent ones. They are added.
        input_size: Features that come into this layer.
    """

    kernel: slice
    recurrent_kernel: slice
    bias: slice
    input_size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stack:
    """The sizes of a stack of LSTM layers, in one direction or both.

    Attributes:
        input_size: Features of the first layer's inputs.
        units: Length of h and of c, the same in every layer.
        num_layers: Layers on top of each other.
        num_directions: 1, or 2: forward, then backward.
        has_input_matrix: False where the first layer adds its inputs to the gates as they are
            (`skip_input`).
    """

    input_size: int
    units: int
    num_layers: int = 1
    num_directions: int = 1
    has_input_matrix: bool = True

    @property
    def matrix_shapes(self) -> list[tuple[int, int]]:
        """Shapes of the matrices: layer by layer, direction by direction, four input, four rest."""
        shapes = []
        for layer in range(self.num_layers):
            width = self.units * self.num_directions if layer else self.input_size
            has_inputs = layer > 0 or self.has_input_matrix
            inputs = [(self.units, width)] * 4 if has_inputs else []
            shapes += (inputs + [(self.units, self.units)] * 4) * self.num_directions
        return shapes

    @property
    def bias_shapes(self) -> list[tuple[int]]:
        """Shapes of the biases, eight for each layer's each direction."""
        return [(self.units,)] * 8 * self.num_layers * self.num_directions

    @property
    def num_params(self) -> int:
        """Length of the buffer."""
        return sum(rows * columns for rows, columns in self.matrix_shapes) + sum(
            size for (size,) in self.bias_shapes
        )

    def blocks(self) -> Iterator[Block]:
        """Yield the places, layer by layer, direction by direction: all matrices, then biases."""
        at = 0
        at_bias = self.num_params - 8 * self.units * self.num_layers * self.num_directions
        for layer in range(self.num_layers):
            width = self.units * self.num_directions if layer else self.input_size
            kernel_size = 4 * self.units * width if layer or self.has_input_matrix else 0
            for _ in range(self.num_directions):
                kernel = slice(at, at + kernel_size)
                recurrent_kernel = slice(kernel.stop, kernel.stop + 4 * self.units**2)
                bias = slice(at_bias, at_bias + 8 * self.units)
                at, at_bias = recurrent_kernel.stop, bias.stop
                yield Block(
                    kernel=kernel, recurrent_kernel=recurrent_kernel, bias=bias, input_size=width
                )


def pack(
    stack: Stack,
    layers: Sequence[LSTMWeights],
    *,
    gate_order: str = CUDA_GATE_ORDER,
    halve_biases: bool = False,
) -> Array:
    """Fill a buffer.

    Args:
        stack: The sizes.
        layers: Layer by layer, forward before backward; each with a bias.
        gate_order: Of the buffer.
        halve_biases: Put half of each bias beside the input matrices and half beside the recurrent
            ones, as contrib's checkpoints do; else zeros and the whole, as the Keras layers do.

    Returns:
        `(stack.num_params,)` in the dtype of the weights.

    Raises:
        WeightsError: Another number of layers, a shape that is not the stack's, or no bias.
        SpecError: The stack has no input matrix, and the first kernel is not four identities.
    """
    num_blocks = stack.num_layers * stack.num_directions
    if len(layers) != num_blocks:
        raise WeightsError("layers and directions", (num_blocks,), (len(layers),))
    params = np.zeros(stack.num_params, np.result_type(*(layer.kernel for layer in layers)))
    for block, layer in zip(stack.blocks(), layers, strict=True):
        _check(stack, block, layer)
        assert layer.bias is not None
        bias = reorder_gates(layer.bias, GATE_ORDER, gate_order)
        if block.kernel.stop > block.kernel.start:
            params[block.kernel] = reorder_gates(layer.kernel, GATE_ORDER, gate_order).T.ravel()
        elif not np.array_equal(layer.kernel, _identities(stack)):
            raise SpecError(
                "kernel",
                "the first layer skips its input matrix, so its kernel must be four identity "
                "matrices side by side: a stack with an input matrix takes every kernel",
            )
        params[block.recurrent_kernel] = reorder_gates(
            layer.recurrent_kernel, GATE_ORDER, gate_order
        ).T.ravel()
        halves = (bias / 2, bias / 2) if halve_biases else (np.zeros_like(bias), bias)
        params[block.bias] = np.concatenate(halves)
    return params


def unpack(stack: Stack, params: Array, *, gate_order: str = CUDA_GATE_ORDER) -> list[LSTMWeights]:
    """Read a buffer: the inverse of `pack`, with the two biases of each gate added.

    Args:
        stack: The sizes.
        params: `(stack.num_params,)` floating.
        gate_order: Of the buffer.

    Returns:
        Layer by layer, forward before backward. A first layer without an input matrix has four
        identities for a kernel, which add the inputs to the gates as they are.

    Raises:
        WeightsError: The buffer has another length.
    """
    if params.shape != (stack.num_params,):
        raise WeightsError("params", (stack.num_params,), params.shape)
    layers = []
    for block in stack.blocks():
        has_kernel = block.kernel.stop > block.kernel.start
        kernel = (
            params[block.kernel].reshape(4 * stack.units, block.input_size).T
            if has_kernel
            else _identities(stack).astype(params.dtype)
        )
        recurrent_kernel = params[block.recurrent_kernel].reshape(4 * stack.units, stack.units).T
        bias = params[block.bias].reshape(2, 4 * stack.units).sum(0)
        layers.append(
            LSTMWeights(
                kernel=reorder_gates(kernel, gate_order) if has_kernel else kernel,
                recurrent_kernel=reorder_gates(recurrent_kernel, gate_order),
                bias=reorder_gates(bias, gate_order),
            )
        )
    return layers


def split(stack: Stack, params: Array) -> tuple[list[Array], list[Array]]:
    """Return the matrices and the biases of a buffer, shaped as the stack tells (views).

    Raises:
        WeightsError: The buffer has another length.
    """
    if params.shape != (stack.num_params,):
        raise WeightsError("params", (stack.num_params,), params.shape)
    shapes: list[tuple[int, ...]] = [*stack.matrix_shapes, *stack.bias_shapes]
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    parts = [
        part.reshape(shape) for part, shape in zip(np.split(params, ends[:-1]), shapes, strict=True)
    ]
    num_matrices = len(stack.matrix_shapes)
    return parts[:num_matrices], parts[num_matrices:]


def join(stack: Stack, matrices: Sequence[Array], biases: Sequence[Array]) -> Array:
    """Return the buffer of these matrices and biases: the inverse of `split`.

    Raises:
        WeightsError: Another number of arrays, or one of another shape.
    """
    shapes: list[tuple[int, ...]] = [*stack.matrix_shapes, *stack.bias_shapes]
    given = [np.asarray(array) for array in (*matrices, *biases)]
    if len(given) != len(shapes):
        raise WeightsError("canonical weights and biases", (len(shapes),), (len(given),))
    for index, (array, shape) in enumerate(zip(given, shapes, strict=True)):
        if array.shape != shape:
            raise WeightsError(f"canonical array {index}", shape, array.shape)
    return np.concatenate([array.ravel() for array in given])


def checkpoint_names(stack: Stack) -> list[str]:
    """Return the scope in contrib's checkpoints of each layer's each direction.

    References:
        `CudnnOpaqueParamsSaveable._TFCanonicalNamePrefix` of TensorFlow 1.15.
    """
    cell = "cudnn_compatible_lstm_cell"
    if stack.num_directions == 1:
        return [f"rnn/multi_rnn_cell/cell_{i}/{cell}" for i in range(stack.num_layers)]
    return [
        f"stack_bidirectional_rnn/cell_{i}/bidirectional_rnn/{direction}/{cell}"
        for i in range(stack.num_layers)
        for direction in ("fw", "bw")
    ]


def to_checkpoint(stack: Stack, layers: Sequence[LSTMWeights]) -> dict[str, Array]:
    """Return `.../kernel` `(input_size + units, 4 * units)` and `.../bias`, gates i, c, f, o."""
    arrays: dict[str, Array] = {}
    for name, layer in zip(checkpoint_names(stack), layers, strict=True):
        assert layer.bias is not None
        kernel = np.concatenate([layer.kernel, layer.recurrent_kernel])
        arrays[f"{name}/kernel"] = reorder_gates(kernel, GATE_ORDER, COMPATIBLE_GATE_ORDER)
        arrays[f"{name}/bias"] = reorder_gates(layer.bias, GATE_ORDER, COMPATIBLE_GATE_ORDER)
    return arrays


def from_checkpoint(stack: Stack, arrays: Mapping[str, Array]) -> list[LSTMWeights]:
    """Read what `to_checkpoint` or contrib's layer wrote; other arrays are left alone.

    Raises:
        KeyError: An array is missing.
        WeightsError: A shape differs.
    """
    layers = []
    for name, block in zip(checkpoint_names(stack), stack.blocks(), strict=True):
        kernel = reorder_gates(arrays[f"{name}/kernel"], COMPATIBLE_GATE_ORDER)
        layer = LSTMWeights(
            kernel=kernel[: block.input_size],
            recurrent_kernel=kernel[block.input_size :],
            bias=reorder_gates(arrays[f"{name}/bias"], COMPATIBLE_GATE_ORDER),
        )
        _check(stack, block, layer)
        layers.append(layer)
    return layers


def _identities(stack: Stack) -> Array:
    """Return the kernel, `(units, 4 * units)`, that adds the inputs to the gates as they are."""
    return np.tile(np.eye(stack.units), 4)


def _check(stack: Stack, block: Block, layer: LSTMWeights) -> None:
    expected = {
        "kernel": (block.input_size, 4 * stack.units),
        "recurrent_kernel": (stack.units, 4 * stack.units),
        "bias": (4 * stack.units,),
    }
    for name, shape in expected.items():
        array = getattr(layer, name)
        if array is None or array.shape != shape:
            raise WeightsError(name, shape, () if array is None else array.shape)
