"""A row of the parity table for each feature of the layers that no law has one for.

`LSTM` and the NumPy runtime; older layers and cells are in `test_table_older` and `_cells`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("tf_keras")

import tensorflow as tf
import tf_keras

import lstm_core
from lstm_core import equations
from lstm_core.network import Network, Recurrent
from lstm_core.runtime.cpu import CpuRuntime
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights, initialize
from tests.parity.record import agree

BATCH, TIME, FEATURES, UNITS = 4, 6, 3, 4
SPEC = LSTMSpec(input_size=FEATURES, units=UNITS)
MASK = np.array([[0, 1, 1, 0, 1, 0], [1] * 6, [0] * 6, [1, 1, 0, 0, 0, 0]], bool)
GRADIENTS = {"rtol": 1e-5, "atol": 1e-5}
ALL = {"return_sequences": True, "return_state": True}


@pytest.fixture
def weights(draw_weights):
    """Kernel, recurrent kernel and bias."""
    return [w / 2 for w in draw_weights(FEATURES, UNITS)]


@pytest.fixture
def x(draw_inputs):
    """Inputs of a batch of sequences."""
    return draw_inputs(BATCH, TIME, FEATURES)


@pytest.fixture
def states(draw_inputs):
    """An h and a c."""
    return list(draw_inputs(2, BATCH, UNITS, seed=2))


def built(layer: Any, weights: Any, shape: Any = (BATCH, None, FEATURES)) -> Any:
    """Return the layer with these weights."""
    layer.build(shape)
    layer.set_weights(weights)
    return layer


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave", None])
def test_bidirectional(merge_mode, weights, x):
    """Keras's wrapper around ours is Keras's around its own, masks and all."""
    results = []
    for make in (lstm_core.LSTM, keras.layers.LSTM):
        wrapper = keras.layers.Bidirectional(make(UNITS, **ALL), merge_mode=merge_mode)
        results.append(built(wrapper, [*weights, *(0.7 * w for w in weights)])(x, mask=MASK))
    agree(*results, row=("LSTM", "Bidirectional", "keras.layers.LSTM"))


def test_fit(weights, x):
    """Three epochs of training from the same weights end at the same weights and predictions."""
    results = []
    for make in (lstm_core.LSTM, keras.layers.LSTM):
        layers = [keras.Input((None, FEATURES)), keras.layers.Masking(), make(UNITS)]
        model = keras.Sequential(layers)
        model.set_weights(weights)
        model.compile(keras.optimizers.Adam(0.01), "mse")
        model.fit(x, np.tanh(x[:, 0, :1]), batch_size=2, epochs=3, shuffle=False, verbose=0)
        results.append([*model.get_weights(), model.predict(x, verbose=0)])
    agree(*results, row=("LSTM", "fit", "keras.layers.LSTM"), **GRADIENTS)


@pytest.mark.parametrize("use_cudnn", ["auto", False])
def test_use_cudnn(use_cudnn, weights, x):
    """What was asked for changes no number on a CPU."""
    results = [
        built(make(UNITS, use_cudnn=use_cudnn), weights)(x)
        for make in (lstm_core.LSTM, keras.layers.LSTM)
    ]
    agree(*results, row=("LSTM", "use_cudnn", "keras.layers.LSTM"))


def test_return_state(weights, x, states):
    """The tuple of output, h and c, in Keras's order."""
    results = [
        built(make(UNITS, return_state=True), weights)(x, initial_state=states)
        for make in (lstm_core.LSTM, keras.layers.LSTM)
    ]
    assert [type(result) for result in results] == [tuple, tuple]
    agree(*results, row=("LSTM", "return_state", "keras.layers.LSTM"))


def test_get_initial_state(x):
    """By batch size as Keras 3 has it, by inputs as TensorFlow 2."""
    ours = lstm_core.LSTM(UNITS)
    keras_cell = keras.layers.LSTM(UNITS).cell
    feature = ("LSTM", "get_initial_state")
    theirs = keras_cell.get_initial_state(batch_size=BATCH)
    agree(ours.get_initial_state(BATCH), theirs, row=(*feature, "keras.layers.LSTM"), atol=0)
    theirs = tf_keras.layers.LSTM(UNITS).get_initial_state(tf.constant(x))
    agree(ours.get_initial_state(x), theirs, row=(*feature, "tf_keras.layers.LSTM"), atol=0)


def test_arguments_of_older_releases(weights, x):
    """`batch_input_shape` and `weights` make the model that they make in tf_keras."""
    models = []
    for package, make in ((keras, lstm_core.LSTM), (tf_keras, tf_keras.layers.LSTM)):
        layer = make(UNITS, batch_input_shape=(BATCH, None, FEATURES), weights=weights)
        models.append(package.Sequential([layer]))
    for feature in ("batch_input_shape", "weights="):
        row = ("LSTM", feature, "tf_keras.layers.LSTM")
        agree(*(model(x) for model in models), row=row)


RUNTIME: dict[str, dict[str, Any]] = {
    "forward": {},
    "mask": {},
    "go_backwards": {"go_backwards": True},
    "peepholes, projection": {
        "use_peepholes": True, "projection_size": 3, "cell_clip": 0.5, "projection_clip": 0.3,
        "forget_bias": 1.0,
    },
}  # fmt: skip


@pytest.mark.parametrize("feature", RUNTIME)
def test_numpy_runtime(feature, x, weights):
    """The runtime that serves gives the equations' numbers, and Keras's for Keras's options."""
    options = dict(RUNTIME[feature])
    backwards = {name: options.pop(name) for name in ("go_backwards",) if name in options}
    spec = replace(SPEC, **options)
    core = LSTMWeights(kernel=weights[0], recurrent_kernel=weights[1], bias=weights[2])
    core = initialize(spec, 1) if options else core
    runtime = CpuRuntime(
        Network("one", FEATURES, (Recurrent(name="lstm", spec=spec, weights=core, **backwards),)), 1
    )
    mask = None if feature == "forward" else MASK
    actual = runtime.predict(x, mask)
    told = equations.sequence(spec, core, x, mask=mask, **backwards)
    system = "NumPy CPU runtime"
    agree(actual, told.outputs, row=(system, feature, "lstm_core.equations"))
    if not options:
        layer = keras.layers.LSTM(UNITS, return_sequences=True, **backwards)
        row = (system, feature, "keras.layers.LSTM")
        agree(actual, built(layer, weights)(x, mask=mask), row=row)


def test_sessions_of_the_numpy_runtime(x, weights):
    """Step by step through the arena, each row on its own state, is Keras's sequence."""
    core = LSTMWeights(kernel=weights[0], recurrent_kernel=weights[1], bias=weights[2])
    runtime = CpuRuntime(
        Network("one", FEATURES, (Recurrent(name="lstm", spec=SPEC, weights=core),)), 2 * BATCH
    )
    slots, outputs = [0] * BATCH, []
    for t in range(TIME):
        after = [runtime.allocate() for _ in range(BATCH)]
        outputs.append(runtime.advance(slots, after, x[:, t : t + 1], [1] * BATCH).outputs[:, 0])
        for slot in slots:
            runtime.free(slot)
        slots = after
    expected = built(keras.layers.LSTM(UNITS, return_sequences=True), weights)(x)
    row = ("NumPy CPU runtime", "sessions", "keras.layers.LSTM")
    agree(np.stack(outputs, axis=1), expected, row=row)
