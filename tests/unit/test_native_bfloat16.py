"""The native kernel with products in bfloat16: what is rounded, the law of bits, who gets it."""

import os

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_core import equations
from lstm_core.errors import SpecError
from lstm_core.kernels import native
from lstm_core.network import Network, Recurrent
from lstm_core.pointwise import Activation
from lstm_core.runtime.base import ZERO_SLOT
from lstm_core.runtime.cpu import CpuRuntime
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights, initialize
from tests.unit.native_networks import network, reference

EXAMPLES = int(os.environ.get("LSTM_NATIVE_EXAMPLES", "40"))
needs_bfloat16 = pytest.mark.skipif(
    not native.instruction_sets("bfloat16"), reason="a processor without AVX512-BF16"
)


def rounded(array):
    """Return float32 numbers of 8 significant bits, as another library rounds them."""
    return array.astype(ml_dtypes.bfloat16).astype(np.float32)


def plain(sizes):
    """Return a stack of LSTMs."""
    return network(sizes=sizes, use_bias=True, head=None, zero_output_for_mask=False, seed=3)


@needs_bfloat16
@settings(deadline=None, max_examples=EXAMPLES)
@given(
    inputs=st.integers(1, 70),
    units=st.integers(1, 70),
    batch=st.integers(1, 13),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_step_equals_the_equations_on_rounded_numbers(inputs, units, batch, seed):
    """Weights, x and h are rounded to bfloat16, and nothing else is."""
    net = plain([inputs, units])
    (layer,) = net.layers
    random = np.random.default_rng(seed)
    x = random.uniform(-1, 1, (batch, 1, inputs)).astype(np.float32)
    rows = random.uniform(-1, 1, (batch, 2 * units)).astype(np.float32)
    run = CpuRuntime(net, 2 * batch, precision="bfloat16")
    for slot, row in enumerate(rows, 1):
        run.write(slot, row, [True])
    sources = list(range(1, batch + 1))

    advanced = run.advance(sources, [batch + slot for slot in sources], x, None)

    weights = LSTMWeights(
        kernel=rounded(layer.weights.kernel),
        recurrent_kernel=rounded(layer.weights.recurrent_kernel),
        bias=layer.weights.bias,
    )
    h, c = rows[:, :units], rows[:, units:]
    expected, _ = equations.step(layer.spec, weights, rounded(x[:, 0]), h=rounded(h), c=c)
    np.testing.assert_allclose(advanced.outputs[:, 0], expected, rtol=1e-5, atol=1e-5)


@needs_bfloat16
@settings(deadline=None, max_examples=EXAMPLES)
@given(
    sizes=st.lists(st.integers(1, 70), min_size=2, max_size=3),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=14),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_row_has_the_same_bits_alone_and_step_by_step(sizes, lengths, seed):
    """The law of bits holds within this precision."""
    net = plain(sizes)
    batch, longest = len(lengths), max(lengths)
    x = np.random.default_rng(seed).uniform(-1, 1, (batch, longest, sizes[0])).astype(np.float32)
    run = CpuRuntime(net, batch + 2, precision="bfloat16")

    together = run.advance([ZERO_SLOT] * batch, list(range(3, batch + 3)), x, lengths)

    for row, length in enumerate(lengths):
        source = ZERO_SLOT
        for t in range(length):
            step = run.advance([source], [1 + t % 2], x[row : row + 1, t : t + 1], None)
            source = 1 + t % 2
            assert together.outputs[row, t].tobytes() == step.outputs.tobytes()
        assert together.rows[row].tobytes() == run.read(source)[0].tobytes()


@needs_bfloat16
def test_a_long_sequence_stays_near_the_equations():
    """Errors of a step do not add up without bound: what `native.Precision` says."""
    spec = LSTMSpec(input_size=32, units=128)
    lstm = Recurrent(name="l", spec=spec, weights=initialize(spec, 0))
    x = np.random.default_rng(0).uniform(-1, 1, (2, 100, 32)).astype(np.float32)

    outputs = CpuRuntime(Network("n", 32, (lstm,)), 2, precision="bfloat16").predict(x)

    expected, _ = reference(Network("n", 32, (lstm,)), x)
    difference = np.abs(outputs - expected).max()
    assert 1e-4 < difference < 1.5e-3


def test_what_cannot_be_had_is_refused_with_the_reason():
    """Whoever asks for bfloat16 is not served float32 without a word."""
    first, second = plain([5, 6, 7]).layers
    between = Activation(name="a", function="log_softmax")  # which runs on NumPy
    mixed = Network("n", 5, (first, between, second))
    if native.instruction_sets("bfloat16"):
        with pytest.raises(SpecError, match=r"AVX512-BF16.*Activation a stands between"):
            CpuRuntime(mixed, 1, precision="bfloat16")
    with pytest.raises(SpecError, match=r"AVX512-BF16, and here this processor"):
        CpuRuntime(plain([5, 6]), 1, instruction_sets=(), precision="bfloat16")
