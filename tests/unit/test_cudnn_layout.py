"""cuDNN's parameter buffer, against an unpacking of the documented layout written on its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_core.errors import SpecError, WeightsError
from lstm_core.kernels import cudnn_layout
from lstm_core.kernels.cudnn_layout import ROCM_GATE_ORDER, Stack
from lstm_core.weights import LSTMWeights

STACKS = st.builds(
    Stack,
    input_size=st.integers(1, 4),
    units=st.integers(1, 4),
    num_layers=st.integers(1, 3),
    num_directions=st.integers(1, 2),
)


def draw(stack, seed=0):
    """Random weights of every layer and direction, all different."""
    random = np.random.default_rng(seed)
    layers = []
    for at in range(stack.num_layers * stack.num_directions):
        width = (
            stack.input_size if at < stack.num_directions else stack.units * stack.num_directions
        )
        shapes = [(width, 4 * stack.units), (stack.units, 4 * stack.units), (4 * stack.units,)]
        kernel, recurrent_kernel, bias = (random.normal(size=shape) for shape in shapes)
        layers.append(LSTMWeights(kernel=kernel, recurrent_kernel=recurrent_kernel, bias=bias))
    return layers


def read(params, stack, gates="ifco"):
    """Read the buffer element by element, as the documentation of cuDNN tells.

    All matrices come first: for each layer and direction four of the inputs, then four of h, each
    row-major `(units, columns)`. Then all biases, eight of `units` each.
    """
    values = iter(params.tolist())
    units = stack.units
    result = []
    for at in range(stack.num_layers * stack.num_directions):
        width = stack.input_size if at < stack.num_directions else units * stack.num_directions
        kernel, recurrent_kernel = np.zeros((width, 4 * units)), np.zeros((units, 4 * units))
        for target in (kernel, recurrent_kernel):
            for gate in gates:
                for row in range(units):
                    for column in range(target.shape[0]):
                        target[column, "ifco".index(gate) * units + row] = next(values)
        result.append([kernel, recurrent_kernel])
    for at in range(len(result)):
        halves = np.zeros((2, 4 * units))
        for half in halves:
            for gate in gates:
                for row in range(units):
                    half["ifco".index(gate) * units + row] = next(values)
        result[at].append(halves)
    assert [] == list(values)
    return result


@given(stack=STACKS, gates=st.sampled_from(["ifco", ROCM_GATE_ORDER]), halve=st.booleans())
@settings(deadline=None)
def test_pack_fills_the_documented_layout(stack, gates, halve):
    """What the independent reader finds is what was packed, in CUDA's and in ROCm's order."""
    layers = draw(stack)
    params = cudnn_layout.pack(stack, layers, gate_order=gates, halve_biases=halve)
    assert (stack.num_params,) == params.shape
    for layer, (kernel, recurrent_kernel, halves) in zip(
        layers, read(params, stack, gates), strict=True
    ):
        np.testing.assert_array_equal(layer.kernel, kernel)
        np.testing.assert_array_equal(layer.recurrent_kernel, recurrent_kernel)
        expected = [layer.bias / 2] * 2 if halve else [0 * layer.bias, layer.bias]
        np.testing.assert_array_equal(expected, halves)


@given(stack=STACKS, gates=st.sampled_from(["ifco", ROCM_GATE_ORDER]), halve=st.booleans())
@settings(deadline=None)
def test_unpack_is_the_inverse_of_pack(stack, gates, halve):
    """Weights come back bit for bit: halves of a number add up to it."""
    layers = draw(stack)
    params = cudnn_layout.pack(stack, layers, gate_order=gates, halve_biases=halve)
    for before, after in zip(
        layers, cudnn_layout.unpack(stack, params, gate_order=gates), strict=True
    ):
        np.testing.assert_array_equal(before.kernel, after.kernel)
        np.testing.assert_array_equal(before.recurrent_kernel, after.recurrent_kernel)
        np.testing.assert_array_equal(before.bias, after.bias)


@given(stack=STACKS)
@settings(deadline=None)
def test_canonical_arrays_round_trip(stack):
    """A buffer taken apart into matrices and biases is the same when joined."""
    params = cudnn_layout.pack(stack, draw(stack))
    matrices, biases = cudnn_layout.split(stack, params)
    assert stack.matrix_shapes == [matrix.shape for matrix in matrices]
    assert stack.bias_shapes == [bias.shape for bias in biases]
    np.testing.assert_array_equal(params, cudnn_layout.join(stack, matrices, biases))
    np.testing.assert_array_equal(matrices[0], draw(stack)[0].kernel[:, : stack.units].T)


@given(stack=STACKS)
@settings(deadline=None)
def test_checkpoints_round_trip(stack):
    """What contrib's saveable writes, and this reads, is one kernel of icfo gates a layer."""
    layers = draw(stack)
    arrays = cudnn_layout.to_checkpoint(stack, layers)
    prefix = cudnn_layout.checkpoint_names(stack)[0]
    i, f, c, o = np.split(np.concatenate([layers[0].kernel, layers[0].recurrent_kernel]), 4, axis=1)
    np.testing.assert_array_equal(np.hstack([i, c, f, o]), arrays[f"{prefix}/kernel"])
    for before, after in zip(layers, cudnn_layout.from_checkpoint(stack, arrays), strict=True):
        np.testing.assert_array_equal(before.kernel, after.kernel)
        np.testing.assert_array_equal(before.recurrent_kernel, after.recurrent_kernel)
        np.testing.assert_array_equal(before.bias, after.bias)


def test_names_in_checkpoints():
    """Scopes are those of the cells that read these checkpoints."""
    cell = "cudnn_compatible_lstm_cell"
    assert [f"rnn/multi_rnn_cell/cell_{i}/{cell}" for i in (0, 1)] == (
        cudnn_layout.checkpoint_names(Stack(input_size=1, units=1, num_layers=2))
    )
    assert [
        f"stack_bidirectional_rnn/cell_0/bidirectional_rnn/{way}/{cell}" for way in ("fw", "bw")
    ] == cudnn_layout.checkpoint_names(Stack(input_size=1, units=1, num_directions=2))


def test_skipped_inputs_have_no_matrix():
    """The first layer's buffer begins with the recurrent matrices; its kernel is identities."""
    stack = Stack(input_size=2, units=2, num_layers=2, has_input_matrix=False)
    assert [(2, 2)] * 4 + [(2, 2)] * 8 == stack.matrix_shapes
    params = np.arange(stack.num_params, dtype=np.float32)
    first, second = cudnn_layout.unpack(stack, params)
    np.testing.assert_array_equal(np.hstack([np.eye(2)] * 4), first.kernel)
    np.testing.assert_array_equal(np.arange(16).reshape(8, 2).T, first.recurrent_kernel)
    np.testing.assert_array_equal(np.arange(16, 32).reshape(8, 2).T, second.kernel)
    np.testing.assert_array_equal(
        params, cudnn_layout.join(stack, *cudnn_layout.split(stack, params))
    )


def test_what_does_not_fit_is_refused():
    """Another length, shape or number of arrays, or a missing bias, is named."""
    stack = Stack(input_size=3, units=2)
    (layer,) = draw(stack)
    params = cudnn_layout.pack(stack, [layer])
    for take_apart in (cudnn_layout.split, cudnn_layout.unpack):
        with pytest.raises(WeightsError, match=r"params has shape \(55,\), expected \(56,\)"):
            take_apart(stack, params[:-1])
    for broken, name in (
        ({"kernel": layer.kernel[1:]}, "kernel"),
        ({"recurrent_kernel": layer.kernel}, "recurrent_kernel"),
        ({"bias": None}, "bias"),
    ):
        arrays = {
            "kernel": layer.kernel, "recurrent_kernel": layer.recurrent_kernel, "bias": layer.bias,
        } | broken  # fmt: skip
        with pytest.raises(WeightsError, match=f"^{name} has shape"):
            cudnn_layout.pack(stack, [LSTMWeights(**arrays)])
    matrices, biases = cudnn_layout.split(stack, params)
    with pytest.raises(WeightsError, match=r"has shape \(15,\), expected \(16,\)"):
        cudnn_layout.join(stack, matrices[1:], biases)
    with pytest.raises(WeightsError, match=r"canonical array 0 has shape \(3, 2\)"):
        cudnn_layout.join(stack, [matrices[0].T, *matrices[1:]], biases)
    with pytest.raises(KeyError, match="cell_0"):
        cudnn_layout.from_checkpoint(stack, {})


def test_another_number_of_layers_is_refused():
    """None, fewer or more than the stack has."""
    stack = Stack(input_size=3, units=2, num_directions=2)
    layers = draw(stack)
    for given_layers in ([], layers[:1], [*layers, layers[0]]):
        number = len(given_layers)
        message = rf"^layers and directions has shape \({number},\), expected \(2,\)"
        with pytest.raises(WeightsError, match=message):
            cudnn_layout.pack(stack, given_layers)


def test_a_kernel_that_the_stack_skips_is_refused():
    """Only identities come back from a buffer without an input matrix: others would be lost."""
    stack = Stack(input_size=2, units=2, has_input_matrix=False)
    params = np.arange(stack.num_params, dtype=np.float32)
    (layer,) = cudnn_layout.unpack(stack, params)
    again = cudnn_layout.unpack(stack, cudnn_layout.pack(stack, [layer]))[0]
    np.testing.assert_array_equal(layer.kernel, again.kernel)
    np.testing.assert_array_equal(layer.recurrent_kernel, again.recurrent_kernel)
    other = LSTMWeights(
        kernel=2 * layer.kernel, recurrent_kernel=layer.recurrent_kernel, bias=layer.bias
    )
    with pytest.raises(SpecError, match="its kernel must be four identity matrices"):
        cudnn_layout.pack(stack, [other])
