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
from lstm_core.weights import initialize
from tests.parity.cases import GRADIENTS
from tests.parity.record import agree
from tests.parity.table_cases import (
    ALL,
    BATCH,
    CORE,
    FEATURES,
    MASK,
    SPEC,
    STATES,
    TIME,
    UNITS,
    WEIGHTS,
    X,
    built,
)


@pytest.mark.parametrize("merge_mode", ["concat", "sum", "mul", "ave", None])
def test_bidirectional(merge_mode):
    """Keras's wrapper around ours is Keras's around its own, masks and all."""
    results = []
    for make in (lstm_core.LSTM, keras.layers.LSTM):
        wrapper = keras.layers.Bidirectional(make(UNITS, **ALL), merge_mode=merge_mode)
        results.append(built(wrapper, [*WEIGHTS, *(0.7 * w for w in WEIGHTS)])(X, mask=MASK))
    agree(*results, row=("LSTM", "Bidirectional", "keras.layers.LSTM"))


def test_fit_ends_at_the_weights_of_keras():
    """Three epochs of training from the same weights end at the same weights and predictions."""
    results = []
    for make in (lstm_core.LSTM, keras.layers.LSTM):
        layers = [keras.Input((None, FEATURES)), keras.layers.Masking(), make(UNITS)]
        model = keras.Sequential(layers)
        model.set_weights(WEIGHTS)
        model.compile(keras.optimizers.Adam(0.01), "mse")
        model.fit(X, np.tanh(X[:, 0, :1]), batch_size=2, epochs=3, shuffle=False, verbose=0)
        results.append([*model.get_weights(), model.predict(X, verbose=0)])
    agree(*results, row=("LSTM", "fit", "keras.layers.LSTM"), **GRADIENTS)


@pytest.mark.parametrize("use_cudnn", ["auto", False])
def test_use_cudnn(use_cudnn):
    """What was asked for changes no number on a CPU."""
    results = [
        built(make(UNITS, use_cudnn=use_cudnn))(X) for make in (lstm_core.LSTM, keras.layers.LSTM)
    ]
    agree(*results, row=("LSTM", "use_cudnn", "keras.layers.LSTM"))


def test_return_state():
    """The tuple of output, h and c, in Keras's order."""
    results = [
        built(make(UNITS, return_state=True))(X, initial_state=STATES)
        for make in (lstm_core.LSTM, keras.layers.LSTM)
    ]
    assert [type(result) for result in results] == [tuple, tuple]
    agree(*results, row=("LSTM", "return_state", "keras.layers.LSTM"))


def test_get_initial_state():
    """By batch size as Keras 3 has it, by inputs as TensorFlow 2."""
    ours = lstm_core.LSTM(UNITS)
    keras_cell = keras.layers.LSTM(UNITS).cell
    feature = ("LSTM", "get_initial_state")
    theirs = keras_cell.get_initial_state(batch_size=BATCH)
    agree(ours.get_initial_state(BATCH), theirs, row=(*feature, "keras.layers.LSTM"), atol=0)
    theirs = tf_keras.layers.LSTM(UNITS).get_initial_state(tf.constant(X))
    agree(ours.get_initial_state(X), theirs, row=(*feature, "tf_keras.layers.LSTM"), atol=0)


def test_arguments_of_older_releases():
    """`batch_input_shape` and `weights` make the model that they make in tf_keras."""
    models = []
    for package, make in ((keras, lstm_core.LSTM), (tf_keras, tf_keras.layers.LSTM)):
        layer = make(UNITS, batch_input_shape=(BATCH, None, FEATURES), weights=WEIGHTS)
        models.append(package.Sequential([layer]))
    for feature in ("batch_input_shape", "weights="):
        row = ("LSTM", feature, "tf_keras.layers.LSTM")
        agree(*(model(X) for model in models), row=row)


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
def test_cpu_runtime(feature):
    """The runtime that serves gives the equations' numbers, and Keras's for Keras's options."""
    options = dict(RUNTIME[feature])
    backwards = {name: options.pop(name) for name in ("go_backwards",) if name in options}
    spec = replace(SPEC, **options)
    core = initialize(spec, 1) if options else CORE
    runtime = CpuRuntime(
        Network("one", FEATURES, (Recurrent(name="lstm", spec=spec, weights=core, **backwards),)), 1
    )
    mask = None if feature == "forward" else MASK
    actual = runtime.predict(X, mask)
    told = equations.sequence(spec, core, X, mask=mask, **backwards)
    system = "CPU runtime"
    agree(actual, told.outputs, row=(system, feature, "lstm_core.equations"))
    if not options:
        layer = keras.layers.LSTM(UNITS, return_sequences=True, **backwards)
        row = (system, feature, "keras.layers.LSTM")
        agree(actual, built(layer)(X, mask=mask), row=row)


def test_sessions_of_the_cpu_runtime():
    """Step by step through the arena, each row on its own state, is Keras's sequence."""
    runtime = CpuRuntime(
        Network("one", FEATURES, (Recurrent(name="lstm", spec=SPEC, weights=CORE),)), 2 * BATCH
    )
    slots, outputs = [0] * BATCH, []
    for t in range(TIME):
        after = [runtime.allocate() for _ in range(BATCH)]
        outputs.append(runtime.advance(slots, after, X[:, t : t + 1], [1] * BATCH).outputs[:, 0])
        for slot in slots:
            runtime.free(slot)
        slots = after
    expected = built(keras.layers.LSTM(UNITS, return_sequences=True))(X)
    row = ("CPU runtime", "sessions", "keras.layers.LSTM")
    agree(np.stack(outputs, axis=1), expected, row=row)
