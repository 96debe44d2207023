"""The TensorFlow runtime: Keras's own numbers, the laws of `advance`, and what cannot stream."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_core import equations
from lstm_core.errors import (
    DeviceMemoryError,
    InputRangeError,
    MissingFirstInputError,
    NotStreamableError,
    SequenceLengthError,
    SpecError,
)
from lstm_core.formats.keras import read_keras
from lstm_core.network import Recurrent
from lstm_core.runtime.base import ZERO_SLOT
from lstm_core.runtime.cpu import CpuRuntime

keras = pytest.importorskip("keras")
layers = keras.layers

from lstm_core.runtime.tensorflow import TensorFlowRuntime  # noqa: E402
from lstm_core.runtime.tensorflow_model import StatefulModel  # noqa: E402
from tests.integration.keras_layers import Doubled, Gain, Hungry, Lag, Leaky, Primed  # noqa: E402

TOLERANCE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6}
FEATURES = 3
EXAMPLES = settings(deadline=None, max_examples=8, derandomize=True, database=None)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras on NumPy 2


def randomised(model, seed=0):
    """Return a model with weights that none starts with."""
    random = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(random.normal(0, 0.5, variable.shape))
    return model


def sequential(*chain, time=None):
    """Return a chain over real features, with random weights."""
    return randomised(keras.Sequential([keras.Input((time, FEATURES)), *chain]))


def draw(*shape, seed=1):
    """Return float32 from -1 to 1."""
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def in_pieces(runtime, inputs, cuts, mask=None):
    """Return the outputs of sequences that are advanced in pieces of so many time steps."""
    batch = len(inputs)
    slots = [[runtime.allocate() for _ in range(batch)] for _ in range(2)]
    source, begin, outputs = [ZERO_SLOT] * batch, 0, []
    for index, length in enumerate(cuts):
        span, target = slice(begin, begin + length), slots[index % 2]
        one = None if mask is None else mask[:, span]
        advanced = runtime.advance(source, target, inputs[:, span], [length] * batch, one)
        outputs.append(advanced.outputs)
        source, begin = target, begin + length
    for slot in [*slots[0], *slots[1]]:
        runtime.free(slot)
    return np.concatenate(outputs, axis=1)


def whole(model, inputs):
    """Return what Keras gives, layer after layer."""
    return np.asarray(model(inputs, training=False))


def expected(network, inputs, mask=None):
    """Return what a stack of LSTMs and linear heads gives, in float64."""
    x = inputs
    for layer in network.layers:
        if isinstance(layer, Recurrent):
            zero = layer.zero_output_for_mask
            x = equations.sequence(
                layer.spec, layer.weights, x, mask=mask, zero_output_for_mask=zero
            ).outputs
        else:
            x = x @ layer.kernel.astype(np.float64) + layer.bias
    return x


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A file of two LSTMs and a head on both runtimes."""
    path = tmp_path_factory.mktemp("both") / "model.keras"
    model = sequential(
        layers.LSTM(4, return_sequences=True, zero_output_for_mask=True),
        layers.LSTM(5, return_sequences=True),
        layers.Dense(2),
    )
    model.save(path)
    network = read_keras(path)
    return TensorFlowRuntime(model, 40, like=network), CpuRuntime(network, 40)


@pytest.fixture(scope="module")
def graph():
    """Two sequences and a number a sequence, a side branch, a GRU, two outputs; and its model."""
    one = keras.Input((None, 3), name="one")
    two = keras.Input((None, 2), name="two")
    fixed = keras.Input((2,), name="fixed")
    x = layers.Concatenate()([Gain()(layers.Masking()(one)), layers.Dense(2)(two)])
    x = layers.LSTM(5, return_sequences=True)(x)
    x = layers.GRU(4, return_sequences=True)(x * 2)
    side = layers.TimeDistributed(layers.Dense(3, activation="relu"))(two)
    every = layers.Dense(2, name="every")(layers.Concatenate()([x, side]))
    last = layers.Concatenate()([layers.GRU(3, reset_after=False)(x), fixed])
    model = keras.Model([one, two, fixed], [every, layers.Dense(1, name="last")(last)])
    return TensorFlowRuntime(randomised(model), 40), model


@EXAMPLES
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    has_mask=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_ragged_rows_equal_the_cpu_runtime_and_the_equations(both, lengths, has_mask, seed):
    """Outputs, states and flags, with masks, from states that both have been given."""
    ours, cpu = both
    random = np.random.default_rng(seed)
    batch = len(lengths)
    inputs = draw(batch, max(lengths), FEATURES, seed=seed)
    mask = random.random(inputs.shape[:2]) > 0.4 if has_mask else None
    slots = list(range(1, 1 + batch)), list(range(10, 10 + batch))
    for runtime in both:
        for slot in slots[0]:
            row = draw(runtime.network.state_size, seed=seed + slot)
            runtime.write(slot, row, [slot % 2 == 0, slot % 3 == 0])

    here, there = (r.advance(*slots, inputs, lengths, mask) for r in (ours, cpu))

    for name in ("outputs", "rows"):
        np.testing.assert_allclose(getattr(here, name), getattr(there, name), **TOLERANCE)
    for name in ("has_output", "is_state_finite", "is_output_finite"):
        np.testing.assert_array_equal(getattr(here, name), getattr(there, name))
    for row, slot in enumerate(slots[1]):
        np.testing.assert_array_equal(ours.read(slot)[0], here.rows[row])
        np.testing.assert_array_equal(ours.read(slot)[1], here.has_output[row])
    zeros = ours.advance([ZERO_SLOT] * batch, slots[1], inputs, lengths, mask)
    exact = expected(cpu.network, inputs, mask)
    for row, length in enumerate(lengths):
        np.testing.assert_allclose(zeros.outputs[row, :length], exact[row, :length], **TOLERANCE)
        np.testing.assert_array_equal(zeros.outputs[row, length:], 0)


@EXAMPLES
@given(
    cuts=st.lists(st.integers(1, 5), min_size=1, max_size=6),
    has_mask=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_a_sequence_is_the_same_however_it_is_cut(graph, cuts, has_mask, seed):
    """Chunks with the state carried equal the whole, the graph's own masks and others included."""
    runtime, _ = graph
    inputs = draw(2, sum(cuts), 7, seed=seed)
    inputs[np.random.default_rng(seed).random(inputs.shape[:2]) > 0.7, :3] = 0
    mask = np.random.default_rng(seed).random(inputs.shape[:2]) > 0.5 if has_mask else None

    pieces = in_pieces(runtime, inputs, cuts, mask)

    np.testing.assert_allclose(pieces, runtime.predict(inputs, mask), **TOLERANCE)


def test_a_graph_equals_keras_whole_and_step_by_step(graph):
    """Of several inputs and outputs; one without a time axis is as if each step were the last."""
    runtime, model = graph
    assert [("one", 0, 3), ("two", 3, 2), ("fixed", 5, 2)] == [
        (part.name, part.offset, part.size) for part in runtime.network.inputs
    ]
    assert ["every", "last"] == [part.name for part in runtime.network.outputs]
    inputs = draw(3, 6, 7)
    inputs[0, [0, 3]] = 0
    inputs[1, 4:, :3] = 0

    steps = in_pieces(runtime, inputs, [1] * 6)

    for time in (1, 4, 6):
        seen = inputs[:, :time]
        every, last = model([seen[..., :3], seen[..., 3:5], seen[:, -1, 5:]], training=False)
        np.testing.assert_allclose(steps[:, :time, :2], every, **TOLERANCE)
        np.testing.assert_allclose(steps[:, time - 1, 2:], last, **TOLERANCE)
        np.testing.assert_allclose(runtime.predict(seen)[:, -1, 2:], last, **TOLERANCE)


def test_no_graph_is_made_in_steady_state(graph):
    """Once a step, a sequence and both kinds of `predict` were seen, no size makes another."""
    runtime, _ = graph
    for inputs in (draw(1, 1, 7), draw(2, 3, 7)):
        in_pieces(runtime, inputs, [inputs.shape[1]])
        runtime.predict(inputs)
        runtime.predict(inputs, np.ones(inputs.shape[:2], bool))
    before = runtime.num_traces

    for batch, time in ((1, 1), (7, 1), (3, 9), (5, 2)):
        in_pieces(runtime, draw(batch, time, 7), [time])
        in_pieces(runtime, draw(batch, time, 7), [time], np.ones((batch, time), bool))
        runtime.predict(draw(batch, time, 7))

    assert before == runtime.num_traces


def test_steps_compiled_by_xla_are_the_same(both):
    """Ticks are filled up to the sizes that are compiled; larger ones run as they are."""
    _, cpu = both
    model = sequential(
        layers.LSTM(4, return_sequences=True, zero_output_for_mask=True),
        layers.LSTM(5, return_sequences=True),
        layers.Dense(2),
    )
    runtime = TensorFlowRuntime(model, 12, compiled_sizes=(2,))
    assert (2,) == runtime.compiled_sizes
    for batch in (1, 3):
        inputs = draw(batch, 2, FEATURES, seed=batch)
        steps = in_pieces(runtime, inputs, [1, 1])
        np.testing.assert_allclose(steps, expected(cpu.network, inputs), **TOLERANCE)
        np.testing.assert_array_equal(runtime.read(ZERO_SLOT)[0], np.zeros(18))


def test_advance_leaves_the_slots_that_it_read_and_tells_bad_rows_apart(both):
    """A row whose state goes wrong is reported, and no other."""
    runtime, _ = both
    row = np.zeros(18, np.float32)
    row[4] = np.nan
    runtime.write(1, row, [True, True])

    advanced = runtime.advance([1, ZERO_SLOT], [2, 3], draw(2, 1, FEATURES), [1, 1])

    np.testing.assert_array_equal(advanced.is_state_finite, [False, True])
    assert advanced.is_output_finite[1]
    np.testing.assert_array_equal(runtime.read(1)[0], row)
    np.testing.assert_array_equal(runtime.read(ZERO_SLOT)[0], np.zeros(18))


def embedded():
    """Return words with masked ones."""
    words = keras.Input((6,), dtype="int32", name="words")
    x = layers.Embedding(9, 4, mask_zero=True)(words)
    return randomised(keras.Model(words, layers.GRU(3)(x)))


def test_embedded_words():
    """Integers, masked where 0; what is no word is refused before it reaches a table."""
    model = embedded()
    runtime = TensorFlowRuntime(model, 8)
    words = np.random.default_rng(3).integers(0, 4, (4, 6))
    inputs = words[..., None].astype(np.float32)

    np.testing.assert_allclose(runtime.predict(inputs), whole(model, words), **TOLERANCE)
    steps = in_pieces(runtime, inputs, [1] * 6)
    np.testing.assert_allclose(steps[:, -1], whole(model, words), **TOLERANCE)
    assert 9 == runtime.network.vocabulary
    for bad in (9, -1, 0.5):
        with pytest.raises(InputRangeError, match="from 0 to 8 for the input words"):
            runtime.advance([ZERO_SLOT], [1], np.full((1, 1, 1), bad, np.float32), [1])


def shared():
    """Return a model that calls one layer at two places."""
    x = keras.Input((None, FEATURES))
    layer = layers.LSTM(FEATURES, return_sequences=True, name="twice")
    return randomised(keras.Model(x, layer(layer(x))))


def nested():
    """Return a model inside a model, twice."""
    inner = keras.Sequential(
        [keras.Input((None, FEATURES)), layers.GRU(4, return_sequences=True), layers.Dense(3)]
    )
    x = keras.Input((None, FEATURES))
    return randomised(keras.Model(x, inner(inner(x))))


@pytest.mark.parametrize(
    ("model", "vectors"),
    [
        (shared, ["twice.h", "twice.c", "twice#2.h", "twice#2.c"]),
        (nested, ["gru.h", "gru#2.h"]),
        (
            lambda: sequential(layers.RNN([layers.LSTMCell(4), layers.GRUCell(2)], name="rnn")),
            ["rnn/lstm_cell.h", "rnn/lstm_cell.c", "rnn/gru_cell.h"],
        ),
        (
            lambda: sequential(
                layers.Masking(), layers.RNN(Leaky(4), name="rnn", return_sequences=True)
            ),
            ["rnn.state_0", "rnn.output"],
        ),
    ],
    ids=["shared", "nested", "stacked_cells", "own_cell"],
)
def test_every_place_and_cell_has_a_state_of_its_own(model, vectors):
    """In the order of the graph, and the numbers are Keras's."""
    keras.utils.clear_session(free_memory=False)
    model = model()
    runtime = TensorFlowRuntime(model, 8)
    layout = runtime.network.state_layout
    inputs = draw(2, 5, FEATURES)
    inputs[:, 2] = 0

    steps = in_pieces(runtime, inputs, [1, 1, 1, 2])

    reference = whole(model, inputs)
    steps = steps if runtime.network.returns_sequences else steps[:, -1]
    np.testing.assert_allclose(steps, reference, **TOLERANCE)
    assert vectors == [f"{part.layer}.{part.role}" for part in layout]


WHOLE_ONLY = {
    "runs in both directions": (
        None,
        lambda: [layers.Bidirectional(layers.GRU(3)), layers.Dense(2)],
    ),
    "runs backwards": (None, lambda: [layers.LSTM(3, go_backwards=True)]),
    "combines neighbouring": (
        None,
        lambda: [layers.Conv1D(3, 3, padding="same"), layers.LSTM(3)],
    ),
    "conv1d_far combines neighbouring": (
        None,
        lambda: [
            layers.Conv1D(3, 2, padding="causal", dilation_rate=32, name="conv1d_far"),
            layers.LSTM(3),
        ],
    ),
    "(Lag) gives something else": (None, lambda: [Lag(18), layers.LSTM(3)]),
    "(Doubled) gives something else than its cell": (None, lambda: [Doubled(3)]),
    "(RNN) gives something else than its cell": (None, lambda: [layers.RNN(Primed(3))]),
    "pools over": (
        None,
        lambda: [
            layers.LSTM(4, return_sequences=True),
            layers.TimeDistributed(layers.Dense(2)),
            layers.GlobalAveragePooling1D(),
        ],
    ),
    "puts all time steps side by side": (
        5,
        lambda: [layers.LSTM(3, return_sequences=True), layers.Flatten(), layers.Dense(2)],
    ),
    "does not run over": (
        None,
        lambda: [layers.LSTM(3), layers.RepeatVector(4), layers.LSTM(2)],
    ),
}


@pytest.mark.parametrize(("why", "case"), WHOLE_ONLY.items(), ids=WHOLE_ONLY.keys())
def test_what_mixes_time_steps_cannot_stream(why, case):
    """It says why; whole sequences still give Keras's numbers."""
    time, chain = case
    model = sequential(*chain(), time=time)
    runtime = TensorFlowRuntime(model, 2)
    inputs = draw(2, 5, FEATURES)

    np.testing.assert_allclose(runtime.predict(inputs), whole(model, inputs), **TOLERANCE)
    with pytest.raises(NotStreamableError, match=re.escape(why)):
        runtime.advance([ZERO_SLOT], [1], inputs[:1, :1], [1])
    if time:
        with pytest.raises(SequenceLengthError, match="takes 5 time steps at once, not 4"):
            runtime.predict(inputs[:, :4])


def test_states_that_the_graph_uses_cannot_stream():
    """A decoder that begins with an encoder's states needs the encoder's end."""
    source, target = keras.Input((None, FEATURES)), keras.Input((None, FEATURES))
    _, h, c = layers.LSTM(4, return_state=True)(source)
    decoded = layers.LSTM(4, name="decoder")(target, initial_state=[h, c])
    runtime = TensorFlowRuntime(randomised(keras.Model([source, target], decoded)), 2)
    with pytest.raises(NotStreamableError, match="decoder takes its first state from the graph"):
        runtime.advance([ZERO_SLOT], [1], draw(1, 1, 6), [1])


def test_a_model_without_a_state_is_refused():
    """And so is one that has no graph."""
    with pytest.raises(SpecError, match="no recurrent layer"):
        TensorFlowRuntime(sequential(layers.Dense(2)), 2)

    with pytest.raises(SpecError, match="was never built"):
        TensorFlowRuntime(keras.Sequential([layers.GRU(2)]), 2)


def test_memory_that_runs_out_changes_no_session():
    """The error says for what; the states that were read are as before, and the next tick runs."""
    model = sequential(Hungry(), layers.GRU(4))
    runtime = TensorFlowRuntime(model, 4)
    inputs = draw(1, 3, FEATURES)
    runtime.advance([ZERO_SLOT], [1], inputs[:, :1], [1])
    before = [part.tobytes() for part in runtime.read(1)]

    with pytest.raises(DeviceMemoryError, match="no memory for 2 rows of 1 time steps"):
        runtime.advance([1, 1], [2, 3], np.full((2, 1, FEATURES), 101, np.float32), [1, 1])

    assert before == [part.tobytes() for part in runtime.read(1)]
    after = runtime.advance([1], [2], inputs[:, 1:], [2]).outputs[:, -1]
    np.testing.assert_allclose(after, whole(model, inputs), **TOLERANCE)


def test_a_forecast_feeds_outputs_back(both):
    """As the CPU runtime's, from a state's last output; where inputs pass by, one is needed."""
    ours, cpu = both
    past = draw(1, 4, FEATURES)
    feedback = np.array([0, 1, 0])
    forecasts = []
    for runtime in (ours, cpu):
        runtime.advance([ZERO_SLOT], [1], past, [4])
        row, flags = runtime.read(1)
        forecasts.append(list(runtime.forecast(row, flags, None, feedback, 5)))
    np.testing.assert_allclose(forecasts[0], forecasts[1], **TOLERANCE)

    x = keras.Input((None, FEATURES))
    skipped = keras.Model(x, layers.Concatenate()([x, layers.GRU(2, return_sequences=True)(x)]))
    runtime = TensorFlowRuntime(randomised(skipped), 2)
    flags = np.ones(1, np.bool_)
    with pytest.raises(MissingFirstInputError):
        runtime.forecast(np.zeros(2, np.float32), flags, None, np.arange(3), 1)


def test_fingerprints_tell_weights_and_configurations_apart_but_not_names(both):
    """And a file that both runtimes take has one fingerprint, so that sessions can move."""

    def fingerprint(*chain, seed=0):
        model = randomised(keras.Sequential([keras.Input((None, FEATURES)), *chain]), seed)
        return StatefulModel(model, 0).fingerprint

    same = fingerprint(layers.GRU(2, name="a"))
    assert same == fingerprint(layers.GRU(2, name="b", dropout=0.5, stateful=False))
    assert same != fingerprint(layers.GRU(2), seed=1)
    assert same != fingerprint(layers.GRU(2, activation="relu"))
    assert same != fingerprint(layers.GRU(2), layers.ReLU())
    # What a user's cell calls its rate is no dropout's.
    assert fingerprint(layers.RNN(Leaky(2))) != fingerprint(layers.RNN(Leaky(2, rate=0.5)))
    assert both[0].network.fingerprint == both[1].network.fingerprint
