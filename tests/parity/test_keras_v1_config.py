"""The arguments, names and files of `lstm_core.compat.v1.LSTM`, beside tf_keras's v1 layer."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("tf_keras")

import keras
import tensorflow as tf
import tf_keras
from tf_keras.src.layers.rnn import lstm_v1

import lstm_core
from lstm_core import activations
from lstm_core.compat import tf14, v1
from lstm_core.layers.activations_v1 import hard_sigmoid_v1

BATCH, TIME, FEATURES, UNITS = 5, 6, 3, 4


def test_arguments_stand_where_tensorflow_1_has_them():
    """Positional arguments have the peer's names, order and defaults."""

    def positional(layer: type) -> list[tuple[str, object]]:
        parameters = inspect.signature(layer.__init__).parameters.values()  # type: ignore[misc]
        return [
            (p.name, float(p.default) if isinstance(p.default, float) else p.default)
            for p in parameters
            if p.kind is p.POSITIONAL_OR_KEYWORD
        ]

    assert positional(lstm_v1.LSTM) == positional(v1.LSTM)


def test_defaults_are_those_of_tensorflow_1():
    """Gates by `hard_sigmoid` of its day, products gate by gate."""
    layer = v1.LSTM(UNITS)
    assert (hard_sigmoid_v1, keras.activations.tanh, 1) == (
        layer.recurrent_activation,
        layer.activation,
        layer.implementation,
    )


def test_implementation_0_means_1():
    """As every release from 1.5 on says; others are refused."""
    assert 1 == v1.LSTM(UNITS, implementation=0).implementation
    with pytest.raises(ValueError, match="implementation must be 1 or 2, not 3"):
        v1.LSTM(UNITS, implementation=3)


@pytest.mark.parametrize("stateful", [False, True])
def test_states_before_the_first_call(stateful):
    """Two, none of them there yet, as the peer has them."""
    layers = [layer(UNITS, stateful=stateful) for layer in (lstm_v1.LSTM, v1.LSTM)]
    assert [[None, None]] * 2 == [list(layer.states) for layer in layers]


def test_it_never_runs_on_cudnn():
    """Not even where cuDNN could run it; and nobody can ask for it."""
    layer = v1.LSTM(UNITS, recurrent_activation="sigmoid")
    assert [False, False] == [layer.use_cudnn, "use_cudnn" in layer.get_config()]
    with pytest.raises(TypeError, match=r"never runs on cuDNN: use lstm_core\.LSTM"):
        v1.LSTM(UNITS, use_cudnn=True)


def test_arguments_of_the_constructor_that_keras_3_rejects(draw_weights):
    """`batch_input_shape` and `weights` make a stateful first layer of a model."""
    weights = draw_weights(FEATURES, UNITS)
    layer = v1.LSTM(
        UNITS, stateful=True, batch_input_shape=(BATCH, TIME, FEATURES), weights=weights
    )
    keras.Sequential([layer])(np.zeros((BATCH, TIME, FEATURES)))
    assert [(BATCH, UNITS)] * 2 == [tuple(s.shape) for s in layer.states]
    np.testing.assert_array_equal(layer.get_weights()[0], weights[0])


def test_hard_sigmoid_is_that_of_its_day():
    """The TensorFlow function equals the NumPy one, and differs from Keras 3's by up to 0.083."""
    x = np.linspace(-4, 4, 801, dtype=np.float32)
    ours = np.asarray(hard_sigmoid_v1(x))
    np.testing.assert_allclose(ours, activations.hard_sigmoid_v1(x), rtol=0, atol=1e-7)
    difference = np.abs(ours - np.asarray(keras.activations.hard_sigmoid(x))).max()
    assert 0.083 == round(float(difference), 3)


def test_the_spec_names_the_function():
    """Inference outside Keras runs with `hard_sigmoid_v1`, and the dispatch says why not cuDNN."""
    layer = v1.LSTM(UNITS)
    layer.build((None, None, FEATURES))
    assert ("tanh", "hard_sigmoid_v1") == (layer.spec.activation, layer.spec.recurrent_activation)
    assert "recurrent_activation is hard_sigmoid_v1, not sigmoid" in layer.explain_dispatch().reason


@pytest.mark.parametrize(
    ("identifier", "serialized"),
    [
        ("hard_sigmoid", "hard_sigmoid"),
        ("hard_sigmoid_v1", "hard_sigmoid"),
        (hard_sigmoid_v1, "hard_sigmoid"),
        (keras.activations.hard_sigmoid, "hard_sigmoid_v3"),
        ("sigmoid", "sigmoid"),
        (None, "linear"),
    ],
)
def test_configs_keep_the_function(identifier, serialized):
    """A config names the v1 function as files of its day do, and Keras 3's apart from it."""
    layer = v1.LSTM(UNITS, activation=identifier, recurrent_activation=identifier)
    config = layer.get_config()
    twin = v1.LSTM.from_config(config)
    assert [serialized] * 2 == [config["activation"], config["recurrent_activation"]]
    assert [layer.activation] * 2 == [twin.activation, twin.recurrent_activation]


def test_a_config_of_tensorflow_1_is_read():
    """What the peer's `get_config` gives makes a layer with the peer's numbers."""
    options = {"go_backwards": True, "dropout": 0.25, "implementation": 2, "time_major": True}
    theirs = lstm_v1.LSTM(UNITS, kernel_regularizer="l2", **options)
    config = theirs.get_config()
    ours = v1.LSTM.from_config(config)
    shared = config.keys() & ours.get_config().keys() - {"dtype"}
    plain = {name for name in shared if isinstance(config[name], str | int | float)}
    assert {n: config[n] for n in plain} == {n: ours.get_config()[n] for n in plain}
    assert isinstance(ours.kernel_regularizer, keras.regularizers.L2)


OLD_CONFIG = {
    "name": "lstm_1", "trainable": True, "dtype": "float32", "batch_input_shape": [None, TIME, 3],
    "return_sequences": True, "return_state": False, "go_backwards": False, "stateful": False,
    "unroll": False, "implementation": 0, "units": UNITS, "activation": "tanh",
    "recurrent_activation": "hard_sigmoid", "use_bias": True,
    "kernel_initializer": {
        "class_name": "VarianceScaling",
        "config": {
            "scale": 1.0, "mode": "fan_avg", "distribution": "uniform", "seed": None,
            "dtype": "float32",
        },
    },
    "recurrent_initializer": {
        "class_name": "Orthogonal", "config": {"gain": 1.0, "seed": None, "dtype": "float32"}
    },
    "bias_initializer": {"class_name": "Zeros", "config": {"dtype": "float32"}},
    "unit_forget_bias": True,
    "kernel_regularizer": {"class_name": "L1L2", "config": {"l1": 0.0, "l2": 0.01}},
    "recurrent_regularizer": None, "bias_regularizer": None, "activity_regularizer": None,
    "kernel_constraint": {"class_name": "MaxNorm", "config": {"max_value": 2, "axis": 0}},
    "recurrent_constraint": None, "bias_constraint": None, "dropout": 0.0,
    "recurrent_dropout": 0.0,
}  # fmt: skip
"""As model files of TensorFlow 1.4 to 1.13 have it: its initializers had a dtype."""


@pytest.mark.parametrize("layer", [v1.LSTM, tf14.LSTM, lstm_core.LSTM])
def test_a_config_from_a_file_of_tensorflow_1_is_read(layer, draw_inputs):
    """Initializers, regularizers and constraints of the time make a layer that runs."""
    made = layer.from_config(OLD_CONFIG)
    made(draw_inputs(BATCH, TIME, FEATURES))
    assert ["lstm_1", True, 1, "MaxNorm"] == [
        made.name,
        made.return_sequences,
        len(made.losses),
        type(made.kernel.constraint).__name__,
    ]
    assert isinstance(made.recurrent_initializer, keras.initializers.Orthogonal)
    assert made.get_config() == layer.from_config(made.get_config()).get_config()


@pytest.mark.parametrize("layer", [v1.LSTM, tf14.LSTM, lstm_core.LSTM])
@pytest.mark.parametrize("of", [tf.compat.v1.initializers, tf_keras.initializers])
def test_initializers_of_tensorflow_1_survive_the_config(of, layer):
    """They come back as those of Keras 3 with the same name and arguments."""
    made = layer(UNITS, kernel_initializer=of.random_normal(stddev=0.5), bias_initializer=of.ones())
    twin = layer.from_config(json.loads(json.dumps(made.get_config())))
    assert isinstance(twin.bias_initializer, keras.initializers.Ones)
    assert isinstance(twin.kernel_initializer, keras.initializers.RandomNormal)
    assert 0.5 == twin.kernel_initializer.stddev


@pytest.mark.parametrize(
    "initializer",
    [
        tf.compat.v1.glorot_uniform_initializer(seed=1), tf.compat.v1.orthogonal_initializer(),
        tf.compat.v1.variance_scaling_initializer(), tf.compat.v1.truncated_normal_initializer(),
        tf.compat.v1.zeros_initializer, tf.compat.v1.constant_initializer(0.5),
        OLD_CONFIG["kernel_initializer"],
    ],
    ids=["glorot", "orthogonal", "scaling", "truncated", "class", "constant", "config"],
)  # fmt: skip
def test_initializers_that_the_peer_takes(initializer, draw_inputs):
    """Those of TensorFlow 1, as objects, classes and entries of configs; so do their configs."""
    x = draw_inputs(BATCH, TIME, FEATURES)
    for layer in (tf_keras.layers.LSTM, lstm_core.LSTM):
        made = layer(UNITS, kernel_initializer=initializer)
        twin = layer.from_config(made.get_config())
        assert [(BATCH, UNITS)] * 2 == [tuple(lstm(x).shape) for lstm in (made, twin)]
    stack = lstm_core.CudnnLSTM(1, UNITS, kernel_initializer=initializer)
    twin = lstm_core.CudnnLSTM.from_config(json.loads(json.dumps(stack.get_config())))
    assert stack(x)[0].shape == twin(x)[0].shape


@pytest.mark.parametrize("layer", [v1.LSTM, tf14.LSTM])
def test_bidirectional_returns_states(layer, draw_inputs):
    """Keras's wrapper takes the outputs and all four states, eagerly and symbolically."""
    wrapped = keras.layers.Bidirectional(layer(UNITS, return_sequences=True, return_state=True))
    x = draw_inputs(BATCH, TIME, FEATURES)
    outputs = wrapped(x)
    symbolic = wrapped(keras.Input((TIME, FEATURES)))
    states = [(BATCH, UNITS)] * 4
    assert [(BATCH, TIME, 2 * UNITS), *states] == [tuple(t.shape) for t in outputs]
    assert [3, 2, 2, 2, 2] == [len(t.shape) for t in symbolic]
    np.testing.assert_array_equal(wrapped.forward_layer(x)[1], outputs[1])


def test_lstm_takes_the_function_too():
    """The layer of TensorFlow 2 with `hard_sigmoid_v1` saves and names it."""
    layer = lstm_core.LSTM(UNITS, recurrent_activation=hard_sigmoid_v1)
    twin = lstm_core.LSTM.from_config(layer.get_config())
    assert twin.recurrent_activation is hard_sigmoid_v1


def test_a_model_trains_saves_and_loads(tmp_path, draw_inputs):
    """`fit` lowers the loss, and the loaded file is the same layer with the same numbers."""
    x = draw_inputs(32, TIME, FEATURES)
    model = keras.Sequential(
        [keras.Input((TIME, FEATURES)), v1.LSTM(UNITS, dropout=0.1), keras.layers.Dense(1)]
    )
    model.compile(keras.optimizers.Adam(0.05), "mse")
    losses = model.fit(x, x.sum((1, 2))[:, None], epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [v1.LSTM, "lstm"] == [type(loaded.layers[0]), loaded.layers[0].name[:4]]
    np.testing.assert_array_equal(loaded(x), model(x))


def test_weights_files_are_those_of_keras(tmp_path, draw_inputs):
    """A `.weights.h5` of ours goes into `lstm_core.LSTM`, and back."""
    x = draw_inputs(BATCH, TIME, FEATURES)
    ours, other = (
        keras.Sequential([keras.Input((TIME, FEATURES)), layer])
        for layer in (v1.LSTM(UNITS), lstm_core.LSTM(UNITS, recurrent_activation=hard_sigmoid_v1))
    )
    ours.save_weights(tmp_path / "ours.weights.h5")
    other.load_weights(tmp_path / "ours.weights.h5")
    np.testing.assert_allclose(other(x), ours(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("release", ["v1", "tf14"])
def test_importing_the_package_does_not_import_tensorflow(release):
    """The layers are lazy attributes, and other names are an AttributeError."""
    code = (
        f"import sys, lstm_core.compat as c; assert 'LSTM' in c.{release}.__all__\n"
        f"assert not hasattr(c.{release}, 'GRU')\n"
        "assert not {'tensorflow', 'keras'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
