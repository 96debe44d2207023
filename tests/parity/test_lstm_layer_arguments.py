"""Constructor arguments of `lstm_core.LSTM`: what it refuses, older releases', and Keras 3's.

Those are `batch_input_shape`, `input_shape`, `input_dim`, `input_length`, `batch_size`, `weights`,
which Keras 3.15 rejects; and `use_cudnn`.
"""

from __future__ import annotations

import copy
import json
import pickle
import warnings
from typing import Any

import keras
import numpy as np
import pytest

pytest.importorskip("tensorflow")

import tensorflow as tf

import lstm_core

BATCH, TIME, FEATURES, UNITS = 4, 5, 3, 2


@pytest.mark.parametrize(
    ("given", "kept"),
    [("auto", "auto"), ("always", True), (True, True), ("never", False), (False, False)],
)
def test_use_cudnn_survives(given, kept):
    """All five spellings are taken, kept as Keras 3 has them, and come back from a config."""
    layer = lstm_core.LSTM(UNITS, use_cudnn=given)
    twin = lstm_core.LSTM.from_config(json.loads(json.dumps(layer.get_config())))
    assert [kept] * 2 == [layer.use_cudnn, twin.use_cudnn]
    assert kept == keras.layers.LSTM(UNITS, use_cudnn=twin.use_cudnn).use_cudnn


def test_use_cudnn_of_another_value_is_refused():
    """As in Keras, a ValueError; the message has what came."""
    with pytest.raises(ValueError, match=r"use_cudnn: .*not 'perhaps'"):
        lstm_core.LSTM(UNITS, use_cudnn="perhaps")
    with pytest.raises(ValueError, match="perhaps"):
        keras.layers.LSTM(UNITS, use_cudnn="perhaps")


DECLARED = {
    "batch_input_shape": ({"batch_input_shape": (BATCH, TIME, FEATURES)}, (BATCH, TIME, FEATURES)),
    "unknown_sizes": ({"batch_input_shape": [None, None, FEATURES]}, (None, None, FEATURES)),
    "input_shape": ({"input_shape": (TIME, FEATURES)}, (None, TIME, FEATURES)),
    "with_batch_size": (
        {"input_shape": (TIME, FEATURES), "batch_size": BATCH}, (BATCH, TIME, FEATURES),
    ),
    "input_dim": ({"input_dim": FEATURES}, (None, None, FEATURES)),
    "input_length": ({"input_dim": FEATURES, "input_length": TIME}, (None, TIME, FEATURES)),
}  # fmt: skip


@pytest.mark.parametrize(("options", "shape"), DECLARED.values(), ids=DECLARED.keys())
def test_a_declared_shape(options, shape):
    """It is what tf_keras makes of it, builds a Sequential model, and survives the config."""
    tf_keras = pytest.importorskip("tf_keras")
    layer = lstm_core.LSTM(UNITS, **options)
    theirs = tf_keras.layers.LSTM(UNITS, **options)
    assert shape == layer.batch_input_shape == theirs._batch_input_shape  # noqa: SLF001
    twin = lstm_core.LSTM.from_config(json.loads(json.dumps(layer.get_config())))
    assert shape == twin.batch_input_shape
    model = keras.Sequential([twin, keras.layers.Dense(1)])
    assert model.built
    assert (None, *shape[1:]) == model.input_shape
    assert 3 == len(twin.get_weights())


def test_a_declared_batch_size_is_that_of_the_states():
    """A stateful layer knows it without an Input that does, and refuses another."""
    layer = lstm_core.LSTM(UNITS, batch_input_shape=(BATCH, TIME, FEATURES), stateful=True)
    model = keras.Sequential([layer])
    assert layer.states is not None
    assert [(BATCH, UNITS)] * 2 == [tuple(state.shape) for state in layer.states]
    x = np.ones((BATCH, TIME, FEATURES), np.float32)
    first = np.asarray(model(x))
    assert (np.asarray(model(x)) != first).any()
    with pytest.raises(ValueError, match="stateful with a batch size of 4, but a batch of 3 came"):
        model(x[1:])


def test_a_declared_shape_of_another_rank_is_refused():
    """It needs a batch, a time and a feature axis."""
    with pytest.raises(ValueError, match=r"three dimensions.*\(None, 3\)"):
        lstm_core.LSTM(UNITS, input_shape=(FEATURES,))


def test_nothing_declared_nothing_in_the_config():
    """So that Keras's own layer takes the config, which rejects these arguments."""
    config = lstm_core.LSTM(UNITS).get_config()
    assert set() == {"batch_input_shape", "weights"} & set(config)
    with pytest.raises(ValueError, match="Unrecognized keyword arguments"):
        keras.layers.LSTM(UNITS, batch_input_shape=(BATCH, TIME, FEATURES))


def test_initial_weights(draw_weights, draw_inputs):
    """They are set when the layer is built, as in tf_keras, and come with files, not configs."""
    tf_keras = pytest.importorskip("tf_keras")
    weights = draw_weights(FEATURES, UNITS)
    x = draw_inputs(BATCH, TIME, FEATURES)
    layer = lstm_core.LSTM(UNITS, weights=weights)
    np.testing.assert_allclose(
        layer(x), tf_keras.layers.LSTM(UNITS, weights=weights)(x), rtol=0, atol=1e-6
    )
    for expected, actual in zip(weights, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(expected, actual)
    layer.set_weights([0 * w for w in weights])
    np.testing.assert_array_equal(np.zeros((BATCH, UNITS)), layer(x))
    assert "weights" not in layer.get_config()


def test_initial_weights_that_do_not_fit_are_refused(draw_weights, draw_inputs):
    """Another number or shape is an error when the layer is built."""
    x = draw_inputs(BATCH, TIME, FEATURES)
    for weights in (draw_weights(FEATURES, UNITS)[:2], draw_weights(FEATURES + 1, UNITS)):
        with pytest.raises(ValueError, match="weight"):
            lstm_core.LSTM(UNITS, weights=weights)(x)


def test_seed_is_kept(draw_inputs):
    """The same seed drops the same inputs, as Keras 3's argument promises."""
    x = draw_inputs(BATCH, TIME, FEATURES)
    results = []
    for seed in (7, 7, 8):
        layer = lstm_core.LSTM(
            UNITS, dropout=0.5, seed=seed, kernel_initializer="ones",
            recurrent_initializer="zeros",
        )  # fmt: skip
        assert seed == layer.seed == layer.get_config()["seed"]
        results.append(np.asarray(layer(x, training=True)))
    np.testing.assert_array_equal(results[0], results[1])
    assert (results[0] != results[2]).any()


def test_return_state_is_a_tuple(draw_inputs):
    """Output, h and c, as Keras 3 returns them."""
    x = draw_inputs(BATCH, TIME, FEATURES)
    for cls in (lstm_core.LSTM, keras.layers.LSTM):
        result = cls(UNITS, return_state=True)(x)
        assert (tuple, 3) == (type(result), len(result))
        np.testing.assert_array_equal(result[0], result[1])


def test_reset_state_of_any_layer(draw_inputs):
    """As in Keras 3 it takes no states, and does nothing where there are none."""
    lstm_core.LSTM(UNITS).reset_state()
    keras.layers.LSTM(UNITS).reset_state()
    layer = lstm_core.LSTM(UNITS, stateful=True)
    layer.reset_state()
    layer(draw_inputs(BATCH, TIME, FEATURES))
    layer.reset_state()
    assert layer.states is not None
    for state in layer.states:
        np.testing.assert_array_equal(np.zeros((BATCH, UNITS)), state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"units": 0}, "units must be a positive integer, not 0"),
        ({"units": 2.5}, "units must be a positive integer, not 2.5"),
        ({"units": 2, "implementation": 3}, "implementation must be 1 or 2, not 3"),
        ({"units": 2, "activation": "nonsense"}, "nonsense"),
        ({"units": 2, "nonsense": 1}, "nonsense"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(options, message):
    """The message names the argument and what came."""
    with pytest.raises(ValueError, match=message):
        lstm_core.LSTM(**options)


def test_inputs_of_another_width_or_rank_are_refused(draw_inputs):
    """Unknown features cannot be built, others than the built ones are named."""
    with pytest.raises(ValueError, match="needs to know the number of features"):
        lstm_core.LSTM(UNITS)(keras.Input((TIME, None)))
    layer = lstm_core.LSTM(UNITS)
    layer(draw_inputs(BATCH, TIME, FEATURES))
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 3"):
        layer(draw_inputs(BATCH, TIME, FEATURES + 1))
    with pytest.raises(ValueError, match="expected ndim=3, found ndim=2"):
        layer(draw_inputs(BATCH, FEATURES))


@pytest.mark.parametrize("make", [lstm_core.LSTM, lambda units: lstm_core.CudnnLSTM(1, units)])
@pytest.mark.parametrize("dtype", ["complex64", "complex128", "str"])
def test_inputs_that_are_no_real_numbers_are_refused(make, dtype):
    """Neither an imaginary part is dropped in silence, nor is the error that of a cast."""
    name = "string" if dtype == "str" else dtype
    with pytest.raises(ValueError, match=f"inputs of layer .*real numbers.*dtype is {name}"):
        make(UNITS)(tf.constant(np.ones((BATCH, TIME, FEATURES)).astype(dtype)))


@pytest.mark.parametrize("dtype", ["int32", "bool", "float64"])
def test_inputs_that_are_real_numbers_are_cast(dtype, draw_inputs):
    """Whole numbers and booleans count as numbers."""
    layer = lstm_core.LSTM(UNITS)
    x = (draw_inputs(BATCH, TIME, FEATURES) > 0).astype(dtype)
    np.testing.assert_array_equal(layer(x.astype(np.float32)), layer(x))


@pytest.mark.parametrize("way", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])  # noqa: S301
def test_a_copy_begins_with_the_weights_that_are_still_to_be_set(way, draw_weights, draw_inputs):
    """Of a layer that is not built, as in tf_keras; and of one that is."""
    weights = draw_weights(FEATURES, UNITS)
    x = draw_inputs(BATCH, TIME, FEATURES)
    layer = lstm_core.LSTM(UNITS, weights=weights)
    theirs = pytest.importorskip("tf_keras").layers.LSTM(UNITS, weights=weights)
    twin, peers_twin = way(layer), copy.deepcopy(theirs)
    np.testing.assert_allclose(twin(x), peers_twin(x), rtol=0, atol=1e-6)
    for again in (twin, way(way(layer)), way(twin)):
        again(x)
        for expected, actual in zip(weights, again.get_weights(), strict=True):
            np.testing.assert_array_equal(expected, actual)
    assert not way(lstm_core.LSTM(UNITS)).built


def test_models_keep_the_weights_that_are_still_to_be_set(tmp_path, draw_weights, draw_inputs):
    """A copy of a model that is not built, and its file, have them too."""
    weights = draw_weights(FEATURES, UNITS)
    model = keras.Sequential([lstm_core.LSTM(UNITS, weights=weights)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras: the model is not built.
        model.save(tmp_path / "model.keras")
        twins = [copy.deepcopy(model), keras.models.load_model(tmp_path / "model.keras")]
    x = draw_inputs(BATCH, TIME, FEATURES)
    for twin in twins:
        np.testing.assert_array_equal(model(x), twin(x))
        np.testing.assert_array_equal(weights[0], twin.get_weights()[0])


def test_weights_of_a_built_layer_are_not_taken_by_one_that_is_not(draw_weights):
    """That is an error, as in Keras; weights still to be set go into a built layer, though."""
    built = lstm_core.LSTM(UNITS)
    built.build((None, TIME, FEATURES))
    store: dict[str, Any] = {}
    built.save_own_variables(store)
    with pytest.raises(ValueError, match="never built"):
        lstm_core.LSTM(UNITS).load_own_variables(store)
    weights = draw_weights(FEATURES, UNITS)
    store = {}
    lstm_core.LSTM(UNITS, weights=weights).save_own_variables(store)
    built.load_own_variables(store)
    for expected, actual in zip(weights, built.get_weights(), strict=True):
        np.testing.assert_array_equal(expected, actual)
