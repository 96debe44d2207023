"""The oracle itself, against numbers worked out by hand."""

import math

import numpy as np

from lstm_core import equations
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights


def test_one_unit_by_hand():
    """One step of one unit equals the equations written out with the `math` module."""
    spec = LSTMSpec(input_size=1, units=1)
    weights = LSTMWeights(
        kernel=np.array([[0.1, 0.2, 0.3, 0.4]]),
        recurrent_kernel=np.array([[-0.5, 0.6, -0.7, 0.8]]),
        bias=np.array([0.01, 1.0, -0.03, 0.04]),
    )
    x, h, c = 2.0, 0.3, -0.4

    h_next, c_next = equations.step(
        spec, weights, np.array([[x]]), h=np.array([[h]]), c=np.array([[c]])
    )

    def sigmoid(z):
        return 1 / (1 + math.exp(-z))

    i = sigmoid(0.1 * x - 0.5 * h + 0.01)
    f = sigmoid(0.2 * x + 0.6 * h + 1.0)
    g = math.tanh(0.3 * x - 0.7 * h - 0.03)
    o = sigmoid(0.4 * x + 0.8 * h + 0.04)
    expected_c = f * c + i * g
    np.testing.assert_allclose(c_next, [[expected_c]], rtol=1e-15)
    np.testing.assert_allclose(h_next, [[o * math.tanh(expected_c)]], rtol=1e-15)


def test_masked_steps_repeat_the_output_and_begin_with_zeros():
    """Before the first live step the output is zeros and not h; the state waits."""
    spec = LSTMSpec(input_size=1, units=1)
    weights = LSTMWeights(
        kernel=np.ones((1, 4)), recurrent_kernel=np.ones((1, 4)), bias=np.zeros(4)
    )
    inputs = np.ones((1, 4, 1))
    h = c = np.full((1, 1), 0.5)
    live = np.array([[False, True, False, True]])

    result = equations.sequence(spec, weights, inputs, h=h, c=c, mask=live)

    h_1, c_1 = equations.step(spec, weights, inputs[:, 0], h=h, c=c)
    h_2, c_2 = equations.step(spec, weights, inputs[:, 0], h=h_1, c=c_1)
    expected = np.stack([np.zeros_like(h_1), h_1, h_1, h_2], axis=1)
    np.testing.assert_array_equal(expected, result.outputs)
    np.testing.assert_array_equal(h_2, result.h)
    np.testing.assert_array_equal(c_2, result.c)
    zeroed = equations.sequence(
        spec, weights, inputs, h=h, c=c, mask=live, zero_output_for_mask=True
    )
    np.testing.assert_array_equal(expected * live[..., None], zeroed.outputs)
