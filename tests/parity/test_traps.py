"""Traps of `shared/lstm-semantics.md` that no law meets: where peers crash or answer wrongly."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("tf_keras")

import tensorflow as tf
import tf_keras

import lstm_core
from lstm_core.activations import activation
from lstm_core.compat import tf14, v1

BATCH, TIME, FEATURES, UNITS = 3, 4, 2, 4
LAYERS = {"v2": lstm_core.LSTM, "v1": v1.LSTM, "tf14": tf14.LSTM}
EVERY_LAYER = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())


def built(layer: Any, weights: Any) -> Any:
    """Return the layer with these weights."""
    layer.build((BATCH, None, FEATURES))
    layer.set_weights(weights)
    return layer


def test_the_two_hard_sigmoids():
    """Keras 1 and 2's and Keras 3's function of one name lie up to a twelfth apart."""
    x = np.linspace(-4, 4, 801)
    first, third = activation("hard_sigmoid_v1")(x), activation("hard_sigmoid")(x)
    np.testing.assert_allclose(
        np.asarray(tf_keras.activations.hard_sigmoid(tf.constant(x))), first, atol=1e-7
    )
    np.testing.assert_allclose(np.asarray(keras.activations.hard_sigmoid(x)), third, atol=1e-7)
    assert 1 / 12 == pytest.approx(abs(first - third).max(), abs=1e-3)
    for make in (v1.LSTM, tf14.LSTM):
        layer = make(UNITS)
        np.testing.assert_allclose(layer.recurrent_activation(tf.constant(x)), first, atol=1e-7)


@EVERY_LAYER
@pytest.mark.parametrize("implementation", [1, 2])
def test_dropout_gate_by_gate(implementation, make, draw_inputs):
    """Keras 3.15 crashes on `implementation=1` with dropout: ours trains."""
    layer = make(UNITS, implementation=implementation, dropout=0.5)
    x = draw_inputs(BATCH, TIME, FEATURES)
    assert np.isfinite(layer(x, training=True)).all()


@EVERY_LAYER
@pytest.mark.parametrize("has_graph", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("shape", [(0, TIME, FEATURES), (BATCH, 0, FEATURES), (0, 0, FEATURES)])
def test_nothing_in_nothing_out(shape, has_graph, make):
    """Empty batches and sequences, which crash Keras 3, give empty outputs and no gradient."""
    layer = make(UNITS, return_sequences=True, return_state=True)
    call = layer
    if has_graph:
        signature = [tf.TensorSpec((None, None, FEATURES))]
        call = tf.function(layer, input_signature=signature)
    layer.build((None, None, FEATURES))
    with tf.GradientTape() as tape:
        outputs, *states = call(tf.zeros(shape))
        value = tf.reduce_sum(outputs) + tf.reduce_sum(states[0])
    found = tape.gradient(value, layer.kernel.value, unconnected_gradients="zero")
    assert [(*shape[:2], UNITS), (shape[0], UNITS), (shape[0], UNITS)] == [
        tuple(t.shape) for t in (outputs, *states)
    ]
    np.testing.assert_array_equal(0, found)


@pytest.mark.parametrize("unroll", [False, True])
def test_a_fully_masked_row(unroll, draw_weights, draw_inputs):
    """It outputs zeros and gives h0 and c0 back; TensorFlow 1.4's loop outputs h0."""
    x, states = draw_inputs(BATCH, TIME, FEATURES), list(draw_inputs(2, BATCH, UNITS, seed=2))
    weights, mask = draw_weights(FEATURES, UNITS), np.zeros((BATCH, TIME), bool)
    for make in LAYERS.values():
        layer = built(make(UNITS, return_state=True, unroll=unroll), weights)
        output, *after = layer(x, initial_state=states, mask=mask)
        repeats_h = make is tf14.LSTM and not unroll
        np.testing.assert_array_equal(states[0] if repeats_h else 0, output)
        np.testing.assert_array_equal(states, np.asarray(after))


@pytest.mark.parametrize("return_sequences", [False, True])
def test_zero_output_for_mask_of_the_last_step(return_sequences, draw_weights, draw_inputs):
    """The last output is zero as well, where the last step processed is masked."""
    layer = lstm_core.LSTM(UNITS, zero_output_for_mask=True, return_sequences=return_sequences)
    mask = np.array([[1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 0, 1]], bool)
    outputs = built(layer, draw_weights(FEATURES, UNITS))(
        draw_inputs(BATCH, TIME, FEATURES), mask=mask
    )
    last = np.asarray(outputs)[:, -1] if return_sequences else np.asarray(outputs)
    assert [False, True, True] == (last != 0).any(axis=1).tolist()


def test_an_initial_state_counts_beside_recorded_ones(draw_weights, draw_inputs):
    """Ours honours it, as Keras 3; tf_keras overlooks it while the recorded states are not zero."""
    weights, x = draw_weights(FEATURES, UNITS), draw_inputs(BATCH, TIME, FEATURES)
    states = list(draw_inputs(2, BATCH, UNITS, seed=2))
    expected = built(lstm_core.LSTM(UNITS), weights)(x, initial_state=states)
    for make in LAYERS.values():
        if make is not lstm_core.LSTM:
            expected = built(make(UNITS), weights)(x, initial_state=states)
        layer = built(make(UNITS, stateful=True), weights)
        layer(x)
        np.testing.assert_array_equal(expected, layer(x, initial_state=states))


def test_keras_finds_the_arguments_by_name():
    """Keras 3 looks into the signatures of `call` and `build`: names stay explicit."""
    call = inspect.signature(lstm_core.LSTM.call).parameters
    assert ["self", "sequences", "initial_state", "mask", "training"] == list(call)
    build = inspect.signature(lstm_core.LSTM.build).parameters
    assert ["self", "sequences_shape", "initial_state_shape"] == list(build)
    assert list(call) == list(inspect.signature(keras.layers.LSTM.call).parameters)


def test_a_relaxed_time_axis_is_traced_once(draw_inputs):
    """One graph takes every length, so that a new one is not traced anew."""
    layer, num_traces = lstm_core.LSTM(UNITS), list[None]()
    layer.build((None, None, FEATURES))

    @tf.function(input_signature=[tf.TensorSpec((None, None, FEATURES))])
    def run(x: Any) -> Any:
        num_traces.append(None)
        return layer(x)

    for time in (1, 3, 7):
        assert (BATCH, UNITS) == run(draw_inputs(BATCH, time, FEATURES)).shape
    assert 1 == len(num_traces)


@pytest.mark.parametrize("cell_clip", [None, 0, 0.0, -1.0])
def test_no_clipping_is_asked_for_in_many_ways(cell_clip):
    """The raw operation clips at 3 unless told otherwise: the cell tells it."""
    cell = lstm_core.LSTMBlockCell(UNITS, cell_clip=cell_clip, name=f"unclipped_{cell_clip}")
    x, c = np.full((1, FEATURES), 9, np.float32), np.full((1, UNITS), 50, np.float32)
    cell.build((None, FEATURES))
    cell.set_weights([np.ones(w.shape) for w in cell.weights])
    assert 50 < np.asarray(cell(x, (c, np.zeros_like(c)))[1].c).min()


@pytest.mark.parametrize("number", [1, 3, 5])
def test_predict_of_a_stateful_model_gives_no_rows_that_nobody_asked_for(number, draw_inputs):
    """Keras 3 answers three samples at batch size two with four rows; ours refuses."""
    layers = [keras.Input(batch_shape=(2, TIME, FEATURES)), lstm_core.LSTM(UNITS, stateful=True)]
    model = keras.Sequential(layers)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        model.predict(draw_inputs(number, TIME, FEATURES), batch_size=2, verbose=0)
    model.layers[-1].reset_states()
    assert (4, UNITS) == model.predict(
        draw_inputs(4, TIME, FEATURES), batch_size=2, verbose=0
    ).shape
