"""The fused cells beside TensorFlow's raw operations, the equations and `LSTMCell`."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf

import lstm_core
from lstm_core import equations
from lstm_core.kernels import block_gradients
from tests.parity.fused_cases import CELLS, FEATURES, FORWARD, OPTIONS, UNITS, built, close, normal
from tests.parity.record import Row

GRADIENT = {"rtol": 1e-5, "atol": 1e-5}


@pytest.fixture(autouse=True)
def _own_scope(request):
    """Give each test a variable scope of its own: cells of one name would share or refuse it."""
    with tf.compat.v1.variable_scope(f"scope{abs(hash(request.node.nodeid))}"):
        yield


@cache
def kept_cell(options: str) -> Any:
    """Return one cell for each of `OPTIONS`: building takes longer than running."""
    return built(lstm_core.LSTMBlockFusedCell(UNITS, name=f"kept_{options}", **OPTIONS[options]))


def raw_arguments(cell: Any) -> dict[str, Any]:
    """Return what the raw operations take, in the documented order of gates."""
    zeros = tf.zeros(UNITS)
    peepholes = {
        f"wc{gate}": tf.convert_to_tensor(getattr(cell, f"w_{gate}_diag"))
        if cell.use_peepholes
        else zeros
        for gate in "ifo"
    }
    return {
        "w": tf.convert_to_tensor(cell.kernel),
        "b": tf.convert_to_tensor(cell.bias),
        **peepholes,
        "forget_bias": cell.forget_bias,
        "cell_clip": cell.cell_clip or -1,
        "use_peephole": cell.use_peepholes,
    }


def rows_of(system: str, options: dict[str, Any], peer: str) -> list[Row]:
    """Return the rows that a comparison of results with these options stands for."""
    features = ["forward"]
    features += ["peephole"] if "use_peephole" in options else []
    features += ["cell_clip"] if "cell_clip" in options else []
    return [(system, feature, peer) for feature in features]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_block_cell_equals_the_raw_operation(options):
    """One step gives what `LSTMBlockCell` of the raw operations gives."""
    cell = built(lstm_core.LSTMBlockCell(UNITS, **options))
    x, c, h = normal(5, FEATURES), normal(5, UNITS, seed=2), normal(5, UNITS, seed=3)
    expected = tf.raw_ops.LSTMBlockCell(x=x, cs_prev=c, h_prev=h, **raw_arguments(cell))
    output, state = cell(x, (c, h))
    rows = rows_of("LSTMBlockCell", options, "tensorflow.raw_ops.LSTMBlockCell")
    close((output, *state), (expected.h, expected.cs, expected.h), FORWARD, rows)


@pytest.mark.parametrize("limit", [0, 2**15], ids=["loop", "operation"])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_fused_cell_equals_the_raw_operation(monkeypatch, options, limit):
    """A sequence gives what `BlockLSTM` of the raw operations gives, and its gradients."""
    monkeypatch.setattr(block_gradients, "MAX_WEIGHTS_OF_GRADIENT_OPERATION", limit)
    cell = built(lstm_core.LSTMBlockFusedCell(UNITS, **options))
    x, c, h = (tf.constant(normal(*s)) for s in ((6, 5, FEATURES), (5, UNITS), (5, UNITS)))
    raw = raw_arguments(cell)
    by_name = {"kernel": "w", "bias": "b"} | {f"w_{gate}_diag": f"wc{gate}" for gate in "ifo"}
    weights = [raw[by_name[variable.name]] for variable in cell.weights]
    with tf.GradientTape() as tape:
        tape.watch((x, c, h, weights))
        expected = tf.raw_ops.BlockLSTM(seq_len_max=6, x=x, cs_prev=c, h_prev=h, **raw)
        loss = tf.reduce_sum(expected.h**3) + tf.reduce_sum(expected.cs[-1] ** 2)
    expected_gradients = tape.gradient(loss, [x, c, h, *weights])
    with tf.GradientTape() as tape:
        tape.watch((x, c, h))
        outputs, state = cell(x, (c, h))
        loss = tf.reduce_sum(outputs**3) + tf.reduce_sum(state.c**2)
    gradients = tape.gradient(loss, [x, c, h, *(variable.value for variable in cell.weights)])
    peer = "tensorflow.raw_ops.BlockLSTM"
    rows = rows_of("LSTMBlockFusedCell", options, peer)
    close((outputs, *state), (expected.h, expected.cs[-1], expected.h[-1]), FORWARD, rows)
    rows = [("LSTMBlockFusedCell", "gradients", peer)]
    close(gradients, expected_gradients, GRADIENT, rows)


@pytest.mark.parametrize("limit", [0, 2**15], ids=["loop", "operation"])
@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize(
    "options", [{}, {"use_peephole": True, "forget_bias": 0.5}], ids=["plain", "peepholes"]
)
def test_gradients_equal_those_of_plain_operations(monkeypatch, kind, options, limit):
    """Over a sequence both cells have the gradients of `LSTMCell`, which TensorFlow derives."""
    monkeypatch.setattr(block_gradients, "MAX_WEIGHTS_OF_GRADIENT_OPERATION", limit)
    ours = built(CELLS[kind](UNITS, **options))
    renamed = {"use_peepholes": options.get("use_peephole", False)}
    theirs = lstm_core.LSTMCell(UNITS, forget_bias=ours.forget_bias, name="plain", **renamed)
    theirs.build((None, FEATURES))
    theirs.set_core_weights(ours.get_core_weights())
    x, c, h = (tf.constant(normal(*s)) for s in ((5, 3, FEATURES), (3, UNITS), (3, UNITS)))

    def results_and_gradients(cell: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch((x, c, h))
            if cell is ours and kind == "fused":
                outputs, state = cell(x, (c, h))
            else:
                state, steps = (c, h), []
                for t in range(5):
                    output, state = cell(x[t], state)
                    steps.append(output)
                outputs = tf.stack(steps)
            loss = tf.reduce_sum(outputs**3) + tf.reduce_sum(state[0] ** 2)
        variables = {variable.name: variable.value for variable in cell.weights}
        names = sorted(variables)
        gradients = tape.gradient(loss, [x, c, h, *(variables[name] for name in names)])
        return [outputs, *state], gradients

    results, gradients = results_and_gradients(ours)
    expected, expected_gradients = results_and_gradients(theirs)
    close(results, expected, FORWARD)
    rows = [(type(ours).__name__, "gradients", "tensorflow.GradientTape")]
    close(gradients, expected_gradients, GRADIENT, rows)


@given(
    time=st.integers(0, 6),
    batch=st.integers(0, 4),
    options=st.sampled_from(list(OPTIONS)),
    has_lengths=st.booleans(),
    seed=st.integers(0, 999),
)
@settings(deadline=None)
def test_fused_cell_equals_the_equations(time, batch, options, has_lengths, seed):
    """Any sizes, lengths and options give the equations' outputs, and zeros beyond the lengths."""
    cell = kept_cell(options)
    random = np.random.default_rng(seed)
    x = normal(time, batch, FEATURES, seed=seed)
    c, h = normal(2, batch, UNITS, seed=seed + 1)
    lengths = random.integers(0, time + 1, batch) if has_lengths else None
    expected = equations.sequence(
        cell.spec,
        cell.get_core_weights(),
        x.swapaxes(0, 1),
        h=h,
        c=c,
        mask=None if lengths is None else np.arange(time) < lengths[:, np.newaxis],
        zero_output_for_mask=True,
    )
    outputs, state = cell(x, (c, h), sequence_length=lengths)
    rows = rows_of("LSTMBlockFusedCell", OPTIONS[options], "lstm_core.equations")
    if has_lengths:
        rows.append(("LSTMBlockFusedCell", "sequence_length", "lstm_core.equations"))
    results = (expected.outputs.swapaxes(0, 1), expected.c, expected.h)
    close((outputs, *state), results, FORWARD, rows)


def test_padding_reaches_no_result_and_no_gradient():
    """Beyond a row's length inputs that are not numbers change nothing, neither way."""
    cell = built(lstm_core.LSTMBlockFusedCell(UNITS))
    clean = normal(5, 3, FEATURES)
    padded = clean.copy()
    lengths = np.array([5, 2, 0])
    padded[np.arange(5)[:, np.newaxis] >= lengths] = np.nan
    found = []
    for x in (clean, padded):
        with tf.GradientTape() as tape:
            outputs, state = cell(x, dtype="float32", sequence_length=lengths)
            loss = tf.reduce_sum(outputs) + tf.reduce_sum(state.c)
        found.append([outputs, *state, *tape.gradient(loss, [w.value for w in cell.weights])])
    close(found[1], found[0], FORWARD)


def test_a_graph_takes_any_size_and_length():
    """In a graph that knows no size the lengths count, and one out of range is an error."""
    cell = built(lstm_core.LSTMBlockFusedCell(UNITS))
    specs = [tf.TensorSpec((None, None, FEATURES)), tf.TensorSpec((None,), tf.int64)]

    @tf.function(input_signature=specs)
    def run(x: Any, lengths: Any) -> Any:
        outputs, state = cell(x, dtype="float32", sequence_length=lengths)
        return outputs, *state

    for time, lengths in ((4, [4, 1, 0]), (0, [0]), (3, [])):
        x = normal(time, len(lengths), FEATURES)
        outputs, state = cell(x, dtype="float32", sequence_length=np.array(lengths, np.int64))
        close(run(x, np.array(lengths, np.int64)), (outputs, *state), FORWARD)
    with pytest.raises(tf.errors.InvalidArgumentError):
        run(normal(2, 1, FEATURES), np.array([3]))


def test_a_list_of_steps_gives_a_list():
    """Steps in a list give outputs in a list, as contrib's wrapper does."""
    cell = built(lstm_core.LSTMBlockFusedCell(UNITS))
    x = normal(4, 2, FEATURES)
    expected, expected_state = cell(x, dtype="float32")
    outputs, state = cell(list(x), dtype="float32")
    assert isinstance(outputs, list)
    close((*outputs, *state), (*expected, *expected_state), FORWARD)


def test_block_cell_takes_an_empty_batch():
    """Without rows the raw operation fails; the cell gives nothing, and gradients of zero."""
    cell = built(lstm_core.LSTMBlockCell(UNITS))
    with tf.GradientTape() as tape:
        output, state = cell(normal(0, FEATURES), cell.zero_state(0, "float32"))
        loss = tf.reduce_sum(output) + tf.reduce_sum(state.c)
    assert (0, UNITS) == output.shape
    gradients = tape.gradient(loss, [w.value for w in cell.weights])
    close(gradients, [np.zeros(w.shape) for w in cell.weights], FORWARD)


@pytest.mark.parametrize("clip", [None, 0, -1])
def test_no_clip_has_three_names(clip):
    """None, 0 and less turn clipping off, where the raw operation's own default clips at 3."""
    cell = built(lstm_core.LSTMBlockCell(UNITS, cell_clip=clip))
    _, state = cell(normal(1, FEATURES), (np.full((1, UNITS), 40, np.float32),) * 2)
    assert cell.cell_clip is None
    assert state.c.numpy().max() > 3


def test_clip_passes_the_gradient():
    """The gradient of a clipped cell state is the operations': as if nothing were clipped."""
    cell = built(lstm_core.LSTMBlockCell(UNITS, cell_clip=0.01))
    c, h = tf.constant(normal(2, UNITS)), tf.constant(normal(2, UNITS))
    with tf.GradientTape() as tape:
        tape.watch(c)
        _, state = cell(normal(2, FEATURES), (c, h))
        loss = tf.reduce_sum(state.c)
    assert 0.01 == pytest.approx(np.abs(state.c).max())
    assert np.all(np.abs(tape.gradient(loss, c)) > 0.01)


def test_cudnn_compatible_cell_is_a_block_cell_without_extras():
    """It has no forget bias, clip or peephole, and gives what such a block cell gives."""
    ours = built(lstm_core.CudnnCompatibleLSTMCell(UNITS))
    block = lstm_core.LSTMBlockCell(UNITS, forget_bias=0.0)
    block.build((None, FEATURES))
    block.set_weights(ours.get_weights())
    x, state = normal(2, FEATURES), (normal(2, UNITS), normal(2, UNITS, seed=5))
    (output, after), (expected, expected_after) = ours(x, state), block(x, state)
    assert (0.0, None, False) == (ours.forget_bias, ours.cell_clip, ours.use_peepholes)
    close((output, *after), (expected, *expected_after), FORWARD)
    h, c = equations.step(ours.spec, ours.get_core_weights(), x, c=state[0], h=state[1])
    rows = [("CudnnCompatibleLSTMCell", "forward", "lstm_core.equations")]
    close((output, *after), (h, c, h), FORWARD, rows)


def test_float16_is_near_float32():
    """float16 runs, near what float32 gives."""
    cell = built(lstm_core.LSTMBlockFusedCell(UNITS, dtype="float16"))
    x = normal(4, 2, FEATURES).astype(np.float16)
    outputs, state = cell(x, dtype="float16")
    expected = equations.sequence(
        cell.spec, cell.get_core_weights(), x.swapaxes(0, 1).astype(np.float32)
    )
    assert (tf.float16, tf.float16) == (outputs.dtype, state.dtype)
    np.testing.assert_allclose(outputs, expected.outputs.swapaxes(0, 1), rtol=0, atol=5e-3)


def test_keras_rnn_runs_a_block_cell():
    """`keras.layers.RNN` around the cell gives what the fused cell gives."""
    fused = built(lstm_core.LSTMBlockFusedCell(UNITS))
    cell = lstm_core.LSTMBlockCell(UNITS, dtype="float32")
    rnn = keras.layers.RNN(cell, return_sequences=True)
    x = normal(3, 5, FEATURES)
    rnn.build(x.shape)
    cell.set_weights(fused.get_weights())
    expected, _ = fused(x.swapaxes(0, 1), dtype="float32")
    np.testing.assert_allclose(rnn(x), np.swapaxes(expected, 0, 1), **FORWARD)
