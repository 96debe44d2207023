"""What a layer of Keras is handed by mistake: refused with a message, not answered wrongly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf

import lstm_core
from lstm_core.compat import tf14, v1
from lstm_core.layers.arguments import require_tensorflow_backend

BATCH, TIME, FEATURES, UNITS = 3, 4, 2, 4
LAYERS = {"v2": lstm_core.LSTM, "v1": v1.LSTM, "tf14": tf14.LSTM}
EVERY_LAYER = pytest.mark.parametrize("make", LAYERS.values(), ids=LAYERS.keys())


def relu(units: int) -> Any:
    """Return a layer of TensorFlow 2 that no block kernel runs."""
    return lstm_core.LSTM(units, activation="relu")


EVERY_KERNEL = pytest.mark.parametrize(
    "make", [*LAYERS.values(), relu], ids=[*LAYERS.keys(), "relu"]
)


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
@EVERY_KERNEL
def test_a_mask_of_other_sizes_in_a_graph_that_knows_none(make, jit, draw_inputs):
    """It is an error when the graph runs, not an answer; the mask that fits gives eager's."""
    layer = make(UNITS)
    layer.build((None, None, FEATURES))
    signature = [tf.TensorSpec((None, None, FEATURES)), tf.TensorSpec((None, None), tf.bool)]
    call = tf.function(
        lambda x, mask: layer(x, mask=mask), input_signature=signature, jit_compile=jit
    )
    x = draw_inputs(BATCH, TIME, FEATURES)
    fitting = np.arange(TIME) < [[4], [2], [3]]
    np.testing.assert_allclose(call(x, fitting), layer(x, mask=fitting), atol=1e-6)
    for shape in ((3, 7), (3, 2), (1, 4), (5, 4), (4, 3), (1, 12), (3, 0)):
        with pytest.raises(tf.errors.InvalidArgumentError):
            call(x, np.ones(shape, bool))


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
@EVERY_KERNEL
def test_states_of_another_batch_in_a_graph_that_knows_none(make, jit, draw_inputs):
    """It is an error when the graph runs, not a broadcast."""
    layer = make(UNITS)
    layer.build((None, None, FEATURES))
    signature = [tf.TensorSpec((None, None, FEATURES)), tf.TensorSpec((None, UNITS))]
    call = tf.function(
        lambda x, h: layer(x, initial_state=[h, h]), input_signature=signature, jit_compile=jit
    )
    x = draw_inputs(BATCH, TIME, FEATURES)
    h = np.ones((BATCH, UNITS), np.float32)
    np.testing.assert_allclose(call(x, h), layer(x, initial_state=[h, h]), atol=1e-6)
    for rows, state_rows in ((3, 1), (3, 2), (1, 3), (0, 1)):
        with pytest.raises(tf.errors.InvalidArgumentError):
            call(x[:rows], np.ones((state_rows, UNITS), np.float32))


@EVERY_LAYER
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_from_the_default_initializers(dtype, make, draw_inputs):
    """The orthogonal matrix is made in float32, since its decomposition has no half."""
    layer = make(UNITS, dtype=dtype)
    output = layer(draw_inputs(BATCH, TIME, FEATURES))
    assert [dtype] * 3 == [output.dtype.name, layer.kernel.dtype, layer.recurrent_kernel.dtype]
    recurrent = np.asarray(layer.recurrent_kernel.value).astype(np.float32)
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(UNITS), atol=0.02)
    assert np.isfinite(np.asarray(output).astype(np.float32)).all()


STATES = {
    "complex": [np.ones((BATCH, UNITS), np.complex64)] * 2,
    "bool": [np.ones((BATCH, UNITS), bool)] * 2,
    "strings": [np.full((BATCH, UNITS), "1")] * 2,
    "nothing": [None, None],
    "half_nothing": [np.ones((BATCH, UNITS), np.float32), None],
    "dict": {"h": np.ones((BATCH, UNITS)), "c": np.ones((BATCH, UNITS))},
}


@EVERY_LAYER
@pytest.mark.parametrize("states", STATES.values(), ids=STATES.keys())
def test_states_that_are_no_numbers(states, make, draw_inputs):
    """A ValueError that names them, as of `reset_states`."""
    with pytest.raises(ValueError, match="initial_state of layer"):
        make(UNITS)(draw_inputs(BATCH, TIME, FEATURES), initial_state=states)


@EVERY_LAYER
def test_a_mask_of_strings(make, draw_inputs):
    """A ValueError that names it."""
    mask = np.full((BATCH, TIME), "True")
    with pytest.raises(ValueError, match=r"mask of layer .* string"):
        make(UNITS)(draw_inputs(BATCH, TIME, FEATURES), mask=mask)


@EVERY_LAYER
@pytest.mark.parametrize("argument", ["dropout", "recurrent_dropout"])
@pytest.mark.parametrize("rate", [float("nan"), "0.5", None, [0.5, 0.5]], ids=str)
def test_a_dropout_that_is_no_number(rate, argument, make):
    """A ValueError that names the argument."""
    with pytest.raises(ValueError, match=f"^{argument} must be a number"):
        make(UNITS, **{argument: rate})


@EVERY_LAYER
@pytest.mark.parametrize("units", [None, float("nan"), float("inf"), "4", [4], True, 2.5], ids=str)
def test_units_that_are_no_number(units, make):
    """A ValueError that names the argument."""
    with pytest.raises(ValueError, match="units must be a positive integer"):
        make(units)


@EVERY_LAYER
@pytest.mark.parametrize("implementation", [True, False])
def test_an_implementation_that_is_no_number(implementation, make):
    """True is not 1."""
    with pytest.raises(ValueError, match=f"implementation must be .*not {implementation}"):
        make(UNITS, implementation=implementation)


@EVERY_LAYER
@pytest.mark.parametrize("is_built", [False, True], ids=["new", "built"])
def test_ragged_inputs(is_built, make):
    """A ValueError that says what to do instead."""
    layer = make(UNITS)
    if is_built:
        layer.build((None, None, FEATURES))
    ragged = tf.ragged.constant([[[1.0, 2.0]], [[1.0, 2.0], [3.0, 4.0]]], ragged_rank=1)
    with pytest.raises(ValueError, match=r"\.to_tensor\(\).*mask"):
        layer(ragged)


@EVERY_LAYER
@pytest.mark.parametrize("shape", [(None, TIME + 1), (None, TIME + 1, 1), (None,), (2, TIME)])
def test_a_symbolic_mask_of_another_shape(shape, make):
    """A model that could never run is not built."""
    mask = keras.Input(batch_shape=shape, dtype="bool")
    with pytest.raises(ValueError, match="mask of layer picky must have the first two dimensions"):
        make(UNITS, name="picky")(keras.Input(batch_shape=(BATCH, TIME, FEATURES)), mask=mask)


@EVERY_LAYER
@pytest.mark.parametrize("shape", [(TIME,), (None,), (None, 1)])
def test_a_symbolic_mask_that_may_fit(shape, make, draw_inputs):
    """Sizes that nobody knows yet are left to the call, which gives what an eager one gives."""
    inputs, mask = keras.Input((TIME, FEATURES)), keras.Input(shape, dtype="bool")
    layer = make(UNITS)
    model = keras.Model([inputs, mask], layer(inputs, mask=mask))
    x, live = draw_inputs(BATCH, TIME, FEATURES), np.arange(TIME) < [[4], [2], [3]]
    given = live[..., np.newaxis] if len(shape) == 2 else live
    np.testing.assert_allclose(model([x, given]), layer(x, mask=live), atol=1e-6)


def test_keras_on_another_backend(monkeypatch):
    """What the modules of layers ask when they are imported names both backends."""
    require_tensorflow_backend()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ImportError, match=r"Keras runs on jax: set KERAS_BACKEND=tensorflow"):
        require_tensorflow_backend()
