"""A row of the parity table for each feature of the cells and of cuDNN's layers.

The peers are TensorFlow's own `rnn_cell_impl`, tf_keras's copy of it, its weight converter and the
raw operations.
"""

from __future__ import annotations

import warnings
from typing import Any

import keras
import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("tf_keras")

import tensorflow as tf
import tf_keras
from tensorflow.python.ops import rnn_cell_impl
from tf_keras.src.layers.rnn import legacy_cells
from tf_keras.src.layers.rnn.gru_lstm_utils import canonical_to_params
from tf_keras.src.saving.legacy.hdf5_format import preprocess_weights_for_loading

import lstm_core
from lstm_core import equations
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights
from tests.parity.record import agree

BATCH, TIME, FEATURES, UNITS = 4, 5, 3, 4
GRADIENTS = {"rtol": 1e-5, "atol": 1e-5}
v1 = tf.compat.v1

PEERS = {
    "tensorflow.python.ops.rnn_cell_impl.LSTMCell": rnn_cell_impl.LSTMCell,
    "tf_keras.src.layers.rnn.legacy_cells.LSTMCell": legacy_cells.LSTMCell,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "forward": {},
    "peepholes": {"use_peepholes": True},
    "cell_clip": {"cell_clip": 0.2},
    "num_proj": {"num_proj": 3},
    "proj_clip": {"num_proj": 3, "proj_clip": 0.05},
    "forget_bias": {"forget_bias": -0.5},
    "state_is_tuple": {"state_is_tuple": False},
    "activation": {"activation": "relu"},
}


@pytest.fixture(autouse=True)
def _own_scope(request):
    """Give each test a variable scope of its own, and no warnings of deprecated cells."""
    name = request.node.name.translate(str.maketrans("[]-=.", "_____"))
    with warnings.catch_warnings(), v1.variable_scope(name):
        warnings.simplefilter("ignore")
        yield


def normal(*shape: int, seed: int = 0) -> Any:
    """Draw float32 numbers."""
    return np.random.default_rng(seed).normal(0, 0.6, shape).astype(np.float32)


def built(cell: Any) -> Any:
    """Build a cell or layer, none of its weights zero and all the same for the same shapes."""
    cell.build((None, FEATURES))
    cell.set_weights([normal(*w.shape, seed=n) for n, w in enumerate(cell.weights)])
    return cell


def state_of(cell: Any) -> Any:
    """Draw a state in the structure of a cell."""
    sizes = cell.state_size
    if isinstance(sizes, int):
        return tf.constant(normal(BATCH, sizes, seed=7))
    return tuple(tf.constant(normal(BATCH, size, seed=7 + n)) for n, size in enumerate(sizes))


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("feature", OPTIONS)
def test_lstm_cell(feature, peer):
    """A step, its state and its gradients, for every option."""
    results = []
    for make in (lstm_core.LSTMCell, PEERS[peer]):
        cell = built(make(UNITS, dtype="float32", **OPTIONS[feature]))
        x, state = tf.constant(normal(BATCH, FEATURES, seed=5)), state_of(cell)
        variables = [w if isinstance(w, tf.Variable) else w.value for w in cell.trainable_weights]
        with tf.GradientTape() as tape:
            tape.watch([x, state])
            output, after = cell(x, state)
            value = tf.add_n([tf.reduce_sum(tf.sin(3 * t)) for t in tf.nest.flatten(after)])
        found = tape.gradient(value, [x, *tf.nest.flatten(state), *variables])
        results.append(([output, *tf.nest.flatten(after)], found))
    agree(results[0][0], results[1][0], row=("LSTMCell", feature, peer))
    agree(results[0][1], results[1][1], row=("LSTMCell", "gradients", peer), **GRADIENTS)


@pytest.mark.parametrize("peer", PEERS)
def test_zero_state(peer):
    """Both c and h with a projection, or both in one tensor."""
    every_options: list[dict[str, Any]] = [
        {"num_proj": 3},
        {"num_proj": 3, "state_is_tuple": False},
    ]
    for options in every_options:
        ours, theirs = (
            tf.nest.flatten(make(UNITS, **options).zero_state(BATCH, tf.float32))
            for make in (lstm_core.LSTMCell, PEERS[peer])
        )
        agree(ours, theirs, row=("LSTMCell", "zero_state", peer), atol=0)


@pytest.mark.parametrize("feature", ["dynamic_rnn", "reuse"])
def test_lstm_cell_in_a_graph(feature):
    """Under `dynamic_rnn`, and sharing another cell's variables, in a graph of TensorFlow 1."""
    peer = "tensorflow.python.ops.rnn_cell_impl.LSTMCell"
    x, results = normal(BATCH, TIME, FEATURES), []
    for make in (lstm_core.LSTMCell, PEERS[peer]):
        with tf.Graph().as_default(), v1.Session() as session:
            cell = make(UNITS, use_peepholes=True, num_proj=3, name="shared")
            outputs, state = v1.nn.dynamic_rnn(cell, tf.constant(x), [5, 3, 0, 2], dtype=tf.float32)
            if feature == "reuse":
                with v1.variable_scope("rnn"):
                    again = make(UNITS, use_peepholes=True, num_proj=3, name="shared", reuse=True)
                    outputs, state = again(tf.constant(x[:, 0]), state)
            for n, variable in enumerate(v1.global_variables()):
                variable.load(normal(*variable.shape, seed=n), session)
            results.append(session.run([outputs, *state]))
    agree(*results, row=("LSTMCell", feature, peer))


def test_lstm_cell_in_keras_rnn():
    """Keras's loop over our cell is TensorFlow's loop over TensorFlow's cell."""
    ours = keras.layers.RNN(lstm_core.LSTMCell(UNITS, num_proj=3), return_sequences=True)
    x = normal(BATCH, TIME, FEATURES)
    ours.build(x.shape)
    ours.set_weights([normal(*w.shape, seed=n) for n, w in enumerate(ours.weights)])
    peer = "tensorflow.python.ops.rnn_cell_impl.LSTMCell"
    with v1.variable_scope("theirs"):
        theirs = built(PEERS[peer](UNITS, num_proj=3, dtype="float32"))
    state, outputs = theirs.zero_state(BATCH, tf.float32), []
    for t in range(TIME):
        output, state = theirs(tf.constant(x[:, t]), state)
        outputs.append(output)
    row = ("LSTMCell", "keras.layers.RNN", peer)
    agree(ours(x), tf.stack(outputs, axis=1), row=row)


CUDNN: dict[str, dict[str, Any]] = {
    "forward": {},
    "go_backwards": {"go_backwards": True},
    "stateful": {"stateful": True},
}


@pytest.mark.parametrize("feature", CUDNN)
def test_cudnn_lstm(feature):
    """With the weights that tf_keras's converter makes, tf_keras's LSTM gives the same."""
    options = {"return_sequences": True, "return_state": True} | CUDNN[feature]
    ours = lstm_core.CuDNNLSTM(UNITS, **options)
    theirs = tf_keras.layers.LSTM(UNITS, **options)
    x = normal(BATCH, TIME, FEATURES, seed=9)
    for layer in (ours, theirs):
        layer.build(x.shape)
    stored = [normal(*w.shape, seed=n) for n, w in enumerate(ours.weights)]
    ours.set_weights(stored)
    theirs.set_weights(preprocess_weights_for_loading(theirs, [*stored]))
    converter = "tf_keras.src.saving.legacy.hdf5_format"
    row = ("CuDNNLSTM", "weight conversion", converter)
    agree(ours.lstm_weights(), theirs.get_weights(), row=row, atol=0)
    for _ in range(2):
        agree(ours(x), theirs(x), row=("CuDNNLSTM", feature, "tf_keras.layers.LSTM"))
    if feature != "stateful":
        found = []
        for layer in (ours, theirs):
            given = tf.constant(x)
            with tf.GradientTape() as tape:
                tape.watch(given)
                value = tf.add_n([tf.reduce_sum(tf.sin(3 * r)) for r in layer(given)])
            found.append(tape.gradient(value, given))
        agree(*found, row=("CuDNNLSTM", "gradients", "tf_keras.layers.LSTM"), **GRADIENTS)


@pytest.mark.parametrize("lengths", [None, [5, 3, 1, 4]], ids=["full", "lengths"])
@pytest.mark.parametrize("direction", ["unidirectional", "bidirectional"])
def test_cudnn_stack(direction, lengths):
    """Two layers, in one direction or both, are tf_keras's with the weights that ours tells."""
    ours = lstm_core.CudnnLSTM(2, UNITS, direction=direction, bias_initializer="random_normal")
    ours.build((None, None, FEATURES))
    x = normal(BATCH, TIME, FEATURES, seed=9)
    mask = None if lengths is None else tf.sequence_mask(lengths, TIME)
    weights = iter(ours.lstm_weights())
    layers = []
    for _ in range(2):
        layer = tf_keras.layers.LSTM(UNITS, return_sequences=True, zero_output_for_mask=True)
        if direction == "bidirectional":
            layer = tf_keras.layers.Bidirectional(layer)
        layers.append(layer)

    def theirs(outputs: Any) -> Any:
        for layer in layers:
            outputs = layer(outputs, mask=mask)
        return outputs

    theirs(tf.constant(x))
    for layer in layers:
        of_layer = [next(weights) for _ in range(ours.num_dirs)]
        layer.set_weights([w for each in of_layer for w in _arrays(each)])
    features = ["forward" if direction == "unidirectional" else direction]
    features += [] if lengths is None else ["sequence_lengths"]
    results, found = [], []
    for call in (lambda x: ours(x, time_major=False, sequence_lengths=lengths)[0], theirs):
        given = tf.constant(x)
        with tf.GradientTape() as tape:
            tape.watch(given)
            results.append(call(given))
            value = tf.reduce_sum(tf.sin(3 * results[-1]))
        found.append(tape.gradient(value, given))
    for feature in features:
        agree(*results, row=("CudnnLSTM", feature, "tf_keras.layers.LSTM"))
    agree(*found, row=("CudnnLSTM", "gradients", "tf_keras.layers.LSTM"), **GRADIENTS)


def _arrays(weights: LSTMWeights) -> list[Any]:
    return [weights.kernel, weights.recurrent_kernel, weights.bias]


def test_cudnn_stack_packs_as_tf_keras():
    """Canonical matrices and biases go into the buffer as tf_keras puts them there."""
    ours = lstm_core.CudnnLSTM(1, UNITS)
    ours.build((None, None, FEATURES))
    shapes = (ours.canonical_weight_shapes, ours.canonical_bias_shapes)
    matrices, biases = ([normal(*s, seed=n) for n, s in enumerate(each)] for each in shapes)
    ours.set_canonical_weights(matrices, biases)
    theirs = canonical_to_params(matrices, biases, shape=tf.constant([-1]))
    row = ("CudnnLSTM", "weight conversion", "tf_keras.src.layers.rnn.gru_lstm_utils")
    agree(ours.opaque_kernel, theirs, row=row, atol=0)


def test_cudnn_compatible_cell():
    """One step of contrib's weights on a CPU: `LSTMBlockCell` without forget bias and clipping."""
    cell = built(lstm_core.CudnnCompatibleLSTMCell(UNITS))
    x, (c, h) = normal(BATCH, FEATURES, seed=9), normal(2, BATCH, UNITS, seed=8)
    output, state = cell(x, (c, h))
    zeros = tf.zeros(UNITS)
    expected = tf.raw_ops.LSTMBlockCell(
        x=x, cs_prev=c, h_prev=h, w=cell.kernel.value, b=cell.bias.value, wci=zeros, wcf=zeros,
        wco=zeros, forget_bias=0, cell_clip=-1,
    )  # fmt: skip
    system = "CudnnCompatibleLSTMCell"
    row = (system, "forward", "tensorflow.raw_ops.LSTMBlockCell")
    agree([output, state.c], [expected.h, expected.cs], row=row)
    told = equations.step(cell.spec, cell.get_core_weights(), x, h=h, c=c)
    agree([output, state.c], list(told), row=(system, "forward", "lstm_core.equations"))


BLOCK: dict[str, dict[str, Any]] = {
    "forward": {},
    "peephole": {"use_peephole": True},
    "cell_clip": {"cell_clip": 0.4},
}


@pytest.mark.parametrize("feature", BLOCK)
def test_block_cells(feature):
    """Both fused cells are `rnn_cell.LSTMCell` of TensorFlow with the same weights."""
    peer = "tensorflow.python.ops.rnn_cell_impl.LSTMCell"
    options = BLOCK[feature]
    theirs = {{"use_peephole": "use_peepholes"}.get(k, k): v for k, v in options.items()}
    cells = {
        "LSTMBlockCell": lstm_core.LSTMBlockCell(UNITS, name="block", **options),
        "LSTMBlockFusedCell": lstm_core.LSTMBlockFusedCell(UNITS, name="fused", **options),
    }
    expected_cell = built(PEERS[peer](UNITS, dtype="float32", name="theirs", **theirs))
    x, state = normal(TIME, BATCH, FEATURES, seed=9), normal(2, BATCH, UNITS, seed=8)
    outputs, (c, h) = [], state
    for t in range(TIME):
        output, (c, h) = expected_cell(tf.constant(x[t]), (tf.constant(c), tf.constant(h)))
        outputs.append(output)
    for cell in cells.values():
        cell.build((None, FEATURES))
        for variable in cell.weights:
            kept = {w.name.split("/")[-1].split(":")[0]: w for w in expected_cell.weights}
            variable.assign(kept[variable.name])
    found, after = [], tuple(state)
    for t in range(TIME):
        output, after = cells["LSTMBlockCell"](x[t], after)
        found.append(output)
    agree([found, *after], [outputs, c, h], row=("LSTMBlockCell", feature, peer))
    found, after = cells["LSTMBlockFusedCell"](x, tuple(state))
    agree([found, *after], [tf.stack(outputs), c, h], row=("LSTMBlockFusedCell", feature, peer))


def test_spec_of_a_cell_is_that_of_the_equations():
    """What the table compares is what the cell says it is."""
    cell = built(lstm_core.LSTMBlockCell(UNITS, name="told"))
    assert LSTMSpec(input_size=FEATURES, units=UNITS, forget_bias=1.0) == cell.spec
