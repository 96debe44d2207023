"""The native kernel's activations over all exponents, against NumPy in float64."""

import numpy as np
import pytest

from lstm_core.kernels import native
from tests.unit.native_networks import INSTRUCTION_SETS

each_set = pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)

MAX_ULP = 3.0
SMALLEST_NORMAL = 2.0**-126


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


def true_sigmoid(x):
    """Return the sigmoid of float64 numbers."""
    with np.errstate(over="ignore"):
        return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(("name", "true"), [("sigmoid", true_sigmoid), ("tanh", np.tanh)])
@each_set
def test_within_three_ulp_over_all_exponents(name, true, instruction_set):
    """Wherever the true value is a normal float32; where it is smaller, next to nothing is off."""
    x = np.concatenate([every_exponent(2_000, 0), np.linspace(-110, 110, 500_001, dtype="f4")])

    y = apply(name, x, instruction_set).astype(np.float64)

    expected = true(x.astype(np.float64))
    is_normal = np.abs(expected) >= SMALLEST_NORMAL
    ulp = np.spacing(np.abs(expected[is_normal]).astype(np.float32)).astype(np.float64)
    assert (np.abs(y - expected)[is_normal] / ulp).max() <= MAX_ULP
    assert np.abs(y - expected)[~is_normal].max(initial=0) < SMALLEST_NORMAL
    assert np.abs(y).max() <= 1


@each_set
def test_activations_saturate_exactly(instruction_set):
    """Far out, and at infinity, sigmoid is 0 or 1 and tanh -1 or 1."""
    far = [np.inf, 3e38, 1e30, 200.0, 90.0]
    nearby = [-value for value in far]
    np.testing.assert_array_equal(apply("sigmoid", far, instruction_set), 1)
    np.testing.assert_array_equal(apply("sigmoid", nearby, instruction_set), 0)
    np.testing.assert_array_equal(apply("tanh", far, instruction_set), 1)
    np.testing.assert_array_equal(apply("tanh", nearby, instruction_set), -1)


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh", "softmax"])
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
    for name in ("relu", "sigmoid", "tanh"):
        results = {apply(name, x, s).tobytes() for s in INSTRUCTION_SETS if s != "portable"}
        assert len(results) <= 1
