"""What the TensorFlow runtime refuses: models, time steps that need others, and calls."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lstm_core.errors import (
    DeviceMemoryError,
    NotStreamableError,
    SequenceLengthError,
    SpecError,
)
from lstm_core.runtime.base import ZERO_SLOT

keras = pytest.importorskip("keras")
layers = keras.layers

from lstm_core.runtime.tensorflow import TensorFlowRuntime  # noqa: E402
from lstm_core.runtime.tensorflow_graph import Graph  # noqa: E402
from lstm_core.runtime.tensorflow_trial import times_of_trial  # noqa: E402
from tests.integration.keras_layers import Doubled, Hungry, Lag, Numbered, Primed  # noqa: E402
from tests.parity.tensorflow_cases import (  # noqa: E402
    FEATURES,
    TOLERANCE,
    draw,
    randomised,
    sequential,
    whole,
)

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras on NumPy 2


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
    "(Lag) gives something else": (None, lambda: [Lag(508), layers.LSTM(3)]),
    "(Numbered) gives something else": (None, lambda: [Numbered(30), layers.LSTM(3)]),
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


def test_a_forecast_without_memory_says_so():
    """Where it begins too: with the layers behind the state."""
    runtime = TensorFlowRuntime(sequential(layers.GRU(3, return_sequences=True), Hungry()), 2)
    row, flags = np.full(3, 101, np.float32), np.ones(1, np.bool_)
    with pytest.raises(DeviceMemoryError, match="no memory for the last outputs of a state"):
        runtime.forecast(row, flags, None, np.arange(3), 1)


def test_wide_models_are_tried_on_fewer_time_steps():
    """So that a trial stays small; but on as many as a layer says that it looks back."""

    def times(*chain):
        return times_of_trial(Graph(sequential(*chain)), batch=2)

    assert [509, 127, 19] == times(layers.LSTM(3))
    assert [127, 19] == times(layers.Dense(5000), layers.Dense(3), layers.LSTM(3))
    assert [19] == times(layers.Dense(50_000), layers.Dense(3), layers.LSTM(3))
    far = layers.Conv1D(3, 2, padding="causal", dilation_rate=600)
    assert [601] == times(far, layers.LSTM(3))
    unsaid = layers.Dense(3)
    unsaid.dilation_rate = None
    assert [509, 127, 19] == times(unsaid, layers.LSTM(3))
