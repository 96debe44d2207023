"""`CudnnLSTM` beside the equations, tf_keras, and the documentation of `tf.contrib.cudnn_rnn`.

On a CPU it runs on TensorFlow's operations; around a stand-in for cuDNN's operation, on that.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

import keras
import numpy as np
import pytest

pytest.importorskip("tensorflow")

import tensorflow as tf

import lstm_core
from lstm_core import equations
from lstm_core.kernels import cudnn_layout
from lstm_core.kernels.cudnn_layout import ROCM_GATE_ORDER
from lstm_core.spec import LSTMSpec
from tests.parity.cudnn_cases import (
    BATCH,
    FEATURES,
    TIME,
    UNITS,
    assert_same,
    make_stack,
    put_in_place,
)

LENGTHS = np.array([5, 3, 1, 4])


@pytest.fixture
def stand_in(monkeypatch):
    """A machine with a GPU, as far as TensorFlow tells, and a stand-in for cuDNN's operation."""
    return put_in_place(monkeypatch)


def by_equations(layer: Any, x: Any, h: Any, c: Any, lengths: Any) -> tuple[Any, Any, Any]:
    """What the equations give for a stack, in float64, time-major."""
    outputs = np.swapaxes(x, 0, 1)
    mask = np.arange(x.shape[0]) < (lengths if lengths is not None else np.full(
        x.shape[1], x.shape[0]))[:, None]  # fmt: skip
    last_h: list[Any] = []
    last_c: list[Any] = []
    weights = iter(layer.lstm_weights())
    for _ in range(layer.num_layers):
        parts = []
        for direction in range(layer.num_dirs):
            w = next(weights)
            at = len(last_h)
            result = equations.sequence(
                LSTMSpec(input_size=w.kernel.shape[0], units=UNITS), w, outputs, h=h[at], c=c[at],
                mask=mask, go_backwards=direction == 1, zero_output_for_mask=True,
            )  # fmt: skip
            parts.append(result.outputs[:, :: -1 if direction else 1])
            last_h.append(result.h)
            last_c.append(result.c)
        outputs = np.concatenate(parts, axis=-1)
    return np.swapaxes(outputs, 0, 1), np.stack(last_h), np.stack(last_c)


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["full", "lengths"])
@pytest.mark.parametrize("direction", ["unidirectional", "bidirectional"])
@pytest.mark.parametrize("time_major", [True, False], ids=["time_major", "batch_major"])
@pytest.mark.parametrize("is_on_cudnn", [False, True], ids=["tensorflow", "stand_in"])
def test_stack_equals_the_equations(
    is_on_cudnn, time_major, direction, lengths, draw_inputs, request
):
    """Every layer, direction, length and layout gives what the equations give, on both paths."""
    runs = request.getfixturevalue("stand_in").runs if is_on_cudnn else None
    layer = make_stack(2, direction)
    x = draw_inputs(TIME, BATCH, FEATURES)
    h, c = draw_inputs(2, 2 * layer.num_dirs, BATCH, UNITS, seed=2)
    expected = by_equations(layer, x, h, c, lengths)
    given = [x, h, c] if time_major else [np.swapaxes(a, 0, 1) for a in (x, h, c)]
    outputs, states = layer(
        given[0], initial_state=tuple(given[1:]), sequence_lengths=lengths, time_major=time_major
    )
    actual = (outputs, *states)
    assert_same(actual if time_major else [np.swapaxes(a, 0, 1) for a in actual], expected)
    assert runs is None or int(runs) == 1
    assert is_on_cudnn != layer.supports_jit
    assert ("cudnn" if is_on_cudnn else "tensorflow") == layer.explain_dispatch().kernel


def test_stack_equals_tf_keras(draw_inputs):
    """Two bidirectional layers are tf_keras's, with the weights that this layer tells."""
    tf_keras = pytest.importorskip("tf_keras")
    layer = make_stack(2, "bidirectional")
    x = draw_inputs(TIME, BATCH, FEATURES)
    mask = tf.constant(np.arange(TIME) < LENGTHS[:, None])
    weights = layer.lstm_weights()
    y = tf.constant(np.swapaxes(x, 0, 1))
    for at in (0, 2):
        wrapper = tf_keras.layers.Bidirectional(
            tf_keras.layers.LSTM(UNITS, return_sequences=True, zero_output_for_mask=True)
        )
        wrapper.build(y.shape)
        wrapper.set_weights(
            [a for w in weights[at : at + 2] for a in (w.kernel, w.recurrent_kernel, w.bias)]
        )
        y = wrapper(y, mask=mask)
    outputs, _ = layer(x, sequence_lengths=LENGTHS)
    assert_same(np.swapaxes(outputs, 0, 1), y)


@pytest.mark.parametrize("has_graph", [False, True], ids=["eager", "graph"])
def test_stack_with_nothing_to_do(has_graph, stand_in, draw_inputs):
    """Rows without a step keep their state and give zeros; nothing empty reaches the operation."""
    layer = make_stack(1)
    h, c = draw_inputs(2, 1, BATCH, UNITS)
    lengths = tf.constant([0, 2, 5, 1])

    def call(x, lengths, h, c):
        return layer(x, initial_state=(h, c), sequence_lengths=lengths)

    run = call
    if has_graph:
        state = tf.TensorSpec((1, None, UNITS))
        run = tf.function(
            call,
            input_signature=[
                tf.TensorSpec((None, None, FEATURES)),
                tf.TensorSpec((None,), tf.int32),
                state,
                state,
            ],
        )
    outputs, (last_h, last_c) = run(draw_inputs(TIME, BATCH, FEATURES), lengths, h, c)
    np.testing.assert_array_equal(np.zeros((TIME, UNITS)), outputs[:, 0])
    np.testing.assert_array_equal([h[0, 0], c[0, 0]], [last_h[0, 0], last_c[0, 0]])
    for shape in ((0, BATCH), (TIME, 0)):
        x = np.zeros((*shape, FEATURES), np.float32)
        rows = slice(shape[1])
        outputs, states = run(x, 0 * lengths[rows], h[:, rows], c[:, rows])
        assert (*shape, UNITS) == outputs.shape
        assert_same(states, (h[:, rows], c[:, rows]), rtol=0, atol=0)
    assert 0 == int(stand_in.runs)


def test_stack_has_the_gates_of_rocm(monkeypatch, draw_inputs):
    """On a ROCm build the buffer is reordered on its way to the operation."""
    put_in_place(monkeypatch, ROCM_GATE_ORDER)
    monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda: {"is_rocm_build": True})
    layer = make_stack(2, "bidirectional")
    x = draw_inputs(TIME, BATCH, FEATURES)
    zeros = np.zeros((4, BATCH, UNITS))
    outputs, states = layer(x)
    assert_same((outputs, *states), by_equations(layer, x, zeros, zeros, None))


def test_stack_skips_the_first_matrix(stand_in, draw_inputs):
    """Inputs are added to the gates as they are; the reason tells why not on cuDNN."""
    x = draw_inputs(TIME, BATCH, UNITS)
    zeros = np.zeros((2, BATCH, UNITS))
    for mode in ("skip_input", "auto_select"):
        layer = lstm_core.CudnnLSTM(2, UNITS, input_mode=mode, bias_initializer="ones")
        outputs, states = layer(x)
        assert [(UNITS, UNITS)] * 12 == layer.canonical_weight_shapes
        assert_same((outputs, *states), by_equations(layer, x, zeros, zeros, None))
        assert "not cudnn: skip_input is on" in layer.explain_dispatch().reason
    wide = lstm_core.CudnnLSTM(1, UNITS, input_mode="auto_select")
    wide.build((None, None, FEATURES))
    assert (UNITS, FEATURES) == wide.canonical_weight_shapes[0]
    with pytest.raises(ValueError, match="skip_input needs as many features as num_units, 4, not"):
        lstm_core.CudnnLSTM(1, UNITS, input_mode="skip_input").build((None, None, FEATURES))
    assert 0 == int(stand_in.runs)


def test_stack_has_the_documented_surface():
    """Properties, shapes and errors are those of `tf.contrib.cudnn_rnn.CudnnLSTM`."""
    layer = lstm_core.CudnnLSTM(2, UNITS, direction="bidirectional")
    assert (2, UNITS, "linear_input", "lstm", "bidirectional", 2) == (
        layer.num_layers, layer.num_units, layer.input_mode, layer.rnn_mode, layer.direction,
        layer.num_dirs,
    )  # fmt: skip
    assert ([4, 7, UNITS], [4, 7, UNITS]) == layer.state_shape(7)
    assert [[UNITS]] * 32 == layer.canonical_bias_shapes
    with pytest.raises(ValueError, match="'input_size' is unknown since layer has not been built"):
        _ = layer.input_size
    with pytest.raises(RuntimeError, match="before its input shape is known"):
        _ = layer.canonical_weight_shapes
    layer.build((None, None, FEATURES))
    first = [(UNITS, FEATURES)] * 4 + [(UNITS, UNITS)] * 4
    second = [(UNITS, 2 * UNITS)] * 4 + [(UNITS, UNITS)] * 4
    assert 2 * first + 2 * second == layer.canonical_weight_shapes
    assert FEATURES == layer.input_size
    assert ["opaque_kernel"] == [w.name for w in layer.trainable_weights]
    np.testing.assert_array_equal(0, np.concatenate(layer.canonical_weights()[1]))
    copy = lstm_core.CudnnLSTM.from_config(json.loads(json.dumps(layer.get_config())))
    assert layer.get_config() == copy.get_config()


def test_stack_drops_between_layers_only(draw_inputs):
    """In training some of the first layer's outputs are lost; at rate 1 the second sees nothing."""
    x = draw_inputs(TIME, BATCH, FEATURES)
    layer = make_stack(2, dropout=0.5, seed=1)
    same = [np.asarray(layer(x, training=False)[0]) for _ in range(2)]
    np.testing.assert_array_equal(same[0], same[1])
    assert (np.asarray(layer(x, training=True)[0]) != same[0]).any()
    single = make_stack(1, dropout=0.5)
    np.testing.assert_array_equal(single(x, training=True)[0], single(x, training=False)[0])
    blind = make_stack(2, dropout=1.0)
    np.testing.assert_array_equal(blind(x)[0], blind(2 * x)[0])


def test_stack_trains_alike_on_both_paths(stand_in, draw_inputs):
    """The buffer's gradient is the same through the operation and layer by layer."""
    layer = make_stack(2, "bidirectional")
    x = tf.constant(draw_inputs(TIME, BATCH, FEATURES))
    gradients = []
    for lengths in (None, tf.constant([TIME] * BATCH)):
        for place in (contextlib.nullcontext(), tf.device("CPU:0")):
            with tf.GradientTape() as tape, place:
                outputs, states = layer(x, sequence_lengths=lengths)
                loss = tf.reduce_sum(outputs**2) + tf.reduce_sum(states[0] * states[1])
            gradients.append(tape.gradient(loss, layer.opaque_kernel.value))
    assert 2 == int(stand_in.runs)
    for gradient in gradients[1:]:
        assert_same(gradient, gradients[0], rtol=0, atol=1e-5)
    assert (layer.stack.num_params,) == gradients[0].shape


@pytest.mark.parametrize("time_major", [True, False], ids=["time_major", "batch_major"])
def test_stack_in_a_model(time_major, tmp_path, draw_inputs):
    """A functional model holds it, states and lengths too, and comes back from a file.

    The file makes a list of the tuple of states.
    """
    batch_shape = (TIME, None) if time_major else (None, TIME)
    state_shape = (1, None, UNITS) if time_major else (None, 1, UNITS)
    x = keras.Input(batch_shape=(*batch_shape, FEATURES))
    states = tuple(keras.Input(batch_shape=state_shape) for _ in "hc")
    lengths = keras.Input((), dtype="int32")
    outputs, (h, c) = lstm_core.CudnnLSTM(1, UNITS)(
        x, initial_state=states, sequence_lengths=lengths, time_major=time_major
    )
    assert ((*batch_shape, UNITS), state_shape) == (outputs.shape, h.shape)
    model = keras.Model([x, *states, lengths], [outputs, h, c])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    data = [draw_inputs(TIME, BATCH, FEATURES), *draw_inputs(2, 1, BATCH, UNITS, seed=2)]
    data = data if time_major else [np.swapaxes(a, 0, 1) for a in data]
    assert_same(loaded([*data, LENGTHS]), model([*data, LENGTHS]), rtol=0, atol=0)
    assert ["rnn/multi_rnn_cell/cell_0/cudnn_compatible_lstm_cell"] == (
        cudnn_layout.checkpoint_names(loaded.layers[-1].stack)
    )


@pytest.mark.parametrize(("dtype", "atol"), [("float64", 1e-14), ("float16", 5e-3)])
def test_stack_in_other_precisions(dtype, atol, draw_inputs):
    """Weights, outputs and states are of the dtype, and near what the equations give."""
    layer = make_stack(2, "bidirectional", dtype=dtype)
    x = draw_inputs(TIME, BATCH, FEATURES).astype(dtype)
    h, c = draw_inputs(2, 4, BATCH, UNITS, seed=2).astype(dtype)
    outputs, states = layer(x, initial_state=(h, c), sequence_lengths=LENGTHS)
    assert [dtype] * 4 == [layer.opaque_kernel.dtype, *(t.dtype.name for t in (outputs, *states))]
    assert_same((outputs, *states), by_equations(layer, x, h, c, LENGTHS), rtol=0, atol=atol)
