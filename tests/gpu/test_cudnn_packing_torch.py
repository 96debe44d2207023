"""cuDNN's parameter buffer as we pack it, beside PyTorch's binding of the same cuDNN call.

Needs PyTorch, NumPy and pytest, and no TensorFlow. On a machine with nothing else:
`python -m pytest -c /dev/null --rootdir . -m gpu tests/gpu/test_cudnn_packing_torch.py`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # Nothing is installed there.

from lstm_core import equations
from lstm_core.kernels import cudnn_gru_layout, cudnn_layout
from lstm_core.kernels.cudnn_layout import Stack
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights

BATCH, TIME = 3, 7
LSTM_MODE = 2  # CUDNN_LSTM of cudnnRNNMode_t, as PyTorch hands it over.
GRU_MODE = 3  # CUDNN_GRU
GRUS = [(5, 4), (33, 17), (64, 128)]

STACKS = [
    Stack(input_size=5, units=4),
    Stack(input_size=33, units=17),
    Stack(input_size=64, units=128),
    Stack(input_size=5, units=4, num_layers=3),
    Stack(input_size=6, units=8, num_directions=2),
    Stack(input_size=5, units=12, num_layers=2, num_directions=2),
]


@pytest.fixture
def torch():
    """PyTorch on its GPU, with products in full float32."""
    torch: Any = pytest.importorskip("torch")
    if not torch.cuda.is_available() or not torch.backends.cudnn.is_available():
        pytest.skip("PyTorch sees no GPU with cuDNN")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    return torch


def draw(stack):
    """Random float32 weights of every layer and direction."""
    random = np.random.default_rng(0)
    layers = []
    for block in stack.blocks():
        shapes = [(block.input_size, 4 * stack.units), (stack.units, 4 * stack.units)]
        kernel, recurrent_kernel = (random.normal(0, 0.4, s).astype(np.float32) for s in shapes)
        bias = random.normal(0, 0.4, 4 * stack.units).astype(np.float32)
        layers.append(LSTMWeights(kernel=kernel, recurrent_kernel=recurrent_kernel, bias=bias))
    return layers


def as_torch(torch, layers):
    """The four tensors of each layer and direction, as `torch.nn.LSTM` has them."""
    return [
        torch.from_numpy(np.ascontiguousarray(array)).cuda()
        for layer in layers
        for array in (layer.kernel.T, layer.recurrent_kernel.T, 0 * layer.bias, layer.bias)
    ]


@pytest.mark.gpu
@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_the_buffer_is_the_one_that_pytorch_fills(stack, torch):
    """Where cuDNN tells PyTorch to put each gate, there we put it: bit for bit, and no gap."""
    layers = draw(stack)
    buffer = torch._cudnn_rnn_flatten_weight(  # noqa: SLF001
        as_torch(torch, layers), 4, stack.input_size, LSTM_MODE, stack.units, 0,
        stack.num_layers, False, stack.num_directions == 2,
    )  # fmt: skip
    np.testing.assert_array_equal(cudnn_layout.pack(stack, layers), buffer.cpu().numpy().ravel())


def by_equations(stack, layers, x):
    """What the equations give in float64: outputs, h and c, time-major."""
    outputs = np.swapaxes(x, 0, 1)
    weights = iter(layers)
    last_h, last_c = [], []
    for _ in range(stack.num_layers):
        parts = []
        for direction in range(stack.num_directions):
            w = next(weights)
            spec = LSTMSpec(input_size=w.kernel.shape[0], units=stack.units)
            result = equations.sequence(spec, w, outputs, go_backwards=direction == 1)
            parts.append(result.outputs[:, :: -1 if direction else 1])
            last_h.append(result.h)
            last_c.append(result.c)
        outputs = np.concatenate(parts, axis=-1)
    return np.swapaxes(outputs, 0, 1), np.stack(last_h), np.stack(last_c)


@pytest.mark.gpu
@pytest.mark.parametrize("stack", STACKS, ids=str)
def test_cudnn_computes_the_equations_from_our_buffer(stack, torch):
    """cuDNN, given our buffer and nothing else of the weights, gives what the equations give."""
    layers = draw(stack)
    x = np.random.default_rng(1).normal(size=(TIME, BATCH, stack.input_size)).astype(np.float32)
    buffer = torch.from_numpy(cudnn_layout.pack(stack, layers)).cuda()
    states = torch.zeros(stack.num_layers * stack.num_directions, BATCH, stack.units).cuda()
    # Its shapes are read, its values are not: the buffer is there.
    shapes = [torch.zeros_like(tensor) for tensor in as_torch(torch, layers)]
    outputs, h, c, _, _ = torch._cudnn_rnn(  # noqa: SLF001
        torch.from_numpy(x).cuda(), shapes, 4, buffer, states, states, LSTM_MODE, stack.units, 0,
        stack.num_layers, False, 0.0, False, stack.num_directions == 2, [], None,
    )  # fmt: skip
    for actual, expected in zip((outputs, h, c), by_equations(stack, layers, x), strict=True):
        np.testing.assert_allclose(actual.cpu().numpy(), expected, rtol=0, atol=1e-5)


def draw_gru(features, units):
    """Random float32 weights of a GRU, gates in Keras's order."""
    random = np.random.default_rng(2)
    shapes = [(features, 3 * units), (units, 3 * units), (2, 3 * units)]
    return [random.normal(0, 0.4, shape).astype(np.float32) for shape in shapes]


def gru_as_torch(torch, weights):
    """The four tensors that `torch.nn.GRU` has: gates in the order reset, update, new."""
    kernel, recurrent_kernel, (input_bias, recurrent_bias) = weights
    arrays = []
    for array in (kernel.T, recurrent_kernel.T, input_bias, recurrent_bias):
        z, r, n = np.split(array, 3)
        arrays.append(torch.from_numpy(np.concatenate([r, z, n])))
    return arrays


def gru_by_equations(weights, x):
    """Keras's GRU that resets after its product, in float64, time-major; h after each step."""
    kernel, recurrent_kernel, (input_bias, recurrent_bias) = (w.astype(np.float64) for w in weights)
    h = np.zeros((x.shape[1], recurrent_kernel.shape[0]))
    every = []
    for x_t in x:
        x_z, x_r, x_n = np.split(x_t @ kernel + input_bias, 3, axis=-1)
        h_z, h_r, h_n = np.split(h @ recurrent_kernel + recurrent_bias, 3, axis=-1)
        z, r = (1 / (1 + np.exp(-gate)) for gate in (x_z + h_z, x_r + h_r))
        h = z * h + (1 - z) * np.tanh(x_n + r * h_n)
        every.append(h)
    return np.stack(every)


@pytest.mark.gpu
@pytest.mark.parametrize(("features", "units"), GRUS)
def test_the_buffer_of_a_gru_is_the_one_that_pytorch_fills(features, units, torch):
    """Reset gate first, bit for bit, and no gap."""
    weights = draw_gru(features, units)
    buffer = torch._cudnn_rnn_flatten_weight(  # noqa: SLF001
        [tensor.cuda() for tensor in gru_as_torch(torch, weights)], 4, features, GRU_MODE, units,
        0, 1, False, False,
    )  # fmt: skip
    np.testing.assert_array_equal(cudnn_gru_layout.pack(*weights), buffer.cpu().numpy().ravel())


@pytest.mark.gpu
@pytest.mark.parametrize(("features", "units"), GRUS)
def test_cudnn_computes_the_equations_of_a_gru_from_our_buffer(features, units, torch):
    """It is given our buffer and nothing else of the weights."""
    weights = draw_gru(features, units)
    x = np.random.default_rng(1).normal(size=(TIME, BATCH, features)).astype(np.float32)
    buffer = torch.from_numpy(cudnn_gru_layout.pack(*weights)).cuda()
    # Their shapes are read, their values are not.
    shapes = [torch.zeros_like(tensor).cuda() for tensor in gru_as_torch(torch, weights)]
    outputs, h, _, _, _ = torch._cudnn_rnn(  # noqa: SLF001
        torch.from_numpy(x).cuda(), shapes, 4, buffer, torch.zeros(1, BATCH, units).cuda(), None,
        GRU_MODE, units, 0, 1, False, 0.0, False, False, [], None,
    )  # fmt: skip
    expected = gru_by_equations(weights, x)
    np.testing.assert_allclose(outputs.cpu().numpy(), expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(h[0].cpu().numpy(), expected[-1], rtol=0, atol=1e-5)
