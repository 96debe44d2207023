"""States as safetensors files, without a server: round trips, and bytes that are none."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors.numpy import save

from service.domain import ImportRequest, SessionReply
from service.errors import InvalidRequestError
from service.signature import StateVector
from service.transport.parse_state import parse_import
from service.transport.render import render_state
from service.transport.tensors import parse_tensors, render_tensors
from tests.unit.documents import KEY, problem_of, signature

SIGNATURE = signature()
GOOD = {"lstm.h": np.ones(2, np.float32), "lstm.c": np.zeros(2, np.float32)}


def read(body, model=SIGNATURE):
    """Return the request of a file."""
    return parse_tensors(body, model, KEY, position=7, epoch=8)


def problem(body):
    """Return the message that a bad file gets."""
    return problem_of(parse_tensors, body, SIGNATURE, KEY, position=None, epoch=None)


def framed(header, data=b""):
    """Return a file of any header."""
    return len(header).to_bytes(8, "little") + header + data


def document(**changes):
    """Return a file of the good tensors whose header is changed."""
    tensors = {
        "lstm.h": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]},
        "lstm.c": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
        "__metadata__": {"position": "1"},
    }
    return framed(json.dumps(tensors | changes).encode(), bytes(16))


FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
REPLIES = st.lists(
    st.tuples(st.text(min_size=1, max_size=8), st.integers(1, 4)), max_size=3
).flatmap(
    lambda layers: st.builds(
        lambda values, flags, position, epoch: (
            replace(
                SIGNATURE,
                state_layout=tuple(
                    StateVector(f"{index}{name}", role, size)
                    for index, (name, size) in enumerate(layers)
                    for role in "hc"
                ),
            ),
            SessionReply(
                position=position,
                epoch=epoch,
                fingerprint=SIGNATURE.fingerprint,
                row=np.array(values, np.float32),
                has_output=np.array(flags, np.bool_),
            ),
        ),
        st.lists(
            FLOATS, min_size=sum(2 * s for _, s in layers), max_size=sum(2 * s for _, s in layers)
        ),
        st.lists(st.booleans(), min_size=len(layers), max_size=len(layers)),
        st.integers(0, 2**53 - 1),
        st.integers(0, 2**53 - 1),
    )
)


@given(REPLIES.filter(lambda case: len(case[1].row)))
def test_a_state_survives_both_forms(case):
    """What is exported is imported: the same bits, flags and position, whichever form it took."""
    model, reply = case
    requests = [
        read(render_tensors(reply, model), model),
        parse_import(render_state(reply, model), model, KEY, position=7, epoch=8),
    ]
    for request in requests:
        assert isinstance(request, ImportRequest)
        assert reply.row.tobytes() == request.row.tobytes()
        assert reply.has_output.tolist() == request.has_output.tolist()
        assert (reply.position, reply.fingerprint) == (request.new_position, request.fingerprint)
        assert (7, 8) == (request.position, request.epoch)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "not a safetensors file: 0 bytes"),
        (b"{}", "not a safetensors file: 2 bytes"),
        (b"\xff" * 8, "not a safetensors file: 8 bytes are not its whole header"),
        (b"\xff" * 100, "not a safetensors file: 100 bytes are not its whole header"),
        (b'{"position": 1, "states": [[0, 0], [0, 0]]}', "not a safetensors file"),
        (framed(b""), "not a safetensors file: invalid JSON"),
        (framed(b"{"), "not a safetensors file: invalid JSON"),
        (framed(b"[" * 10_000), "not a safetensors file"),
        (framed(b" " * 100_000 + b"{}"), "expected a header of at most"),
        (framed(b"{}"), "position: missing"),
        (framed(b"\xff\xfe"), "not a safetensors file"),
        (document() + b"x", "not a safetensors file"),
        (document()[:-1], "not a safetensors file"),
        (document(**{"lstm.h": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}), "not a"),
        (
            document(**{"lstm.h": {"dtype": "F32", "shape": [2**63, 8], "data_offsets": [0, 8]}}),
            "not",
        ),
        (document(**{"lstm.h": {"dtype": "F9", "shape": [2], "data_offsets": [0, 8]}}), "not a"),
        (document(__metadata__=None), "position: missing"),
        (document(__metadata__={}), "position: missing"),
        (document(__metadata__={"position": 1}), "not a safetensors file"),
        (document(__metadata__={"position": ""}), "metadata.position: expected JSON"),
        (document(__metadata__={"position": "[" * 5000}), "metadata.position: expected JSON"),
        (document(__metadata__={"position": "9" * 5000}), "metadata.position: expected JSON"),
        (document(__metadata__={"position": "-1"}), "position: expected an integer from 0"),
        (document(__metadata__={"position": "1.0"}), "position: expected an integer, got 1.0"),
        (document(__metadata__={"position": '"1"'}), "position: expected an integer, got the str"),
        (
            document(__metadata__={"position": "1", "x": "1"}),
            "x: unknown field; known are: position",
        ),
        (
            document(__metadata__={"position": "1", "has_output": "[1]"}),
            "has_output.0: expected true",
        ),
        (
            document(__metadata__={"position": "1", "has_output": "[]"}),
            "has_output: expected 1 val",
        ),
        (document(__metadata__={"position": "1", "fingerprint": "x" * 200}), "at most 128 charac"),
        (save({"lstm.h": GOOD["lstm.h"]}, {"position": "1"}), "lstm.c: missing"),
        (save(GOOD | {"z": GOOD["lstm.h"]}, {"position": "1"}), "z: unknown tensor; known are: ls"),
        (
            save(GOOD | {"lstm.h": np.ones((1, 2), np.float32)}, {"position": "1"}),
            "lstm.h: expected float32 of shape (2,), got F32 of (1, 2)",
        ),
        (
            save(GOOD | {"lstm.h": np.ones(2)}, {"position": "1"}),
            "lstm.h: expected float32 of shape (2,), got F64 of (2,)",
        ),
        (
            save(GOOD | {"lstm.c": np.array([1, np.nan], np.float32)}, {"position": "1"}),
            "lstm.c: expected finite numbers",
        ),
    ],
)
def test_what_is_no_state_is_told(body, expected):
    """The place, the expectation and what came, in few words."""
    message = problem(body)
    assert expected in message
    assert len(message) < 1000


def test_a_name_given_twice_is_told():
    """A reader that takes the last one and one that takes the first would differ."""
    text = document()[8:-16].decode()
    tensor = '"lstm.h": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, '
    twice = framed(("{" + tensor + text[1:]).encode(), bytes(16))
    assert "lstm.h: given twice" == problem(twice)
    twice = framed(
        text.replace('"position": ', '"position": "2", "position": ').encode(), bytes(16)
    )
    assert "given twice" in problem(twice) or "duplicate" in problem(twice)


@given(st.data())
def test_no_change_of_a_file_is_a_fault(data):
    """Any flipped bits and any cut give a state that fits, or an error of ours."""
    body = bytearray(document())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 8 * len(body) - 1))
        body[at // 8] ^= 1 << at % 8
    del body[data.draw(st.integers(0, len(body))) :]
    assert_state_or_error(bytes(body))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["lstm.h", "__metadata__", "dtype", "shape", "data_offsets", "position"]
            ),
            children,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(header=JSON, data=st.binary(max_size=20))
@example(header={"lstm.h": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}, data=bytes(4))
@example(header={"a": {"dtype": "F32", "shape": [2**64], "data_offsets": [0, 2**64]}}, data=b"")
def test_no_header_is_a_fault(header, data):
    """Whatever JSON stands there."""
    assert_state_or_error(framed(json.dumps(header).encode(), data))


@given(st.binary(max_size=200))
def test_no_bytes_are_a_fault(body):
    """Whatever they are."""
    assert_state_or_error(body)
    assert_state_or_error(framed(body, body))


def assert_state_or_error(body):
    """Read a file."""
    try:
        request = read(body)
    except InvalidRequestError:
        return
    assert (4,) == request.row.shape
    assert np.isfinite(request.row).all()
