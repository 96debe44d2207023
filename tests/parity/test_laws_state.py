"""Laws of `lstm_core.LSTM`'s state: any calls and resets in a row, and whatever does not fit."""

from __future__ import annotations

import functools
import re
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

pytest.importorskip("tensorflow")

import tensorflow as tf

import lstm_core
from lstm_core import equations
from lstm_core.weights import LSTMWeights
from tests.parity.cases import FORWARD, Config, draw_mask
from tests.parity.record import agree

BATCH, TIME, FEATURES, UNITS = 3, 4, 2, 4
SPEC = Config(features=FEATURES, units=UNITS).spec


class Calls:
    """A stateful layer with its calls as graphs, so that an example takes milliseconds."""

    def __init__(self, make: Any, dtype: str) -> None:
        self.layer = make(UNITS, stateful=True, return_sequences=True, dtype=dtype)
        self.layer.build((BATCH, None, FEATURES))
        x = tf.TensorSpec((BATCH, None, FEATURES), dtype)
        mask = tf.TensorSpec((BATCH, None), tf.bool)
        state = tf.TensorSpec((BATCH, UNITS), dtype)
        self.go_on = tf.function(
            lambda x, mask: self.layer(x, mask=mask), input_signature=[x, mask]
        )
        self.go_from = tf.function(
            lambda x, mask, h, c: self.layer(x, mask=mask, initial_state=[h, c]),
            input_signature=[x, mask, state, state],
        )

    @property
    def states(self) -> list[Any]:
        """The recorded states."""
        return [np.asarray(state) for state in self.layer.states]


@functools.cache
def stateful(make: Any, dtype: str) -> Calls:
    """Return the calls of a layer of this class."""
    return Calls(make, dtype)


ACTIONS = st.lists(
    st.sampled_from(["go_on", "go_on", "go_from", "reset", "reset_keras", "set"]),
    min_size=1,
    max_size=5,
)


@given(ACTIONS, st.integers(0, 2**32 - 1), st.sampled_from(["float32", "float64"]))
def test_any_calls_and_resets_leave_the_states_of_the_equations(actions, seed, dtype):
    """Going on, beginning anew, resetting and setting: outputs and states are as told."""
    ours, random = stateful(lstm_core.LSTM, dtype), np.random.default_rng(seed)
    ours.layer.reset_states()
    kernel, recurrent_kernel, bias = ours.layer.get_weights()
    weights = LSTMWeights(kernel=kernel, recurrent_kernel=recurrent_kernel, bias=bias)
    h, c = np.zeros((2, BATCH, UNITS))
    for action in actions:
        if action in {"reset", "reset_keras", "set"}:
            h, c = random.normal(size=(2, BATCH, UNITS)).astype(dtype) * (action == "set")
            reset = {"reset": ours.layer.reset_states, "reset_keras": ours.layer.reset_state}
            reset.get(action, functools.partial(ours.layer.reset_states, [h, c]))()
        else:
            x = random.normal(size=(BATCH, random.integers(0, 4), FEATURES)).astype(dtype)
            mask = draw_mask("holes", random, BATCH, x.shape[1])
            if action == "go_from":
                h, c = random.normal(size=(2, BATCH, UNITS)).astype(dtype)
                outputs = ours.go_from(x, mask, h, c)
            else:
                outputs = ours.go_on(x, mask)
            expected = equations.sequence(SPEC, weights, x, h=h, c=c, mask=mask)
            h, c = expected.h, expected.c
            row = ("LSTM", "stateful", "lstm_core.equations")
            agree(outputs, expected.outputs, row=row, **FORWARD[dtype])
        row = ("LSTM", "reset_state" if "keras" in action else "stateful", "lstm_core.equations")
        agree(ours.states, [h, c], row=row, **FORWARD[dtype])


@given(
    st.lists(st.sampled_from(["go_on", "go_on", "go_from", "reset"]), min_size=1, max_size=5),
    st.integers(0, 2**32 - 1),
)
def test_any_calls_and_resets_leave_the_states_of_keras(actions, seed):
    """The same in the words that Keras 3 has, beside its layer."""
    pair = [stateful(make, "float32") for make in (lstm_core.LSTM, keras.layers.LSTM)]
    random = np.random.default_rng(seed)
    pair[1].layer.set_weights(pair[0].layer.get_weights())
    for each in pair:
        each.layer.reset_state()
    for action in actions:
        x = random.normal(size=(BATCH, random.integers(1, 4), FEATURES)).astype(np.float32)
        mask = draw_mask("holes", random, BATCH, x.shape[1])
        h, c = random.normal(size=(2, BATCH, UNITS)).astype(np.float32)
        outputs = []
        for each in pair:
            if action == "reset":
                each.layer.reset_state()
            elif action == "go_on":
                outputs.append(each.go_on(x, mask))
            else:
                outputs.append(each.go_from(x, mask, h, c))
        feature = "reset_state" if action == "reset" else "stateful"
        row = ("LSTM", feature, "keras.layers.LSTM")
        agree([outputs[:1], pair[0].states], [outputs[1:], pair[1].states], row=row)


SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
GOOD = np.ones((BATCH, UNITS), np.float32)
X = np.ones((BATCH, TIME, FEATURES), np.float32)


@functools.cache
def named(name: str, **options: Any) -> Any:
    """Return a built layer."""
    layer = lstm_core.LSTM(UNITS, name=name, **options)
    layer.build(X.shape)
    return layer


@given(SHAPES, st.integers(0, 1))
def test_reset_states_refuses_any_other_shape(shape, index):
    """The message has the layer, the state's index, what was expected and what came."""
    assume(shape != GOOD.shape)
    layer = named("memory", stateful=True)
    layer.reset_states([GOOD, 2 * GOOD])
    states = [GOOD, GOOD]
    states[index] = np.zeros(shape, np.float32)
    message = (
        f"State {index} is incompatible with layer memory: expected shape={GOOD.shape} but found "
        f"shape={shape}"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        layer.reset_states(states)
    np.testing.assert_array_equal([GOOD, 2 * GOOD], [np.asarray(s) for s in layer.states])


@given(st.integers(0, 5).filter(lambda n: n != 2), st.sampled_from([list, tuple]))
def test_any_other_number_of_states_is_refused(number, sequence):
    """`reset_states` and `initial_state` take h and c, no fewer and no more."""
    states = sequence([GOOD] * number)
    message = f"expects 2 states, but it received {number} state values"
    with pytest.raises(ValueError, match=message):
        named("memory", stateful=True).reset_states(states)
    with pytest.raises(ValueError, match=f"must be a list of two tensors .* it is {number} tensor"):
        named("plain")(X, initial_state=states)


@given(st.sampled_from([bool, np.complex64, str, object]), st.integers(0, 1))
def test_states_of_another_kind_are_refused(kind, index):
    """What is no real number never becomes one."""
    states = [GOOD, GOOD]
    states[index] = GOOD.astype(kind)
    with pytest.raises(ValueError, match=f"State {index} .*expected dtype floating or integer"):
        named("memory", stateful=True).reset_states(states)


@given(SHAPES, st.integers(0, 1))
def test_an_initial_state_of_any_other_shape_is_refused(shape, index):
    """Nothing is broadcast, and the message says which of the two does not fit."""
    assume(shape != GOOD.shape)
    states = [GOOD, GOOD]
    states[index] = np.zeros(shape, np.float32)
    with pytest.raises(ValueError, match=rf"{'hc'[index]} of the initial_state of layer plain"):
        named("plain")(X, initial_state=states)


@given(SHAPES)
def test_a_single_tensor_is_no_initial_state(shape):
    """Whatever its shape, also one that could be cut in two."""
    with pytest.raises(ValueError, match="initial_state of layer plain must be a list of two"):
        named("plain")(X, initial_state=np.zeros(shape, np.float32))


@given(SHAPES)
def test_a_mask_of_any_other_shape_is_refused(shape):
    """Nothing is broadcast; only a trailing axis of one may be there too."""
    assume(shape not in {(BATCH, TIME), (BATCH, TIME, 1)})
    with pytest.raises(ValueError, match="mask of layer plain must have the first two dimensions"):
        named("plain")(X, mask=np.ones(shape, bool))


@given(st.integers(0, 6).filter(lambda n: n != BATCH), st.booleans())
def test_another_batch_size_is_refused(batch, has_state):
    """A stateful layer keeps its batch size, and its states where another one comes."""
    layer = named("memory", stateful=True)
    layer.reset_states([GOOD, 2 * GOOD])
    x = np.ones((batch, TIME, FEATURES), np.float32)
    states = [np.ones((batch, UNITS), np.float32)] * 2 if has_state else None
    message = f"memory is stateful with a batch size of {BATCH}, but a batch of {batch} came"
    with pytest.raises(ValueError, match=message):
        layer(x, initial_state=states)
    np.testing.assert_array_equal([GOOD, 2 * GOOD], [np.asarray(s) for s in layer.states])


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple))
def test_inputs_of_another_rank_or_width_are_refused(shape):
    """Three dimensions, and as many features as the layer was built for."""
    assume(len(shape) != 3 or shape[-1] != FEATURES)
    with pytest.raises(ValueError, match=r"expected (min_)?ndim=3|expected axis -1"):
        named("plain")(np.ones(shape, np.float32))
