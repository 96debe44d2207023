"""`lstm_core.LSTM(stateful=True)`: what it remembers, what it refuses, how it is reset."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf

import lstm_core
from lstm_core.compat import tf14, v1

BATCH, TIME, FEATURES, UNITS = 3, 5, 2, 4
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-6}


@pytest.fixture
def stateful(draw_weights):
    """A built stateful layer that returns sequences."""
    layer = lstm_core.LSTM(UNITS, stateful=True, return_sequences=True, name="memory")
    layer.build((BATCH, TIME, FEATURES))
    layer.set_weights(draw_weights(FEATURES, UNITS))
    return layer


def recorded(layer):
    """The states as one array."""
    return np.stack([np.asarray(state) for state in layer.states])


@given(cuts=st.lists(st.integers(1, 3), min_size=1, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_calls_in_a_row_are_one_sequence(draw_weights, cuts, seed):
    """However a masked sequence is cut, the states and the live outputs are those of the whole."""
    random = np.random.default_rng(seed)
    time = sum(cuts)
    x = random.normal(size=(BATCH, time, FEATURES)).astype(np.float32)
    mask = random.random((BATCH, time)) < 0.7
    layer = lstm_core.LSTM(UNITS, stateful=True, return_sequences=True)
    whole = lstm_core.LSTM(UNITS, return_sequences=True, return_state=True)
    for each in (layer, whole):
        each.build((BATCH, None, FEATURES))
        each.set_weights(draw_weights(FEATURES, UNITS))
    edges = np.cumsum([0, *cuts])
    pieces = [np.asarray(layer(x[:, a:b], mask=mask[:, a:b])) for a, b in itertools.pairwise(edges)]
    outputs, h, c = whole(x, mask=mask)
    np.testing.assert_allclose(recorded(layer), np.stack([h, c]), **CLOSE)
    np.testing.assert_allclose(np.concatenate(pieces, 1)[mask], np.asarray(outputs)[mask], **CLOSE)


def test_equals_keras_across_calls(stateful, draw_inputs):
    """Three calls, one from given states, leave what Keras 3 leaves."""
    theirs = keras.layers.LSTM(UNITS, stateful=True, return_sequences=True)
    theirs.build((BATCH, TIME, FEATURES))
    theirs.set_weights(stateful.get_weights())
    states = list(draw_inputs(2, BATCH, UNITS, seed=5))
    for seed, initial_state in ((0, None), (1, None), (2, states), (3, None)):
        x = draw_inputs(BATCH, TIME, FEATURES, seed=seed)
        np.testing.assert_allclose(
            stateful(x, initial_state=initial_state),
            theirs(x, initial_state=initial_state),
            **CLOSE,
        )
        np.testing.assert_allclose(recorded(stateful), recorded(theirs), **CLOSE)


def test_predict_and_evaluate_keep_the_states(draw_inputs):
    """Keras's own loops, which run graphs, carry the states from batch to batch."""
    model = keras.Sequential(
        [keras.Input(batch_shape=(BATCH, None, FEATURES)), lstm_core.LSTM(UNITS, stateful=True)]
    )
    layer = model.layers[0]
    x = draw_inputs(BATCH, 2 * TIME, FEATURES)
    expected = model.predict(x, batch_size=BATCH, verbose=0)
    layer.reset_states()
    model.predict(x[:, :TIME], batch_size=BATCH, verbose=0)
    actual = model.predict(x[:, TIME:], batch_size=BATCH, verbose=0)
    np.testing.assert_allclose(actual, expected, **CLOSE)
    np.testing.assert_allclose(recorded(layer)[0], expected, **CLOSE)


def test_time_major_states_follow_the_batch_axis(draw_inputs):
    """The second dimension is the batch where inputs are time-major."""
    layer = lstm_core.LSTM(UNITS, stateful=True, time_major=True)
    layer(draw_inputs(TIME, BATCH, FEATURES))
    assert recorded(layer).shape == (2, BATCH, UNITS)


def test_no_step_leaves_the_states(stateful, draw_inputs):
    """An empty sequence and a fully masked one change nothing."""
    stateful(draw_inputs(BATCH, TIME, FEATURES))
    before = recorded(stateful)
    assert stateful(np.zeros((BATCH, 0, FEATURES), np.float32)).shape == (BATCH, 0, UNITS)
    stateful(draw_inputs(BATCH, TIME, FEATURES), mask=np.zeros((BATCH, TIME), bool))
    np.testing.assert_array_equal(recorded(stateful), before)


def test_another_batch_size_is_refused(stateful, draw_inputs):
    """An eager call says which size the layer has and which came; the states stay."""
    stateful(draw_inputs(BATCH, TIME, FEATURES))
    before = recorded(stateful)
    with pytest.raises(ValueError, match=r"memory is stateful with a batch size of 3, .* 2 came"):
        stateful(draw_inputs(2, TIME, FEATURES))
    np.testing.assert_array_equal(recorded(stateful), before)


def test_another_batch_size_is_refused_in_predict(draw_inputs):
    """Where Keras 3 answers four rows for three samples, `predict` fails and says why."""
    model = keras.Sequential(
        [keras.Input(batch_shape=(2, TIME, FEATURES)), lstm_core.LSTM(UNITS, stateful=True)]
    )
    with pytest.raises(
        (ValueError, tf.errors.InvalidArgumentError),
        match="batch_size_of_a_stateful_layer_must_not_change",
    ):
        model.predict(draw_inputs(3, TIME, FEATURES), batch_size=2, verbose=0)


def test_another_batch_size_is_refused_under_xla(stateful, draw_inputs):
    """A compiled graph does not stretch one row over the states of three."""
    graph = tf.function(
        stateful,
        input_signature=[tf.TensorSpec((None, TIME, FEATURES))],
        jit_compile=True,
    )
    assert graph(draw_inputs(BATCH, TIME, FEATURES)).shape == (BATCH, TIME, UNITS)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        graph(draw_inputs(1, TIME, FEATURES))


def test_an_unknown_batch_size_is_refused():
    """A stateful layer in a model without a batch size cannot be built."""
    with pytest.raises(ValueError, match="it needs to know its batch size"):
        lstm_core.LSTM(UNITS, stateful=True)(keras.Input((TIME, FEATURES)))


@pytest.mark.parametrize("declared", [None, (BATCH, None, FEATURES)], ids=["first", "declared"])
@pytest.mark.parametrize(
    "make",
    [lstm_core.LSTM, v1.LSTM, tf14.LSTM, lstm_core.CuDNNLSTM],
    ids=lambda make: make.__module__,
)
def test_an_empty_batch_does_not_fix_the_batch_size(make, declared, draw_inputs):
    """It is refused with a message that says so, and the batch after it builds and runs."""
    layer = make(UNITS, stateful=True, name="memory", batch_input_shape=declared)
    message = "first batch fixes the size of all, but it is empty"
    if declared:
        message = "memory is stateful with a batch size of 3, but a batch of 0 came"
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            layer(np.zeros((0, TIME, FEATURES), np.float32))
    assert (BATCH, UNITS) == layer(draw_inputs(BATCH, TIME, FEATURES)).shape
    assert (2, BATCH, UNITS) == recorded(layer).shape


def test_an_empty_batch_builds_no_symbolic_memory():
    """Neither does a model of empty batches have states, nor an explicit build."""
    layer = lstm_core.LSTM(UNITS, stateful=True)
    with pytest.raises(ValueError, match="but it is empty"):
        layer(keras.Input(batch_shape=(0, TIME, FEATURES)))
    with pytest.raises(ValueError, match="but it is empty"):
        layer.build((0, TIME, FEATURES))
    assert not layer.built


def test_states_without_memory_are_those_of_keras_3(draw_inputs):
    """None, also inside `Bidirectional`, where tf_keras and the layers of TensorFlow 1 have two."""
    tf_keras = pytest.importorskip("tf_keras")
    x = draw_inputs(BATCH, TIME, FEATURES)
    ours, theirs = lstm_core.LSTM(UNITS), keras.layers.LSTM(UNITS)
    assert [None] * 2 == [ours.states, theirs.states]
    assert [[None, None]] * 2 == [list(m(UNITS).states) for m in (v1.LSTM, tf_keras.layers.LSTM)]
    for layer in (ours, theirs):
        wrapper = keras.layers.Bidirectional(layer)
        for each in (layer, wrapper):
            each(x)
            assert each.states is None


def test_reset_states_to_zeros_and_to_values(stateful, draw_inputs):
    """No argument means zeros; arrays, tensors and lists of numbers are taken as they are."""
    x = draw_inputs(BATCH, TIME, FEATURES)
    first = np.asarray(stateful(x))
    stateful.reset_states()
    np.testing.assert_array_equal(recorded(stateful), 0)
    np.testing.assert_array_equal(stateful(x), first)
    values = draw_inputs(2, BATCH, UNITS, seed=7)
    for form in (list(values), tuple(map(tf.constant, values)), values.astype(np.float64).tolist()):
        stateful.reset_states()
        stateful.reset_states(form)
        np.testing.assert_array_equal(recorded(stateful), values)
    stateful.reset_state()
    np.testing.assert_array_equal(recorded(stateful), 0)


def test_reset_states_needs_a_stateful_layer():
    """The documented AttributeError; Keras 3's `reset_state` does nothing, as there."""
    layer = lstm_core.LSTM(UNITS)
    with pytest.raises(AttributeError, match=re.escape("Layer must be stateful.")):
        layer.reset_states()
    layer.reset_state()
    assert layer.states is None


def test_reset_states_needs_a_batch_size():
    """The documented ValueError before the layer is built."""
    with pytest.raises(ValueError, match="If a RNN is stateful, it needs to know its batch size"):
        lstm_core.LSTM(UNITS, stateful=True).reset_states()


GOOD = np.ones((BATCH, UNITS), np.float32)


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ([GOOD], "Layer memory expects 2 states, but it received 1 state values"),
        ([GOOD] * 3, "Layer memory expects 2 states, but it received 3 state values"),
        (GOOD, "Layer memory expects 2 states, but it received 1 state values"),
        (
            [GOOD, GOOD[:, :3]],
            "State 1 is incompatible with layer memory: expected shape=(3, 4) but found shape=(3,",
        ),
        (
            [GOOD[:2], GOOD],
            "State 0 is incompatible with layer memory: expected shape=(3, 4) but found shape=(2,",
        ),
        (
            [GOOD.astype(np.complex64), GOOD],
            "State 0 is incompatible with layer memory: expected dtype floating or integer",
        ),
        ([GOOD, GOOD.astype(str)], "State 1 is incompatible with layer memory: expected dtype"),
        ([GOOD, GOOD.astype(bool)], "State 1 is incompatible with layer memory: expected dtype"),
        ([GOOD, GOOD.astype(object)], "State 1 is incompatible with layer memory: expected dtype"),
        ([[[1.0], [1.0, 2.0]], GOOD], "State 0 is incompatible with layer memory: expected shape"),
    ],
)
def test_reset_states_refuses_what_does_not_fit(stateful, draw_inputs, states, message):
    """Each documented error names the layer, the state and both sides, and changes nothing."""
    stateful(draw_inputs(BATCH, TIME, FEATURES))
    before = recorded(stateful)
    with pytest.raises(ValueError, match=re.escape(message)):
        stateful.reset_states(states)
    np.testing.assert_array_equal(recorded(stateful), before)


def test_states_are_not_weights(stateful):
    """Files and optimizers see the three weights only."""
    assert [w.path.split("/")[-1] for w in stateful.weights] == [
        "kernel",
        "recurrent_kernel",
        "bias",
    ]
    assert [tuple(state.shape) for state in stateful.states] == [(BATCH, UNITS)] * 2


def test_stateful_models_export(tmp_path, draw_inputs):
    """A SavedModel carries the states along: two calls differ as they do in the model."""
    model = keras.Sequential(
        [keras.Input(batch_shape=(BATCH, TIME, FEATURES)), lstm_core.LSTM(UNITS, stateful=True)]
    )
    x = draw_inputs(BATCH, TIME, FEATURES)
    model.export(tmp_path / "exported", verbose=False)
    served = tf.saved_model.load(tmp_path / "exported")
    for _ in range(2):
        np.testing.assert_allclose(served.serve(x), model(x), **CLOSE)
