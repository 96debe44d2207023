"""`lstm_core.LSTM` in training: gradients, `fit`, dropout, initial weights, mixed precision."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf

import lstm_core

BATCH, TIME, FEATURES, UNITS = 5, 6, 3, 4
MASK = np.arange(TIME) < np.array([[6], [4], [0], [5], [2]])


def gradients(layer, x, states, mask):
    """The loss's gradients for inputs, states and weights, in that order."""
    x, states = tf.convert_to_tensor(x), [tf.convert_to_tensor(s) for s in states]
    with tf.GradientTape() as tape:
        tape.watch([x, *states])
        outputs, h, c = layer(x, initial_state=states, mask=mask)
        loss = tf.reduce_sum(tf.sin(3 * outputs)) + tf.reduce_sum(h * c)
    return tape.gradient(loss, [x, *states, *[w.value for w in layer.trainable_weights]])


@pytest.mark.parametrize("mask", [None, MASK, MASK[:, ::-1]], ids=["none", "right", "left"])
@pytest.mark.parametrize(
    "options",
    [{}, {"go_backwards": True}, {"unroll": True}, {"implementation": 1}, {"use_bias": False}],
    ids=str,
)
def test_gradients_equal_keras(options, mask, draw_weights, draw_inputs):
    """Gradients for inputs, states and weights are those of Keras 3."""
    check_gradients(gradients, options, mask, draw_weights, draw_inputs)


def test_gradients_equal_keras_in_a_graph(draw_weights, draw_inputs):
    """The gradient of the symbolic loop is the same."""
    run = tf.function(gradients)
    check_gradients(run, {}, tf.constant(MASK[:, ::-1]), draw_weights, draw_inputs)


def check_gradients(run, options, mask, draw_weights, draw_inputs):
    """Compare what `run` gives for our layer and for that of Keras."""
    results = []
    for cls in (lstm_core.LSTM, keras.layers.LSTM):
        layer = cls(UNITS, return_sequences=True, return_state=True, **options)
        layer.build((BATCH, TIME, FEATURES))
        layer.set_weights(draw_weights(FEATURES, UNITS, use_bias=options.get("use_bias", True)))
        results.append(
            run(
                layer,
                draw_inputs(BATCH, TIME, FEATURES),
                list(draw_inputs(2, BATCH, UNITS, seed=2)),
                mask,
            )
        )
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("jit_compile", "options"), [("auto", {"dropout": 0.05}), (True, {})])
def test_fit_learns(jit_compile, options, draw_inputs):
    """The loss falls, masks and dropout and all, with Keras's defaults and under XLA."""
    keras.utils.set_random_seed(0)
    x = draw_inputs(64, TIME, FEATURES)
    layers = [
        keras.layers.Masking(),
        lstm_core.LSTM(8, recurrent_dropout=options.get("dropout", 0), **options),
        keras.layers.Dense(1),
    ]
    model = keras.Sequential([keras.Input((TIME, FEATURES)), *layers])
    model.compile(keras.optimizers.Adam(0.03), "mse", jit_compile=jit_compile)
    losses = model.fit(x, x.sum((1, 2))[:, None], epochs=10, batch_size=16, verbose=0).history[
        "loss"
    ]
    assert losses[-1] < 0.6 * losses[0]


def test_fit_equals_keras(draw_weights, draw_inputs):
    """Ten steps of gradient descent from the same weights end at the same weights."""
    x = draw_inputs(20, TIME, FEATURES)
    trained = []
    for cls in (lstm_core.LSTM, keras.layers.LSTM):
        model = keras.Sequential(
            [keras.Input((None, FEATURES)), keras.layers.Masking(), cls(UNITS)]
        )
        model.set_weights(draw_weights(FEATURES, UNITS))
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(x, np.tanh(x[:, 0, :1]), batch_size=4, epochs=2, shuffle=False, verbose=0)
        trained.append(model.get_weights())
    for ours, theirs in zip(*trained, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_initial_weights_equal_keras():
    """The same seed draws the same weights, with or without `unit_forget_bias`."""
    for unit_forget_bias in (True, False):
        drawn = []
        for cls in (lstm_core.LSTM, keras.layers.LSTM):
            keras.utils.set_random_seed(7)
            layer = cls(
                UNITS,
                unit_forget_bias=unit_forget_bias,
                kernel_initializer=keras.initializers.GlorotUniform(1),
                recurrent_initializer=keras.initializers.Orthogonal(2),
                bias_initializer=keras.initializers.Constant(0.5),
            )
            layer.build((None, TIME, FEATURES))
            drawn.append(layer.get_weights())
        for ours, theirs in zip(*drawn, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    forget_bias = lstm_core.LSTM(UNITS)
    forget_bias.build((None, TIME, FEATURES))
    np.testing.assert_array_equal(forget_bias.get_weights()[2], np.repeat([0, 1, 0, 0], UNITS))


def test_regularizers_and_constraints_apply(draw_inputs):
    """Each weight has its own, and the outputs theirs."""
    layer = lstm_core.LSTM(
        UNITS,
        kernel_regularizer="l2",
        recurrent_regularizer="l1",
        bias_regularizer="l2",
        activity_regularizer="l2",
        kernel_constraint="non_neg",
        recurrent_constraint="unit_norm",
        bias_constraint="max_norm",
    )
    output = layer(draw_inputs(BATCH, TIME, FEATURES))
    kernel, recurrent_kernel, bias = layer.get_weights()
    expected = [
        0.01 * (np.asarray(output) ** 2).sum() / BATCH,
        0.01 * (kernel**2).sum(),
        0.01 * abs(recurrent_kernel).sum(),
        0.01 * (bias**2).sum(),
    ]
    np.testing.assert_allclose(sorted(map(float, layer.losses)), sorted(expected), rtol=1e-5)
    assert [type(w.constraint).__name__ for w in layer.weights] == ["NonNeg", "UnitNorm", "MaxNorm"]


IDENTITY = {
    "activation": None,
    "recurrent_activation": tf.ones_like,
    "use_bias": False,
}


@pytest.mark.parametrize("implementation", [1, 2])
def test_one_input_mask_holds_over_time(implementation):
    """With gates of one and inputs of one, the cell grows by the same masked sum every step."""
    layer = lstm_core.LSTM(
        3, dropout=0.5, implementation=implementation, return_sequences=True, seed=3,
        kernel_initializer="ones", recurrent_initializer="zeros", **IDENTITY,
    )  # fmt: skip
    outputs = np.asarray(layer(np.ones((4, 5, 8), np.float32), training=True))
    steps = np.diff(outputs, axis=1, prepend=0)
    np.testing.assert_allclose(steps, np.repeat(steps[:, :1], 5, axis=1), rtol=1e-6)
    assert len(np.unique(steps[:, 0, 0])) > 1
    np.testing.assert_allclose(layer(np.ones((4, 5, 8), np.float32))[:, 0], 8)


@pytest.mark.parametrize(("implementation", "num_masks"), [(1, 4), (2, 1)])
def test_masks_are_those_of_the_cell_methods(implementation, num_masks, draw_weights, draw_inputs):
    """The masks that the documented methods show after a call are those that it used."""
    x = draw_inputs(BATCH, TIME, FEATURES)
    layer = lstm_core.LSTM(UNITS, dropout=0.4, implementation=implementation)
    layer.build(x.shape)
    kernel, recurrent_kernel, bias = draw_weights(FEATURES, UNITS)
    layer.set_weights([kernel, recurrent_kernel, bias])
    dropped = np.asarray(layer(x, training=True))
    masks = layer.get_dropout_mask_for_cell(x[:, 0], training=True, count=num_masks)
    masks = masks if num_masks > 1 else [masks] * 4
    assert len(masks) == 4
    gates = np.split(kernel, 4, axis=1)
    # Every gate sees inputs of its own: the same as one long input with a block kernel.
    wide = np.concatenate([x * np.asarray(m)[:, None] for m in masks], axis=-1)
    block = np.zeros((4 * FEATURES, 4 * UNITS), np.float32)
    for g, gate in enumerate(gates):
        block[g * FEATURES : (g + 1) * FEATURES, g * UNITS : (g + 1) * UNITS] = gate
    plain = lstm_core.LSTM(UNITS)
    plain.build(wide.shape)
    plain.set_weights([block, recurrent_kernel, bias])
    np.testing.assert_allclose(dropped, plain(wide), rtol=0, atol=1e-6)
    assert set(np.unique(masks[0])) <= {np.float32(0), np.float32(1 / 0.6)}


def test_mask_methods_cache_until_reset():
    """None at rate 0, else a tensor or a list, the same one until it is reset."""
    ones = tf.ones((4, 50))
    assert lstm_core.LSTM(2).get_dropout_mask_for_cell(ones, True) is None
    assert lstm_core.LSTM(2).get_recurrent_dropout_mask_for_cell(ones, True, 4) is None
    layer = lstm_core.LSTM(2, dropout=0.5, recurrent_dropout=0.5)
    for get, reset in (
        (layer.get_dropout_mask_for_cell, layer.reset_dropout_mask),
        (layer.get_recurrent_dropout_mask_for_cell, layer.reset_recurrent_dropout_mask),
    ):
        first = np.asarray(get(ones, True))
        np.testing.assert_array_equal(get(ones, True), first)
        reset()
        assert (np.asarray(get(ones, True)) != first).any()
        reset()
        assert len(get(ones, True, count=4)) == 4
        reset()
        np.testing.assert_array_equal(get(ones, tf.constant(False)), ones)


@pytest.mark.parametrize("options", [{"dropout": 0.5}, {"recurrent_dropout": 0.5}], ids=str)
@pytest.mark.parametrize("implementation", [1, 2])
def test_dropout_is_seeded_and_for_training_only(options, implementation, draw_inputs):
    """Equal seeds drop the same, the next call something else, and inference nothing."""
    x = draw_inputs(BATCH, TIME, FEATURES)
    layers = [
        lstm_core.LSTM(UNITS, seed=11, implementation=implementation, **options) for _ in range(2)
    ]
    plain = lstm_core.LSTM(UNITS)
    for layer in (*layers, plain):
        layer.build(x.shape)
        layer.set_weights(layers[0].get_weights())
    first, second = (np.asarray(layer(x, training=True)) for layer in layers)
    np.testing.assert_array_equal(first, second)
    assert (np.asarray(layers[0](x, training=True)) != first).any()
    np.testing.assert_allclose(layers[0](x), plain(x), rtol=0, atol=1e-6)


def test_dropping_everything_leaves_the_biases(draw_inputs):
    """Rates of one, where Keras drops nothing, leave no input and no hidden state."""
    layer = lstm_core.LSTM(UNITS, dropout=1.0, recurrent_dropout=1.0)
    zeros = np.zeros((BATCH, TIME, FEATURES), np.float32)
    trained = layer(draw_inputs(BATCH, TIME, FEATURES), training=True)
    np.testing.assert_array_equal(trained, layer(zeros, training=True))
    assert (lstm_core.LSTM(2, dropout=3, recurrent_dropout=-1).dropout) == 1.0


def test_dropout_draws_anew_in_one_graph(draw_inputs):
    """A traced call draws a mask each time it runs, and leaves none of its tensors behind."""
    x = draw_inputs(BATCH, TIME, FEATURES)
    layer = lstm_core.LSTM(UNITS, dropout=0.5, recurrent_dropout=0.5)
    run = tf.function(lambda x: layer(x, training=True))
    assert (np.asarray(run(x)) != np.asarray(run(x))).any()
    assert layer.get_dropout_mask_for_cell(x[:, 0], training=False).shape == (BATCH, FEATURES)


@pytest.mark.parametrize(("policy", "atol"), [("mixed_float16", 2e-3), ("mixed_bfloat16", 2e-2)])
@pytest.mark.parametrize("stateful", [False, True])
def test_mixed_precision(policy, atol, stateful, draw_weights, draw_inputs):
    """Weights and recorded states are float32, outputs 16-bit, near the float32 numbers."""
    x, mask = draw_inputs(BATCH, TIME, FEATURES), MASK
    layer = lstm_core.LSTM(
        UNITS, return_sequences=True, return_state=True, dtype=policy, stateful=stateful
    )
    plain = lstm_core.LSTM(UNITS, return_sequences=True, return_state=True)
    for each in (layer, plain):
        each.build(x.shape)
        each.set_weights(draw_weights(FEATURES, UNITS))
    outputs = layer(x, mask=mask)
    for ours, exact in zip(outputs, plain(x, mask=mask), strict=True):
        assert ours.dtype == policy.removeprefix("mixed_")
        np.testing.assert_allclose(tf.cast(ours, tf.float32), exact, rtol=0, atol=atol)
    assert {w.dtype for w in layer.weights} == {"float32"}
    assert (layer.states is not None) == stateful
    if layer.states is not None:
        assert {state.dtype for state in layer.states} == {"float32"}
        assert (np.asarray(layer.states[1]) != np.asarray(tf.cast(outputs[2], tf.float32))).any()


def test_mixed_precision_trains(draw_inputs):
    """A step of `fit` in mixed precision changes every weight by finite amounts."""
    model = keras.Sequential(
        [keras.Input((None, FEATURES)), lstm_core.LSTM(UNITS, dtype="mixed_float16", dropout=0.1)]
    )
    before = model.get_weights()
    model.compile("adam", "mse")
    model.fit(draw_inputs(8, TIME, FEATURES), np.ones((8, UNITS)), verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        assert np.isfinite(new).all()
        assert (new != old).any()


def test_float64_computes_in_float64(draw_inputs):
    """The dtype policy reaches weights, states and outputs."""
    layer = lstm_core.LSTM(UNITS, dtype="float64", return_state=True)
    results = layer(draw_inputs(BATCH, TIME, FEATURES).astype(np.float64))
    assert {r.dtype for r in results} == {tf.float64}
