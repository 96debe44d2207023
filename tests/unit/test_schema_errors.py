"""The words for bad documents, frames and queries; that nothing is applied is shown over HTTP."""

import numpy as np
import pytest

from service.transport.parse import (
    parse_binary_steps,
    parse_step,
)
from service.transport.query import parse_page, parse_preconditions
from tests.unit.documents import KEY, problem_of, signature


def test_an_unknown_field_is_named_with_those_there_are():
    """A typing error is told from the message alone."""
    message = problem_of(parse_step, b'{"inputs": [1, 2, 3], "possition": 1}', signature(), KEY)
    expected = "possition: unknown field; known are: inputs, position, epoch, return_state"
    assert expected == message


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"inputs": [1, 2]}', "inputs: expected 3 numbers, got 2"),
        (b'{"inputs": [1, 2, "1.5"]}', 'inputs.2: expected a number, got the string "1.5"'),
        (b'{"inputs": [1, NaN, 3]}', "inputs.1: expected a finite number within float32, got NaN"),
        (b'{"inputs": [1, 2, 3], "inputs": [4, 5, 6]}', "inputs: given twice"),
        (b'{"inputs": [1, 2, 3], "\\u0069nputs": [4, 5, 6]}', "inputs: given twice"),
    ],
)
def test_messages_say_what_was_expected_and_what_came(body, expected):
    """The place, the expectation and the value."""
    assert expected == problem_of(parse_step, body, signature(), KEY)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"inputs": [5, 6]}', "inputs: expected 1 integer, got 2"),
        (b'{"inputs": [5.0]}', "inputs.0: expected an integer, got 5.0"),
        (b'{"inputs": [9]}', "inputs.0: expected an integer from 0 to 8, got 9"),
        (b'{"inputs": [-1]}', "inputs.0: expected an integer from 0, got -1"),
        (b'{"inputs": [99999999999999999999]}', "inputs.0: expected an integer below"),
        (b'{"inputs": [true]}', "inputs.0: expected an integer, got true"),
    ],
)
def test_tokens_out_of_range(body, expected):
    """An embedding has no row for them."""
    assert expected in problem_of(parse_step, body, signature(9), KEY)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (b"", "frame: expected 12 bytes (3 float32 numbers) for each time step, got 0"),
        (b"\0" * 16, "frame: expected 12 bytes (3 float32 numbers) for each time step, got 16"),
        (
            np.array([0, np.inf, 0], "<f4").tobytes(),
            "frame.1: expected a finite number, got Infinity",
        ),
    ],
)
def test_bad_binary_frames(frame, expected):
    """Another length, or a number that is not finite."""
    assert expected == problem_of(parse_binary_steps, frame, signature(), 2)


def test_messages_stay_short():
    """A megabyte of nonsense is not sent back."""
    for body in (
        b'{"inputs": ["' + b"x" * 1_000_000 + b'"]}',
        b'{"' + b"y" * 1_000_000 + b'": 1}',
        b"{" + b",".join(b'"a%d":1' % i for i in range(50_000)) + b"}",
        b"[" * 1_000_000,
        b'{"inputs":[' + b'"z",' * 100_000 + b"1]}",
        b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ):
        assert len(problem_of(parse_step, body, signature(), KEY)) < 2_000


def test_at_most_eight_problems_are_told():
    """Then how many more there are."""
    body = b'{"inputs": [1, 2, 3],' + b",".join(b'"a%d":1' % i for i in range(20)) + b"}"
    message = problem_of(parse_step, body, signature(), KEY)
    assert message.count("unknown field") == 8
    assert message.endswith("and 12 more")


def test_queries_are_read_with_their_defaults():
    """Preconditions and pages, with their defaults."""
    assert (3, 5) == parse_preconditions(b"epoch=5&position=3")
    assert (None, None) == parse_preconditions(b"")
    assert (100, None) == parse_page(b"")
    assert (7, "x y") == parse_page(b"limit=7&cursor=x%20y")


@pytest.mark.parametrize(
    "query",
    [
        b"position=-1",
        b"position=1.0",
        b"position=",
        b"position=%201",
        b"position=01",
        b"position=1&position=1",
        b"position=9007199254740992",
        b"position=99999999999999999999999",
        b"position=\xd9\xa3",
        b"positon=1",
        b"&".join(b"a%d=1" % i for i in range(100)),
    ],
)
def test_bad_preconditions(query):
    """As strict as a body: a precondition is never silently left out."""
    assert problem_of(parse_preconditions, query)


@pytest.mark.parametrize("query", [b"limit=0", b"limit=1001", b"limit=x", b"offset=1"])
def test_a_page_beyond_its_limits_is_refused(query):
    """A page has a size in its limits."""
    assert problem_of(parse_page, query)
