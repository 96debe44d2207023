"""Laws of `lstm_core.LSTM`'s gradients: the peers, the slope of the equations, masked steps."""

from __future__ import annotations

from dataclasses import replace

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tensorflow")
pytest.importorskip("tf_keras")

import tf_keras

import lstm_core
from tests.parity.cases import AS_KERAS, AS_TF_KERAS, BOUNDED, EVERY, GRADIENTS, SMOOTH, cases
from tests.parity.record import agree
from tests.parity.subjects import subject

BESIDE_KERAS, BESIDE_TF_KERAS = (
    [c for c in configs if c.activations in BOUNDED and c.dtype == "float32"]
    for configs in (AS_KERAS, AS_TF_KERAS)
)
# Central differences see a corner of relu, and rounding in float32.
SLOPED = [c for c in EVERY if c.activations in SMOOTH and c.dtype == "float64"]
MASKED = [
    c
    for c in EVERY
    if c.activations in BOUNDED and c.dtype == "float32" and c.has_mask and not c.is_eager
]


# Keras crashes on empty batches and sequences.
@given(cases(BESIDE_KERAS, smallest=1))
def test_gradients_equal_keras(case):
    """Gradients of inputs, states and every weight are those of `keras.layers.LSTM`."""
    agree(
        *(
            subject(make, case.config).given(case.weights).gradients(*case.data)
            for make in (lstm_core.LSTM, keras.layers.LSTM)
        ),
        row=("LSTM", "gradients", "keras.layers.LSTM"),
        **GRADIENTS,
    )


@given(cases(BESIDE_TF_KERAS, smallest=1))
def test_gradients_equal_tf_keras(case):
    """Gradients of inputs, states and every weight are those of `tf_keras.layers.LSTM`."""
    agree(
        *(
            subject(make, case.config).given(case.weights).gradients(*case.data)
            for make in (lstm_core.LSTM, tf_keras.layers.LSTM)
        ),
        row=("LSTM", "gradients", "tf_keras.layers.LSTM"),
        **GRADIENTS,
    )


def loss_of_the_equations(case):
    """The loss of `tests.parity.cases.loss`, by the equations."""
    output, h, c = case.expected()
    return np.sin(3 * output).sum() + (h * c).sum()


def moved(case, directions, distance):
    """Return the case with everything that has a gradient moved in its direction."""
    steps = iter([distance * direction for direction in directions])
    x = case.x + next(steps)
    h, c = (None if s is None else s + next(steps) for s in (case.h, case.c))
    return replace(case, x=x, h=h, c=c, weights=[w + next(steps) for w in case.weights])


@given(cases(SLOPED, largest=3), st.integers(0, 2**32 - 1))
def test_gradients_equal_numerical_differentiation(case, seed):
    """Along any direction the gradient is the slope of the equations, empty sequences too."""
    ours = subject(lstm_core.LSTM, case.config).given(case.weights).gradients(*case.data)
    gradients = [np.asarray(gradient) for gradient in ours]
    random = np.random.default_rng(seed)
    directions = [random.normal(size=gradient.shape) for gradient in gradients]
    distance = 1e-5
    ahead, behind = (
        loss_of_the_equations(moved(case, directions, sign * distance)) for sign in (1, -1)
    )
    slope = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    agree(
        slope,
        (ahead - behind) / (2 * distance),
        row=("LSTM", "gradients", "lstm_core.equations"),
        rtol=1e-6,
        atol=1e-6,
    )


@given(cases(MASKED, smallest=1), st.sampled_from([0.0, 1e30]))
def test_masked_inputs_have_no_gradient(case, garbage):
    """Whatever finite numbers stand in masked steps, no gradient sees them nor reaches them."""
    ours = subject(lstm_core.LSTM, case.config).given(case.weights)
    x = np.where(case.live[..., None], case.x, np.float32(garbage))
    of_inputs, *others = ours.gradients(x, *case.data[1:])
    np.testing.assert_array_equal(0, np.asarray(of_inputs)[~case.live])
    assert all(np.isfinite(gradient).all() for gradient in others)
    agree(
        [of_inputs, *others],
        ours.gradients(*case.data),
        row=("LSTM", "padding", "lstm_core.LSTM"),
        **GRADIENTS,
    )
