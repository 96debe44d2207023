"""`read_keras` beside Keras itself: functional and nested models, and random chains."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lstm_core.formats.keras import read_keras
from lstm_core.runtime.cpu import CpuRuntime
from tests.parity.keras_models import (
    FEATURES,
    MARKS,
    check_parity,
    keras,
    layers,
    masked_inputs,
    randomise,
    sequential,
)

pytestmark = MARKS


def test_functional_chain_with_masks_and_states(tmp_path):
    """A functional chain is read, though Keras writes mask operations and states into its graph."""
    inputs = keras.Input((None, FEATURES))
    x = layers.Masking()(inputs)
    x = layers.Dense(4)(x)
    x, _, _ = layers.LSTM(4, return_sequences=True, return_state=True)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Masking(0.25)(x)
    x = layers.TimeDistributed(layers.Dense(3))(x)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(x)
    x = layers.LSTM(2)(x)
    check_parity(keras.Model(inputs, layers.Dense(2)(x)), tmp_path, is_compiled=True)


@pytest.mark.parametrize("structure", ["list", "dict"])
def test_functional_inputs_and_outputs_in_containers(structure, tmp_path):
    """One input and one output may come in a list or a dict."""
    inputs = keras.Input((None, FEATURES), name="a")
    outputs = layers.LSTM(3)(inputs)
    model = (
        keras.Model([inputs], [outputs])
        if structure == "list"
        else keras.Model({"a": inputs}, {"b": outputs})
    )
    randomise(model)
    path = tmp_path / "model.keras"
    model.save(path)
    x = masked_inputs()
    expected = model({"a": x} if structure == "dict" else [x])
    expected = (
        expected["b"]
        if structure == "dict"
        else expected[0]
        if isinstance(expected, list)
        else expected
    )
    np.testing.assert_allclose(
        CpuRuntime(read_keras(path), 1).predict(x), np.asarray(expected), rtol=1e-6, atol=1e-6
    )


def test_nested_models(tmp_path):
    """Nested models are unfolded, each with its own weights, and a mask passes through them."""
    inner_inputs = keras.Input((None, 4))
    inner = keras.Model(inner_inputs, layers.LSTM(4, return_sequences=True)(inner_inputs))
    model = sequential(
        layers.Masking(),
        keras.Sequential([layers.Dense(4), layers.LSTM(4, return_sequences=True), layers.Dense(4)]),
        inner,
        keras.Sequential([layers.LSTM(4, return_sequences=True)]),
        layers.Dense(2),
    )
    network = check_parity(model, tmp_path, is_compiled=True)
    assert [part.layer for part in network.state_layout[::2]] == [
        "sequential/lstm_1",
        "functional/lstm",
        "sequential_1/lstm_2",
    ]


def test_functional_model_around_nested_models(tmp_path):
    """A functional chain of nested models keeps the mask too."""
    inner_inputs = keras.Input((None, FEATURES))
    inner = keras.Model(inner_inputs, layers.LSTM(4, return_sequences=True)(inner_inputs))
    inputs = keras.Input((None, FEATURES))
    outputs = layers.LSTM(3)(inner(layers.Masking()(inputs)))
    check_parity(keras.Model(inputs, outputs), tmp_path, is_compiled=True)


# Hypothesis draws what to build; the layers, which draw random seeds, are made inside the test.
BUILDERS = {
    "LSTM": lambda n: layers.LSTM(n, return_sequences=True),
    "LSTM of zeros": lambda n: layers.LSTM(
        n, return_sequences=True, zero_output_for_mask=True, use_bias=False
    ),
    "Bidirectional": lambda n: layers.Bidirectional(layers.LSTM(n, return_sequences=True)),
    "RNN": lambda n: layers.RNN([layers.LSTMCell(n), layers.LSTMCell(3)], return_sequences=True),
    "Dense": lambda n: layers.Dense(n, activation="tanh"),
    "TimeDistributed": lambda n: layers.TimeDistributed(layers.Dense(n)),
    "nested": lambda n: keras.Sequential([layers.Dense(n), layers.LSTM(n, return_sequences=True)]),
    "BatchNormalization": lambda _: layers.BatchNormalization(),
    "LayerNormalization": lambda _: layers.LayerNormalization(epsilon=0.1),
    "Dropout": lambda _: layers.Dropout(0.5),
    "Rescaling": lambda n: layers.Rescaling(1 / n, offset=0.1),
    "Masking": lambda n: layers.Masking(n - 1),
}


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    chain=st.lists(st.tuples(st.sampled_from(list(BUILDERS)), st.integers(1, 5)), max_size=4),
    is_last=st.booleans(),
)
def test_random_chains(chain, is_last, tmp_path):
    """Any chain of known layers gives Keras's numbers, by sequence and step by step."""
    tail = [layers.LSTM(3, return_sequences=not is_last), layers.Dense(2)]
    built = [BUILDERS[name](units) for name, units in chain]
    check_parity(sequential(*built, *tail), tmp_path, rtol=2e-6, is_compiled=True)
