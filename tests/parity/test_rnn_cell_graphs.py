"""`lstm_core.LSTMCell` in graphs of TensorFlow 1: collections, values, copies and old shapes."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import tensorflow as tf
from tensorflow.python.ops import rnn_cell_impl

from lstm_core import LSTMCell

v1 = tf.compat.v1
FEATURES = 3
COLLECTIONS = (
    "weights", "variables", "trainable_weights", "trainable_variables", "non_trainable_weights",
    "non_trainable_variables", "losses",
)  # fmt: skip
PEER = rnn_cell_impl.LSTMCell

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


def take_step(cell: Any) -> Any:
    """Call a cell on something."""
    return cell(tf.ones((2, FEATURES)), cell.zero_state(2, tf.float32))


@pytest.mark.parametrize(
    "options", [{}, {"trainable": False}, {"activity_regularizer": tf.keras.regularizers.L2(0.1)}]
)
def test_a_graph_has_the_collections_of_the_peer(options):
    """Weights, what can be trained, losses and the number of parameters, under a scope's rules."""
    found = []
    for make in (PEER, LSTMCell):
        with tf.Graph().as_default():
            with v1.variable_scope("s", regularizer=lambda v: tf.reduce_sum(v * v)):
                cell = make(4, use_peepholes=True, num_proj=2, **options)
                take_step(cell)
            sizes = {name: len(getattr(cell, name)) for name in COLLECTIONS}
            found.append((sizes, cell.count_params(), [v.name for v in cell.trainable_variables]))

    assert found[0] == found[1]


def test_a_scope_regularizes_the_weights():
    """TensorFlow collects the losses of the scope, as it does for the peer."""
    for make in (PEER, LSTMCell):
        with tf.Graph().as_default(), v1.variable_scope("s", regularizer=tf.nn.l2_loss):
            take_step(make(4, num_proj=2))
            assert 3 == len(v1.losses.get_regularization_losses())


@pytest.mark.parametrize("axis", [0, 1])
def test_a_split_kernel_takes_whole_arrays_and_parts(axis):
    """The core's weights and both forms of arrays come back as they were set."""

    def partitioner(shape: Any, **_: Any) -> list[int]:
        return [2 if at == axis and len(shape) == 2 else 1 for at in range(len(shape))]

    eager = LSTMCell(4, use_peepholes=True, num_proj=2)
    take_step(eager)
    core, whole = eager.get_core_weights(), eager.get_weights()
    with tf.Graph().as_default(), v1.Session():
        with v1.variable_scope("s", partitioner=partitioner):
            cell = LSTMCell(4, use_peepholes=True, num_proj=2)
            take_step(cell)
        assert len(cell.weights) > len(eager.weights)

        cell.set_core_weights(core)
        parts = cell.get_weights()
        for setting in (None, whole, parts):
            if setting is not None:
                cell.set_weights([np.zeros_like(part) for part in parts])
                cell.set_weights([array.tolist() for array in setting])
            back = cell.get_core_weights()
            for name in ("kernel", "recurrent_kernel", "bias", "peepholes", "projection"):
                np.testing.assert_array_equal(getattr(core, name), getattr(back, name))


@pytest.mark.parametrize("shards", [None, 4])
def test_initializers_of_tensorflow_1_scale_by_the_whole_kernel(shards):
    """Seeded, they draw the peer's numbers, for a kernel in parts too."""
    drawn = []
    for make in (PEER, LSTMCell):
        with tf.Graph().as_default(), v1.Session() as session:
            initializer = v1.variance_scaling_initializer(seed=3)
            take_step(make(8, num_unit_shards=shards, initializer=initializer))
            session.run(v1.global_variables_initializer())
            drawn.append(session.run(v1.global_variables()))

    for expected, actual in zip(*drawn, strict=True):
        np.testing.assert_array_equal(expected, actual)


@pytest.mark.parametrize("options", [{}, {"name": "mine"}])
def test_copies_of_an_unbuilt_cell_have_the_scopes_of_the_peer(options):
    """The layers of a stack are often copies of one cell: checkpoints know them by their scopes."""
    names = []
    for make in (PEER, LSTMCell):
        with tf.Graph().as_default():
            cell = make(4, **options)
            stack = rnn_cell_impl.MultiRNNCell([copy.deepcopy(cell) for _ in range(2)])
            v1.nn.static_rnn(stack, [tf.ones((2, FEATURES))], dtype=tf.float32)
            names.append([v.name for v in v1.global_variables()])

    assert names[0] == names[1]


def test_a_built_cell_of_a_graph_cannot_be_copied():
    """Its weights have no values outside a session; the message says what to do."""
    with tf.Graph().as_default():
        cell = LSTMCell(4)
        take_step(cell)
        with pytest.raises(ValueError, match="copy it before its first call"):
            copy.deepcopy(cell)


OLD_SCRIPT = """
import tensorflow.compat.v1 as tf
tf.disable_v2_behavior()
from lstm_core import LSTMCell
x = tf.placeholder(tf.float32, (None, None, 3))
cell = LSTMCell(4, use_peepholes=True, num_proj=2)
outputs, state = tf.nn.dynamic_rnn(cell, x, dtype=tf.float32)
assert [None, 4] == cell.get_initial_state(inputs=x)[0].shape.as_list()
with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    cell.set_weights(cell.get_weights())
    assert (2, 5, 2) == session.run(outputs, {x: [[[1.0] * 3] * 5] * 2}).shape
for shape, problem in (((2, None), "Could not infer"), ((2, 2), "3 features"), ((2,), "one time")):
    try:
        cell(tf.placeholder(tf.float32, shape), cell.zero_state(2, tf.float32))
        raise AssertionError(shape)
    except ValueError as error:
        assert problem in str(error), error
try:
    LSTMCell(4).build(tf.TensorShape((2, None)))
    raise AssertionError("built")
except ValueError as error:
    assert "to be known" in str(error), error
"""


def test_a_script_of_tensorflow_1_runs():
    """After `disable_v2_behavior` shapes hold objects and variables are references."""
    done = subprocess.run(
        [sys.executable, "-c", OLD_SCRIPT], check=False, capture_output=True, text=True
    )
    assert 0 == done.returncode, done.stderr
