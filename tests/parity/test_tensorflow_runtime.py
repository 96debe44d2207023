"""The TensorFlow runtime: Keras's own numbers, and the laws of `advance`."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_core import equations
from lstm_core.errors import InputRangeError, MissingFirstInputError
from lstm_core.formats.keras import read_keras
from lstm_core.network import Recurrent
from lstm_core.runtime.base import ZERO_SLOT
from lstm_core.runtime.cpu import CpuRuntime

keras = pytest.importorskip("keras")
layers = keras.layers

from lstm_core.runtime.tensorflow import TensorFlowRuntime  # noqa: E402
from lstm_core.runtime.tensorflow_graph import mask_of  # noqa: E402
from lstm_core.runtime.tensorflow_model import StatefulModel  # noqa: E402
from tests.integration.keras_layers import Gain, Leaky  # noqa: E402
from tests.parity.tensorflow_cases import (  # noqa: E402
    FEATURES,
    TOLERANCE,
    draw,
    in_pieces,
    randomised,
    sequential,
    whole,
)

EXAMPLES = settings(deadline=None, max_examples=8, derandomize=True, database=None)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras on NumPy 2


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


def test_a_nested_model_called_with_a_mask():
    """Its layers see the mask that comes with its input, or that it is given."""
    one, two = (keras.Input((None, FEATURES)) for _ in range(2))
    nested = sequential(layers.LSTM(2, return_sequences=True))
    masked = layers.Masking()(two)
    heads = [
        nested(one, mask=mask_of(masked)),
        layers.LSTM(2, return_sequences=True)(nested(masked)),
    ]
    model = randomised(keras.Model([one, two], heads))
    runtime = TensorFlowRuntime(model, 8)
    inputs = draw(2, 4, 2 * FEATURES)
    inputs[0, [0, 2], FEATURES:] = 0
    inputs[1, 3:] = 0

    steps = in_pieces(runtime, inputs, [1] * 4)

    told = model([inputs[..., :FEATURES], inputs[..., FEATURES:]], training=False)
    np.testing.assert_allclose(steps, np.concatenate(told, axis=-1), **TOLERANCE)


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
