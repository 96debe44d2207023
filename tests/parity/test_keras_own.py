"""What Keras and tf_keras check about their own LSTM, RNN, Bidirectional and cells, of ours.

Keras ships its layer test with its tests; tf_keras's is in its `testing_infra`.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("tf_keras")

import tensorflow as tf
import tf_keras
from keras.src import testing as keras_testing

import lstm_core
from lstm_core.compat import tf14, v1
from tests.parity.record import agree

LAYERS = {"v2": lstm_core.LSTM, "v1": v1.LSTM, "tf14": tf14.LSTM}

CONSTANT = {
    "kernel_initializer": keras.initializers.Constant(0.01),
    "recurrent_initializer": keras.initializers.Constant(0.02),
    "bias_initializer": keras.initializers.Constant(0.03),
}


@pytest.fixture
def run_layer_test():
    """Give Keras's own test of any layer: configs, symbolic and eager shapes, `fit`, precision."""
    case = keras_testing.TestCase()
    yield case.run_layer_test
    case.doCleanups()


BASICS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "dropout": (
        {"dropout": 0.5},
        {"call_kwargs": {"training": True}, "expected_output_shape": (3, 3)},
    ),
    "both_dropouts": (
        {"dropout": 0.5, "recurrent_dropout": 0.5},
        {"call_kwargs": {"training": True}, "expected_output_shape": (3, 3)},
    ),
    "sequences_and_regularizers": (
        {"return_sequences": True, "bias_regularizer": "l1", "kernel_regularizer": "l2",
         "recurrent_regularizer": "l2"},
        {"expected_output_shape": (3, 2, 3), "expected_num_losses": 3},
    ),
    "stateful": ({"stateful": True}, {"expected_output_shape": (3, 3)}),
    "unrolled": ({"unroll": True, "go_backwards": True}, {"expected_output_shape": (3, 3)}),
}  # fmt: skip


@pytest.mark.parametrize(("options", "expected"), BASICS.values(), ids=BASICS.keys())
def test_keras_layer_test(options, expected, run_layer_test):
    """Keras's own layer test passes with our layer in the place of its own."""
    run_layer_test(
        lstm_core.LSTM,
        init_kwargs={"units": 3, **options},
        input_shape=(3, 2, 4),
        expected_num_trainable_weights=3,
        expected_num_non_trainable_weights=0,
        supports_masking=True,
        **expected,
    )


@pytest.mark.parametrize(
    "make", [lambda: lstm_core.LSTM(4), lambda: lstm_core.LSTM(4, unroll=True)]
)
@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave"])
def test_keras_layer_test_of_bidirectional(merge_mode, make, run_layer_test):
    """The same for `keras.layers.Bidirectional` around it."""
    run_layer_test(
        keras.layers.Bidirectional,
        init_kwargs={"layer": make(), "merge_mode": merge_mode},
        input_shape=(3, 2, 4),
        expected_output_shape=(3, 8) if merge_mode == "concat" else (3, 4),
        expected_num_trainable_weights=6,
        expected_num_non_trainable_weights=0,
        supports_masking=True,
        run_mixed_precision_check=False,
        run_training_check=merge_mode == "concat",
        custom_objects={"LSTM": lstm_core.LSTM},
    )


@pytest.mark.parametrize("cell", ["plain", "stacked"])
def test_keras_layer_test_of_rnn(cell, run_layer_test):
    """The same for `keras.layers.RNN` around our cell, one or a stack of two."""
    cells = [lstm_core.LSTMCell(5, name=name) for name in ("lower", "upper")]
    run_layer_test(
        keras.layers.RNN,
        init_kwargs={"cell": cells[0] if cell == "plain" else cells},
        input_shape=(3, 2, 4),
        expected_output_shape=(3, 5),
        expected_num_trainable_weights=2 if cell == "plain" else 4,
        expected_num_non_trainable_weights=0,
        supports_masking=True,
        run_mixed_precision_check=False,
        custom_objects={"LSTMCell": lstm_core.LSTMCell},
    )


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "backwards": {"go_backwards": True},
    "unrolled": {"unroll": True},
    "no_forget_bias": {"unit_forget_bias": False},
    "no_bias": {"use_bias": False},
    "linear_gates": {"recurrent_activation": None},
    "sequences_zeroed": {"return_sequences": True, "zero_output_for_mask": True},
}


@pytest.mark.parametrize("implementation", [1, 2])
@pytest.mark.parametrize("mask", [None, [[1, 1, 1, 0], [1, 1, 0, 0]]], ids=["whole", "masked"])
@pytest.mark.parametrize("options", VARIANTS.values(), ids=VARIANTS.keys())
def test_numbers_of_constant_weights(options, mask, implementation):
    """With the weights of Keras's own test, from given states too, the numbers are Keras's."""
    x = np.arange(24).reshape(2, 4, 3).astype(np.float32) / 24
    mask = None if mask is None else np.array(mask, bool)
    state = [np.arange(4).reshape(2, 2).astype(np.float32)] * 2
    layers = [
        make(2, implementation=implementation, **CONSTANT, **options)
        for make in (lstm_core.LSTM, keras.layers.LSTM)
    ]
    for initial_state in (None, state):
        agree(
            *(layer(x, mask=mask, initial_state=initial_state) for layer in layers),
            row=("LSTM", "forward", "keras.layers.LSTM"),
            rtol=1e-6,
        )


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("return_state", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("shape", [(3, 4, 6), (None, None, 6)])
def test_output_shapes(shape, return_sequences, return_state, make):
    """Known and unknown sizes give the documented shapes, before the layer is built."""
    batch, time, _ = shape
    layer = make(8, return_sequences=return_sequences, return_state=return_state)
    output = (batch, time, 8) if return_sequences else (batch, 8)
    expected = [output, (batch, 8), (batch, 8)] if return_state else output
    actual = layer.compute_output_shape(shape)
    assert expected == (list(actual) if return_state else actual)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
@pytest.mark.parametrize("unroll", [False, True])
def test_padding_on_either_side_gives_what_the_short_sequence_gives(unroll, make):
    """tf_keras's masking tests: left and right padding end with the output of the live steps."""
    short = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)
    zeros = np.zeros((2, 2, 4), np.float32)
    layer = make(5, unroll=unroll)
    expected = layer(short)
    for x in (np.concatenate([zeros, short], 1), np.concatenate([short, zeros], 1)):
        masked = keras.layers.Masking()(x)
        np.testing.assert_allclose(layer(masked), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
def test_state_of_one_layer_begins_another(make):
    """tf_keras's state reuse: states go from layer to layer in a model, symbolically."""
    x = keras.Input((4, 3))
    _, *state = make(5, return_state=True, return_sequences=True)(x)
    model = keras.Model(x, make(5)(x, initial_state=state))
    model.compile("sgd", "mse")
    loss = model.train_on_batch(np.ones((2, 4, 3)), np.zeros((2, 5)))
    assert np.isfinite(loss)


@pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())
def test_deep_layers_train_through_timedistributed_and_embedding(make):
    """tf_keras's models: an embedding with masked zeros, two layers, a head at every step."""
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            keras.layers.Embedding(7, 3, mask_zero=True),
            make(4, return_sequences=True),
            make(4, return_sequences=True),
            keras.layers.TimeDistributed(keras.layers.Dense(2)),
        ]
    )
    model.compile("rmsprop", "mse")
    x = np.array([[1, 2, 3, 0, 0], [0, 4, 0, 6, 5]])
    before = model.get_weights()
    model.fit(x, np.ones((2, 5, 2)), verbose=0)
    assert all((b != a).any() for b, a in zip(before, model.get_weights(), strict=True))
    assert (2, 5, 2) == model.predict(x, verbose=0).shape


@pytest.mark.parametrize("length", [1, 2, 9])
def test_one_layer_takes_any_length(length):
    """tf_keras's varying time steps: one model, one set of weights."""
    model = keras.Sequential([keras.Input((None, 3)), lstm_core.LSTM(4)])
    theirs = tf_keras.Sequential([tf_keras.layers.InputLayer((None, 3)), tf_keras.layers.LSTM(4)])
    theirs.set_weights(model.get_weights())
    x = np.random.default_rng(length).normal(size=(2, length, 3)).astype(np.float32)
    agree(model(x), theirs(x), row=("LSTM", "forward", "tf_keras.layers.LSTM"))


def test_a_trained_layer_in_a_graph_of_another_device_and_dtype():
    """tf_keras's float64 test: inputs, weights and outputs in float64, under a device scope."""
    with tf.device("CPU:0"):
        layer = lstm_core.LSTM(3, dtype="float64")
        output = tf.function(layer)(tf.ones((2, 4, 3), tf.float64))
    assert (tf.float64, {"float64"}) == (output.dtype, {w.dtype for w in layer.weights})


@pytest.mark.parametrize("use_cudnn", ["auto", False])
def test_bidirectional_keeps_use_cudnn(use_cudnn):
    """As Keras checks of its own: both copies are asked for the same."""
    wrapper = keras.layers.Bidirectional(lstm_core.LSTM(2, use_cudnn=use_cudnn))
    assert use_cudnn == wrapper.forward_layer.use_cudnn == wrapper.backward_layer.use_cudnn
