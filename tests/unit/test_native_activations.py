"""The native kernel's activations over all exponents, against NumPy in float64."""

from itertools import product
from math import erfc

import numpy as np
import pytest

from lstm_core import equations
from lstm_core.activations import activation
from lstm_core.kernels import native
from lstm_core.network import Network, Recurrent
from lstm_core.spec import ACTIVATIONS, LSTMSpec
from lstm_core.weights import LSTMWeights
from tests.unit.native_networks import INSTRUCTION_SETS, each_set, runtime

MAX_ULP = {"sigmoid": 3.0, "tanh": 3.0}
"""4 for all others."""
LIMITS = {
    "celu": (-1, np.inf),
    "elu": (-1, np.inf),
    "gelu": (0, np.inf),
    "hard_sigmoid": (0, 1),
    "hard_sigmoid_v1": (0, 1),
    "hard_silu": (0, np.inf),
    "linear": (-np.inf, np.inf),
    "log_sigmoid": (-np.inf, 0),
    "mish": (0, np.inf),
    "relu": (0, np.inf),
    "relu6": (0, 6),
    "sigmoid": (0, 1),
    "silu": (0, np.inf),
    "softplus": (0, np.inf),
    "tanh": (-1, 1),
}
"""At minus infinity and at infinity; where that is infinite, the activation is its argument."""
SMALLEST = {"silu": 2.0**-118, "mish": 2.0**-118}
"""Below which a bound in ulp ends; 2^-126, the smallest normal number, for all others."""


def apply(name, x, instruction_set):
    """Return an activation of float32 values."""
    values = np.array(x, np.float32)
    native.activate_in_place(name, values, instruction_set)
    return values


def every_exponent(num_mantissas, seed):
    """Return float32 numbers of each sign and exponent: least, greatest, some between."""
    random = np.random.default_rng(seed)
    mantissas = random.integers(0, 1 << 23, (2, 255, num_mantissas), np.uint32)
    mantissas[..., :2] = (0, (1 << 23) - 1)
    signs = np.array([0, 1 << 31], np.uint32)[:, None, None]
    exponents = np.arange(255, dtype=np.uint32)[:, None] << np.uint32(23)
    return (signs | exponents | mantissas).ravel().view(np.float32)


def true_values(name, x):
    """Return an activation of float64 numbers, to nearly all their digits.

    `lstm_core.activations` has the definitions; here are those that lose digits as they stand.
    """
    far = np.maximum(x, -1e4)
    e = np.exp(-np.abs(x))
    softplus = np.maximum(x, 0) + np.log1p(e)
    exact = {
        "hard_sigmoid_v1": lambda: np.clip((x + 2.5) / 5, 0, 1),
        "silu": lambda: np.where(x >= 0, x, far * e) / (1 + e),
        "softplus": lambda: softplus,
        "log_sigmoid": lambda: np.minimum(x, 0) - np.log1p(e),
        "mish": lambda: far * np.tanh(softplus),
        "gelu": lambda: 0.5 * far * np.array([erfc(-value * 0.5**0.5) for value in x.tolist()]),
    }
    return exact[name]() if name in exact else activation(name)(x)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_within_a_few_ulp_over_all_exponents(name):
    """Wherever the true value is large enough; where it is smaller, next to nothing is off."""
    x = np.concatenate([every_exponent(200, 0), np.linspace(-110, 110, 100_001, dtype="f4")])
    with np.errstate(all="ignore"):
        expected = true_values(name, x.astype(np.float64))
        nearest = expected.astype(np.float32)
        spacing = np.spacing(np.abs(nearest)).astype(np.float64)
    smallest = SMALLEST.get(name, 2.0**-126)
    is_large = (np.abs(expected) >= smallest) & np.isfinite(nearest)
    is_small = np.abs(expected) < smallest
    for instruction_set in INSTRUCTION_SETS:
        y = apply(name, x, instruction_set).astype(np.float64)

        off = np.abs(y - np.where(np.isinf(nearest), 0, expected))
        assert (off[is_large] / spacing[is_large]).max() <= MAX_ULP.get(name, 4.0)
        assert off[is_small].max(initial=0) < smallest
        # What rounds to infinity is the greatest number or infinity.
        assert (np.abs(y[np.isinf(nearest)]) >= np.finfo(np.float32).max).all()
        assert (np.sign(y) * np.sign(expected) >= 0).all()


@each_set
def test_activations_saturate_exactly(instruction_set):
    """Far out, and at infinity, each is at its limit, or is its argument."""
    far = np.array([np.inf, 3e38, 1e30, 200.0, 120.0], np.float32)
    for name, (low, high) in LIMITS.items():
        np.testing.assert_array_equal(
            apply(name, far, instruction_set), far if high == np.inf else high
        )
        np.testing.assert_array_equal(
            apply(name, -far, instruction_set), -far if low == -np.inf else low
        )
    np.testing.assert_array_equal(apply("softsign", [-np.inf, np.inf], instruction_set), [-1, 1])
    np.testing.assert_array_equal(apply("exponential", far, instruction_set), np.inf)
    np.testing.assert_array_equal(apply("exponential", -far, instruction_set), 0)


@pytest.mark.parametrize("name", native.ACTIVATIONS)
@each_set
def test_nan_stays_nan(name, instruction_set):
    """Of either sign and any payload, quiet or not, and among the others."""
    bits = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0x7FC00001, 0xFFFFFFFF, 0x7FABCDEF])
    nan = bits.astype(np.uint32).view(np.float32)
    assert np.isnan(apply(name, nan, instruction_set)).all()
    mixed = np.isnan(apply(name, [0.5, np.nan, -0.5, 2.0], instruction_set))
    assert ([True] * 4 if name == "softmax" else [False, True, False, False]) == mixed.tolist()


@each_set
def test_tanh_keeps_the_sign_of_a_zero_and_the_smallest_numbers(instruction_set):
    """Near zero tanh is its argument."""
    tiny = np.array([0.0, -0.0, 1e-45, -1e-45, 1e-40, -1e-38, 1e-20], np.float32)
    actual = apply("tanh", tiny, instruction_set)
    np.testing.assert_array_equal(tiny, actual)
    np.testing.assert_array_equal(np.signbit(tiny), np.signbit(actual))


@each_set
def test_a_plain_cell_is_right_however_far_its_gates_are_shut_or_open(instruction_set):
    """Products of sigmoid and tanh lose nothing but what is next to nothing."""
    sums = (-3e38, -200, -69, -30, -1e-3, 0.5, 30, 69, 200, 3e38)
    inputs = np.array(list(product(sums, repeat=4)), np.float32)[:, None]
    # Each input is the sum of a gate, of all three units.
    weights = LSTMWeights(
        kernel=np.repeat(np.eye(4, dtype=np.float32), 3, axis=1),
        recurrent_kernel=np.zeros((3, 12), np.float32),
        bias=None,
    )
    spec = LSTMSpec(input_size=4, units=3, use_bias=False)
    net = Network("n", 4, (Recurrent(name="lstm", spec=spec, weights=weights),))
    run = runtime(net, len(inputs) + 1, instruction_set)
    # So that no two terms of a sum nearly cancel.
    cell = np.array([0, 30, 1000], np.float32)
    run.write(1, [0, 0, 0, *cell], [True])

    rows = run.advance([1] * len(inputs), list(range(2, len(inputs) + 2)), inputs, None).rows

    with np.errstate(all="ignore"):
        expected = equations.sequence(spec, weights, inputs, c=np.tile(cell, (len(inputs), 1)))
    np.testing.assert_allclose(rows[:, :3], expected.h, rtol=1e-6, atol=2.0**-98)
    np.testing.assert_allclose(rows[:, 3:], expected.c, rtol=1e-6, atol=2.0**-98)


@each_set
def test_softmax_equals_the_true_one(instruction_set):
    """For any number of values, those that underflow included; as exactly as differences are."""
    random = np.random.default_rng(0)
    for size in range(1, 70):
        x = random.uniform(-120, 120, size).astype(np.float32)
        x[random.random(size) < 0.1] = -np.inf
        x[0] = 100
        true = np.exp(x.astype(np.float64) - x.max())
        actual = apply("softmax", x, instruction_set)
        np.testing.assert_allclose(actual, true / true.sum(), rtol=1e-5, atol=1e-38)


def test_activations_have_the_same_bits_with_any_vectors():
    """All instruction sets with a fused multiply-add agree, NaN left out."""
    x = every_exponent(200, 1)
    for name in sorted(ACTIVATIONS):
        results = {apply(name, x, s).tobytes() for s in INSTRUCTION_SETS if s != "portable"}
        assert len(results) <= 1


def test_the_kernel_knows_every_activation():
    """Those of an LSTM, in an order of its own, and softmax behind them."""
    assert [*sorted(ACTIVATIONS), "softmax"] == [*sorted(native.ACTIVATIONS[:-1]), "softmax"]
    assert "softmax" == native.ACTIVATIONS[-1]
