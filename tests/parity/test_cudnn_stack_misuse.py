"""What `CudnnLSTM` is handed by mistake: refused with a message, not answered wrongly."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

pytest.importorskip("tensorflow")

import tensorflow as tf

import lstm_core
from tests.parity.cudnn_cases import BATCH, FEATURES, TIME, UNITS, assert_same

LENGTHS = np.array([5, 3, 1, 4])
EVERY_GRAPH = pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])


def make_stack(direction: str = "unidirectional") -> Any:
    """Build a `CudnnLSTM` of one layer."""
    layer = lstm_core.CudnnLSTM(1, UNITS, direction=direction)
    layer.build((None, None, FEATURES))
    return layer


def states(*shape: int, dtype: Any = np.float32) -> Any:
    """Return h and c of ones."""
    return (np.ones(shape or (1, BATCH, UNITS), dtype),) * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"direction": "up"}, "Invalid direction: 'up'"),
        ({"input_mode": "none"}, "Invalid input_mode: 'none'"),
        ({"dtype": "bfloat16"}, "Only support float16, float32, float64, provided bfloat16"),
        ({"dtype": "mixed_float16"}, "mixed_float16"),
        ({"num_layers": 0}, "num_layers must be a positive integer, not 0"),
        ({"num_layers": True}, "num_layers must be a positive integer, not True"),
        ({"num_units": 2.5}, "num_units must be a positive integer, not 2.5"),
        ({"num_units": "4"}, "num_units must be a positive integer, not '4'"),
        ({"dropout": float("nan")}, "dropout must be a number from 0 to 1, not nan"),
        ({"dropout": "0.5"}, "dropout must be a number from 0 to 1, not '0.5'"),
    ],
)
def test_stack_refuses_arguments(options, message):
    """The message names the argument and what came."""
    with pytest.raises((ValueError, TypeError), match=message):
        lstm_core.CudnnLSTM(**({"num_layers": 1, "num_units": 2} | options))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (states()[0], TypeError, "Invalid initial_state type: .*expecting tuple"),
        ({"h": 1, "c": 2}, TypeError, "Invalid initial_state type: dict, expecting tuple"),
        (states()[:1], ValueError, r"must be a list of two tensors \[h, c\].*it is 1 tensors"),
        (states(1, BATCH, 3), ValueError, r"h of .* have shape \(1, 4, 4\), but it has"),
        (states(2, BATCH, UNITS), ValueError, r"h of .* have shape \(1, 4, 4\), but it has"),
        ((states()[0], states()[0][0]), ValueError, r"c of .* have shape \(1, 4, 4\), but it has"),
        (states(dtype=np.complex64), ValueError, "real numbers, but its dtype is complex64"),
        (states(dtype=bool), ValueError, "real numbers, but its dtype is bool"),
        (states(dtype=str), ValueError, "real numbers, but its dtype is string"),
        ((None, None), ValueError, "real numbers, but there is a NoneType"),
        ((tf.ragged.constant([[1.0]]),) * 2, ValueError, "but there is a RaggedTensor"),
    ],
)
def test_stack_refuses_states(given, error, message, draw_inputs):
    """Another structure, number, shape or kind is named."""
    with pytest.raises(error, match=message):
        make_stack()(draw_inputs(TIME, BATCH, FEATURES), initial_state=given)


def test_stack_names_the_shape_in_the_layout_of_the_call(draw_inputs):
    """Batch-major states are expected batch-major."""
    with pytest.raises(ValueError, match=r"h of .* have shape \(4, 1, 4\), but it has \(1, 4, 4\)"):
        make_stack()(draw_inputs(BATCH, TIME, FEATURES), initial_state=states(), time_major=False)


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([6, 1, 1, 1], r"sequence_lengths of layer .* must be 0 to 5, .* it is \[6, 1, 1, 1\]"),
        ([-1, 1, 1, 1], "must be 0 to 5"),
        (np.array([2**32 + 1, 1, 1, 1]), "must be 0 to 5"),
        (np.array([2**63 + 1, 1, 1, 1], np.uint64), "must be 0 to 5"),
        ([1.5, 1.0, 1.0, 1.0], r"must be integer, of shape \(4,\), not float32"),
        ([True] * BATCH, "must be integer, .* not bool"),
        (["1"] * BATCH, "must be integer, .* not string"),
        ([1], r"must be integer, of shape \(4,\), not int32 of shape \(1,\)"),
        ([[1, 1, 1, 1]], "must be integer, of shape"),
        (2, "must be integer, of shape"),
    ],
)
@pytest.mark.parametrize("direction", ["unidirectional", "bidirectional"])
def test_stack_refuses_lengths(direction, lengths, message, draw_inputs):
    """Out of range, no integers, or not one for each row."""
    with pytest.raises(ValueError, match=message):
        make_stack(direction)(draw_inputs(TIME, BATCH, FEATURES), sequence_lengths=lengths)


@pytest.mark.parametrize("is_built", [False, True], ids=["new", "built"])
def test_stack_refuses_ragged_inputs(is_built):
    """The message says what to do instead."""
    layer = make_stack() if is_built else lstm_core.CudnnLSTM(1, UNITS)
    ragged = tf.ragged.constant([[[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]] * 2], ragged_rank=1)
    with pytest.raises(ValueError, match=r"\.to_tensor\(\).*sequence_lengths"):
        layer(ragged)


def test_stack_refuses_a_mask(draw_inputs):
    """A mask that the inputs carry is not lost on the way; the message says what to do instead."""
    masked = keras.layers.Masking()(draw_inputs(TIME, BATCH, FEATURES))
    with pytest.raises(ValueError, match=r"takes no mask.*sequence_lengths"):
        make_stack()(masked)


@EVERY_GRAPH
@pytest.mark.parametrize("time_major", [True, False], ids=["time_major", "batch_major"])
def test_states_of_other_sizes_in_a_graph_that_knows_none(time_major, jit, draw_inputs):
    """It is an error when the graph runs, not a broadcast; states that fit give eager's answer."""
    layer = make_stack()

    def call(x: Any, h: Any) -> Any:
        return layer(x, initial_state=(h, h), time_major=time_major)

    signature = [tf.TensorSpec((None, None, FEATURES)), tf.TensorSpec(None)]
    graph = tf.function(call, input_signature=signature, jit_compile=jit)
    x, fitting = draw_inputs(TIME, BATCH, FEATURES), np.ones((1, BATCH, UNITS), np.float32)
    if not time_major:
        x, fitting = np.swapaxes(x, 0, 1), np.swapaxes(fitting, 0, 1)
    assert_same(graph(x, fitting), call(x, fitting))
    for num_states, rows, units in (
        (1, 1, 4),
        (1, 3, 4),
        (1, 0, 4),
        (2, 4, 4),
        (0, 4, 4),
        (1, 4, 1),
    ):
        shape = (num_states, rows, units) if time_major else (rows, num_states, units)
        with pytest.raises(tf.errors.InvalidArgumentError):
            graph(x, np.ones(shape, np.float32))
    with pytest.raises(tf.errors.InvalidArgumentError):
        graph(x, fitting[0])


def length_graph(layer: Any, *, jit: bool = False) -> Any:
    """Return a graph of the layer that knows neither sizes nor the rank of the lengths."""
    return tf.function(
        lambda x, lengths: layer(x, sequence_lengths=lengths),
        input_signature=[tf.TensorSpec((None, None, FEATURES)), tf.TensorSpec(None, tf.int64)],
        jit_compile=jit,
    )


@EVERY_GRAPH
@pytest.mark.parametrize("direction", ["unidirectional", "bidirectional"])
def test_another_number_of_lengths_in_a_graph_that_knows_none(direction, jit, draw_inputs):
    """It is an error when the graph runs, not a broadcast; lengths that fit give eager's answer."""
    layer, x = make_stack(direction), draw_inputs(TIME, BATCH, FEATURES)
    graph = length_graph(layer, jit=jit)
    assert_same(graph(x, LENGTHS), layer(x, sequence_lengths=LENGTHS))
    for lengths in ([1], [1, 2], [], [[1, 1, 1, 1]]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            graph(x, np.array(lengths, np.int64))


@pytest.mark.parametrize("direction", ["unidirectional", "bidirectional"])
def test_lengths_out_of_range_in_a_graph_that_knows_none(direction, draw_inputs):
    """It is an error when the graph runs, which names them."""
    graph = length_graph(make_stack(direction))
    for lengths in ([6, 1, 1, 1], [-1, 1, 1, 1], [2**32 + 1, 1, 1, 1]):
        with pytest.raises(tf.errors.InvalidArgumentError, match="must be 0 to the number of"):
            graph(draw_inputs(TIME, BATCH, FEATURES), np.array(lengths, np.int64))


@EVERY_GRAPH
def test_features_in_a_graph_that_does_not_know_them(jit, draw_inputs):
    """Those that the layer was built for give eager's answer, others an error."""
    layer = make_stack()
    signature = [tf.TensorSpec((None, None, None))]
    graph = tf.function(layer, input_signature=signature, jit_compile=jit)
    x = draw_inputs(TIME, BATCH, FEATURES)
    assert_same(graph(x), layer(x))
    with pytest.raises(tf.errors.InvalidArgumentError):
        graph(x[..., :1])
    new = lstm_core.CudnnLSTM(1, UNITS)
    with pytest.raises(ValueError, match="last dimension of the inputs to `CudnnRNN` should be"):
        tf.function(new, input_signature=signature)(x)
