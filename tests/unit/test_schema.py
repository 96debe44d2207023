"""Bytes to requests and replies to bytes, without a server."""

import json

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain import (
    AdvanceReply,
    AdvanceRequest,
    SessionReply,
)
from service.errors import InvalidRequestError, QueueFullError
from service.transport import replies
from service.transport.parse import (
    parse_binary_steps,
    parse_predict,
    parse_sequence,
    parse_single_steps,
    parse_step,
)
from service.transport.parse_state import parse_fork, parse_import, parse_reset
from service.transport.parse_steps import parse_steps
from service.transport.render import render_advance, render_state, render_steps
from tests.unit.documents import KEY, LARGEST, problem_of, signature

# --- what is good ---


def test_a_step_becomes_one_row_of_float32():
    """Integers are numbers too, and preconditions are taken over."""
    body = b'{"inputs": [1, -2.5, 1e-3], "position": 7, "epoch": 9, "return_state": true}'
    request = parse_step(body, signature(), KEY)
    assert (1, 3) == request.inputs.shape
    assert np.float32 == request.inputs.dtype
    assert [[1.0, -2.5, np.float32(1e-3)]] == request.inputs.tolist()
    assert (7, 9, True, False) == (
        request.position,
        request.epoch,
        request.return_state,
        request.return_sequences,
    )


def test_null_stands_for_nothing_where_nothing_may_be():
    """A client may send the null epoch of a hello back."""
    body = b'{"inputs": [1, 2, 3], "position": null, "epoch": null}'
    assert parse_step(body, signature(), KEY).epoch is None


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=3, max_size=3))
def test_float32_survives_the_way_out_and_in(values):
    """What the service writes it reads as the same bits, up to the largest float32."""
    outputs = np.array(values, np.float32)
    reply = AdvanceReply(outputs=outputs, position=1, epoch=2)
    written = orjson.loads(render_advance(reply, signature()))["outputs"]
    request = parse_step(orjson.dumps({"inputs": written}), signature(), KEY)
    assert outputs.tobytes() == request.inputs.tobytes()


@pytest.mark.parametrize("number", ["3.4028235e38", "-3.4028235e38", repr(LARGEST), "1e-50", "0"])
def test_every_number_within_float32_is_taken(number):
    """The largest float32 in its shortest form, and what is rounded to zero."""
    body = f'{{"inputs": [{number}, 0, 0]}}'.encode()
    assert np.isfinite(parse_step(body, signature(), KEY).inputs).all()


def test_a_sequence_with_a_mask():
    """Rows become `(time, features)`, the mask `(time,)`."""
    body = b'{"inputs": [[1, 2, 3], [4, 5, 6]], "mask": [true, false], "return_sequences": false}'
    request = parse_sequence(body, signature(), KEY, 10)
    assert [[1, 2, 3], [4, 5, 6]] == request.inputs.tolist()
    assert [True, False] == np.asarray(request.mask).tolist()
    assert not request.return_sequences


def test_tokens_are_integers_in_range():
    """An embedding model takes one integer a step."""
    assert [[5.0]] == parse_step(b'{"inputs": [5]}', signature(9), KEY).inputs.tolist()
    sequence = parse_sequence(b'{"inputs": [[5], [8]]}', signature(9), KEY, 10)
    assert [[5.0], [8.0]] == sequence.inputs.tolist()


def test_predict_takes_a_batch():
    """Batch, time and features, and a mask of the first two."""
    body = b'{"inputs": [[[1, 2, 3]], [[4, 5, 6]]], "mask": [[true], [false]]}'
    inputs, mask = parse_predict(body, signature(), 10)
    assert (2, 1, 3) == inputs.shape
    assert [[True], [False]] == np.asarray(mask).tolist()


def test_a_reset_may_have_no_body():
    """Then the state is zeros."""
    assert parse_reset(b"", signature(), KEY).row is None
    assert parse_reset(b"{}", signature(), KEY).row is None
    body = b'{"states": [[1, 2], [3, 4]], "position": 5}'
    assert [1, 2, 3, 4] == np.asarray(parse_reset(body, signature(), KEY).row).tolist()


@pytest.mark.parametrize(("text", "ttl_s"), [("60", 60.0), ("0.5", 0.5), ("315360000", 3.1536e8)])
def test_a_reset_takes_a_time_to_live(text, ttl_s):
    """Any positive number of seconds, up to ten years."""
    request = parse_reset(b'{"ttl_s": %s}' % text.encode(), signature(), KEY)
    assert ttl_s == request.ttl_s
    assert parse_reset(b"{}", signature(), KEY).ttl_s is None


def test_a_fork_names_its_target():
    """In the tenant and the model of its origin."""
    request = parse_fork(b'{"client_id": "a:b@c"}', KEY)
    assert (KEY, KEY._replace(client_id="a:b@c")) == (request.key, request.target_key)


def test_an_export_is_an_import():
    """The body that GET state writes can be put back as it is."""
    row = np.array([1, 2, 3, 4], np.float32)
    flags = np.array([True])
    reply = SessionReply(position=5, epoch=6, fingerprint="f" * 64, row=row, has_output=flags)
    exported = render_state(reply, signature())
    request = parse_import(exported, signature(), KEY, position=7, epoch=8)
    assert row.tolist() == request.row.tolist()
    assert [True] == request.has_output.tolist()
    assert (5, 7, 8) == (request.new_position, request.position, request.epoch)
    assert replies.StateDocument.model_validate_json(exported).epoch == 6


@pytest.mark.parametrize(("position", "expected"), [(0, False), (3, True)])
def test_an_import_without_flags_takes_them_from_the_position(position, expected):
    """A state that has moved has had an output."""
    body = json.dumps({"position": position, "states": [[1, 2], [3, 4]]}).encode()
    request = parse_import(body, signature(), KEY, position=None, epoch=None)
    assert [expected] == request.has_output.tolist()


def test_a_binary_step_is_little_endian_float32():
    """Little-endian float32 as they are."""
    frame = np.array([1, 2, 3], "<f4").tobytes()
    assert [[1, 2, 3]] == parse_binary_steps(frame, signature(), 2).tolist()


@given(st.binary(max_size=40))
def test_any_bytes_are_a_step_or_an_error(frame):
    """Nothing else comes out of a binary frame, and nothing that is not finite."""
    try:
        inputs = parse_binary_steps(frame, signature(7), 5)
    except InvalidRequestError:
        return
    assert 0 < len(inputs) <= 5
    assert ((inputs >= 0) & (inputs < 7)).all()


NUMBERS = st.floats(width=32) | st.sampled_from([0.0, -0.0, 3.4e38, float("inf"), float("nan")])


@given(st.lists(st.lists(NUMBERS, min_size=2, max_size=4), min_size=1, max_size=4))
def test_frames_read_together_are_read_as_alone(rows):
    """Or not at all, where one of them is bad."""
    frames = [np.array(row, "<f4").tobytes() for row in rows]
    together = parse_single_steps(frames, signature())
    is_good = all(len(row) == 3 and np.isfinite(row).all() for row in rows)
    assert is_good is (together is not None)
    if together is not None:
        alone = [parse_binary_steps(frame, signature(), 1) for frame in frames]
        assert np.array(alone).tobytes() == together.tobytes()
        assert together.shape == (len(alone), 3)


# --- many sessions ---


def test_bad_rows_stay_alone():
    """Each bad row is an error in its place, and the others are requests."""
    body = {
        "client_ids": ["a", "b", "a", "no/pe", "e", 6, "f", "g", ""],
        "inputs": [[1, 2, 3], [1, "2", 3], [1, 2, 3], [1, 2, 3], [1], [1, 2, 3], [7, 8, 9], 1, []],
        "positions": [0, 1, 2, 3, 4, 5, None, 7, 8],
    }
    rows = parse_steps(json.dumps(body).encode(), signature())
    messages = [str(row) if isinstance(row, InvalidRequestError) else "good" for row in rows]
    assert messages[0] == messages[6] == "good"
    assert 'inputs.1: expected a number, got the string "2"' == messages[1]
    assert "row 0 has the same client id" in messages[2]
    assert 'got the string "no/pe"' in messages[3]
    assert "inputs: expected 3 numbers, got 1" == messages[4]
    assert "client_ids: expected a string, got 6" == messages[5]
    assert "inputs: expected an array, got 1" == messages[7]
    assert "got an empty one" in messages[8]
    good = rows[6]
    assert isinstance(good, AdvanceRequest)
    assert [[7, 8, 9]] == good.inputs.tolist()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"inputs": [[1, 2, 3]]}, "inputs: expected 2 rows, one a client id, got 1"),
        ({"positions": [1]}, "positions: expected 2 rows, one a client id, got 1"),
        ({"client_ids": []}, "inputs: expected 0 rows"),
        ({"client_ids": [], "inputs": []}, "client_ids: expected at least one, got none"),
        ({"inputs": None}, "inputs: expected an array, got null"),
        ({"more": 1}, "more: unknown field"),
    ],
)
def test_a_bad_whole_fails_whole(change, expected):
    """What is no row's fault is everybody's."""
    body = {"client_ids": ["a", "b"], "inputs": [[1, 2, 3], [4, 5, 6]]} | change
    assert expected in problem_of(parse_steps, json.dumps(body).encode(), signature())


def test_rows_are_answered_in_their_places():
    """An error's row has nulls, and the document is as documented."""
    good = AdvanceReply(outputs=np.array([1.5], np.float32), position=1, epoch=2)
    document = render_steps([good, QueueFullError(3)])
    replies.StepsReply.model_validate_json(document)
    assert [[1.5], None] == orjson.loads(document)["outputs"]
    assert "queue_full" == orjson.loads(document)["errors"][1]["code"]
