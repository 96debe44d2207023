"""The cuDNN kernel around a stand-in for its operation: what it packs, mends and differentiates.

The operation itself needs a GPU: `tests/gpu`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tensorflow")

import tensorflow as tf

from lstm_core.kernels import cudnn, cudnn_layout
from lstm_core.kernels import tensorflow as recurrence
from lstm_core.kernels.cudnn_layout import ROCM_GATE_ORDER, Stack
from lstm_core.weights import LSTMWeights
from tests.parity.cudnn_cases import (
    BATCH,
    FEATURES,
    RIGHT_PADDED,
    TIME,
    UNITS,
    assert_same,
    put_in_place,
)


@pytest.fixture
def stand_in(monkeypatch):
    """A machine with a GPU, as far as TensorFlow tells, and a stand-in for cuDNN's operation."""
    return put_in_place(monkeypatch)


def tensors(weights: list[Any]) -> recurrence.Weights:
    """Return weights as the kernels take them."""
    return recurrence.Weights(
        kernel=tf.constant(weights[0]),
        recurrent_kernel=tf.constant(weights[1]),
        bias=tf.constant(weights[2]),
    )


@pytest.mark.parametrize("order", ["ifco", ROCM_GATE_ORDER])
def test_pack_is_the_layout(order, draw_weights):
    """The differentiable packing gives the buffer of `cudnn_layout`, bit for bit."""
    weights = draw_weights(FEATURES, UNITS)
    layer = LSTMWeights(kernel=weights[0], recurrent_kernel=weights[1], bias=weights[2])
    expected = cudnn_layout.pack(Stack(input_size=FEATURES, units=UNITS), [layer], gate_order=order)
    np.testing.assert_array_equal(expected, cudnn.pack(tensors(weights), order))


def test_pack_equals_tf_keras(draw_weights):
    """The buffer is the one that tf_keras hands to the operation."""
    utils = pytest.importorskip("tf_keras.src.layers.rnn.gru_lstm_utils")
    weights = tensors(draw_weights(FEATURES, UNITS))
    theirs = utils.canonical_to_params(
        weights=tf.split(weights.kernel, 4, axis=1) + tf.split(weights.recurrent_kernel, 4, axis=1),
        biases=tf.split(tf.concat([tf.zeros_like(weights.bias), weights.bias], 0), 8),
        shape=tf.constant([-1]),
        transpose_weights=True,
    )
    np.testing.assert_array_equal(theirs, cudnn.pack(weights))


def test_the_operation_and_its_gradient_build():
    """A graph takes the real operation with our arguments, and knows its shapes and gradient."""
    with tf.Graph().as_default():
        shapes = [(FEATURES, 4 * UNITS), (UNITS, 4 * UNITS), (4 * UNITS,)]
        kernel, recurrent_kernel, bias = (tf.compat.v1.placeholder(tf.float32, s) for s in shapes)
        x = tf.compat.v1.placeholder(tf.float32, (TIME, BATCH, FEATURES))
        h, c = (tf.compat.v1.placeholder(tf.float32, (BATCH, UNITS)) for _ in range(2))
        result = cudnn.sequence(
            recurrence.Weights(kernel=kernel, recurrent_kernel=recurrent_kernel, bias=bias),
            recurrence.Options(activation=tf.tanh, recurrent_activation=tf.sigmoid),
            x,
            h=h,
            c=c,
        )
        (op,) = (o for o in tf.compat.v1.get_default_graph().get_operations()
                 if o.type == "CudnnRNNV3")  # fmt: skip
        assert (TIME, BATCH, UNITS) == tuple(op.outputs[0].shape)
        assert (b"lstm", b"linear_input", b"unidirectional", True, True) == tuple(
            op.get_attr(name)
            for name in ("rnn_mode", "input_mode", "direction", "is_training", "time_major")
        )
        sources = [kernel, recurrent_kernel, bias, x, h, c]
        gradients = tf.gradients([result.outputs, result.h, result.c], sources)
        assert [tuple(s.shape) for s in sources] == [tuple(g.shape) for g in gradients]


def both_kernels(weights, options, x, h, c, mask, dropout=None):
    """Run the cuDNN kernel and the generic one; return results and gradients of both."""
    results = []
    for kernel in (cudnn.sequence, recurrence.sequence):
        sources = [*(tf.constant(w) for w in weights), *(tf.constant(a) for a in (x, h, c))]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            r = kernel(
                recurrence.Weights(
                    kernel=sources[0], recurrent_kernel=sources[1], bias=sources[2]
                ),
                options, sources[3], h=sources[4], c=sources[5], mask=mask, dropout=dropout,
            )  # fmt: skip
            parts = [r.last_output, r.h, r.c, *([] if r.outputs is None else [r.outputs])]
            loss = tf.add_n([tf.reduce_sum(tf.sin(3 * part + i)) for i, part in enumerate(parts)])
        results.append((parts, tape.gradient(loss, sources)))
    return results


@pytest.mark.parametrize("mask", RIGHT_PADDED.values(), ids=RIGHT_PADDED.keys())
@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("zero_output_for_mask", [False, True])
@pytest.mark.parametrize("return_sequences", [False, True])
def test_equals_the_generic_kernel(
    mask, go_backwards, zero_output_for_mask, return_sequences, stand_in, draw_weights, draw_inputs
):
    """Around the stand-in: outputs, masked tails, states and every gradient are the generic's."""
    options = recurrence.Options(
        activation=tf.tanh, recurrent_activation=tf.sigmoid, go_backwards=go_backwards,
        zero_output_for_mask=zero_output_for_mask, return_sequences=return_sequences,
    )  # fmt: skip
    x = draw_inputs(TIME, BATCH, FEATURES)
    h, c = draw_inputs(2, BATCH, UNITS, seed=2)
    kept = tf.constant(draw_inputs(BATCH, FEATURES) > 0)
    factors = recurrence.DropoutMasks(inputs=(2 * tf.cast(kept, tf.float32),))
    live = None if mask is None else tf.constant(mask.T)
    (ours, our_gradients), (generic, gradients) = both_kernels(
        draw_weights(FEATURES, UNITS), options, x, h, c, live, factors
    )
    assert 1 == int(stand_in.runs)
    assert_same(ours, generic)
    assert_same(our_gradients, gradients, rtol=0, atol=2e-5)


def test_rocm_takes_its_own_order(monkeypatch, draw_weights, draw_inputs):
    """On a ROCm build the buffer's gates stand in MIOpen's order, and nothing else changes."""
    put_in_place(monkeypatch, ROCM_GATE_ORDER)
    monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda: {"is_rocm_build": True})
    options = recurrence.Options(activation=tf.tanh, recurrent_activation=tf.sigmoid)
    x, weights = draw_inputs(TIME, BATCH, FEATURES), draw_weights(FEATURES, UNITS)
    h, c = draw_inputs(2, BATCH, UNITS, seed=2)
    (ours, _), (generic, _) = both_kernels(weights, options, x, h, c, None)
    assert_same(ours, generic)


@given(live=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=3))
@settings(deadline=None)
def test_is_right_padded(live):
    """True exactly where every row is some live steps and then only masked ones."""
    expected = all(row[0] and sorted(row, reverse=True) == row for row in live)
    assert expected == bool(cudnn.is_right_padded(tf.constant(live).numpy().T))
