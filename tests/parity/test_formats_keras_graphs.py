"""`read_keras` beside Keras itself: functional and nested models, random chains and graphs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lstm_core.formats.keras import read_keras
from lstm_core.runtime.cpu import CpuRuntime
from tests.parity.keras_models import (
    FEATURES,
    MARKS,
    check_graph,
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


UNITS = 4
CELLS = (3, 2)
OF_ONE: dict[str, Any] = {
    "lstm": lambda: layers.LSTM(UNITS, return_sequences=True),
    "zeros": lambda: layers.LSTM(3, return_sequences=True, zero_output_for_mask=True),
    "cells": lambda: layers.RNN(list(map(layers.LSTMCell, CELLS)), return_sequences=True),
    "dense": lambda: layers.Dense(UNITS, activation="softmax"),
    "dropout": lambda: layers.Dropout(0.5),
    "constant": lambda: lambda x: x * 0.5 + 1,
    "slice": lambda: lambda x: x[:, :, 1:],
}
MERGES: dict[str, Any] = {
    "add": layers.Add,
    "average": layers.Average,
    "subtract": layers.Subtract,
    "concatenate": layers.Concatenate,
    "operation": lambda: lambda pair: pair[0] + pair[1],
}
"""What makes a layer, or an operation, since hypothesis draws what to build before it is built."""
STEPS = (*OF_ONE, *MERGES, "lstm", "shared", "nested", "masking", "last")


class Growing:
    """A functional model step by step, from two inputs."""

    def __init__(self) -> None:
        self.reals = keras.Input((None, FEATURES), name="reals")
        self.words = keras.Input((None,), dtype="int32", name="words")
        self.shared = layers.LSTM(UNITS, return_sequences=True, name="shared")
        inner = keras.Input((None, UNITS))
        x = layers.LSTM(UNITS, return_sequences=True)(inner)
        self.inner = keras.Model(inner, [layers.Dense(UNITS)(x), layers.Add()([x, inner])])
        first = layers.Concatenate()([self.reals, layers.Embedding(5, UNITS)(self.words)])
        self.values = [self.reals, layers.LSTM(UNITS, return_sequences=True)(first)]
        self.last: list[Any] = []
        self.is_masked = False

    def fit(self, value: Any) -> Any:
        """Return a value of `UNITS` features."""
        return value if value.shape[-1] == UNITS else layers.Dense(UNITS)(value)

    def step(self, kind: str, first: int, second: int) -> None:
        """Append a step of a kind, on values counted back from the last one."""
        one, other = (self.values[-1 - n % len(self.values)] for n in (first, second))
        if kind in ("constant", "slice") and self.is_masked:
            return  # Keras has no mask behind operations, and we refuse them
        if kind == "last":
            self.last.append(layers.LSTM(2)(one))
        elif kind == "masking":
            self.values.append(layers.Masking()(self.reals))
            self.is_masked = True
        elif kind in OF_ONE:
            self.values.append(OF_ONE[kind]()(one))
        elif kind == "shared":
            self.values.append(self.shared(self.fit(one)))
        elif kind == "nested":
            self.values.append(self.inner(self.fit(one))[first % 2])
        else:
            pair = [one, other] if kind == "concatenate" else [self.fit(one), self.fit(other)]
            self.values.append(MERGES[kind]()(pair))

    def model(self) -> Any:
        """Return the model: two heads, and one of last steps where there are any."""
        heads = [layers.Dense(2)(self.values[-1]), layers.Dense(1)(self.values[-2])]
        heads += [layers.Average()(self.last)] if self.last else []
        return keras.Model([self.reals, self.words], heads)


@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from(STEPS), st.integers(0, 4), st.integers(0, 9)),
        min_size=3,
        max_size=8,
    )
)
def test_random_graphs(steps, tmp_path):
    """Merges, operations, masks that meet, shared and nested layers, several inputs and heads."""
    growing = Growing()
    for step in steps:
        growing.step(*step)
    check_graph(growing.model(), tmp_path)


def test_operations_with_numbers_and_quotients(tmp_path):
    """Numbers on either side, and values divided by each other."""
    reals = keras.Input((None, FEATURES))
    x = layers.LSTM(FEATURES, return_sequences=True)(reals)
    gate = layers.Dense(FEATURES, activation="sigmoid")(reals)
    heads = [gate * x + (1.0 - gate) * reals, (x - 0.5) / 2.0, x / (1.0 + gate)]
    check_graph(keras.Model(reals, heads), tmp_path)


def test_nested_models_of_several_calls(tmp_path):
    """What each call gives is told from the rest, though Keras counts outputs otherwise."""
    inner = keras.Input((None, FEATURES))
    own = layers.LSTM(FEATURES, return_sequences=True)(inner)
    block = keras.Model(inner, [own, layers.Add()([inner, own])])
    wide, narrow = keras.Input((None, FEATURES)), keras.Input((None, 2))
    joined = layers.LSTM(FEATURES, return_sequences=True)(layers.Concatenate()([wide, narrow]))
    pair = keras.Model([wide, narrow], joined)
    reals, others = keras.Input((None, FEATURES), name="a"), keras.Input((None, FEATURES), name="b")
    first, carried = block(reals)
    second, _ = block(carried)
    met = pair([second, layers.Dense(2)(others)])
    last = pair([met, layers.Dense(2)(carried)])
    heads = [first, layers.Subtract()([second, last]), met]
    check_graph(keras.Model([reals, others], heads), tmp_path)


def test_states_lie_as_on_tensorflow(tmp_path):
    """A graph's session may go from one runtime to the other: same order, same fingerprint."""
    from lstm_core.runtime.tensorflow import TensorFlowRuntime

    growing = Growing()
    kinds = ("shared", "lstm", "shared", "cells", "concatenate", "lstm", "last", "last")
    for step in zip(kinds, (1, 0, 2, 1, 0, 0, 1, 3), (0, 0, 0, 0, 2, 0, 0, 0), strict=True):
        growing.step(*step)
    model = growing.model()
    network = check_graph(model, tmp_path)
    theirs = TensorFlowRuntime(model, 4, like=network)
    ours = CpuRuntime(network, 4)
    inputs = np.random.default_rng(0).uniform(0, 1, (2, 5, network.input_size)).astype(np.float32)
    (words,) = (part.offset for part in network.inputs if part.name == "words")
    inputs[..., words] = np.trunc(inputs[..., words] * 5)

    here, there = (r.advance([0, 0], [1, 2], inputs, [3, 5]) for r in (ours, theirs))

    assert theirs.network.fingerprint == network.fingerprint
    assert [p.layer for p in theirs.network.state_layout] == [p.layer for p in network.state_layout]
    for name in ("outputs", "rows"):
        np.testing.assert_allclose(getattr(here, name), getattr(there, name), rtol=1e-6, atol=1e-6)
