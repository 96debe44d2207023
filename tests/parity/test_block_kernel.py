"""The kernel on fused operations beside the one on plain operations and the equations."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tensorflow")

import tensorflow as tf

from lstm_core import equations
from lstm_core.kernels import block, block_operations
from lstm_core.kernels import tensorflow as generic
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights
from tests.parity.block_cases import (
    BY_EQUATIONS,
    BY_LOOP_GRADIENT,
    FEATURES,
    FORWARD,
    UNITS,
    assert_close,
    draw,
    draw_mask,
    run,
)  # fmt: skip


@cache
def compiled(kernel: Any, has_mask: bool, time: int | None = None, **options: Any) -> Any:
    """Return a graph of results and gradients that takes every batch, and every time if None."""
    shapes = [
        (FEATURES, 4 * UNITS), (UNITS, 4 * UNITS), (4 * UNITS,),
        (time, None, FEATURES), (None, UNITS), (None, UNITS),
    ]  # fmt: skip
    signature = [[tf.TensorSpec(shape, tf.float32) for shape in shapes]]
    if has_mask:
        signature.append(tf.TensorSpec((time, None), tf.bool))

    @tf.function(input_signature=signature)
    def results_and_gradients(tensors: Any, mask: Any = None) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            results = run(kernel, tensors, mask, **options)
            loss = tf.add_n([tf.reduce_sum(result * tf.cos(result)) for result in results])
        return results, tape.gradient(loss, tensors, unconnected_gradients="zero")

    return results_and_gradients


@given(
    time=st.integers(1, 7),
    batch=st.sampled_from([0, 1, 2, 5, 16, 33, 70]),
    has_mask=st.booleans(),
    seed=st.integers(0, 999),
)
@settings(deadline=None)
def test_equals_the_generic_kernel_in_a_graph(time, batch, has_mask, seed):
    """Any size and mask gives the generic kernel's results and gradients, whatever the parts."""
    tensors = draw(time, batch, seed=seed)
    arguments = [tensors] + ([draw_mask(time, batch, seed)] if has_mask else [])
    results, first = compiled(block, has_mask)(*arguments)
    expected_results, expected_first = compiled(generic, has_mask)(*arguments)
    assert_close(results, expected_results, FORWARD)
    assert_close(first, expected_first, {"rtol": 1e-5, "atol": 1e-5}, BY_LOOP_GRADIENT)


@given(
    time=st.integers(0, 6),
    batch=st.integers(0, 4),
    go_backwards=st.booleans(),
    zero_output_for_mask=st.booleans(),
    has_mask=st.booleans(),
    seed=st.integers(0, 999),
)
@settings(deadline=None)
def test_equals_the_equations(time, batch, has_mask, seed, **options):
    """Any size, direction and mask gives what the equations give in float64."""
    tensors = draw(time, batch, seed=seed)
    k, r, b, x, h, c = (tensor.numpy() for tensor in tensors)
    mask = draw_mask(time, batch, seed) if has_mask else None
    expected = equations.sequence(
        LSTMSpec(input_size=FEATURES, units=UNITS),
        LSTMWeights(kernel=k, recurrent_kernel=r, bias=b),
        x.swapaxes(0, 1),
        h=h,
        c=c,
        mask=None if mask is None else mask.numpy().T,
        **options,
    )
    outputs = expected.outputs.swapaxes(0, 1)
    assert_close(
        run(block, tensors, mask, **options),
        [outputs, expected.last_output, expected.h, expected.c],
        FORWARD,
        BY_EQUATIONS,
    )


def test_input_dropout_equals_the_generic_kernels():
    """One mask of the inputs is held over time."""
    tensors = draw(5, 3)
    factors = tf.constant(np.random.default_rng(5).integers(0, 2, (3, FEATURES)) * 2.0, tf.float32)
    dropout = generic.DropoutMasks(inputs=(factors,))
    assert_close(
        run(block, tensors, dropout=dropout), run(generic, tensors, dropout=dropout), FORWARD
    )


@pytest.mark.parametrize(
    "dropout",
    [
        generic.DropoutMasks(inputs=(tf.ones((2, FEATURES)),) * 4),
        generic.DropoutMasks(recurrent=(tf.ones((2, UNITS)),)),
    ],
    ids=["of_each_gate", "recurrent"],
)
def test_other_dropout_is_refused(dropout):
    """Masks that the operations cannot apply are an error, and not ignored."""
    with pytest.raises(ValueError, match="the fused operations take one dropout mask"):
        run(block, draw(2, 2), dropout=dropout)


def test_without_sequences_and_bias():
    """Neither is needed: the last output and the states are the generic kernel's."""
    tensors = draw(5, 3)
    tensors[2] = None
    options = {"return_sequences": False}
    actual, expected = run(block, tensors, **options), run(generic, tensors, **options)
    assert 3 == len(actual)
    assert_close(actual, expected, FORWARD)


@pytest.mark.parametrize(
    ("of_call", "expected"),
    [
        ({}, []),
        ({"activation": "relu"}, ["activation is relu, not tanh"]),
        (
            {"recurrent_activation": "hard_sigmoid"},
            ["recurrent_activation is hard_sigmoid, not sigmoid"],
        ),
        ({"recurrent_dropout": 0.1}, ["recurrent_dropout is 0.1, not 0"]),
        ({"dropout": 0.1}, []),
        (
            {"dropout": 0.1, "implementation": 1},
            ["implementation 1 draws a dropout mask for each gate"],
        ),
        ({"unroll": True}, ["unroll is on"]),
        ({"compute_dtype": "float16"}, ["dtypes are float16 and float32, not float32"]),
        ({"num_gpus": 1}, ["it was measured on CPUs only, and TensorFlow sees a GPU"]),
        ({"is_in_xla": True}, ["XLA (jit_compile) does not take the fused operations"]),
    ],
)
def test_obstacles_are_named(of_call, expected):
    """Each condition that is broken is told in words."""
    assert expected == block.obstacles(**of_call)


@pytest.mark.parametrize(
    ("batch", "num_cores", "expected"),
    [(70, 4, [0, 17, 35, 52, 70]), (33, 4, [0, 16, 33]), (8, 4, [0, 8])],
)
def test_parts_are_worth_a_core(monkeypatch, batch, num_cores, expected):
    """A batch is split evenly, into no more parts than cores and none below its least size."""
    monkeypatch.setattr(block_operations, "num_cores", lambda: num_cores)
    with tf.Graph().as_default():
        assert expected == block_operations.part_bounds(tf.zeros((5, batch, 2)))
    signature = tf.TensorSpec((5, None, 2))
    unknown = tf.function(block_operations.part_bounds, input_signature=[signature])
    actual = unknown(tf.zeros((5, batch, 2)))
    assert expected == sorted({int(bound) for bound in actual})


def test_one_core_splits_nothing(monkeypatch):
    """Neither a batch of known size nor one of unknown size."""
    monkeypatch.setattr(block_operations, "num_cores", lambda: 1)
    assert [0, 64] == block_operations.part_bounds(tf.zeros((5, 64, 2)))


def test_a_forget_bias_of_the_operation_that_has_none_is_refused():
    """`BlockLSTMV2` would leave it out."""
    with pytest.raises(ValueError, match=r"forget_bias is 1\.0, but BlockLSTMV2"):
        block_operations.Form(gate_order="ifco", forget_bias=1.0)
