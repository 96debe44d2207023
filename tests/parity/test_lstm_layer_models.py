"""`lstm_core.LSTM` as a part of Keras: models, wrappers, files, configuration, dispatch."""

from __future__ import annotations

import inspect
import json
import zipfile
from typing import Any

import h5py
import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras

import lstm_core
from lstm_core.errors import SpecError
from lstm_core.spec import LSTMSpec

BATCH, TIME, FEATURES, UNITS = 4, 6, 3, 5
CLOSE: dict[str, Any] = {"rtol": 0, "atol": 2e-6}

EVERY_OPTION: dict[str, Any] = {
    "units": 6, "activation": "relu", "recurrent_activation": "hard_sigmoid", "use_bias": False,
    "kernel_initializer": "he_normal", "recurrent_initializer": "glorot_uniform",
    "bias_initializer": "ones", "unit_forget_bias": False, "kernel_regularizer": "l1",
    "recurrent_regularizer": "l2", "bias_regularizer": "l1", "activity_regularizer": "l2",
    "kernel_constraint": "non_neg", "recurrent_constraint": "unit_norm",
    "bias_constraint": "max_norm", "dropout": 0.25, "recurrent_dropout": 0.5, "implementation": 1,
    "return_sequences": True, "return_state": True, "go_backwards": True, "stateful": True,
    "time_major": True, "unroll": True, "seed": 5, "zero_output_for_mask": True,
    "use_cudnn": False, "name": "everything", "dtype": "float64", "trainable": False,
}  # fmt: skip


def padded(draw_inputs):
    """Inputs with zeros past each row's length, for a Masking layer."""
    x = draw_inputs(BATCH, TIME, FEATURES)
    x[np.arange(TIME) >= np.array([[6], [3], [0], [5]])] = 0
    return x


def with_keras_layers(model):
    """The same model with Keras's LSTM in the place of ours."""

    def clone(layer):
        config = layer.get_config()
        if not isinstance(layer, lstm_core.LSTM):
            return layer.__class__.from_config(config)
        del config["implementation"], config["time_major"]
        return keras.layers.LSTM.from_config(config)

    twin = keras.models.clone_model(model, clone_function=clone)
    twin.set_weights(model.get_weights())
    return twin


def sequential():
    """Masking, two layers, a head."""
    return keras.Sequential(
        [
            keras.Input((None, FEATURES)),
            keras.layers.Masking(),
            lstm_core.LSTM(UNITS, return_sequences=True),
            lstm_core.LSTM(UNITS, go_backwards=True),
            keras.layers.Dense(2),
        ]
    )


def encoder_decoder():
    """A functional model whose second layer begins with the states of the first."""
    source, target = keras.Input((None, FEATURES)), keras.Input((None, FEATURES))
    _, h, c = lstm_core.LSTM(UNITS, return_state=True)(keras.layers.Masking()(source))
    decoded = lstm_core.LSTM(UNITS, return_sequences=True)(target, initial_state=[h, c])
    return keras.Model([source, target], keras.layers.Dense(2)(decoded))


@pytest.mark.parametrize("make", [sequential, encoder_decoder])
def test_models_equal_keras(make, draw_inputs):
    """A model predicts what it predicts with Keras's layer in the place of ours."""
    model = make()
    x = padded(draw_inputs)
    inputs = x if make is sequential else [x, draw_inputs(BATCH, 4, FEATURES, seed=3)]
    np.testing.assert_allclose(
        model.predict(inputs, verbose=0),
        with_keras_layers(model).predict(inputs, verbose=0),
        **CLOSE,
    )


@pytest.mark.parametrize("make", [sequential, encoder_decoder])
def test_models_save_and_load(make, tmp_path, draw_inputs):
    """A `.keras` file and a weights file give back the same predictions, bit for bit."""
    model = make()
    inputs = padded(draw_inputs)
    inputs = inputs if make is sequential else [inputs, inputs]
    expected = model.predict(inputs, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(inputs, verbose=0), expected)
    model.save_weights(tmp_path / "model.weights.h5")
    fresh = make()
    fresh.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(fresh.predict(inputs, verbose=0), expected)


def test_files_hold_the_weights_on_the_layer(tmp_path):
    """`lstm_core>LSTM` in the config, three arrays at `layers/lstm/vars`."""
    model = sequential()
    model.save(tmp_path / "model.keras")
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        config = json.loads(archive.read("config.json"))
        archive.extract("model.weights.h5", tmp_path)
    layers = [entry for entry in config["config"]["layers"] if entry["class_name"] == "LSTM"]
    assert [entry["registered_name"] for entry in layers] == ["lstm_core>LSTM"] * 2
    with h5py.File(tmp_path / "model.weights.h5") as file:
        for group, layer in (("lstm", model.layers[1]), ("lstm_1", model.layers[2])):
            variables = file[f"layers/{group}/vars"]
            assert sorted(variables) == ["0", "1", "2"]
            for key, weight in zip(sorted(variables), layer.get_weights(), strict=True):
                np.testing.assert_array_equal(variables[key], weight)


def test_config_round_trip():
    """Every argument comes back through `get_config` and `from_config`, and through JSON."""
    layer = lstm_core.LSTM(**EVERY_OPTION)
    config = layer.get_config()
    assert set(EVERY_OPTION) == set(inspect.signature(lstm_core.LSTM).parameters) - {"kwargs"} | {
        "name", "dtype", "trainable",
    }  # fmt: skip
    copy = lstm_core.LSTM.from_config(json.loads(json.dumps(config)))
    assert copy.get_config() == config
    plain = {k: v for k, v in EVERY_OPTION.items() if not isinstance(v, str) or k == "name"}
    assert {k: config[k] for k in plain} == plain
    assert config["activation"] == "relu"
    assert config["kernel_initializer"]["class_name"] == "HeNormal"
    assert config["bias_constraint"]["class_name"] == "MaxNorm"


def test_implementation_and_activation_none_survive():
    """`implementation` is kept, forced to 1 by recurrent dropout; None is linear."""
    for implementation in (1, 2):
        layer = lstm_core.LSTM(2, None, None, implementation=implementation)
        copy = lstm_core.LSTM.from_config(layer.get_config())
        assert copy.implementation == implementation
        assert copy.activation is copy.recurrent_activation is keras.activations.linear
    assert lstm_core.LSTM(2, implementation=2, recurrent_dropout=0.1).implementation == 1


def test_the_signature_is_that_of_tensorflow_2():
    """The documented arguments in the documented order, with the documented defaults."""
    tf_keras = pytest.importorskip("tf_keras")
    theirs = inspect.signature(tf_keras.layers.LSTM).parameters
    ours = inspect.signature(lstm_core.LSTM).parameters
    positional = [p for p in theirs.values() if p.name != "kwargs"]
    documented = [
        "units", "activation", "recurrent_activation", "use_bias", "kernel_initializer",
        "recurrent_initializer", "bias_initializer", "unit_forget_bias", "kernel_regularizer",
        "recurrent_regularizer", "bias_regularizer", "activity_regularizer", "kernel_constraint",
        "recurrent_constraint", "bias_constraint", "dropout", "recurrent_dropout",
        "implementation", "return_sequences", "return_state", "go_backwards", "stateful",
        "time_major", "unroll",
    ]  # fmt: skip
    assert list(ours)[: len(documented)] == documented
    for parameter in positional:
        if parameter.name in ours:
            assert ours[parameter.name].default == parameter.default, parameter.name


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave", None])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_bidirectional_equals_keras(return_sequences, merge_mode, draw_inputs):
    """The wrapper of Keras gives with our layer what it gives with its own."""
    models = []
    for cls in (lstm_core.LSTM, keras.layers.LSTM):
        x = keras.Input((None, FEATURES))
        wrapped = keras.layers.Bidirectional(
            cls(UNITS, return_sequences=return_sequences), merge_mode=merge_mode
        )(keras.layers.Masking()(x))
        models.append(keras.Model(x, wrapped))
    ours, theirs = models
    theirs.set_weights(ours.get_weights())
    x = padded(draw_inputs)
    for a, e in zip(keras.tree.flatten(ours(x)), keras.tree.flatten(theirs(x)), strict=True):
        np.testing.assert_allclose(a, e, **CLOSE)


def test_bidirectional_models_save_and_load(tmp_path, draw_inputs):
    """Both directions come back from a file."""
    model = keras.Sequential(
        [keras.Input((None, FEATURES)), keras.layers.Bidirectional(lstm_core.LSTM(UNITS))]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = draw_inputs(BATCH, TIME, FEATURES)
    np.testing.assert_array_equal(loaded(x), model(x))


def test_bidirectional_with_states(draw_inputs):
    """States go in and come out for both directions; a stateful wrapper resets both."""
    x, states = draw_inputs(BATCH, TIME, FEATURES), list(draw_inputs(4, BATCH, UNITS, seed=2))
    results = []
    weights = None
    for cls in (lstm_core.LSTM, keras.layers.LSTM):
        wrapper = keras.layers.Bidirectional(cls(UNITS, return_state=True))
        wrapper.build(x.shape)
        weights = weights or wrapper.get_weights()
        wrapper.set_weights(weights)
        results.append(wrapper(x, initial_state=states))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, **CLOSE)
    memory = keras.layers.Bidirectional(lstm_core.LSTM(UNITS, stateful=True))
    first = np.asarray(memory(x))
    assert len(memory.states) == 4
    assert (np.asarray(memory(x)) != first).any()
    memory.reset_state()
    np.testing.assert_array_equal(memory(x), first)


def test_masks_pass_through_only_with_sequences():
    """The next layer sees the mask where there still is a time axis."""
    masked = keras.layers.Masking()(keras.Input((TIME, FEATURES)))
    results = lstm_core.LSTM(2, return_sequences=True, return_state=True)(masked)
    last = lstm_core.LSTM(2)(masked)
    has_mask = [getattr(result, "_keras_mask", None) is not None for result in (*results, last)]
    assert has_mask == [True, False, False, False]
    assert lstm_core.LSTM(2).supports_masking


@pytest.mark.parametrize("time_major", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_symbolic_shapes_are_the_real_ones(return_sequences, time_major):
    """`compute_output_shape` and a symbolic call say what an eager call gives."""
    layer = lstm_core.LSTM(
        UNITS, return_state=True, return_sequences=return_sequences, time_major=time_major
    )
    shape = (TIME, BATCH, FEATURES) if time_major else (BATCH, TIME, FEATURES)
    shapes = [tuple(result.shape) for result in layer(np.zeros(shape, np.float32))]
    assert list(layer.compute_output_shape(shape)) == shapes
    assert [tuple(r.shape) for r in layer(keras.Input(batch_shape=shape))] == shapes


def test_every_documented_property():
    """What the documentation lists can be read from the layer."""
    layer = lstm_core.LSTM(**EVERY_OPTION)
    for name in ("units", "use_bias", "unit_forget_bias", "dropout", "recurrent_dropout",
                 "implementation"):  # fmt: skip
        assert getattr(layer, name) == EVERY_OPTION[name]
    assert layer.activation is keras.activations.relu
    assert isinstance(layer.kernel_initializer, keras.initializers.HeNormal)
    assert isinstance(layer.recurrent_initializer, keras.initializers.GlorotUniform)
    assert isinstance(layer.bias_initializer, keras.initializers.Ones)
    assert isinstance(layer.kernel_regularizer, keras.regularizers.L1)
    assert isinstance(layer.recurrent_regularizer, keras.regularizers.L2)
    assert isinstance(layer.bias_regularizer, keras.regularizers.L1)
    assert isinstance(layer.kernel_constraint, keras.constraints.NonNeg)
    assert isinstance(layer.recurrent_constraint, keras.constraints.UnitNorm)
    assert isinstance(layer.bias_constraint, keras.constraints.MaxNorm)
    assert (layer.state_size, layer.output_size) == ([6, 6], 6)


def test_spec_and_dispatch():
    """A built layer tells its spec, and which kernel runs and why no faster one."""
    layer = lstm_core.LSTM(UNITS, "relu", unroll=True, recurrent_dropout=0.5)
    with pytest.raises(SpecError, match="not built"):
        _ = layer.spec
    layer.build((None, TIME, FEATURES))
    assert layer.spec == LSTMSpec(input_size=FEATURES, units=UNITS, activation="relu")
    decision = layer.explain_dispatch()
    assert decision.kernel == "tensorflow"
    for obstacle in ("activation is relu", "recurrent_dropout is 0.5", "unroll is on"):
        assert obstacle in decision.reason


def test_an_unknown_activation_runs_but_has_no_spec(draw_inputs):
    """Any callable works in Keras; the spec says which one it does not know."""
    layer = lstm_core.LSTM(UNITS, activation=keras.ops.sin)
    assert layer(draw_inputs(BATCH, TIME, FEATURES)).shape == (BATCH, UNITS)
    with pytest.raises(SpecError, match="activation: sin is not one of the activations"):
        _ = layer.spec
