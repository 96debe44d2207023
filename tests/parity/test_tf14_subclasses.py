"""What subclasses and copies of `lstm_core.compat.tf14.LSTM` rely on, and sequences of no steps."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import tensorflow as tf

from lstm_core.compat import tf14

BATCH, TIME, FEATURES, UNITS = 5, 6, 3, 4
X = np.random.default_rng(0).normal(size=(BATCH, TIME, FEATURES)).astype(np.float32)
H, C = np.random.default_rng(1).normal(size=(2, BATCH, UNITS)).astype(np.float32)


@pytest.mark.parametrize(
    ("unroll", "is_time_known", "before"),
    [(False, True, H), (False, False, H), (True, True, np.zeros_like(H))],
)
def test_no_steps_give_what_stands_before_the_first_one(unroll, is_time_known, before):
    """That is h in the loop and zeros unrolled, as for masked first steps."""
    layer = tf14.LSTM(UNITS, unroll=unroll, return_state=True)
    time = 0 if is_time_known else None
    run = tf.function(
        lambda x: layer(x, [H, C]), input_signature=[tf.TensorSpec((None, time, FEATURES))]
    )
    for expected, actual in zip((before, H, C), run(X[:, :0]), strict=True):
        np.testing.assert_array_equal(expected, actual)


def test_a_subclass_may_bring_its_own_initial_state():
    """A call without states begins with `get_initial_state`, and a stateful one with its own."""

    class Raised(tf14.LSTM):
        """Begins with halves."""

        def get_initial_state(self, inputs: Any) -> Any:  # type: ignore[override]
            """Return halves."""
            return [zeros + 0.5 for zeros in super().get_initial_state(inputs)]

    halves = [np.full((BATCH, UNITS), 0.5, np.float32)] * 2
    raised, plain = Raised(UNITS), tf14.LSTM(UNITS)
    raised.build(X.shape)
    plain.build(X.shape)
    raised.set_weights(plain.get_weights())
    np.testing.assert_array_equal(plain(X, halves), raised(X))
    np.testing.assert_array_equal(plain(X, [H, C]), raised(X, [H, C]))
    stateful = Raised(UNITS, stateful=True)
    stateful.build(X.shape)
    stateful.set_weights(plain.get_weights())
    np.testing.assert_array_equal(plain(X), stateful(X))


def test_constants_are_the_callers_own():
    """Changing what one layer gave changes no other layer."""
    constants = tf14.LSTM(UNITS).get_constants(X)
    constants[0][0] = 99.0
    assert [[1.0] * 4] * 2 == tf14.LSTM(UNITS).get_constants(X)


def test_a_deep_copy_takes_weights_that_are_not_set_yet():
    """What the constructor was given waits for `build` in the copy, too."""
    weights = [np.full(s, 0.1, np.float32) for s in ((FEATURES, 16), (UNITS, 16), (16,))]
    layer = tf14.LSTM(UNITS, weights=weights)
    twin = copy.deepcopy(layer)
    np.testing.assert_array_equal(layer(X), twin(X))
    assert layer.kernel is not twin.kernel


@pytest.mark.parametrize("is_built", [False, True])
def test_a_deep_copy_of_variables_from_elsewhere_is_refused(is_built):
    """No variable is left behind in silence."""
    layer = tf14.LSTM(UNITS)
    layer.add_variable("extra", (2,))
    if is_built:
        layer.build(X.shape)
    with pytest.raises(ValueError, match=r"its variables are \['extra', .*Add variables in build"):
        copy.deepcopy(layer)
