"""The gradients of the kernel on fused operations: first and second, eager and in graphs."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import tensorflow as tf

from lstm_core import equations
from lstm_core.kernels import block, block_gradients, block_operations, block_recurrence
from lstm_core.kernels import tensorflow as generic
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights
from tests.parity.block_cases import (
    BY_DIFFERENCES,
    BY_LOOP_GRADIENT,
    FEATURES,
    FORWARD,
    GRADIENT,
    GRADIENTS_BY,
    UNITS,
    assert_close,
    draw,
    draw_mask,
    gradients,
    run,
)  # fmt: skip


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


def as_it_is(function: Any) -> Any:
    """Make no graph of it."""
    return function


GRAPHS: dict[str, Any] = {
    "eager": (as_it_is, as_it_is, as_it_is),
    "graph": (tf.function, as_it_is, as_it_is),
    "graph_of_gradients": (as_it_is, tf.function, as_it_is),
    "graph_of_results": (as_it_is, as_it_is, tf.function),
    "nested_graphs": (tf.function, as_it_is, tf.function),
}
"""What makes a graph of the second gradient, of the first one in it, and of the results in that."""


@pytest.mark.parametrize("limit", GRADIENTS_BY.values(), ids=GRADIENTS_BY.keys())
@pytest.mark.parametrize(("outer", "inner", "innermost"), GRAPHS.values(), ids=GRAPHS.keys())
def test_second_gradient_equals_the_generic_kernels(monkeypatch, limit, outer, inner, innermost):
    """A gradient of a gradient, as of a gradient penalty, is the generic kernel's."""
    monkeypatch.setattr(block_gradients, "MAX_WEIGHTS_OF_GRADIENT_OPERATION", limit)
    tensors = draw(4, 3)

    def second(kernel: Any) -> Any:
        def loss(tensors: Any) -> Any:
            return tf.add_n([tf.reduce_sum(result**3) for result in run(kernel, tensors)])

        of_results = innermost(loss)

        def first(tensors: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                value = of_results(tensors)
            return tape.gradient(value, tensors)

        of_gradients = inner(first)

        def of(tensors: Any) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                penalty = tf.add_n([tf.reduce_sum(g**2) for g in of_gradients(tensors)])
            return tape.gradient(penalty, tensors)

        return outer(of)(tensors)

    for actual, expected in zip(second(block), second(generic), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("limit", GRADIENTS_BY.values(), ids=GRADIENTS_BY.keys())
@pytest.mark.parametrize("has_mask", [False, True])
def test_second_gradient_in_a_graph_that_knows_no_size(monkeypatch, limit, has_mask):
    """It is the generic kernel's, and zeros without steps or rows."""
    monkeypatch.setattr(block_gradients, "MAX_WEIGHTS_OF_GRADIENT_OPERATION", limit)
    x_shape, state_shape = (None, None, FEATURES), (None, UNITS)
    shapes = [*(tensor.shape for tensor in draw(1, 1)[:3]), x_shape, state_shape, state_shape]
    signature = [[tf.TensorSpec(shape) for shape in shapes]]
    if has_mask:
        signature.append(tf.TensorSpec((None, None), tf.bool))

    def second(kernel: Any) -> Any:
        @tf.function(input_signature=signature)
        def of(tensors: Any, mask: Any = None) -> Any:
            with tf.GradientTape() as outer:
                outer.watch(tensors)
                with tf.GradientTape() as inner:
                    inner.watch(tensors)
                    results = run(kernel, tensors, mask)
                    loss = tf.add_n([tf.reduce_sum(result**3) for result in results])
                first = inner.gradient(loss, tensors, unconnected_gradients="zero")
                penalty = tf.add_n([tf.reduce_sum(gradient**2) for gradient in first])
            return outer.gradient(penalty, tensors, unconnected_gradients="zero")

        return of

    of_block, of_generic = second(block), second(generic)
    for time, batch in ((0, 3), (4, 0)):
        arguments = [draw(time, batch), *([draw_mask(time, batch)] if has_mask else [])]
        for actual, expected in zip(of_block(*arguments), of_generic(*arguments), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-3)


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


@pytest.mark.parametrize("kernel", [block, generic], ids=["block", "generic"])
def test_masked_inputs_reach_no_result_and_no_gradient(kernel):
    """Padding that is not a number changes nothing, neither forward nor back."""
    tensors, mask = draw(6, 3), draw_mask(6, 3)
    padded = list(tensors)
    padded[3] = tf.where(mask[:, :, tf.newaxis], tensors[3], np.nan)
    clean = list(tensors)
    clean[3] = tf.where(mask[:, :, tf.newaxis], tensors[3], 0.0)
    for of in (run, gradients):
        for actual, expected in zip(
            of(kernel, padded, mask), of(generic, clean, mask), strict=True
        ):
            np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make_graph", "of"),
    [(as_it_is, run), (tf.function, run), (as_it_is, gradients)],
    ids=["eager", "graph", "over_reverse"],
)
def test_forward_mode_equals_numerical_differentiation(make_graph, of):
    """A `tf.autodiff.ForwardAccumulator` follows all operands, also over a backward step."""
    tensors, change = draw(2, 2), 1e-2
    with tf.autodiff.ForwardAccumulator(tensors, tensors) as accumulator:
        results = make_graph(lambda *tensors: of(block, list(tensors)))(*tensors)
    actual = accumulator.jvp(results)
    below, above = (
        of(generic, [tensor * factor for tensor in tensors]) for factor in (1 - change, 1 + change)
    )
    for tangent, low, high in zip(actual, below, above, strict=True):
        expected = (high - low) / (2 * change)
        np.testing.assert_allclose(tangent, expected, rtol=1e-2, atol=5e-3)


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
@pytest.mark.parametrize(
    ("make_graph", "dtype", "atol"),
    [(as_it_is, "float32", 2e-6), (as_it_is, "float16", 1e-2), (tf.function, "float32", 2e-6)],
    ids=["float32", "float16", "graph"],
)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_every_form_has_the_gradients_of_plain_operations(
    monkeypatch, form, make_graph, dtype, atol, limit
):
    """Both orders of gates, clips, peepholes and both dtypes: what TensorFlow derives itself.

    In a graph an operation may take the memory of its inputs for its results.
    """
    monkeypatch.setattr(block_gradients, "MAX_WEIGHTS_OF_GRADIENT_OPERATION", limit)
    random = np.random.default_rng(0)
    shapes = [(4, 3, FEATURES), (3, UNITS), (3, UNITS), (FEATURES + UNITS, 4 * UNITS),
              (4 * UNITS,), (3, UNITS)]  # fmt: skip
    tensors = [tf.constant(random.normal(0, 0.6, shape).astype(dtype)) for shape in shapes]
    names = ("inputs", "h", "c", "kernel", "bias", "peepholes")
    results = []
    for compute in (block_recurrence.recur, block_operations.plain):

        def of(tensors: Any, compute: Any = compute) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(tensors)
                operands = block_operations.Operands(**dict(zip(names, tensors, strict=True)))
                h, c = compute(operands, form)
                loss = tf.reduce_sum(h**2) + tf.reduce_sum(tf.sin(c))
            return [h, c, *tape.gradient(loss, tensors, unconnected_gradients="zero")]

        results.append(make_graph(of)(tensors))
    for actual, expected in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=atol, atol=atol)
