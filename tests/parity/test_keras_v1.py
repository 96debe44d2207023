"""The numbers of `lstm_core.compat.v1.LSTM` beside tf_keras's v1 layer and the equations."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tensorflow")
pytest.importorskip("tf_keras")

import tensorflow as tf
from tf_keras.src.layers.rnn import lstm_v1

from lstm_core import equations
from lstm_core.compat import v1
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights

BATCH, TIME, FEATURES, UNITS = 5, 6, 3, 4
FORWARD: dict[str, Any] = {"rtol": 0, "atol": 1e-6}
GRADIENTS = {"rtol": 1e-5, "atol": 1e-5}

MASKS: dict[str, Any] = {
    "none": None,
    "right_padded": np.arange(TIME) < np.array([[6], [4], [1], [5], [2]]),
    "left_padded": np.arange(TIME) >= np.array([[0], [2], [5], [1], [4]]),
    "holes": np.random.default_rng(3).random((BATCH, TIME)) < 0.6,
    "fully_masked_rows": np.arange(TIME) < np.array([[0], [4], [0], [6], [0]]),
}

OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "sequences_and_state": {"return_sequences": True, "return_state": True},
    "backwards": {"return_sequences": True, "return_state": True, "go_backwards": True},
    "backwards_last": {"go_backwards": True},
    "unrolled": {"return_sequences": True, "return_state": True, "unroll": True},
    "implementation_0": {"return_state": True, "implementation": 0},
    "implementation_2": {"return_sequences": True, "return_state": True, "implementation": 2},
    "no_bias": {"return_sequences": True, "use_bias": False},
    "time_major": {"return_sequences": True, "return_state": True, "time_major": True},
    "sigmoid": {"recurrent_activation": "sigmoid"},
    "linear": {"activation": None, "return_state": True},
    "no_recurrent_activation": {"recurrent_activation": None},
    "hard": {"activation": "hard_sigmoid", "return_sequences": True},
    "softsign": {"activation": "softsign", "recurrent_activation": "tanh"},
}


def as_list(result: Any) -> list[Any]:
    """Return one output or several as a list."""
    return list(result) if isinstance(result, list | tuple) else [result]


def assert_same(expected: Any, actual: Any, tolerance: dict[str, Any] | None = None) -> None:
    """Compare all outputs."""
    expected, actual = as_list(expected), as_list(actual)
    assert len(expected) == len(actual)
    for e, a in zip(expected, actual, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(e), **(tolerance or FORWARD))


@pytest.fixture
def pair(draw_weights):
    """Build the peer and ours with the same arguments and weights."""

    def build(shape: tuple[int, ...] = (BATCH, TIME, FEATURES), **options: Any) -> tuple[Any, Any]:
        weights = draw_weights(shape[-1], UNITS, use_bias=options.get("use_bias", True))
        layers = (lstm_v1.LSTM(UNITS, **options), v1.LSTM(UNITS, **options))
        for layer in layers:
            layer.build(shape)
            layer.set_weights([0.5 * w for w in weights])
        return layers

    return build


def call_both(
    layers: tuple[Any, Any], x: Any, mask: Any, states: Any, **kwargs: Any
) -> tuple[Any, Any]:
    """Call the peer and ours on the same inputs, time-major if they are so."""
    if layers[1].time_major:
        x = np.swapaxes(x, 0, 1)
        mask = None if mask is None else mask.T
    mask = None if mask is None else tf.constant(mask)
    return (
        layers[0](x, mask=mask, initial_state=[tf.constant(s) for s in states], **kwargs),
        layers[1](x, mask=mask, initial_state=states, **kwargs),
    )


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_equals_the_layer_of_tensorflow_1(options, mask, pair, draw_inputs):
    """Every option with every kind of mask, from given states, gives what tf_keras's layer does."""
    x = draw_inputs(BATCH, TIME, FEATURES)
    states = list(draw_inputs(2, BATCH, UNITS, seed=2))
    assert_same(*call_both(pair(**options), x, mask, states))


@pytest.mark.parametrize("mask", ["none", "holes", "fully_masked_rows"])
@pytest.mark.parametrize("implementation", [1, 2])
@pytest.mark.parametrize("go_backwards", [False, True])
def test_gradients_equal_those_of_tensorflow_1(
    go_backwards, implementation, mask, pair, draw_inputs
):
    """Gradients of the inputs, the states and all weights agree."""
    layers = pair(
        return_sequences=True,
        return_state=True,
        go_backwards=go_backwards,
        implementation=implementation,
    )
    x = tf.constant(draw_inputs(BATCH, TIME, FEATURES))
    states = [tf.constant(s) for s in draw_inputs(2, BATCH, UNITS, seed=2)]
    weights = [layers[0].trainable_weights, [w.value for w in layers[1].trainable_weights]]
    gradients = []
    for layer, own_weights in zip(layers, weights, strict=True):
        with tf.GradientTape() as tape:
            tape.watch([x, *states])
            live = None if MASKS[mask] is None else tf.constant(MASKS[mask])
            results = layer(x, mask=live, initial_state=states)
            loss = tf.add_n([tf.reduce_sum(r * r) for r in results])
        gradients.append(tape.gradient(loss, [x, *states, *own_weights]))
    assert_same(gradients[0], gradients[1], GRADIENTS)


@functools.cache
def traced(implementation: int, go_backwards: bool) -> Any:
    """Return a layer with weights, and a graph of it for any batch, length and mask."""
    layer = v1.LSTM(
        UNITS,
        implementation=implementation,
        go_backwards=go_backwards,
        return_sequences=True,
        return_state=True,
    )
    layer.build((None, None, FEATURES))
    signature = [
        tf.TensorSpec((None, None, FEATURES)),
        tf.TensorSpec((None, None), tf.bool),
        tf.TensorSpec((None, UNITS)),
        tf.TensorSpec((None, UNITS)),
    ]
    graph = tf.function(
        lambda x, mask, h, c: layer(x, mask=mask, initial_state=[h, c]), input_signature=signature
    )
    return layer, graph


@given(
    seed=st.integers(0, 2**16),
    batch=st.integers(0, 3),
    time=st.integers(0, 4),
    implementation=st.sampled_from([1, 2]),
    go_backwards=st.booleans(),
)
@settings(deadline=None)
def test_equals_the_equations(seed, batch, time, implementation, go_backwards):
    """Any size, mask and states, empty ones too, give what the equations give in float64."""
    layer, graph = traced(implementation, go_backwards)
    random = np.random.default_rng(seed)
    x = random.normal(size=(batch, time, FEATURES)).astype(np.float32)
    h, c = random.normal(size=(2, batch, UNITS)).astype(np.float32)
    mask = random.random((batch, time)) < 0.6
    kernel, recurrent_kernel, bias = layer.get_weights()
    expected = equations.sequence(
        LSTMSpec(input_size=FEATURES, units=UNITS, recurrent_activation="hard_sigmoid_v1"),
        LSTMWeights(kernel=kernel, recurrent_kernel=recurrent_kernel, bias=bias),
        x,
        h=h,
        c=c,
        mask=mask,
        go_backwards=go_backwards,
    )
    assert_same([expected.outputs, expected.h, expected.c], graph(x, mask, h, c))


@pytest.mark.parametrize("implementation", [1, 2])
def test_dropout_gives_the_numbers_of_tensorflow_1(implementation, pair, draw_inputs):
    """With the masks that ours drew, one over time and four a gate or one, the peer agrees."""
    theirs, ours = pair(dropout=0.4, implementation=implementation, return_sequences=True)
    x = draw_inputs(BATCH, TIME, FEATURES)
    actual = ours(x, training=True)
    masks = ours.get_dropout_mask_for_cell(x[:, 0], training=True, count=4)
    assert (4 if implementation == 1 else 1) == len(as_list(masks))
    four = masks if implementation == 1 else [masks] * 4
    theirs.cell.get_dropout_mask_for_cell = lambda *_, **__: four
    assert_same(theirs(x, training=True), actual)


def test_recurrent_dropout_gives_the_numbers_of_tensorflow_1(pair, draw_inputs):
    """It makes the implementation 1, also where 2 was asked for, with a mask for each gate."""
    theirs, ours = pair(recurrent_dropout=0.4, implementation=2, return_sequences=True)
    x = draw_inputs(BATCH, TIME, FEATURES)
    actual = ours(x, training=True)
    masks = ours.get_recurrent_dropout_mask_for_cell(x[:, 0], training=True, count=4)
    theirs.cell.get_recurrent_dropout_mask_for_cell = lambda *_, **__: masks
    assert [theirs.cell.implementation, 4] == [ours.implementation, len(masks)]
    assert_same(theirs(x, training=True), actual)


def test_stateful_calls_give_the_numbers_of_tensorflow_1(pair, draw_inputs):
    """States carry over, can be set and reset, and are the same as the peer's at every step."""
    layers = pair(stateful=True)
    for seed in range(3):
        x = draw_inputs(BATCH, TIME, FEATURES, seed=seed)
        assert_same(*(layer(x) for layer in layers))
    assert_same(layers[0].states, layers[1].states)
    x = draw_inputs(BATCH, TIME, FEATURES)
    for states in (list(draw_inputs(2, BATCH, UNITS)), None):
        for layer in layers:
            layer.reset_states(states)
        assert_same(*(layer(x) for layer in layers))


@pytest.mark.parametrize(
    ("options", "states", "error"),
    [
        ({}, None, AttributeError),
        ({"stateful": True}, [np.zeros((BATCH, UNITS))], ValueError),
        ({"stateful": True}, [np.zeros((BATCH, UNITS + 1))] * 2, ValueError),
        ({"stateful": True}, [np.full((BATCH, UNITS), "a")] * 2, ValueError),
    ],
    ids=["not_stateful", "count", "shape", "dtype"],
)
def test_reset_states_refuses_what_tensorflow_1_refuses(options, states, error, pair):
    """The same error comes from both."""
    for layer in pair(**options):
        with pytest.raises(error):
            layer.reset_states(states)
