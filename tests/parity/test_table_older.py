"""A row of the parity table for each feature of the layers of TensorFlow 1 and 1.4.

The peer of both is tf_keras's v1 layer, where the two releases agree, and the equations.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("tf_keras")

import tensorflow as tf
from tf_keras.src.layers.rnn import lstm_v1

from lstm_core import equations
from lstm_core.compat import tf14, v1
from tests.parity.cases import GRADIENTS
from tests.parity.record import agree
from tests.parity.subjects import loss
from tests.parity.table_cases import (
    ALL,
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

SPEC_V1 = replace(SPEC, recurrent_activation="hard_sigmoid_v1")


def by_equations(mask: Any = None, states: Any = STATES, **options: Any) -> Any:
    """Return what the equations give."""
    return equations.sequence(SPEC_V1, CORE, X, h=states[0], c=states[1], mask=mask, **options)


def gradients(layer: Any, mask: Any) -> Any:
    """Return the gradients for inputs, states and weights."""
    given = [tf.constant(array) for array in (X, *STATES)]
    with tf.GradientTape() as tape:
        tape.watch(given)
        mask = None if mask is None else tf.constant(mask)
        value = loss(layer(given[0], initial_state=given[1:], mask=mask))
    variables = [w if isinstance(w, tf.Variable) else w.value for w in layer.trainable_weights]
    return tape.gradient(value, [*given, *variables])


OPTIONS_V1: dict[str, dict[str, Any]] = {
    "forward": {},
    "mask": {},
    "initial_state": {},
    "go_backwards": {"go_backwards": True},
    "time_major": {"time_major": True},
    "unroll": {"unroll": True},
    "implementation=2": {"implementation": 2},
    "hard_sigmoid": {"activation": "hard_sigmoid"},
    "dropout": {"dropout": 0.5},
}


@pytest.mark.parametrize("feature", OPTIONS_V1)
def test_layer_of_tensorflow_1(feature):
    """Each option of `tf.compat.v1.keras.layers.LSTM` beside tf_keras's v1 layer."""
    options = ALL | OPTIONS_V1[feature]
    mask = MASK if feature in {"mask", "go_backwards", "unroll"} else None
    initial = None if feature == "forward" else [tf.constant(state) for state in STATES]
    x = np.swapaxes(X, 0, 1) if feature == "time_major" else X
    shape = (None, None, FEATURES)
    theirs, ours = (built(make(UNITS, **options), shape=shape) for make in (lstm_v1.LSTM, v1.LSTM))
    is_training = feature == "dropout"
    actual = ours(x, mask=mask, initial_state=initial, training=is_training)
    if is_training:  # the peer gets the masks that ours drew
        masks = ours.get_dropout_mask_for_cell(x[:, 0], training=True, count=4)
        theirs.cell.get_dropout_mask_for_cell = lambda *_, **__: masks
    mask = None if mask is None else tf.constant(mask)
    expected = theirs(x, mask=mask, initial_state=initial, training=is_training)
    agree(actual, expected, row=("compat.v1.LSTM", feature, "tf_keras.src.layers.rnn.lstm_v1.LSTM"))
    if feature in {"forward", "mask"}:
        given = STATES if initial else [None] * 2
        told = by_equations(None if mask is None else MASK, given)
        row = ("compat.v1.LSTM", feature, "lstm_core.equations")
        agree(actual, [told.outputs, told.h, told.c], row=row)


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
@pytest.mark.parametrize(
    ("system", "make", "options"),
    [
        ("compat.v1.LSTM", v1.LSTM, {}),
        ("compat.v1.LSTM", v1.LSTM, {"implementation": 2}),
        ("compat.tf14.LSTM", tf14.LSTM, {"implementation": 0}),
        ("compat.tf14.LSTM", tf14.LSTM, {"implementation": 2}),
    ],
)
def test_gradients_of_the_older_layers(system, make, options, mask):
    """Of inputs, states and weights, beside tf_keras's v1 layer."""
    if make is tf14.LSTM and mask is not None:
        mask = MASK | (np.arange(TIME) == 0)  # before the first live step the two differ
    theirs = {"implementation": max(1, options.get("implementation", 1))}
    layers = [
        built(each(UNITS, **ALL, **given))
        for each, given in ((make, options), (lstm_v1.LSTM, theirs))
    ]
    row = (system, "gradients", "tf_keras.src.layers.rnn.lstm_v1.LSTM")
    agree(*(gradients(layer, mask) for layer in layers), row=row, **GRADIENTS)


@pytest.mark.parametrize(
    ("system", "make"), [("compat.v1.LSTM", v1.LSTM), ("compat.tf14.LSTM", tf14.LSTM)]
)
def test_stateful_older_layers(system, make):
    """Calls in a row, a reset to given states and to zeros, beside tf_keras's v1 layer."""
    layers = [built(each(UNITS, stateful=True), shape=X.shape) for each in (make, lstm_v1.LSTM)]
    row = (system, "stateful", "tf_keras.src.layers.rnn.lstm_v1.LSTM")
    for reset in (None, None, STATES, None):
        for layer in layers:
            if reset is not None:
                layer.reset_states(reset)
        agree(*([layer(X), layer.states] for layer in layers), row=row)


def by_equations_of_tf14(mask: Any, **options: Any) -> Any:
    """Return outputs, h and c where masked first steps repeat h0."""
    told = by_equations(mask, **options)
    mask = mask[:, ::-1] if options.get("go_backwards") else mask
    waits = np.cumsum(mask, axis=1)[..., None] == 0
    return [np.where(waits, STATES[0][:, None], told.outputs), told.h, told.c]


OPTIONS_TF14: dict[str, dict[str, Any]] = {
    "forward": {},
    "mask before the first step": {},
    "go_backwards": {"go_backwards": True},
    "unroll": {"unroll": True},
    "implementation": {"implementation": 1},
}


@pytest.mark.parametrize("feature", OPTIONS_TF14)
def test_layer_of_tensorflow_1_4(feature):
    """Each option beside the equations; masked first steps give h0, unrolled ones zeros."""
    options = OPTIONS_TF14[feature]
    mask = np.ones_like(MASK) if feature == "forward" else MASK
    layer = built(tf14.LSTM(UNITS, **ALL, **options))
    actual = layer(X, mask=mask, initial_state=STATES)
    backwards = {key: value for key, value in options.items() if key == "go_backwards"}
    told = by_equations(mask)
    expected = [told.outputs, told.h, told.c]
    if feature != "unroll":
        expected = by_equations_of_tf14(mask, **backwards)
    agree(actual, expected, row=("compat.tf14.LSTM", feature, "lstm_core.equations"))


@pytest.mark.parametrize("implementation", [0, 1, 2])
def test_methods_of_tensorflow_1_4(implementation):
    """A loop of one's own over `preprocess_input`, `get_constants` and `step` is the equations."""
    layer = built(tf14.LSTM(UNITS, implementation=implementation))
    told = by_equations()
    steps = layer.preprocess_input(tf.constant(X))
    constants = layer.get_constants(tf.constant(X))
    state, outputs = [tf.constant(s) for s in STATES], []
    for t in range(TIME):
        output, state = layer.step(steps[:, t], [*state, *constants])
        outputs.append(output)
    row = ("compat.tf14.LSTM", "step", "lstm_core.equations")
    agree([tf.stack(outputs, 1), *state], [told.outputs, told.h, told.c], row=row)
    products = X.astype(np.float64) @ WEIGHTS[0] + WEIGHTS[2] if implementation == 0 else X
    row = ("compat.tf14.LSTM", "preprocess_input", "lstm_core.equations")
    agree(steps, products, row=row)
    ones = [np.float64(1)] * 4
    row = ("compat.tf14.LSTM", "get_constants", "lstm_core.equations")
    agree(constants, [ones, ones], row=row, atol=0)
    row = ("compat.tf14.LSTM", "get_initial_state", "tf_keras.src.layers.rnn.lstm_v1.LSTM")
    theirs = lstm_v1.LSTM(UNITS).get_initial_state(tf.constant(X))
    agree(layer.get_initial_state(tf.constant(X)), theirs, row=row, atol=0)
