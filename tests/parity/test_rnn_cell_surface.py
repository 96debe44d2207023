"""The surface of `lstm_core.LSTMCell`: sizes, states, arguments, and errors."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import tensorflow as tf
from tensorflow.python.ops import rnn_cell_impl

from lstm_core import LSTMCell, LSTMStateTuple

FEATURES = 3


def built(cell, features=FEATURES):
    """Build a cell."""
    cell.build((None, features))
    return cell


@pytest.mark.parametrize("num_proj", [None, 3])
def test_sizes_and_zero_states_are_the_peers(num_proj):
    """`state_size`, `output_size` and zeros in every form of batch size."""
    ours, theirs = (c(4, num_proj=num_proj) for c in (LSTMCell, rnn_cell_impl.LSTMCell))
    assert (4, num_proj or 4) == theirs.state_size == ours.state_size
    assert theirs.output_size == ours.output_size
    for batch_size in (2, np.int64(2), tf.constant(2), tf.constant([2]), np.array([2])):
        for dtype in (tf.float32, "float64"):
            expected = theirs.zero_state(batch_size, dtype)
            actual = ours.zero_state(batch_size, dtype)
            assert isinstance(actual, LSTMStateTuple)
            assert expected.dtype == actual.dtype
            assert [t.shape for t in expected] == [t.shape for t in actual]
            assert not any(t.numpy().any() for t in actual)
    assert (2, 4) == tuple(ours.zero_state(2.0, "float32").c.shape)


def test_a_concatenated_state_is_one_tensor():
    """Without `state_is_tuple` sizes, zeros and results are whole; it warns, as the peer does."""
    with pytest.warns(DeprecationWarning, match="concatenated state is slower"):
        cell = LSTMCell(4, num_proj=3, state_is_tuple=False)

    output, state = cell(np.ones((2, FEATURES), "float32"), cell.zero_state(2, "float32"))

    assert 7 == cell.state_size
    assert (2, 7) == tuple(state.shape)
    np.testing.assert_array_equal(output, state[:, 4:])


def test_a_clip_without_a_projection_does_nothing_and_warns():
    """The document clips a projection where there is one; the numbers are those without."""
    with pytest.warns(UserWarning, match="num_proj is None, so there is none"):
        clipped = built(LSTMCell(4, proj_clip=1e-3))
    plain = built(LSTMCell(4))
    plain.set_weights(clipped.get_weights())
    inputs = np.ones((2, FEATURES), "float32")

    outputs = [cell(inputs, cell.zero_state(2, "float32"))[0] for cell in (plain, clipped)]

    np.testing.assert_array_equal(*outputs)
    assert [1e-3, None] == [clipped.get_config()["proj_clip"], clipped.spec.projection_clip]


def test_shards_warn_and_change_nothing_in_eager_code():
    """The deprecated arguments are kept, told of, and have no meaning outside a graph."""
    with pytest.warns(DeprecationWarning, match="variable scope with a partitioner"):
        cell = LSTMCell(4, num_unit_shards=2, num_proj_shards=3)

    assert [(FEATURES + 4, 16), (16,)] == [tuple(v.shape) for v in built(cell).weights]
    assert (2, 3) == (cell.get_config()["num_unit_shards"], cell.get_config()["num_proj_shards"])


def test_initial_states_take_batch_size_and_dtype_from_inputs():
    """`get_initial_state` agrees with inputs, given sizes, or the cell's own dtype."""
    cell = built(LSTMCell(4, num_proj=3, dtype="float64"))
    for state in (
        cell.get_initial_state(inputs=tf.zeros((5, FEATURES), tf.float64)),
        cell.get_initial_state(batch_size=5),
        cell.get_initial_state(None, 5, tf.float64),
    ):
        assert [(5, 4), (5, 3)] == [tuple(t.shape) for t in state]
        assert tf.float64 == state.dtype


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "batch_size and dtype cannot be None"),
        ({"batch_size": 2}, "batch_size and dtype cannot be None"),
        ({"inputs": np.zeros((2, 3)), "batch_size": 3}, "batch size from input tensor is diff"),
        ({"inputs": np.zeros((2, 3)), "dtype": "float32"}, "dtype from input tensor is diff"),
        ({"batch_size": 2.5, "dtype": "float32"}, "must be a whole number"),
        ({"batch_size": "2", "dtype": "float32"}, "must be a whole number, not '2'"),
        ({"batch_size": float("inf"), "dtype": "float32"}, "must be a whole number, not inf"),
        ({"batch_size": tf.constant([1, 2]), "dtype": "float32"}, "one element"),
    ],
)
def test_initial_states_that_cannot_be_made_are_refused(arguments, problem):
    """What is missing or does not agree is named, in the peer's words where it has any."""
    with pytest.raises(ValueError, match=problem):
        LSTMCell(4).get_initial_state(**arguments)


def test_a_state_tuple_of_two_dtypes_has_none():
    """`dtype` of an inconsistent state is a TypeError, as the peer's."""
    with pytest.raises(TypeError, match="Inconsistent internal state"):
        _ = LSTMStateTuple(tf.zeros((1, 1)), tf.zeros((1, 1), tf.float64)).dtype


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"num_units": 0}, "num_units must be a positive integer"),
        ({"num_units": 2.5}, "num_units must be a positive integer"),
        ({"num_proj": 0}, "num_proj must be a positive integer"),
        ({"cell_clip": 0.0}, "cell_clip must be positive"),
        ({"num_proj": 2, "proj_clip": -1.0}, "proj_clip must be positive"),
        ({"num_units": None}, "num_units must be a positive integer, not None"),
        ({"num_units": "4"}, "num_units must be a positive integer, not '4'"),
        ({"num_units": float("inf")}, "num_units must be a positive integer, not inf"),
        ({"cell_clip": "1"}, "cell_clip must be a number, not '1'"),
        ({"cell_clip": float("nan")}, "cell_clip must be a number, not nan"),
        ({"forget_bias": None}, "forget_bias must be a number, not None"),
        ({"reuse": "yes"}, r"reuse must be True, False, None or tf\.compat\.v1\.AUTO_REUSE"),
        ({"initializer": "bogus"}, "bogus"),
        ({"dtype": "int32"}, "only supports floating point inputs"),
        ({"dtype": "complex64"}, "only supports floating point inputs"),
        ({"activation": "tan"}, "tan"),
        ({"units": 3}, "units"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, problem):
    """The message names the argument."""
    with pytest.raises(ValueError, match=problem):
        LSTMCell(**{"num_units": 4, **arguments})


X = tf.zeros((2, FEATURES))
C, H = tf.zeros((2, 4)), tf.zeros((2, 2))


@pytest.mark.parametrize(
    ("inputs", "state", "problem"),
    [
        (X[0], (C, H), "must be one time step"),
        (X[None], (C, H), "must be one time step"),
        (X[:, :2], (C, H), "must have 3 features"),
        (tf.zeros((2, 3), tf.int32), (C, H), "only supports floating point inputs"),
        (tf.zeros((2, 3), tf.float64), (C, H), "inputs of cell .* must be float32"),
        (X, C, "must be two tensors"),
        (X, (C,), "1 of them"),
        (X, (C, H, H), "3 of them"),
        (X, (H, C), r"c of the state .* must have shape \(2, 4\)"),
        (X, (C, C), r"h of the state .* must have shape \(2, 2\)"),
        (X, (C[:1], H), r"c of the state .* \(1, 4\)"),
        (X, (C, H[:1]), r"h of the state .* \(1, 2\)"),
        (X, (C[0], H[0]), "must have shape"),
        (X, (C, tf.cast(H, tf.float64)), "must have one dtype"),
        (X, (tf.cast(C, tf.float64), tf.cast(H, tf.float64)), "state of cell .* must be float32"),
        (X, (tf.cast(C, tf.int32), tf.cast(H, tf.int32)), "only supports floating point"),
    ],
)
def test_inputs_and_states_that_do_not_fit_are_refused(inputs, state, problem):
    """No shape is broadcast and no dtype cast in silence; the peer does the first for c."""
    cell = built(LSTMCell(4, num_proj=2, dtype="float32"))

    with pytest.raises(ValueError, match=problem):
        cell(inputs, state)


def test_a_concatenated_state_that_does_not_fit_is_refused():
    """A pair, or another width, is not taken for it; the peer cuts a wider one off."""
    with pytest.warns(DeprecationWarning, match="concatenated"):
        cell = LSTMCell(4, state_is_tuple=False)
    with pytest.raises(ValueError, match="state_is_tuple is False, but it is 2 of them"):
        cell(X, (C, C))
    with pytest.raises(ValueError, match=r"must have shape \(2, 8\), but it has \(2, 9\)"):
        cell(X, tf.zeros((2, 9)))


def test_an_unknown_number_of_features_is_refused():
    """`build` and a call of a built cell both need it."""
    with pytest.raises(ValueError, match=r"Expected inputs\.shape\[-1\] to be known"):
        LSTMCell(4).build((2, None))
    cell = built(LSTMCell(4, dtype="float32"))

    @tf.function(input_signature=[tf.TensorSpec((None, None))])
    def call(x):
        return cell(x, cell.zero_state(2, tf.float32))[0]

    with pytest.raises(ValueError, match="Could not infer input size"):
        call(X)


def test_a_state_of_one_row_is_not_broadcast_where_the_batch_is_unknown():
    """What shapes cannot tell while tracing fails when it runs."""
    cell = built(LSTMCell(4, dtype="float32"))
    zeros = tf.zeros((1, 4))

    @tf.function(input_signature=[tf.TensorSpec((None, FEATURES)), tf.TensorSpec((None, 4))])
    def call(x, h):
        return cell(x, (zeros, h))[1]

    assert (1, 4) == tuple(call(X[:1], zeros).c.shape)
    with pytest.raises(tf.errors.InvalidArgumentError):
        call(X, tf.zeros((2, 4)))
