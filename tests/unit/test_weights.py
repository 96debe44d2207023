"""Weight containers and layouts."""

import numpy as np
import pytest

from lstm_core.errors import SpecError, WeightsError
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights, initialize, reorder_gates


def test_gates_are_reordered_by_name():
    """A kernel of another system's order comes out with each gate in its new place."""
    i, f, c, o = (np.full((3, 2), value) for value in (1, 2, 3, 4))
    theirs = np.concatenate([i, c, f, o], axis=-1)

    np.testing.assert_array_equal(
        np.concatenate([i, f, c, o], axis=-1), reorder_gates(theirs, "icfo")
    )


def test_a_wrong_gate_order_is_refused():
    """Only permutations of the four gates are orders."""
    with pytest.raises(ValueError, match="permutations"):
        reorder_gates(np.zeros(8), "ijfo")


def test_initial_weights_are_as_keras_draws_them():
    """Glorot's limit, orthogonal recurrent rows, ones for the forget gate's bias."""
    spec = LSTMSpec(input_size=5, units=7)

    weights = initialize(spec, seed=0)

    weights.check(spec)
    assert np.abs(weights.kernel).max() <= np.sqrt(6 / (5 + 28))
    np.testing.assert_allclose(
        weights.recurrent_kernel @ weights.recurrent_kernel.T, np.eye(7), atol=1e-6
    )
    np.testing.assert_array_equal(np.repeat([0, 1, 0, 0], 7), weights.bias)


@pytest.mark.parametrize("projection_size", [None, 2, 7, 40])
def test_initial_weights_have_every_part_that_the_spec_asks_for(projection_size):
    """Peepholes and projection are drawn, none of them zero, whatever the projection's length."""
    spec = LSTMSpec(
        input_size=5, units=7, use_peepholes=True, projection_size=projection_size, forget_bias=1
    )

    weights = initialize(spec, seed=0)

    weights.check(spec)
    assert weights.peepholes is not None
    assert weights.peepholes.all()
    assert np.abs(weights.peepholes).max() <= np.sqrt(6 / 14)
    assert (projection_size is None) == (weights.projection is None)
    np.testing.assert_array_equal(np.zeros(28), weights.bias)
    long, short = max(28, spec.output_size), min(28, spec.output_size)
    rows = weights.recurrent_kernel.reshape(spec.output_size, 28)
    tall = rows if rows.shape == (long, short) else rows.T
    np.testing.assert_allclose(np.eye(short), tall.T @ tall, atol=1e-6)


def test_casting_keeps_every_part():
    """`astype` leaves no array behind."""
    spec = LSTMSpec(input_size=2, units=3, use_peepholes=True, projection_size=2)

    weights = initialize(spec, seed=0).astype(np.float64)

    weights.check(spec)
    assert weights.peepholes is not None
    assert weights.projection is not None
    assert {np.dtype(np.float64)} == {weights.peepholes.dtype, weights.projection.dtype}


@pytest.mark.parametrize("name", ["kernel", "recurrent_kernel", "bias", "peepholes", "projection"])
def test_a_wrong_shape_names_the_array(name):
    """The error says which array, what was expected and what came."""
    spec = LSTMSpec(input_size=2, units=3, use_peepholes=True, projection_size=5)
    arrays = {
        "kernel": np.zeros((2, 12)),
        "recurrent_kernel": np.zeros((5, 12)),
        "bias": np.zeros(12),
        "peepholes": np.zeros((3, 3)),
        "projection": np.zeros((3, 5)),
    }
    arrays[name] = np.zeros((9, 9))

    with pytest.raises(WeightsError, match=rf"{name} has shape \(9, 9\), expected \("):
        LSTMWeights(**arrays).check(spec)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("units", 0),
        ("input_size", -1),
        ("activation", "tan"),
        ("projection_size", 0),
        ("cell_clip", 0.0),
        ("projection_clip", -1.0),
    ],
)
def test_a_spec_that_makes_no_sense_names_the_field(field, value):
    """Sizes are positive and activations known."""
    arguments = {"input_size": 2, "units": 3, field: value}

    with pytest.raises(SpecError, match=field):
        LSTMSpec(**arguments)
