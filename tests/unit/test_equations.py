"""The oracle itself, against numbers worked out by hand."""

import math

import numpy as np

from lstm_core import equations
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights, initialize


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


def test_one_unit_with_peepholes_clips_and_projection_by_hand():
    """The output gate sees the clipped cell state; the projection is clipped last."""
    spec = LSTMSpec(
        input_size=1,
        units=1,
        use_peepholes=True,
        projection_size=2,
        cell_clip=0.3,
        projection_clip=0.05,
        forget_bias=1.5,
    )
    weights = LSTMWeights(
        kernel=np.array([[0.1, 0.2, 0.3, 0.4]]),
        recurrent_kernel=np.array([[-0.5, 0.6, -0.7, 0.8], [0.1, -0.2, 0.3, -0.4]]),
        bias=np.array([0.01, 1.0, -0.03, 0.04]),
        peepholes=np.array([[0.5], [-0.6], [0.7]]),
        projection=np.array([[0.2, -3.0]]),
    )
    x, h, c = 2.0, (0.3, -0.1), 0.9

    h_next, c_next = equations.step(
        spec, weights, np.array([[x]]), h=np.array([h]), c=np.array([[c]])
    )

    def sigmoid(z):
        return 1 / (1 + math.exp(-z))

    i = sigmoid(0.1 * x - 0.5 * h[0] + 0.1 * h[1] + 0.01 + 0.5 * c)
    f = sigmoid(0.2 * x + 0.6 * h[0] - 0.2 * h[1] + 1.0 + 1.5 - 0.6 * c)
    g = math.tanh(0.3 * x - 0.7 * h[0] + 0.3 * h[1] - 0.03)
    assert f * c + i * g > 0.3
    o = sigmoid(0.4 * x + 0.8 * h[0] - 0.4 * h[1] + 0.04 + 0.7 * 0.3)
    m = o * math.tanh(0.3)
    assert 0.2 * m < 0.05 < 3 * m
    np.testing.assert_allclose(c_next, [[0.3]], rtol=1e-15)
    np.testing.assert_allclose(h_next, [[0.2 * m, -0.05]], rtol=1e-15)


def test_a_projection_gives_h_and_the_outputs_their_length():
    """With a projection `h` and the outputs have its length, `c` keeps the units."""
    spec = LSTMSpec(input_size=2, units=3, projection_size=5)

    result = equations.sequence(spec, initialize(spec, 0), np.ones((2, 4, 2)))

    assert (2, 4, 5) == result.outputs.shape
    assert (2, 5) == result.h.shape == result.last_output.shape
    assert (2, 3) == result.c.shape


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
