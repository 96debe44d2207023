"""How much one request may hold and ask for, and that more is refused before it costs anything."""

import json
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest

from service.domain import AdvanceRequest, SessionKey
from service.errors import InvalidRequestError
from service.signature import Signature, StateVector
from service.transport.parse import (
    MAX_OUTPUT_VALUES,
    parse_predict,
    parse_sequence,
    parse_step,
)
from service.transport.parse_state import parse_import
from service.transport.parse_steps import parse_steps
from service.transport.schema import MAX_STEPS_ROWS

KEY = SessionKey("default", "m", "alice")
SIGNATURE = Signature(
    model="m",
    fingerprint="f" * 64,
    input_size=1,
    output_size=2,
    vocabulary=None,
    returns_sequences=True,
    state_layout=(StateVector("lstm", "h", 2), StateVector("lstm", "c", 2)),
    streaming_obstacles=(),
    layers=(),
)
MANY = 500_000


def problem_of(parse, *arguments):
    """Return the message that a bad document gets."""
    with pytest.raises(InvalidRequestError) as caught:
        parse(*arguments)
    return str(caught.value)


def steps_body(num_rows, *, bad=False):
    """Return a body of as many rows, of which the first may be bad."""
    inputs: list[list[Any]] = [[1]] * num_rows
    if bad:
        inputs[0] = ["x"]
    document = {"client_ids": [f"c{index}" for index in range(num_rows)], "inputs": inputs}
    return json.dumps(document).encode()


@pytest.mark.parametrize("bad", [False, True])
def test_more_rows_than_may_be_are_refused_whole(bad):
    """Whether the rows are good or not."""
    rows = parse_steps(steps_body(MAX_STEPS_ROWS, bad=bad), SIGNATURE)
    assert MAX_STEPS_ROWS - bad == sum(isinstance(row, AdvanceRequest) for row in rows)
    message = problem_of(parse_steps, steps_body(MAX_STEPS_ROWS + 1, bad=bad), SIGNATURE)
    assert "client_ids: expected at most 1024 values, got 1025" in message


def test_predict_counts_the_steps_of_all_its_sequences():
    """As many short ones cost what one long one does."""
    body = json.dumps({"inputs": [[[1]] * 10] * 10}).encode()
    assert (10, 10, 1) == parse_predict(body, SIGNATURE, 100)[0].shape
    expected = "inputs: expected at most 99 time steps in all sequences together, got 100"
    assert expected == problem_of(parse_predict, body, SIGNATURE, 99)


@pytest.mark.parametrize(
    ("parse", "body", "expected"),
    [
        (
            lambda body: parse_sequence(body, SIGNATURE, KEY, 1000),
            b'{"inputs":[%s[1]]}' % (b"[1]," * MANY),
            f"expected at most 1000 time steps, got {MANY + 4} arrays",
        ),
        (
            lambda body: parse_predict(body, SIGNATURE, 1000),
            b'{"inputs":[%s[[1]]]}' % (b"[[1]]," * MANY),
            "expected at most 1000 time steps in all sequences together, got",
        ),
        (
            lambda body: parse_steps(body, SIGNATURE),
            b'{"inputs":[[1]],"client_ids":[%s"a"]}' % (b'"a",' * MANY),
            "expected at most 1024 rows, got",
        ),
        (
            lambda body: parse_step(body, SIGNATURE, KEY),
            b'{"inputs":[1],"position":[%s{}]}' % (b"{}," * MANY),
            f"expected a body of few arrays and strings, got {MANY + 6} arrays",
        ),
    ],
    ids=["sequence", "predict", "steps", "step"],
)
def test_a_million_small_things_are_refused_before_they_are_made(parse, body, expected):
    """A body within the limit of its bytes does not become a million objects first."""
    tracemalloc.start()
    try:
        message = problem_of(parse, body)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert message.startswith(expected)
    assert peak_bytes < 100_000


@pytest.mark.parametrize("returns_sequences", [False, True])
def test_an_answer_of_too_many_values_is_refused(returns_sequences):
    """Before anything is computed, with the numbers that led there."""
    wide = replace(SIGNATURE, output_size=MAX_OUTPUT_VALUES // 4, returns_sequences=True)
    steps = {"inputs": [[1]] * 5, "return_sequences": returns_sequences}
    body = json.dumps(steps).encode()
    if returns_sequences:
        expected = (
            "inputs: expected an answer of at most 2000000 values, but 5 time steps with 500000"
            " outputs each give 2500000; send it in pieces"
        )
        assert expected == problem_of(parse_sequence, body, wide, KEY, 10)
    else:
        assert 5 == len(parse_sequence(body, wide, KEY, 10).inputs)


def test_a_prediction_of_too_many_values_is_refused():
    """Batch and time count, time only where the model answers with it."""
    wide = replace(SIGNATURE, output_size=MAX_OUTPUT_VALUES // 4)
    body = json.dumps({"inputs": [[[1]] * 3] * 2}).encode()
    message = problem_of(parse_predict, body, wide, 10)
    assert "2 sequences of 3 time steps with 500000 outputs each give 3000000" in message
    last_only = replace(wide, returns_sequences=False)
    assert (2, 3, 1) == parse_predict(body, last_only, 10)[0].shape
    message = problem_of(parse_predict, json.dumps({"inputs": [[[1]]] * 5}).encode(), last_only, 10)
    assert "5 sequences with 500000 outputs each give 2500000" in message


@pytest.mark.parametrize("fingerprint", [None, "f" * 64])
def test_a_field_given_twice_is_told_beside_a_fingerprint_or_none(fingerprint):
    """A null is no string, and hides nothing."""
    rest = f'"fingerprint": {json.dumps(fingerprint)}, "states": [[1, 2], [3, 4]]'
    options = {"position": None, "epoch": None}
    good = f'{{"position": 1, {rest}}}'.encode()
    assert 1 == parse_import(good, SIGNATURE, KEY, **options).new_position
    bad = f'{{"position": 1, "position": 2, {rest}}}'.encode()
    with pytest.raises(InvalidRequestError, match="position: given twice"):
        parse_import(bad, SIGNATURE, KEY, **options)
