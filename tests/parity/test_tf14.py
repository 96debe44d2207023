"""The numbers of `lstm_core.compat.tf14.LSTM` beside the equations and tf_keras's v1 layer.

TensorFlow 1.4 itself runs on no Python of today. Its equations are those of the v1 layer; the
masked first steps, which differ, are written out below.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tensorflow")
pytest.importorskip("tf_keras")

import keras
import tensorflow as tf
from tf_keras.src.layers.rnn import lstm_v1

from lstm_core import equations
from lstm_core.compat import tf14
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights

BATCH, TIME, FEATURES, UNITS = 5, 6, 3, 4
FORWARD: dict[str, Any] = {"rtol": 0, "atol": 1e-6}
GRADIENTS = {"rtol": 1e-5, "atol": 1e-5}
SPEC = LSTMSpec(input_size=FEATURES, units=UNITS, recurrent_activation="hard_sigmoid_v1")
LEFT_PADDED = np.arange(TIME) >= np.array([[0], [2], [6], [1], [4]])


def assert_same(expected: Any, actual: Any, tolerance: dict[str, Any] | None = None) -> None:
    """Compare all outputs."""
    assert len(expected) == len(actual)
    for e, a in zip(expected, actual, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(e), **(tolerance or FORWARD))


def reference(
    weights: list[np.ndarray[Any, Any]], x: Any, mask: Any, *, h: Any, c: Any, go_backwards: bool
) -> list[np.ndarray[Any, Any]]:
    """Return outputs, last output, h and c as TensorFlow 1.4's loop has them, in float64."""
    arrays = LSTMWeights(kernel=weights[0], recurrent_kernel=weights[1], bias=weights[2])
    h, c = h.astype(np.float64), c.astype(np.float64)
    outputs = []
    for t in reversed(range(x.shape[1])) if go_backwards else range(x.shape[1]):
        h_next, c_next = equations.step(SPEC, arrays, x[:, t], h=h, c=c)
        live = mask[:, t, None]
        outputs.append(np.where(live, h_next, h))  # h, and no zeros, before the first live step
        h, c = np.where(live, h_next, h), np.where(live, c_next, c)
    empty = np.zeros((x.shape[0], 0, UNITS))
    return [np.stack(outputs, 1) if outputs else empty, h, h, c]


@functools.cache
def traced(implementation: int, go_backwards: bool) -> Any:
    """Return a layer with weights, and a graph of it for any batch, length and mask."""
    options: dict[str, Any] = {"implementation": implementation, "go_backwards": go_backwards}
    layer = tf14.LSTM(UNITS, return_sequences=True, return_state=True, **options)
    last = tf14.LSTM(UNITS, **options)
    for each in (layer, last):
        each.build((None, None, FEATURES))
    last.set_weights(layer.get_weights())

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, FEATURES)),
            tf.TensorSpec((None, None), tf.bool),
            tf.TensorSpec((None, UNITS)),
            tf.TensorSpec((None, UNITS)),
        ]
    )
    def graph(x: Any, mask: Any, h: Any, c: Any) -> Any:
        outputs, *states = layer(x, [h, c], mask=mask)
        return [outputs, last(x, [h, c], mask=mask), *states]

    return layer, graph


@given(
    seed=st.integers(0, 2**16),
    batch=st.integers(0, 3),
    time=st.integers(0, 4),
    implementation=st.sampled_from([0, 1, 2]),
    go_backwards=st.booleans(),
)
@settings(deadline=None)
def test_equals_the_equations(seed, batch, time, implementation, go_backwards):
    """Any size, mask and states: masked first steps give the h that the sequence began with."""
    layer, graph = traced(implementation, go_backwards)
    random = np.random.default_rng(seed)
    x = random.normal(size=(batch, time, FEATURES)).astype(np.float32)
    h, c = random.normal(size=(2, batch, UNITS)).astype(np.float32)
    mask = random.random((batch, time)) < 0.6
    expected = reference(layer.get_weights(), x, mask, h=h, c=c, go_backwards=go_backwards)
    assert_same(expected, graph(x, mask, h, c))


@pytest.fixture
def pair(draw_weights):
    """Build the v1 peer and ours with the same arguments and weights."""

    def build(**options: Any) -> tuple[Any, Any]:
        weights = draw_weights(FEATURES, UNITS, use_bias=options.get("use_bias", True))
        theirs = {**options, "implementation": max(1, options.get("implementation", 0))}
        layers = (lstm_v1.LSTM(UNITS, **theirs), tf14.LSTM(UNITS, **options))
        for layer in layers:
            layer.build((BATCH, TIME, FEATURES))
            layer.set_weights([0.5 * w for w in weights])
        return layers

    return build


OPTIONS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "sequences_and_state": {"return_sequences": True, "return_state": True},
    "backwards": {"return_sequences": True, "return_state": True, "go_backwards": True},
    "unrolled": {"return_sequences": True, "return_state": True, "unroll": True},
    "unrolled_backwards": {"return_sequences": True, "unroll": True, "go_backwards": True},
    "implementation_1": {"return_sequences": True, "implementation": 1},
    "implementation_2": {"return_sequences": True, "implementation": 2},
    "no_bias": {"return_sequences": True, "use_bias": False},
    "no_bias_1": {"return_sequences": True, "use_bias": False, "implementation": 1},
    "activations": {"activation": "softsign", "recurrent_activation": None},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_equals_the_layer_of_later_releases(options, pair, draw_inputs):
    """Without a mask every option gives what tf_keras's v1 layer gives, from given states."""
    x = draw_inputs(BATCH, TIME, FEATURES)
    states = [tf.constant(s) for s in draw_inputs(2, BATCH, UNITS, seed=2)]
    theirs, ours = pair(**options)
    expected = theirs(x, initial_state=states)
    actual = ours(x, initial_state=states)
    assert options.get("return_state", False) == isinstance(actual, list)
    assert_same(tf.nest.flatten(expected), tf.nest.flatten(actual))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_masks_from_zero_states_equal_later_releases(options, pair, draw_inputs):
    """Where h begins as zeros, repeating it and repeating zeros are the same."""
    x = draw_inputs(BATCH, TIME, FEATURES)
    expected, actual = (layer(x, mask=tf.constant(LEFT_PADDED)) for layer in pair(**options))
    assert_same(tf.nest.flatten(expected), tf.nest.flatten(actual))


@pytest.mark.parametrize(("unroll", "first"), [(False, "h"), (True, "zeros")])
def test_masked_first_steps(unroll, first, draw_inputs):
    """The loop repeats h there and the unrolled graph zeros, as that release had it."""
    layer = tf14.LSTM(UNITS, return_sequences=True, unroll=unroll)
    h, c = draw_inputs(2, BATCH, UNITS)
    x = draw_inputs(BATCH, TIME, FEATURES)
    outputs = np.asarray(layer(x, [h, c], mask=LEFT_PADDED))
    expected = h[4] if first == "h" else np.zeros(UNITS)
    assert_same([expected] * 4, outputs[4, :4])
    assert (outputs[4, 4:] != expected).all()


@pytest.mark.parametrize("implementation", [0, 1, 2])
@pytest.mark.parametrize("go_backwards", [False, True])
def test_gradients_equal_those_of_later_releases(go_backwards, implementation, pair, draw_inputs):
    """Gradients of the inputs, the states and all weights agree, under a mask."""
    layers = pair(implementation=implementation, go_backwards=go_backwards)
    x = tf.constant(draw_inputs(BATCH, TIME, FEATURES))
    # A row without a live step gives h here and zeros there: it stays out of the loss.
    rows = tf.constant(LEFT_PADDED.any(1).astype(np.float32))[:, tf.newaxis]
    states = [tf.constant(s) for s in draw_inputs(2, BATCH, UNITS, seed=2)]
    weights = [layers[0].trainable_weights, [w.value for w in layers[1].trainable_weights]]
    gradients = []
    for layer, own_weights in zip(layers, weights, strict=True):
        with tf.GradientTape() as tape:
            tape.watch([x, *states])
            y = layer(x, mask=tf.constant(LEFT_PADDED), initial_state=states)
            loss = tf.reduce_sum(rows * y * y)
        gradients.append(tape.gradient(loss, [x, *states, *own_weights]))
    assert_same(gradients[0], gradients[1], GRADIENTS)


@pytest.mark.parametrize("implementation", [0, 1, 2])
def test_the_step_makes_the_sequence(implementation, draw_inputs):
    """`preprocess_input`, `get_constants`, `get_initial_state` and `step` are the layer's call."""
    layer = tf14.LSTM(UNITS, implementation=implementation, return_sequences=True)
    x = draw_inputs(BATCH, TIME, FEATURES)
    expected = layer(x)
    inputs, states, outputs = layer.preprocess_input(x), layer.get_initial_state(x), []
    for t in range(TIME):
        output, states = layer.step(inputs[:, t], states + layer.get_constants(x))
        outputs.append(output)
    assert_same([expected], [np.stack(outputs, 1)])


def test_a_subclass_may_bring_its_own_step(draw_inputs):
    """The loop runs whatever `step` the layer has, as users of that release relied on."""

    class Halved(tf14.LSTM):
        """Gives half of every output."""

        def step(self, inputs: Any, states: Any) -> Any:
            """Halve the output and keep the states."""
            output, states = super().step(inputs, states)
            return output / 2, states

    x = draw_inputs(BATCH, TIME, FEATURES)
    halved, plain = Halved(UNITS, return_sequences=True), tf14.LSTM(UNITS, return_sequences=True)
    for layer in (halved, plain):
        layer.build(x.shape)
    halved.set_weights(plain.get_weights())
    assert_same([np.asarray(plain(x)) / 2], [halved(x)])


@pytest.mark.parametrize("implementation", [0, 1, 2])
def test_dropout_gives_the_numbers_of_its_masks(implementation, pair, draw_inputs, monkeypatch):
    """One mask over time and for each gate, or with 2 the first: the peer agrees on the same."""
    options = {"dropout": 0.4, "recurrent_dropout": 0.3, "return_sequences": True}
    theirs, ours = pair(implementation=implementation, **options)
    x = draw_inputs(BATCH, TIME, FEATURES)
    drawn: dict[float, list[Any]] = {0.4: [], 0.3: []}
    draw = keras.random.dropout

    def keep(ones: Any, rate: float, seed: Any) -> Any:
        drawn[rate].append(draw(ones, rate, seed=seed))
        return drawn[rate][-1]

    monkeypatch.setattr(keras.random, "dropout", keep)
    actual = ours(x, training=True)
    four = {rate: m[:1] * 4 if implementation == 2 else m for rate, m in drawn.items()}
    theirs.cell.get_dropout_mask_for_cell = lambda *_, **__: four[0.4]
    theirs.cell.get_recurrent_dropout_mask_for_cell = lambda *_, **__: four[0.3]
    assert_same([theirs(x, training=True)], [actual])


@pytest.mark.parametrize("implementation", [0, 1, 2])
def test_dropout_statistics(implementation):
    """Each mask drops its rate and scales the rest; none at inference, and a seed repeats them."""
    x = np.ones((400, 2, 50), np.float32)
    layers = [
        tf14.LSTM(50, dropout=0.25, recurrent_dropout=0.5, implementation=implementation, seed=7)
        for _ in range(2)
    ]
    masks, again = (layer.get_constants(x, training=True) for layer in layers)
    assert [[1.0] * 4] * 2 == layers[0].get_constants(x)
    np.testing.assert_array_equal(np.asarray(masks[1]), np.asarray(again[1]))
    rates = [0.0 if implementation == 0 else 0.25, 0.5]
    assert rates == [round(float(np.mean(np.asarray(m) == 0)), 2) for m in masks]
    kept = [sorted({round(float(v), 4) for v in np.ravel(m)} - {0.0}) for m in masks]
    assert [[round(1 / (1 - rate), 4)] for rate in rates] == kept


def test_xla_takes_it(draw_inputs):
    """Compiled, outputs and gradients are the same."""
    layer = tf14.LSTM(UNITS, return_sequences=True)
    x = tf.constant(draw_inputs(BATCH, TIME, FEATURES))
    layer.build(x.shape)

    def run(x: Any) -> Any:
        with tf.GradientTape() as tape:
            y = layer(x, mask=tf.constant(LEFT_PADDED))
            loss = tf.reduce_sum(y * y)
        return [y, *tape.gradient(loss, [w.value for w in layer.trainable_weights])]

    assert_same(run(x), tf.function(run, jit_compile=True)(x), GRADIENTS)


@pytest.mark.parametrize("has_mask", [False, True])
@pytest.mark.parametrize("time", [0, 3])
def test_xla_takes_an_unknown_number_of_steps(time, has_mask, draw_inputs):
    """None among them: outputs and gradients are the same as without it."""
    layer = tf14.LSTM(UNITS, return_sequences=True, return_state=True)
    layer.build((BATCH, TIME, FEATURES))
    signature = [tf.TensorSpec((BATCH, None, FEATURES))]

    def run(x: Any) -> Any:
        mask = tf.ones(tf.shape(x)[:2], tf.bool) if has_mask else None
        with tf.GradientTape() as tape:
            results = layer(x, mask=mask)
            loss = tf.add_n([tf.reduce_sum(result**2) for result in results])
        weights = [w.value for w in layer.trainable_weights]
        return [*results, *tape.gradient(loss, weights, unconnected_gradients="zero")]

    x = draw_inputs(BATCH, time, FEATURES)
    compiled = tf.function(run, input_signature=signature, jit_compile=True)
    assert_same(run(x), compiled(x), GRADIENTS)


def test_a_model_trains_saves_and_loads(tmp_path, draw_inputs):
    """`fit` lowers the loss, and the loaded file has the same numbers."""
    x = draw_inputs(32, TIME, FEATURES)
    inputs = keras.Input((TIME, FEATURES))
    encoder = tf14.LSTM(UNITS, return_sequences=True, return_state=True, dropout=0.1)
    hidden, h, c = encoder(keras.layers.Masking()(inputs))
    outputs = tf14.LSTM(UNITS, implementation=1)(hidden, initial_state=[h, c])
    model = keras.Model(inputs, keras.layers.Dense(1)(outputs))
    model.compile(keras.optimizers.Adam(0.05), "mse", jit_compile=False)
    losses = model.fit(x, x.sum((1, 2))[:, None], epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert 2 == sum(type(layer) is tf14.LSTM for layer in loaded.layers)
    np.testing.assert_array_equal(loaded(x), model(x))


def test_a_model_may_share_a_layer(draw_inputs):
    """Keras asks a shared layer for its one `output`, which TensorFlow 1.4 does not have."""
    layer, inputs = tf14.LSTM(UNITS), [keras.Input((TIME, FEATURES)) for _ in range(2)]
    model = keras.Model(inputs, [layer(each) for each in inputs])
    x = [draw_inputs(BATCH, TIME, FEATURES, seed=seed) for seed in range(2)]
    assert_same([layer(each) for each in x], model(x))


def test_rows_may_be_mapped(draw_inputs):
    """`tf.vectorized_map` over rows gives what the batch gives."""
    layer, x = tf14.LSTM(UNITS, unroll=True), tf.constant(draw_inputs(BATCH, TIME, FEATURES))
    mapped = tf.vectorized_map(lambda row: layer(row[tf.newaxis])[0], x)
    assert_same([layer(x)], [mapped])


def test_a_stateful_model_keeps_its_states(draw_inputs):
    """Two halves of a sequence, in a `Sequential` model, end as the whole does."""
    x = draw_inputs(BATCH, TIME, FEATURES)
    layer = tf14.LSTM(UNITS, stateful=True, batch_input_shape=(BATCH, None, FEATURES))
    model = keras.Sequential([layer])
    whole = model.predict(x, verbose=0, batch_size=BATCH)
    layer.reset_states()
    model.predict(x[:, :2], verbose=0, batch_size=BATCH)
    assert_same([whole], [model.predict(x[:, 2:], verbose=0, batch_size=BATCH)])


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float64"])
def test_other_dtypes(dtype, draw_inputs):
    """The state is carried in the variables' dtype, and outputs have the compute dtype."""
    x = draw_inputs(BATCH, TIME, FEATURES)
    plain = tf14.LSTM(UNITS)
    expected = plain(x)
    layer = tf14.LSTM(UNITS, dtype=dtype)
    layer.build(x.shape)
    layer.set_weights(plain.get_weights())
    actual = layer(x)
    assert layer.compute_dtype == actual.dtype.name
    tolerance = {"rtol": 0, "atol": 2e-2 if dtype == "mixed_bfloat16" else 1e-6}
    assert_same([expected], [tf.cast(actual, "float32")], tolerance)
