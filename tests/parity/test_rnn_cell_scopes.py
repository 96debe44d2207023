"""Names, scopes and sharing of `lstm_core.LSTMCell`'s variables, in graphs and in eager code."""

from __future__ import annotations

import gc
import itertools
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import tensorflow as tf
from tensorflow.python.ops import rnn_cell_impl

from lstm_core import LSTMCell, LSTMStateTuple

v1 = tf.compat.v1
FEATURES = 3
_names = itertools.count()


def take_step(cell, **options):
    """Call a cell on something."""
    return cell(tf.ones((2, FEATURES)), cell.zero_state(2, tf.float32), **options)


def two_unnamed(cell_class):
    """Two cells without names."""
    take_step(cell_class(4))
    take_step(cell_class(4))


def two_of_one_name(cell_class):
    """Two cells of one name, neither of which asks to share."""
    take_step(cell_class(4, name="a"))
    take_step(cell_class(4, name="a"))


def one_twice(cell_class):
    """One cell, called twice."""
    cell = cell_class(4, use_peepholes=True, num_proj=2)
    take_step(cell)
    take_step(cell)


def shared_by_name(cell_class):
    """Two cells of one name, of which the second shares."""
    take_step(cell_class(4, name="a"))
    take_step(cell_class(4, name="a", reuse=True))


def shared_if_there(cell_class):
    """Two cells that share what they find."""
    take_step(cell_class(4, name="a", reuse=v1.AUTO_REUSE))
    take_step(cell_class(4, name="a", reuse=v1.AUTO_REUSE))


def shared_by_scope(cell_class):
    """Cells that share because their scope says so."""
    with v1.variable_scope("s"):
        take_step(cell_class(4))
    with v1.variable_scope("s", reuse=True):
        take_step(cell_class(4))
    with v1.variable_scope("s", reuse=v1.AUTO_REUSE):
        take_step(cell_class(4))
    with v1.variable_scope("s"):
        take_step(cell_class(4, reuse=True))


def in_a_given_scope(cell_class):
    """A cell whose call names the scope."""
    take_step(cell_class(4), scope="here")


def nothing_to_share(cell_class):
    """A cell that insists on variables that nobody made."""
    take_step(cell_class(4, name="a", reuse=True))


def a_scope_entered_twice(cell_class):
    """Two cells in one scope by its name, without sharing."""
    for _ in range(2):
        with v1.variable_scope("s"):
            take_step(cell_class(4))


def other_shapes(cell_class):
    """A cell that shares variables of another size."""
    take_step(cell_class(4, name="a"))
    take_step(cell_class(5, name="a", reuse=True))


def untrainable(cell_class):
    """A cell that is not to be trained."""
    take_step(cell_class(4, trainable=False))


def dynamic(cell_class):
    """A cell under `dynamic_rnn`."""
    v1.nn.dynamic_rnn(cell_class(4), tf.ones((2, 5, FEATURES)), dtype=tf.float32)


def split(cell_class):
    """A cell whose kernels are split."""
    shards = {"num_unit_shards": 2, "num_proj_shards": 2}
    take_step(cell_class(4, num_proj=2, **shards))


def stacked(cell_class):
    """Cells under TensorFlow's `MultiRNNCell`."""
    cells = rnn_cell_impl.MultiRNNCell([cell_class(4), cell_class(5)])
    v1.nn.static_rnn(cells, [tf.ones((2, FEATURES))] * 2, dtype=tf.float32)


PROGRAMS = [
    two_unnamed, two_of_one_name, one_twice, shared_by_name, shared_if_there, shared_by_scope,
    in_a_given_scope, nothing_to_share, a_scope_entered_twice, other_shapes, untrainable, dynamic,
    split, stacked,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_graph_has_the_variables_that_the_peer_gives_it(program):
    """Names, shapes, trainability and errors are those of TensorFlow's own cell."""

    def outcome(cell_class):
        with tf.Graph().as_default():
            try:
                program(cell_class)
            except ValueError as error:
                return str(error).split(",")[0].split(".")[0]
            trainable = {v.name for v in v1.trainable_variables()}
            return [(v.name, v.shape, v.name in trainable) for v in v1.global_variables()]

    assert outcome(rnn_cell_impl.LSTMCell) == outcome(LSTMCell)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("shards", [{}, {"num_unit_shards": 3, "num_proj_shards": 2}])
@pytest.mark.parametrize("lengths", [None, [5, 2]])
def test_dynamic_rnn_in_a_graph_equals_the_peer(lengths, shards):
    """TensorFlow's loop over both cells, with lengths and split kernels, gives the same numbers."""
    x = np.random.default_rng(0).normal(size=(2, 5, FEATURES)).astype("float32")
    results = []
    for cell_class in (rnn_cell_impl.LSTMCell, LSTMCell):
        with tf.Graph().as_default(), v1.Session() as session:
            cell = cell_class(4, use_peepholes=True, num_proj=3, **shards)
            outputs, state = v1.nn.dynamic_rnn(
                cell, tf.constant(x), sequence_length=lengths, dtype=tf.float32
            )
            gradients = tf.gradients(tf.reduce_sum(outputs**2), v1.trainable_variables())
            gradients = [tf.convert_to_tensor(gradient) for gradient in gradients]
            random = np.random.default_rng(1)
            for variable in v1.global_variables():
                variable.load(random.normal(size=variable.shape).astype("float32"), session)
            results.append(session.run([outputs, *state, *gradients]))
    for expected, actual in zip(*results, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_a_checkpoint_of_the_peer_restores_as_it_is(tmp_path):
    """What TensorFlow's own cell saved by name gives the same numbers in ours."""
    results: list[Any] = []
    for cell_class in (rnn_cell_impl.LSTMCell, LSTMCell):
        with tf.Graph().as_default(), v1.Session() as session:
            cell = cell_class(4, use_peepholes=True, num_proj=2)
            outputs, _ = v1.nn.dynamic_rnn(cell, tf.ones((2, 5, FEATURES)), dtype=tf.float32)
            if results:
                v1.train.Saver().restore(session, str(tmp_path / "model"))
            else:
                session.run(v1.global_variables_initializer())
                v1.train.Saver().save(session, str(tmp_path / "model"))
            results.append(session.run(outputs))
    assert results[0].any()
    np.testing.assert_allclose(results[1], results[0], atol=1e-6)


def test_dynamic_rnn_and_static_rnn_run_in_eager_code():
    """Both loops of TensorFlow take the cell and agree with a plain one."""
    cell = LSTMCell(4, num_proj=2)
    x = tf.random.stateless_normal((2, 3, FEATURES), (1, 2))
    state = cell.zero_state(2, tf.float32)
    outputs = []
    for t in range(3):
        output, state = cell(x[:, t], state)
        outputs.append(output)

    dynamic_outputs, dynamic_state = v1.nn.dynamic_rnn(cell, x, dtype=tf.float32)
    static_outputs, static_state = v1.nn.static_rnn(cell, tf.unstack(x, axis=1), dtype=tf.float32)

    assert isinstance(dynamic_state, LSTMStateTuple)
    for found, found_state in (
        (dynamic_outputs, dynamic_state),
        (tf.stack(static_outputs, axis=1), static_state),
    ):
        np.testing.assert_array_equal(tf.stack(outputs, axis=1), found)
        np.testing.assert_array_equal(state.c, found_state.c)
        np.testing.assert_array_equal(state.h, found_state.h)


def test_weights_of_a_graph_are_read_and_set_through_its_session():
    """`get_weights`, `set_weights` and the core's layout work inside a session, and say so."""
    eager = LSTMCell(4, use_peepholes=True)
    expected_output = take_step(eager)[0].numpy()
    expected, core = eager.get_weights(), eager.get_core_weights()
    with tf.Graph().as_default():
        cell = LSTMCell(4, use_peepholes=True)
        output, _ = take_step(cell)
        with pytest.raises(ValueError, match=r"with tf\.compat\.v1\.Session"):
            cell.get_weights()
        with v1.Session() as session:
            cell.set_weights(expected)
            for theirs, ours in zip(expected, cell.get_weights(), strict=True):
                np.testing.assert_array_equal(theirs, ours)
            np.testing.assert_array_equal(core.kernel, cell.get_core_weights().kernel)
            np.testing.assert_allclose(session.run(output), expected_output, atol=1e-7)
            with pytest.raises(ValueError, match="has weights of shapes"):
                cell.set_weights(expected[:2])


def test_a_cell_of_another_graph_is_refused():
    """Variables of eager code or of another graph are named as the reason."""
    eager = LSTMCell(4)
    take_step(eager)
    with tf.Graph().as_default():
        with pytest.raises(ValueError, match="was built in eager code"):
            take_step(eager)
        cell = LSTMCell(4)
        take_step(cell)
    with tf.Graph().as_default(), pytest.raises(ValueError, match="was built in another graph"):
        take_step(cell)


def test_eager_cells_share_by_name_on_request():
    """`reuse=True` and AUTO_REUSE find the variables of a living cell; others have their own."""
    name = f"shared_{next(_names)}"
    first = LSTMCell(4, name=name)
    take_step(first)

    second = LSTMCell(4, name=name, reuse=True)
    third = LSTMCell(4, name=name, reuse=v1.AUTO_REUSE)
    own = LSTMCell(4, name=name)
    for cell in (second, third, own):
        take_step(cell)

    for cell in (second, third):
        assert all(a is b for a, b in zip(first.weights, cell.weights, strict=True))
        assert name == cell.scope_name
    assert not any(a is b for a, b in zip(first.weights, own.weights, strict=True))
    assert f"{name}_1" == own.scope_name


def test_eager_scopes_go_by_the_rules_of_graphs():
    """A scope entered twice refuses a second cell, unless the cell says to share."""
    scope = f"scope_{next(_names)}"
    with v1.variable_scope(scope):
        first = LSTMCell(4)
        take_step(first)
    with v1.variable_scope(scope):
        refused = LSTMCell(4)
        with pytest.raises(ValueError, match=r"lstm_cell/kernel already exists.*reuse=True"):
            take_step(refused)
    with v1.variable_scope(scope):
        second = LSTMCell(4, reuse=True)
        take_step(second)
        with pytest.raises(ValueError, match="has shape"):
            take_step(LSTMCell(5, reuse=True), scope="lstm_cell")
    assert first.kernel is second.kernel


def test_eager_variables_are_forgotten_with_their_cells():
    """A name is free again once no cell uses it, so that nothing is kept alive by its name."""
    name = f"forgotten_{next(_names)}"
    cell = LSTMCell(4, name=name)
    take_step(cell)
    del cell
    gc.collect()

    with pytest.raises(ValueError, match="does not exist"):
        take_step(LSTMCell(4, name=name, reuse=True))


def test_scope_name_is_known_from_the_first_call_on():
    """Before, it is an error that says so; a call may choose it."""
    cell = LSTMCell(4)
    with pytest.raises(ValueError, match="no variable scope yet"):
        _ = cell.scope_name

    take_step(cell, scope=f"chosen_{next(_names)}")

    assert cell.scope_name.startswith("chosen_")


def test_eager_weights_have_the_names_of_checkpoints():
    """Paths below the cell are those of TensorFlow 1."""
    cell = LSTMCell(4, use_peepholes=True, num_proj=2, name="lstm_cell")
    take_step(cell)

    assert [
        "lstm_cell/kernel",
        "lstm_cell/bias",
        "lstm_cell/w_f_diag",
        "lstm_cell/w_i_diag",
        "lstm_cell/w_o_diag",
        "lstm_cell/projection/kernel",
    ] == [variable.path for variable in cell.weights]
