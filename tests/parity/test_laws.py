"""Laws of `lstm_core.LSTM`, going forward: the equations, the peers, steps, rows, padding."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("tensorflow")
pytest.importorskip("tf_keras")

import tf_keras

import lstm_core
from tests.parity.cases import AS_KERAS, AS_TF_KERAS, EVERY, FORWARD, Case, cases
from tests.parity.record import agree, agree_in_rows
from tests.parity.subjects import subject

PLAIN = [config for config in EVERY if not config.unroll]
MASKED = [config for config in PLAIN if config.has_mask]


def rows(case: Case, peer: str) -> list[tuple[str, str, str]]:
    """Return the rows of the table that a case stands for."""
    return [("LSTM", feature, peer) for feature in case.config.tested]


def run(case: Case, make: Any = None, **changes: Any) -> Any:
    """Call a layer on a case, or on one with other data."""
    case = replace(case, **changes)
    return subject(make or lstm_core.LSTM, case.config).given(case.weights).forward(*case.data)


@given(cases(EVERY))
def test_forward_equals_the_equations(case):
    """Any options, dtype, mask, state and size, empty ones too, give the equations' numbers."""
    agree_in_rows(
        run(case),
        case.expected(),
        rows=rows(case, "lstm_core.equations"),
        **FORWARD[case.config.dtype],
    )


# Keras crashes on empty batches and sequences.
@given(cases(AS_KERAS, smallest=1))
def test_forward_equals_keras(case):
    """The same numbers come from `keras.layers.LSTM` with the same weights."""
    agree_in_rows(
        run(case),
        run(case, keras.layers.LSTM),
        rows=rows(case, "keras.layers.LSTM"),
        **FORWARD[case.config.dtype],
    )


@given(cases(AS_TF_KERAS, smallest=1))
def test_forward_equals_tf_keras(case):
    """The same numbers come from `tf_keras.layers.LSTM` with the same weights."""
    agree_in_rows(
        run(case),
        run(case, tf_keras.layers.LSTM),
        rows=rows(case, "tf_keras.layers.LSTM"),
        **FORWARD[case.config.dtype],
    )


PEERS = {
    "keras": (keras.layers.LSTM, AS_KERAS[:6]),
    "tf_keras": (tf_keras.layers.LSTM, AS_TF_KERAS),
}


@pytest.mark.parametrize(("make", "configs"), PEERS.values(), ids=PEERS.keys())
@given(st.data())
def test_weights_of_the_peer_give_its_numbers(make, configs, data):
    """What a peer's `get_weights` returns, ours takes, and then gives the peer's numbers."""
    case = data.draw(cases(configs, smallest=1))
    theirs = subject(make, case.config).given(case.weights)
    ours = subject(lstm_core.LSTM, case.config)
    ours.layer.set_weights(theirs.layer.get_weights())
    peer = f"{make.__module__.partition('.')[0]}.layers.LSTM"
    agree(
        ours.forward(*case.data),
        theirs.forward(*case.data),
        row=("LSTM", "weights of the peer", peer),
        **FORWARD[case.config.dtype],
    )


@given(cases(PLAIN))
def test_steps_with_carried_state_equal_one_sequence(case):
    """One step after another, each from the last one's state, gives the sequence's live steps."""
    config = case.config
    whole, h, c = run(case)
    batch, time, _ = case.x.shape
    zeros = np.zeros((batch, config.units), config.dtype)
    stepper = subject(lstm_core.LSTM, replace(config, has_state=True)).given(case.weights)
    state = [zeros, zeros] if case.h is None else [case.h, case.c]
    outputs = []
    for t in reversed(range(time)) if config.go_backwards else range(time):
        mask = None if case.mask is None else case.mask[:, t : t + 1]
        output, *state = stepper.forward(case.x[:, t : t + 1], mask, *state)
        outputs.append(np.reshape(output, (batch, config.units)))
    live = case.live[:, ::-1] if config.go_backwards else case.live
    expected, actual = np.asarray(whole), np.asarray(outputs).reshape(time, batch, config.units)
    if config.return_sequences:
        expected, actual = expected[live], actual.swapaxes(0, 1)[live]
    else:  # of a row whose last step is masked, a single step knows no output to repeat
        ends = live[:, -1] if time else np.zeros(batch, bool)
        expected, actual = expected[ends], actual[-1][ends] if time else expected[ends]
    agree(
        [actual, *state],
        [expected, h, c],
        row=("LSTM", "steps equal one sequence", "lstm_core.LSTM"),
        **FORWARD[config.dtype],
    )


@given(cases(PLAIN))
def test_a_batch_equals_its_rows(case):
    """Every row of a batch comes out as it does alone."""
    whole = run(case)
    for row in range(len(case.x)):
        alone = run(
            case, **{
                name: None if getattr(case, name) is None else getattr(case, name)[row : row + 1]
                for name in ("x", "mask", "h", "c")
            },
        )  # fmt: skip
        agree(
            [np.asarray(result)[row : row + 1] for result in whole],
            alone,
            row=("LSTM", "rows equal the batch", "lstm_core.LSTM"),
            **FORWARD[case.config.dtype],
        )


@given(
    cases(MASKED),
    st.lists(
        st.tuples(st.integers(0, 6), st.sampled_from([0.0, 1e30, np.inf, np.nan])), max_size=3
    ),
)
def test_padding_changes_no_live_step(case, padding):
    """Masked steps put anywhere, whatever stands in them, leave live outputs and states alone."""
    x, mask = case.x, case.live
    for position, garbage in padding:
        at = min(position, x.shape[1])
        x, mask = np.insert(x, at, garbage, axis=1), np.insert(mask, at, values=False, axis=1)
    before, after = run(case), run(case, x=x, mask=mask)
    if case.config.return_sequences:
        lives = [m[:, ::-1] if case.config.go_backwards else m for m in (case.live, mask)]
        outputs = [np.asarray(r[0])[live] for r, live in zip((before, after), lives, strict=True)]
    elif case.config.zero_output_for_mask:
        outputs = [np.zeros(0), np.zeros(0)]  # of the last step, which the padding may now be
    else:
        outputs = [np.asarray(before[0]), np.asarray(after[0])]
    agree(
        [outputs[1], *after[1:]],
        [outputs[0], *before[1:]],
        row=("LSTM", "padding", "lstm_core.LSTM"),
        **FORWARD[case.config.dtype],
    )


@given(cases(EVERY[:12]))
def test_a_layer_from_a_config_gives_the_same_numbers(case):
    """`from_config(get_config())` is the same layer, to the bit."""
    agree(
        subject(copied, case.config).given(case.weights).forward(*case.data),
        run(case),
        row=("LSTM", "get_config", "lstm_core.LSTM"),
        atol=0,
    )


def copied(units: int, **options: Any) -> Any:
    """Make a layer of the config of another."""
    layer = lstm_core.LSTM(units, **options)
    copy = lstm_core.LSTM.from_config(layer.get_config())
    assert layer.get_config() == copy.get_config()
    return copy
