"""The numbers of `lstm_core.LSTMCell` beside TensorFlow's cell, tf_keras's and the equations."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tensorflow")

import tensorflow as tf
from tensorflow.python.ops import rnn_cell_impl
from tf_keras.src.layers.rnn import legacy_cells

from lstm_core import LSTMCell, equations
from lstm_core.network import Network, Recurrent
from lstm_core.runtime.cpu import CpuRuntime
from lstm_core.spec import ACTIVATIONS, LSTMSpec

BATCH, FEATURES, UNITS = 3, 2, 4
FORWARD = {"float32": 1e-6, "float64": 1e-12}
GRADIENT = {"float32": 1e-5, "float64": 1e-11}

PEERS = {"tensorflow": rnn_cell_impl.LSTMCell, "tf_keras": legacy_cells.LSTMCell}

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "peepholes": {"use_peepholes": True},
    "projection": {"num_proj": 3},
    "longer_projection": {"num_proj": 6},
    "cell_clip": {"cell_clip": 0.2},
    "clips": {"num_proj": 3, "cell_clip": 0.2, "proj_clip": 0.05},
    "everything": {"use_peepholes": True, "num_proj": 3, "cell_clip": 0.3, "proj_clip": 0.1},
    "everything_but_projection": {"use_peepholes": True, "cell_clip": 0.3},
}
CALLS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "concatenated": {"state_is_tuple": False},
    "no_forget_bias": {"forget_bias": 0.0},
    "negative_forget_bias": {"forget_bias": -2.5},
    "relu": {"activation": "relu"},
    "hard_sigmoid": {"activation": "hard_sigmoid"},
    "linear": {"activation": "linear"},
    "a_function": {"activation": tf.nn.softsign},
}


def quietly(make, *args, **kwargs):
    """Make a cell without the warnings that its deprecated arguments bring."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(*args, **kwargs)


def weights_for(cell, seed=0):
    """Draw weights of a built cell's shapes, none of them zero anywhere."""
    random = np.random.default_rng(seed)
    return [random.normal(0, 0.6, variable.shape) for variable in cell.weights]


def built(make, options, dtype, seed=0):
    """Return a cell with drawn weights."""
    cell = quietly(make, UNITS, dtype=dtype, **options)
    cell.build((None, FEATURES))
    cell.set_weights([w.astype(dtype) for w in weights_for(cell, seed)])
    return cell


def step_data(cell, dtype, batch=BATCH, seed=1):
    """Draw inputs and a state in the cell's structure."""
    random = np.random.default_rng(seed)
    x = tf.constant(random.normal(size=(batch, FEATURES)), dtype)
    sizes = cell.state_size
    if isinstance(sizes, int):
        return x, tf.constant(random.normal(size=(batch, sizes)), dtype)
    return x, tuple(tf.constant(random.normal(size=(batch, size)), dtype) for size in sizes)


def flat(*results):
    """Return nested tensors as NumPy arrays in a row."""
    return [np.asarray(t) for t in tf.nest.flatten(results)]


def assert_close(expected, actual, atol):
    """Compare rows of arrays, with the tolerance in absolute terms and in relative ones."""
    assert len(expected) == len(actual)
    for e, a in zip(expected, actual, strict=True):
        assert e.shape == a.shape
        np.testing.assert_allclose(a, e, rtol=atol, atol=atol)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
# The two are the same code at different ages, so that each in one dtype tells as much.
@pytest.mark.parametrize(("peer", "dtype"), [("tensorflow", "float32"), ("tf_keras", "float64")])
def test_a_step_and_its_gradients_equal_the_peers(peer, options, call, dtype):
    """Output, state and the gradients of inputs, state and weights, over every option."""
    ours, theirs = (built(make, options | call, dtype) for make in (LSTMCell, PEERS[peer]))
    assert [tuple(v.shape) for v in theirs.weights] == [tuple(v.shape) for v in ours.weights]
    x, state = step_data(ours, dtype)
    results, gradients = [], []

    for cell in (theirs, ours):
        with tf.GradientTape() as tape:
            tape.watch([x, *tf.nest.flatten(state)])
            output, after = cell(x, state)
            # Every element of output and state counts, each with a weight of its own.
            loss = sum(
                tf.reduce_sum(t * tf.reshape(tf.range(1, tf.size(t) + 1), t.shape).numpy())
                for t in tf.nest.flatten((output, after))
            )
        variables = [v.value if cell is ours else v for v in cell.trainable_variables]
        gradients.append(flat(tape.gradient(loss, [x, *tf.nest.flatten(state), *variables])))
        results.append(flat(output, after))

    assert_close(results[0], results[1], FORWARD[dtype])
    assert_close(gradients[0], gradients[1], GRADIENT[dtype])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_gradients_equal_numerical_differentiation_of_the_equations(options):
    """The gradient in a random direction is the slope of the float64 equations in it."""
    cell = built(LSTMCell, options, "float64")
    x, (c, h) = step_data(cell, "float64")
    # Clipping has a corner: a step this short does not cross one here.
    epsilon = 1e-6
    with tf.GradientTape() as tape:
        tape.watch([x, c, h])
        output, after = cell(x, (c, h))
        loss = tf.reduce_sum(tf.sin(output)) + tf.reduce_sum(after.c**2)
    variables = [x, c, h, *(v.value for v in cell.weights)]
    gradients = flat(tape.gradient(loss, variables))
    random = np.random.default_rng(3)
    directions = [random.normal(size=g.shape) for g in gradients]
    start = [v.numpy() for v in variables]

    def loss_at(distance):
        moved = [s + distance * d for s, d in zip(start, directions, strict=True)]
        cell.set_weights(moved[3:])
        h_next, c_next = equations.step(
            cell.spec, cell.get_core_weights(), moved[0], c=moved[1], h=moved[2]
        )
        return np.sin(h_next).sum() + (c_next**2).sum()

    slope = (loss_at(epsilon) - loss_at(-epsilon)) / (2 * epsilon)
    along = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    np.testing.assert_allclose(along, slope, rtol=1e-7, atol=1e-7)


@functools.cache
def cached_cell(option, activation, dtype):
    """Return a cell; making one costs more than running it."""
    options = OPTIONS[option] | {"forget_bias": 0.7, "activation": activation}
    return built(LSTMCell, options, dtype)


@functools.cache
def compiled(cell):
    """Return a cell's call as a `tf.function`, traced once for all batch sizes."""
    sizes = (FEATURES, *cell.state_size)
    signature = [tf.TensorSpec((None, size), cell.dtype) for size in sizes]
    return tf.function(lambda x, c, h: cell(x, (c, h)), input_signature=signature)


CELLS = st.tuples(st.sampled_from(list(OPTIONS)), st.sampled_from(["tanh", "softsign"]))
SEEDS = st.integers(0, 2**32 - 1)


@settings(deadline=None)
@given(cell=CELLS, dtype=st.sampled_from(sorted(FORWARD)), batch=st.integers(0, 4), seed=SEEDS)
def test_a_step_equals_the_equations(cell, dtype, batch, seed):
    """Any weights, inputs and state, an empty batch too, agree with the float64 reference."""
    cell = cached_cell(*cell, dtype)
    cell.set_weights([w.astype(dtype) for w in weights_for(cell, seed)])
    x, (c, h) = step_data(cell, dtype, batch, seed)

    output, after = compiled(cell)(x, c, h)

    h_next, c_next = equations.step(
        cell.spec, cell.get_core_weights(), x.numpy(), c=c.numpy(), h=h.numpy()
    )
    assert_close([h_next, c_next, h_next], flat(output, after), FORWARD[dtype])


@settings(deadline=None)
@given(cell=CELLS, time=st.integers(1, 3), seed=SEEDS)
def test_steps_equal_a_sequence_on_every_kernel(cell, time, seed):
    """A plain loop from `zero_state` equals `equations.sequence` and the CPU runtime."""
    cell = cached_cell(*cell, "float32")
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(2, time, FEATURES)).astype("float32")
    state = cell.zero_state(2, "float32")
    outputs = []

    for t in range(time):
        output, state = compiled(cell)(inputs[:, t], *state)
        outputs.append(output.numpy())

    weights = cell.get_core_weights()
    expected = equations.sequence(cell.spec, weights, inputs)
    layer = Recurrent(name="cell", spec=cell.spec, weights=weights)
    served = CpuRuntime(Network("n", FEATURES, (layer,)), 0).predict(inputs)
    tolerance = 2e-6  # the rounding of several steps
    assert_close(
        [expected.outputs, expected.c, expected.h],
        [np.stack(outputs, axis=1), state.c.numpy(), state.h.numpy()],
        tolerance,
    )
    assert_close([expected.outputs], [served], tolerance)


@settings(deadline=None)
@given(cell=CELLS, batch=st.integers(1, 3), seed=SEEDS)
def test_a_batch_equals_its_rows(cell, batch, seed):
    """No row sees another."""
    cell = cached_cell(*cell, "float64")
    x, (c, h) = step_data(cell, "float64", batch, seed)

    together = flat(compiled(cell)(x, c, h))

    x, c, h = flat(x, c, h)
    alone = [flat(compiled(cell)(*(t[r : r + 1] for t in (x, c, h)))) for r in range(batch)]
    rows = [np.concatenate(parts) for parts in zip(*alone, strict=True)]
    assert_close(rows, together, 1e-14)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS - {"exponential", "hard_sigmoid_v1"}))
def test_every_activation_of_the_spec_runs_on_the_equations(name):
    """A cell made of a spec has its numbers, `hard_sigmoid` of Keras 3 included."""
    spec = LSTMSpec(input_size=FEATURES, units=UNITS, activation=name, forget_bias=0.5)
    cell = LSTMCell.from_spec(spec, dtype="float64")
    cell.build((None, FEATURES))
    cell.set_weights(weights_for(cell))
    x, (c, h) = step_data(cell, "float64")

    output, after = cell(x, (c, h))

    assert spec == cell.spec
    h_next, c_next = equations.step(
        spec, cell.get_core_weights(), x.numpy(), c=c.numpy(), h=h.numpy()
    )
    # Keras keeps the constants of these two in float32, whatever the dtype.
    tolerance = 1e-6 if name in {"gelu", "leaky_relu"} else 1e-12
    assert_close([h_next, c_next], flat(output, after.c), tolerance)
