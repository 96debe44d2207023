"""The numbers of `lstm_core.LSTM` beside those of Keras 3, tf_keras and the equations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf

import lstm_core
from lstm_core import equations
from lstm_core.spec import ACTIVATIONS
from lstm_core.weights import LSTMWeights

BATCH, TIME, FEATURES, UNITS = 5, 6, 3, 4
TOLERANCE = {"rtol": 0, "atol": 2e-6}

MASKS: dict[str, Any] = {
    "none": None,
    "right_padded": np.arange(TIME) < np.array([[6], [4], [1], [5], [2]]),
    "left_padded": np.arange(TIME) >= np.array([[0], [2], [5], [1], [4]]),
    "holes": np.random.default_rng(3).random((BATCH, TIME)) < 0.6,
    "fully_masked_rows": np.arange(TIME) < np.array([[0], [4], [0], [6], [0]]),
}

OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "sequences": {"return_sequences": True},
    "state": {"return_state": True},
    "sequences_and_state": {"return_sequences": True, "return_state": True},
    "backwards": {"return_sequences": True, "return_state": True, "go_backwards": True},
    "backwards_last": {"go_backwards": True},
    "unrolled": {"return_sequences": True, "return_state": True, "unroll": True},
    "unrolled_backwards": {"return_sequences": True, "unroll": True, "go_backwards": True},
    "implementation_1": {"return_sequences": True, "return_state": True, "implementation": 1},
    "no_bias": {"return_sequences": True, "use_bias": False},
    "zero_output": {"return_sequences": True, "zero_output_for_mask": True},
    "zero_output_last": {"zero_output_for_mask": True},
    "other_activations": {"activation": "softsign", "recurrent_activation": "hard_sigmoid"},
    "linear": {"activation": None, "return_state": True},
}


def as_list(result: Any) -> list[np.ndarray[Any, Any]]:
    """Return one output or several as float64 arrays."""
    results = result if isinstance(result, list | tuple) else [result]
    return [np.asarray(r, np.float64) for r in results]


def assert_same(actual: Any, expected: Any, **tolerance: Any) -> None:
    """Compare all outputs."""
    actual, expected = as_list(actual), as_list(expected)
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        np.testing.assert_allclose(a, e, **(tolerance or TOLERANCE))


def built(layer: Any, weights: list[np.ndarray[Any, Any]], shape: tuple[int | None, ...]) -> Any:
    """Build a layer with these weights."""
    layer.build(shape)
    layer.set_weights(weights)
    return layer


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_equals_keras_3(options, mask, draw_weights, draw_inputs):
    """Every option with every kind of mask, from given states, gives what Keras 3 gives."""
    weights = draw_weights(FEATURES, UNITS, use_bias=options.get("use_bias", True))
    x = draw_inputs(BATCH, TIME, FEATURES)
    states = list(draw_inputs(2, BATCH, UNITS, seed=2))
    ours = built(lstm_core.LSTM(UNITS, **options), weights, x.shape)
    theirs = built(keras.layers.LSTM(UNITS, **options), weights, x.shape)
    assert_same(
        ours(x, initial_state=states, mask=mask), theirs(x, initial_state=states, mask=mask)
    )


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize(
    "options",
    [
        {"return_sequences": True, "return_state": True},
        {"return_sequences": True, "return_state": True, "time_major": True},
        {"go_backwards": True, "implementation": 1},
        {"go_backwards": True, "time_major": True, "unroll": True, "return_sequences": True},
    ],
    ids=["plain", "time_major", "implementation_1", "time_major_unrolled"],
)
def test_equals_tf_keras(options, mask, draw_weights, draw_inputs):
    """The layer of TensorFlow 2 gives the same, in time-major layout too."""
    tf_keras = pytest.importorskip("tf_keras")
    weights = draw_weights(FEATURES, UNITS)
    x = draw_inputs(BATCH, TIME, FEATURES)
    states = list(draw_inputs(2, BATCH, UNITS, seed=2))
    if options.get("time_major"):
        x = x.swapaxes(0, 1)
        mask = None if mask is None else mask.T
    ours = built(lstm_core.LSTM(UNITS, **options), weights, x.shape)
    theirs = built(tf_keras.layers.LSTM(UNITS, **options), weights, x.shape)
    their_mask = None if mask is None else tf.constant(mask)
    assert_same(
        ours(x, initial_state=states, mask=mask),
        theirs(x, initial_state=[tf.constant(s) for s in states], mask=their_mask),
    )


@pytest.mark.parametrize("name", sorted(ACTIVATIONS - {"hard_sigmoid_v1"}))
def test_every_activation_of_the_spec(name, draw_weights, draw_inputs):
    """Each name is one function to Keras, to the equations and to `spec`."""
    weights = [0.3 * w for w in draw_weights(FEATURES, UNITS)]
    x = draw_inputs(BATCH, 3, FEATURES)
    recurrent_name = "sigmoid" if name == "exponential" else name
    layer = built(lstm_core.LSTM(UNITS, name, recurrent_name), weights, x.shape)
    expected = equations.sequence(
        layer.spec,
        LSTMWeights(kernel=weights[0], recurrent_kernel=weights[1], bias=weights[2]),
        x,
    )
    assert (name, recurrent_name) == (layer.spec.activation, layer.spec.recurrent_activation)
    assert_same(layer(x), expected.last_output, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("unroll", [False, True])
def test_unrolled_backwards_zeroes_the_right_steps(unroll, draw_weights, draw_inputs):
    """With `zero_output_for_mask` and `go_backwards` zeros stand where the mask, reversed, is."""
    x = draw_inputs(BATCH, TIME, FEATURES)
    layer = built(
        lstm_core.LSTM(
            UNITS, return_sequences=True, go_backwards=True, zero_output_for_mask=True,
            unroll=unroll,
        ),
        draw_weights(FEATURES, UNITS),
        x.shape,
    )  # fmt: skip
    outputs = np.asarray(layer(x, mask=MASKS["holes"]))
    np.testing.assert_array_equal((outputs != 0).any(-1), MASKS["holes"][:, ::-1])


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("go_backwards", [False, True])
def test_one_graph_takes_any_mask_and_length(go_backwards, jit_compile, draw_weights, draw_inputs):
    """A traced call decides by the mask that comes, not by the one it was traced with."""
    layer = built(
        lstm_core.LSTM(UNITS, return_sequences=True, return_state=True, go_backwards=go_backwards),
        draw_weights(FEATURES, UNITS),
        (None, None, FEATURES),
    )
    signature = [tf.TensorSpec((None, None, FEATURES)), tf.TensorSpec((None, None), tf.bool)]
    graph = tf.function(
        lambda x, mask: layer(x, mask=mask), input_signature=signature, jit_compile=jit_compile
    )
    x = draw_inputs(BATCH, TIME, FEATURES)
    for mask in [m for m in MASKS.values() if m is not None]:
        assert_same(graph(x, mask), layer(x, mask=mask))
    assert_same(graph(x[:, :3], mask[:, :3]), layer(x[:, :3], mask=mask[:, :3]))
    assert [r.shape for r in graph(x[:, :0], mask[:, :0])] == [(5, 0, 4), (5, 4), (5, 4)]
    assert [r.shape for r in graph(x[:0], mask[:0])] == [(0, 6, 4), (0, 4), (0, 4)]


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("has_mask", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("go_backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("return_sequences", [False, True], ids=["last", "sequences"])
@pytest.mark.parametrize("activation", ["tanh", "relu"], ids=["block", "generic"])
def test_gradients_of_no_steps(
    activation, return_sequences, go_backwards, has_mask, jit_compile, draw_weights, draw_inputs
):
    """In a graph of any length, no step passes the states' gradients on, and zeros to weights."""
    layer = lstm_core.LSTM(
        UNITS, activation, return_sequences=return_sequences, return_state=True,
        go_backwards=go_backwards,
    )  # fmt: skip
    built(layer, draw_weights(FEATURES, UNITS), (None, None, FEATURES))
    weights = [weight.value for weight in layer.trainable_weights]

    def run(x: Any, mask: Any, h: Any, c: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([x, h, c])
            results = layer(x, initial_state=[h, c], mask=mask if has_mask else None)
            value = tf.add_n([n * tf.reduce_sum(r) for n, r in enumerate(results, start=1)])
        zero = tf.UnconnectedGradients.ZERO
        return results, tape.gradient(value, [x, h, c, *weights], unconnected_gradients=zero)

    shapes = ((None, None, FEATURES), (None, None), (None, UNITS), (None, UNITS))
    dtypes = (tf.float32, tf.bool, tf.float32, tf.float32)
    signature = [tf.TensorSpec(*each) for each in zip(shapes, dtypes, strict=True)]
    graph = tf.function(run, input_signature=signature, jit_compile=jit_compile)
    h, c = draw_inputs(2, BATCH, UNITS)
    x, mask = np.zeros((BATCH, 0, FEATURES), np.float32), np.ones((BATCH, 0), bool)
    results, gradients = graph(x, mask, h, c)
    output = np.zeros((BATCH, 0, UNITS) if return_sequences else (BATCH, UNITS))
    assert_same(results, [output, h, c], rtol=0, atol=0)
    of_states = [np.full_like(h, 2), np.full_like(c, 3)]
    expected = [x, *of_states, *(np.zeros(w.shape) for w in weights)]
    assert_same(gradients, expected, rtol=0, atol=0)


@pytest.mark.parametrize("unroll", [False, True])
def test_empty_sequences_keep_the_states(unroll, draw_weights, draw_inputs):
    """No time steps: outputs without steps, a last output of zeros, and the states as given."""
    h, c = draw_inputs(2, BATCH, UNITS)
    options = {"unroll": unroll, "return_state": True}
    layers = [lstm_core.LSTM(UNITS, return_sequences=r, **options) for r in (True, False)]
    for layer in layers:
        built(layer, draw_weights(FEATURES, UNITS), (BATCH, 0, FEATURES))
    x = np.zeros((BATCH, 0, FEATURES), np.float32)
    sequences, *states = layers[0](x, initial_state=[h, c])
    assert sequences.shape == (BATCH, 0, UNITS)
    assert_same(states, [h, c], rtol=0, atol=0)
    assert_same(
        layers[1](x, initial_state=[h, c]), [np.zeros((BATCH, UNITS)), h, c], rtol=0, atol=0
    )


def test_masks_in_other_forms(draw_weights, draw_inputs):
    """Numbers, a trailing axis of one and Keras's list of masks mean the same as booleans."""
    x, mask = draw_inputs(BATCH, TIME, FEATURES), MASKS["holes"]
    layer = built(lstm_core.LSTM(UNITS), draw_weights(FEATURES, UNITS), x.shape)
    expected = layer(x, mask=mask)
    for form in (mask.astype(np.float32), mask[..., None], [tf.constant(mask), None]):
        assert_same(layer(x, mask=form), expected, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(BATCH, TIME + 1), (TIME, BATCH), (BATCH,)])
def test_a_mask_of_another_shape_is_refused(shape, draw_inputs):
    """The message names both shapes."""
    layer = lstm_core.LSTM(UNITS, name="picky")
    with pytest.raises(ValueError, match=r"mask of layer picky .*\(5, 6\).*shape is"):
        layer(draw_inputs(BATCH, TIME, FEATURES), mask=np.ones(shape, bool))


def test_the_mask_of_the_inputs_counts_beside_initial_state(draw_weights, draw_inputs):
    """A mask that the inputs carry is not lost when states come too, as Keras 3 loses it."""
    x = draw_inputs(BATCH, TIME, FEATURES)
    x[~MASKS["holes"]] = 0
    states = list(draw_inputs(2, BATCH, UNITS))
    layer = built(lstm_core.LSTM(UNITS), draw_weights(FEATURES, UNITS), x.shape)
    masked = keras.layers.Masking()(x)
    assert_same(
        layer(masked, initial_state=states), layer(x, initial_state=states, mask=MASKS["holes"])
    )


@pytest.mark.parametrize(
    ("initial_state", "message"),
    [
        (np.zeros((BATCH, UNITS)), r"must be a list of two tensors.*a single tensor of shape"),
        ([np.zeros((BATCH, UNITS))], r"must be a list of two tensors.*1 tensors"),
        ([np.zeros((BATCH, UNITS))] * 3, r"must be a list of two tensors.*3 tensors"),
        (
            [np.zeros((BATCH, UNITS)), np.zeros((BATCH, UNITS + 1))],
            r"c of the initial_state of layer picky must have shape \(5, 4\), but it has \(5, 5\)",
        ),
    ],
    ids=["single", "one", "three", "units"],
)
def test_initial_states_that_do_not_fit_are_refused(initial_state, message, draw_inputs):
    """Eager and symbolic calls alike name the layer, what was expected and what came."""
    with pytest.raises(ValueError, match=message):
        lstm_core.LSTM(UNITS, name="picky")(
            draw_inputs(BATCH, TIME, FEATURES), initial_state=initial_state
        )
    symbolic = tf.nest.map_structure(
        lambda state: keras.Input(batch_shape=state.shape), initial_state
    )
    with pytest.raises(ValueError, match=message):
        lstm_core.LSTM(UNITS, name="picky")(
            keras.Input(batch_shape=(BATCH, TIME, FEATURES)), initial_state=symbolic
        )


def test_get_initial_state_takes_a_size_or_the_inputs():
    """Zeros for h and c, by Keras 3's argument and by TensorFlow 2's."""
    layer = lstm_core.LSTM(UNITS)
    x = tf.zeros((7, TIME, FEATURES))
    for states in (
        layer.get_initial_state(7),
        layer.get_initial_state(batch_size=tf.constant(7)),
        layer.get_initial_state(x),
        layer.get_initial_state(inputs=x),
        lstm_core.LSTM(UNITS, time_major=True).get_initial_state(tf.transpose(x, (1, 0, 2))),
    ):
        assert_same(states, [np.zeros((7, UNITS))] * 2, rtol=0, atol=0)


def test_unrolling_needs_a_length():
    """An unknown number of time steps cannot be unrolled: the message says what to do."""
    graph = tf.function(
        lstm_core.LSTM(UNITS, unroll=True),
        input_signature=[tf.TensorSpec((None, None, FEATURES))],
    )
    with pytest.raises(ValueError, match="unroll=True needs a known number of time steps"):
        graph(tf.zeros((1, 2, FEATURES)))


@pytest.mark.parametrize("dtype", [np.float64, np.int32])
def test_inputs_of_other_types_are_cast(dtype, draw_weights):
    """Float64 and integer inputs run in the compute dtype."""
    x = np.arange(BATCH * TIME * FEATURES).reshape(BATCH, TIME, FEATURES).astype(dtype) % 3
    layer = built(lstm_core.LSTM(UNITS), draw_weights(FEATURES, UNITS), x.shape)
    assert layer(x).dtype == tf.float32
    assert_same(layer(x), layer(x.astype(np.float32)), rtol=0, atol=0)
