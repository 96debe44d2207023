"""The kernel on fused operations beside the one on plain operations and the equations."""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tensorflow")

import tensorflow as tf

from lstm_core import equations
from lstm_core.kernels import block, block_gradients, block_operations, block_recurrence
from lstm_core.kernels import tensorflow as generic
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights
from tests.parity.record import Row, agree

FORWARD = {"rtol": 0, "atol": 1e-6}
GRADIENT = {"rtol": 1e-5, "atol": 1e-5}
FEATURES, UNITS = 3, 4
BY_LOOP, BY_OPERATION = 0, 2**15
GRADIENTS_BY = {"loop": BY_LOOP, "operation": BY_OPERATION}


def draw(time: int, batch: int, features: int = FEATURES, units: int = UNITS, seed: int = 0) -> Any:
    """Draw kernel, recurrent kernel, bias, inputs, h and c."""
    random = np.random.default_rng(seed)
    shapes = [
        (features, 4 * units), (units, 4 * units), (4 * units,),
        (time, batch, features), (batch, units), (batch, units),
    ]  # fmt: skip
    return [tf.constant(random.normal(0, 0.6, shape).astype(np.float32)) for shape in shapes]


def draw_mask(time: int, batch: int, seed: int = 0) -> Any:
    """Draw a mask with holes, one row of it without a live step."""
    mask = np.random.default_rng(seed).random((time, batch)) < 0.6
    mask[:, :1] = False
    return tf.constant(mask)


def run(kernel: Any, tensors: Any, mask: Any = None, dropout: Any = None, **options: Any) -> Any:
    """Return outputs, last output, h and c."""
    k, r, b, x, h, c = tensors
    result = kernel.sequence(
        generic.Weights(kernel=k, recurrent_kernel=r, bias=b),
        generic.Options(activation=tf.tanh, recurrent_activation=tf.sigmoid, **options),
        x,
        h=h,
        c=c,
        mask=mask,
        dropout=dropout,
    )
    return [t for t in (result.outputs, result.last_output, result.h, result.c) if t is not None]


def gradients(kernel: Any, tensors: Any, mask: Any = None, **options: Any) -> Any:
    """Return the gradients of all tensors, through all results, each weighted by other numbers."""
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        loss = sum(
            tf.reduce_sum(result * np.random.default_rng(n).normal(size=result.shape))
            for n, result in enumerate(run(kernel, tensors, mask, **options))
        )
    return tape.gradient(loss, tensors, unconnected_gradients="zero")


BY_EQUATIONS = ("kernels.block", "forward", "lstm_core.equations")
BY_LOOP_FORWARD = ("kernels.block", "forward", "tensorflow.while_loop")
BY_LOOP_GRADIENT = ("kernels.block", "gradients", "tensorflow.while_loop")
BY_DIFFERENCES = ("kernels.block", "gradients", "lstm_core.equations")
"""Rows of the parity table. The generic kernel is a loop that TensorFlow differentiates."""


def assert_close(actual: Any, expected: Any, tolerance: Any, row: Row = BY_LOOP_FORWARD) -> None:
    """Compare several arrays."""
    agree(list(actual), list(expected), row=row, **tolerance)


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


@pytest.mark.parametrize("limit", GRADIENTS_BY.values(), ids=GRADIENTS_BY.keys())
@pytest.mark.parametrize("has_mask", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"go_backwards": True, "zero_output_for_mask": True}], ids=["plain", "options"]
)
def test_both_gradients_equal_the_generic_kernels(monkeypatch, limit, has_mask, options):
    """The loop and the operation give the generic gradients of inputs, weights and states."""
    monkeypatch.setattr(block_gradients, "MAX_WEIGHTS_OF_GRADIENT_OPERATION", limit)
    tensors = draw(9, 5)
    mask = draw_mask(9, 5) if has_mask else None
    assert_close(
        gradients(block, tensors, mask, **options),
        gradients(generic, tensors, mask, **options),
        GRADIENT,
        BY_LOOP_GRADIENT,
    )


@pytest.mark.parametrize("has_mask", [False, True])
def test_an_ordinary_size_in_a_graph(has_mask):
    """At a size whose gradient the loop computes and whose batch is split, the numbers hold."""
    tensors = [tensor / 4 for tensor in draw(40, 35, 24, 96)]
    mask = draw_mask(40, 35) if has_mask else None

    @tf.function
    def of(kernel: Any) -> Any:
        return run(kernel, tensors, mask), gradients(kernel, tensors, mask)

    (results, first), (expected, expected_first) = of(block), of(generic)
    assert_close(results, expected, FORWARD)
    # Sums over all rows and steps: what rounding does to them grows with their size.
    scale = max(float(tf.reduce_max(tf.abs(gradient))) for gradient in expected_first)
    for actual, gradient in zip(first, expected_first, strict=True):
        np.testing.assert_allclose(actual, gradient, rtol=0, atol=1e-5 * max(1, scale / 10))


@pytest.mark.parametrize("limit", GRADIENTS_BY.values(), ids=GRADIENTS_BY.keys())
def test_gradient_equals_numerical_differentiation(monkeypatch, limit):
    """Differences of the equations in float64 give the gradients."""
    monkeypatch.setattr(block_gradients, "MAX_WEIGHTS_OF_GRADIENT_OPERATION", limit)
    tensors = draw(3, 2, 2, 2)
    arrays = [tensor.numpy().astype(np.float64) for tensor in tensors]

    def loss() -> float:
        k, r, b, x, h, c = arrays
        result = equations.sequence(
            LSTMSpec(input_size=2, units=2),
            LSTMWeights(kernel=k, recurrent_kernel=r, bias=b),
            x.swapaxes(0, 1),
            h=h,
            c=c,
        )
        results = (result.outputs.swapaxes(0, 1), result.last_output, result.h, result.c)
        return sum(
            float(np.sum(part * np.random.default_rng(n).normal(size=part.shape)))
            for n, part in enumerate(results)
        )

    for array, actual in zip(arrays, gradients(block, tensors), strict=True):
        expected = np.zeros_like(array)
        for at in np.ndindex(array.shape):
            value = array[at]
            array[at] = value + 1e-5
            above = loss()
            array[at] = value - 1e-5
            expected[at] = (above - loss()) / 2e-5
            array[at] = value
        assert_close([actual], [expected], GRADIENT, BY_DIFFERENCES)


@pytest.mark.parametrize("limit", GRADIENTS_BY.values(), ids=GRADIENTS_BY.keys())
@pytest.mark.parametrize("is_graph", [False, True])
def test_second_gradient_equals_the_generic_kernels(monkeypatch, limit, is_graph):
    """A gradient of a gradient, as of a gradient penalty, is the generic kernel's."""
    monkeypatch.setattr(block_gradients, "MAX_WEIGHTS_OF_GRADIENT_OPERATION", limit)
    tensors = draw(4, 3)

    def second(kernel: Any) -> Any:
        def of(tensors: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                first = gradients(kernel, tensors)
                penalty = tf.add_n([tf.reduce_sum(gradient**2) for gradient in first])
            return tape.gradient(penalty, tensors)

        return (tf.function(of) if is_graph else of)(tensors)

    for actual, expected in zip(second(block), second(generic), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("limit", GRADIENTS_BY.values(), ids=GRADIENTS_BY.keys())
@pytest.mark.parametrize(("time", "batch"), [(0, 3), (4, 0), (0, 0)])
@pytest.mark.parametrize("has_mask", [False, True])
def test_gradient_of_nothing_is_zero(monkeypatch, limit, time, batch, has_mask):
    """Without rows or steps the weights' gradients are zero, where the operation leaves noise."""
    monkeypatch.setattr(block_gradients, "MAX_WEIGHTS_OF_GRADIENT_OPERATION", limit)
    tensors = draw(time, batch)
    actual = gradients(block, tensors, draw_mask(time, batch) if has_mask else None)
    for gradient, tensor in zip(actual[:3], tensors[:3], strict=True):
        np.testing.assert_array_equal(gradient, np.zeros(tensor.shape))


def test_masked_inputs_reach_no_result_and_no_gradient():
    """Padding that is not a number changes nothing, neither forward nor back."""
    tensors, mask = draw(6, 3), draw_mask(6, 3)
    padded = list(tensors)
    padded[3] = tf.where(mask[:, :, tf.newaxis], tensors[3], np.nan)
    clean = list(tensors)
    clean[3] = tf.where(mask[:, :, tf.newaxis], tensors[3], 0.0)
    assert_close(run(block, padded, mask), run(block, clean, mask), FORWARD)
    assert_close(
        gradients(block, padded, mask), gradients(block, clean, mask), FORWARD, BY_LOOP_GRADIENT
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


ORDERS: list[tuple[Literal["ifco", "icfo"], float]] = [("ifco", 0.0), ("icfo", 0.7)]
"""With the forget bias: only one of the operations has it."""
FORMS = [
    block_operations.Form(
        gate_order=order, cell_clip=clip, forget_bias=forget_bias, use_peepholes=has_peepholes,
        returns_every_cell=returns_every_cell,
    )
    for order, forget_bias in ORDERS
    for clip in (0.0, 0.3)
    for has_peepholes in (False, True)
    for returns_every_cell in (False, True)
]  # fmt: skip


@pytest.mark.parametrize("limit", GRADIENTS_BY.values(), ids=GRADIENTS_BY.keys())
@pytest.mark.parametrize(("dtype", "atol"), [("float32", 2e-6), ("float16", 1e-2)])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_has_the_gradients_of_plain_operations(monkeypatch, form, dtype, atol, limit):
    """Both orders of gates, clips, peepholes and both dtypes: what TensorFlow derives itself."""
    monkeypatch.setattr(block_gradients, "MAX_WEIGHTS_OF_GRADIENT_OPERATION", limit)
    random = np.random.default_rng(0)
    shapes = [(4, 3, FEATURES), (3, UNITS), (3, UNITS), (FEATURES + UNITS, 4 * UNITS),
              (4 * UNITS,), (3, UNITS)]  # fmt: skip
    tensors = [tf.constant(random.normal(0, 0.6, shape).astype(dtype)) for shape in shapes]
    names = ("inputs", "h", "c", "kernel", "bias", "peepholes")
    results = []
    for compute in (block_recurrence.recur, block_operations.plain):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            operands = block_operations.Operands(**dict(zip(names, tensors, strict=True)))
            h, c = compute(operands, form)
            loss = tf.reduce_sum(h**2) + tf.reduce_sum(tf.sin(c))
        results.append([h, c, *tape.gradient(loss, tensors, unconnected_gradients="zero")])
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=atol, atol=atol)
