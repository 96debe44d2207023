"""`CuDNNLSTM` beside tf_keras: its layer's surface, its weight converter, its LSTM.

On a CPU it runs on TensorFlow's operations; around a stand-in for cuDNN's operation, on that.
"""

from __future__ import annotations

import json
from typing import Any

import keras
import numpy as np
import pytest

pytest.importorskip("tensorflow")

import tensorflow as tf

import lstm_core
from lstm_core.errors import WeightsError
from lstm_core.kernels import cudnn
from tests.parity.cudnn_cases import BATCH, FEATURES, TIME, UNITS, assert_same, put_in_place


@pytest.fixture
def stand_in(monkeypatch):
    """A machine with a GPU, as far as TensorFlow tells, and a stand-in for cuDNN's operation."""
    return put_in_place(monkeypatch)


@pytest.fixture
def convert():
    """tf_keras's converter of weights for a layer."""
    return pytest.importorskip(
        "tf_keras.src.saving.legacy.hdf5_format"
    ).preprocess_weights_for_loading


def draw_stored(seed: int = 0) -> list[Any]:
    """Weights as files of `CuDNNLSTM` hold them."""
    random = np.random.default_rng(seed)
    shapes = [(FEATURES, 4 * UNITS), (UNITS, 4 * UNITS), (8 * UNITS,)]
    return [random.normal(0, 0.6, shape).astype(np.float32) for shape in shapes]


def make(stored: list[Any], **options: Any) -> Any:
    """Build a `CuDNNLSTM` with these weights."""
    layer = lstm_core.CuDNNLSTM(UNITS, **options)
    layer.build((None, None, FEATURES))
    layer.set_weights(stored)
    return layer


@pytest.mark.parametrize(
    "options",
    [
        {"return_sequences": True, "return_state": True},
        {"return_state": True, "go_backwards": True},
        {"return_sequences": True, "time_major": True, "go_backwards": True},
        {"stateful": True},
    ],
    ids=["sequences", "backwards", "time_major", "stateful"],
)
@pytest.mark.parametrize("is_on_cudnn", [False, True], ids=["block", "stand_in"])
def test_cudnn_lstm_equals_the_converted_lstm(options, is_on_cudnn, convert, draw_inputs, request):
    """It gives what tf_keras's LSTM gives with the weights that tf_keras converts."""
    tf_keras = pytest.importorskip("tf_keras")
    runs = request.getfixturevalue("stand_in").runs if is_on_cudnn else None
    stored = draw_stored()
    ours = lstm_core.CuDNNLSTM(UNITS, **options)
    shape = (TIME, BATCH, FEATURES) if options.get("time_major") else (BATCH, TIME, FEATURES)
    x = draw_inputs(*shape)
    ours.build(shape)
    ours.set_weights(stored)
    theirs = tf_keras.layers.LSTM(UNITS, **options)
    theirs.build(shape)
    theirs.set_weights(convert(theirs, [*stored]))
    assert_same(ours.lstm_weights(), theirs.get_weights(), rtol=0, atol=0)
    states = None if options.get("stateful") else list(draw_inputs(2, BATCH, UNITS, seed=2))
    for _ in range(2):
        assert_same(
            ours(x, initial_state=states),
            theirs(x, initial_state=None if states is None else [tf.constant(s) for s in states]),
        )
    assert ("cudnn" if is_on_cudnn else "block") == ours.explain_dispatch().kernel
    assert runs is None or int(runs) == 2


def test_cudnn_lstm_packs_as_tf_keras():
    """Matrices go to the operation's buffer bit for bit as tf_keras's layer puts them there."""
    utils = pytest.importorskip("tf_keras.src.layers.rnn.gru_lstm_utils")
    stored = draw_stored()
    theirs = utils.canonical_to_params(
        weights=np.split(stored[0], 4, axis=1) + np.split(stored[1], 4, axis=1),
        biases=np.split(stored[2], 8),
        shape=tf.constant([-1]),
    ).numpy()
    ours = cudnn.pack(make(stored)._kernel_weights()).numpy()  # noqa: SLF001
    num_matrix_params = 4 * UNITS * (FEATURES + UNITS)
    np.testing.assert_array_equal(theirs[:num_matrix_params], ours[:num_matrix_params])
    halves = [params[num_matrix_params:].reshape(2, -1) for params in (theirs, ours)]
    np.testing.assert_array_equal(halves[0][0] + halves[0][1], halves[1][1])
    np.testing.assert_array_equal(0 * halves[1][0], halves[1][0])


def test_cudnn_lstm_from_an_lstm(convert, draw_weights):
    """Weights of an LSTM are taken as tf_keras's converter makes them for this layer."""
    theirs = pytest.importorskip("tf_keras.src.layers.rnn.cudnn_lstm").CuDNNLSTM(UNITS)
    weights = draw_weights(FEATURES, UNITS)
    layer = make(draw_stored())
    layer.set_lstm_weights(weights)
    assert_same(layer.get_weights(), convert(theirs, [*weights]), rtol=0, atol=0)
    assert_same(layer.lstm_weights(), weights, rtol=0, atol=0)


def test_cudnn_lstm_has_the_surface_of_tf_keras():
    """The same arguments, variables, initial bias and config as tf_keras's layer."""
    their_class = pytest.importorskip("tf_keras.src.layers.rnn.cudnn_lstm").CuDNNLSTM
    theirs, ours = their_class(UNITS), lstm_core.CuDNNLSTM(UNITS)
    for layer in (theirs, ours):
        layer.build((None, TIME, FEATURES))
    assert [w.shape for w in theirs.get_weights()] == [w.shape for w in ours.get_weights()]
    np.testing.assert_array_equal(theirs.get_weights()[2], ours.get_weights()[2])
    np.testing.assert_array_equal(np.flatnonzero(ours.get_weights()[2]) // UNITS, [5] * UNITS)
    assert set(theirs.get_config()) | {"use_cudnn"} == set(ours.get_config())
    copy = lstm_core.CuDNNLSTM.from_config(json.loads(json.dumps(ours.get_config())))
    assert ours.get_config() == copy.get_config()
    with pytest.raises(TypeError, match="CuDNNLSTM has no argument dropout"):
        lstm_core.CuDNNLSTM(UNITS, dropout=0.1)


def test_cudnn_lstm_takes_no_mask(draw_inputs):
    """Given or carried by the inputs, a mask is refused as in tf_keras, saying what takes one."""
    x = draw_inputs(BATCH, TIME, FEATURES)
    with pytest.raises(ValueError, match="Masking is not supported for CuDNN RNNs"):
        make(draw_stored())(x, np.ones((BATCH, TIME), bool))
    with pytest.raises(ValueError, match="Masking is not supported for CuDNN RNNs"):
        make(draw_stored())(keras.layers.Masking()(x))
    layer = make(draw_stored())
    for nothing in ([], [None], None):
        np.testing.assert_array_equal(layer(x), layer(x, mask=nothing))


def test_cudnn_lstm_trains_as_a_graph_says(draw_inputs):
    """`training` has no effect, not even where it is a tensor that a graph does not know."""
    layer, x = make(draw_stored()), draw_inputs(BATCH, TIME, FEATURES)
    graph = tf.function(lambda x, training: layer(x, training=training))
    for training in (True, False):
        assert_same(graph(x, tf.constant(training)), layer(x))


@pytest.mark.parametrize("at", range(3), ids=["kernel", "recurrent_kernel", "bias"])
def test_cudnn_lstm_refuses_weights_of_another_shape(at, draw_weights):
    """The array is named, and nothing has changed."""
    layer, weights = make(draw_stored()), draw_weights(FEATURES, UNITS)
    before = layer.get_weights()
    weights[at] = np.concatenate([weights[at], weights[at]])
    name = ["kernel", "recurrent_kernel", "bias"][at]
    with pytest.raises(WeightsError, match=f"^{name} has shape"):
        layer.set_lstm_weights(weights)
    assert_same(layer.get_weights(), before, rtol=0, atol=0)


def test_cudnn_lstm_in_a_file(tmp_path, draw_inputs):
    """A model with it comes back from a `.keras` file, its weights as they were."""
    model = keras.Sequential([keras.Input((TIME, FEATURES)), lstm_core.CuDNNLSTM(UNITS)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = draw_inputs(BATCH, TIME, FEATURES)
    np.testing.assert_array_equal(model(x), loaded(x))
    assert (8 * UNITS,) == loaded.layers[-1].bias.shape
