"""The rules of a stream, without a socket: a scripted engine, and messages handed in and out."""

import json

import numpy as np
import pytest

from service.domain import (
    REPLAY_WINDOW,
    AdvanceRequest,
)
from service.errors import (
    DrainingError,
    NotStreamableError,
    PositionConflictError,
    QueueFullError,
    SessionExpiredError,
)
from service.transport.stream import Stream
from service.transport.stream_messages import Limits
from tests.unit.documents import KEY
from tests.unit.stream_script import EPOCH, Case, Script, session, steps


def test_nothing_is_taken_before_the_hello():
    """The session's place is asked for first."""
    stream = Stream(Limits(100, 10), lambda: None)
    engine = Script()
    stream.begin(engine, KEY, None, None)
    assert (0, []) == (stream.room, stream.answers())
    engine.answer(session(3))
    hello = json.loads(stream.answers()[0][1])
    assert ("hello", 3, EPOCH) == (hello["type"], hello["position"], hello["epoch"])
    assert REPLAY_WINDOW == stream.room


def test_each_step_expects_the_position_behind_the_last_one():
    """Whatever kind of frame it comes in, and whether or not the last one is answered."""
    case = Case((4, EPOCH))
    case.send([1, 2, 3], {"inputs": [4, 5, 6], "return_state": True}, [[1, 2, 3]] * 5, [7, 8, 9])
    assert [4, 5, 6, 11] == [request.position for request in case.requests()]
    assert {EPOCH} == {request.epoch for request in case.requests()}
    assert [1, 1, 5, 1] == [len(request.inputs) for request in case.requests()]
    assert [False, True, False, False] == [r.return_state for r in case.requests()]
    assert [False, False, True, False] == [r.return_sequences for r in case.requests()]


def test_answers_come_in_the_order_and_the_kind_of_their_steps():
    """All that are due at once, after one word that there are some."""
    case = Case((0, EPOCH))
    case.received()
    case.send([1, 2, 3], {"inputs": [4, 5, 6]}, [[1, 2, 3]] * 2, [0, 0, 0])
    told = case.num_told
    for _ in range(3):
        case.engine.answer()
    assert told + 1 == case.num_told
    first, second, third = case.received()
    assert [0, 1] == first
    assert (2, False, [0, 1]) == (second["position"], second["replayed"], second["outputs"])
    assert [0, 1, 2, 3] == third
    assert [] == case.received()


def test_the_window_counts_messages_until_their_answers_are_taken():
    """An answer that nobody takes away keeps its place."""
    case = Case((0, EPOCH))
    case.send(*steps(REPLAY_WINDOW - 1), [[1, 2, 3]] * 50)
    assert 0 == case.stream.room
    for _ in range(REPLAY_WINDOW):
        case.engine.answer()
    assert 0 == case.stream.room
    case.received()
    assert REPLAY_WINDOW == case.stream.room


def test_the_first_step_of_a_session_goes_alone():
    """What is behind it is of the life that it begins."""
    case = Case()
    case.send(*steps(3))
    (first,) = case.requests()
    assert (0, None, True) == (first.position, first.epoch, first.must_begin)
    assert REPLAY_WINDOW - 3 == case.stream.room
    case.engine.answer()
    assert 2 == len(case.received())
    assert [(1, EPOCH, False), (2, EPOCH, False)] == [
        (r.position, r.epoch, r.must_begin) for r in case.requests()
    ]


def test_a_jump_waits_until_what_is_in_flight_is_answered():
    """And so does what is behind it, so that nothing behind an error applies."""
    case = Case((2, EPOCH))
    case.send([1, 2, 3], {"inputs": [0, 0, 0], "position": 0}, [4, 5, 6])
    assert [2] == [request.position for request in case.requests()]
    case.engine.answer()
    case.received()
    assert [0, 1] == [request.position for request in case.requests()]


@pytest.mark.parametrize("what", ["parse", "engine", "refused"])
def test_the_first_error_ends_it_after_the_answers_before_it(what):
    """Nothing behind it is submitted, and what was is cancelled."""
    case = Case((0, EPOCH))
    case.received()
    case.send([1, 2, 3])
    if what == "parse":
        case.send([1, 2])
    elif what == "refused":
        case.engine.refusal = QueueFullError(1)
        case.send([1, 2, 3])
    else:
        case.send([1, 2, 3])
        case.send([4, 5, 6])
    assert 1 + 2 * (what == "engine") == len(case.requests())
    case.engine.answer()
    if what == "engine":
        case.engine.answer(PositionConflictError(9, EPOCH, "elsewhere"))
        assert [True] == [job.is_cancelled for job in case.engine.jobs]
    expected = {"parse": (4422, "invalid_request"), "refused": (1013, "queue_full")}
    code, name = expected.get(what, (4409, "position_conflict"))
    outputs, error = case.received()
    assert ([0, 1], "error", name) == (outputs, error["type"], error["code"])
    assert (code, name) == case.stream.close
    case.send([1, 2, 3])
    assert ([], 0) == (case.received(), case.stream.room)


def test_an_error_of_a_step_goes_before_one_of_a_later_frame():
    """It is what the client could have known first."""
    case = Case((0, EPOCH))
    case.received()
    case.send([1, 2, 3], [1])
    case.engine.answer(SessionExpiredError("alice", 1.0))
    assert ["session_expired"] == [error["code"] for error in case.received()]


def test_a_stream_that_is_told_to_end_answers_what_is_in_flight():
    """With its own word last."""
    case = Case((0, EPOCH))
    case.received()
    case.send(*steps(1))
    case.send(*steps(2, 1))
    case.stream.end(DrainingError())
    assert ([], None) == (case.received(), case.stream.close)
    case.engine.answer()
    case.engine.answer()
    assert [[0, 1], [0, 1], [2, 3], "draining"] == [
        each if isinstance(each, list) else each["code"] for each in case.received()
    ]
    assert (1012, "draining") == case.stream.close


def test_a_stream_may_end_before_it_has_begun():
    """Its only answer is why; the look is not waited for."""
    stream = Stream(Limits(100, 10), lambda: None)
    engine = Script()
    stream.begin(engine, KEY, None, None)
    stream.end(DrainingError())
    assert engine.jobs[0].is_cancelled
    engine.jobs[0].complete(session(0))
    assert ["draining"] == [json.loads(data)["code"] for _, data in stream.answers()]


def test_what_is_abandoned_is_cancelled():
    """Nobody is told anything more."""
    case = Case((0, EPOCH))
    case.received()
    case.send(*steps(3))
    case.send(*steps(2, 3))
    case.stream.abandon()
    assert [True] * 2 == [job.is_cancelled for job in case.engine.jobs]
    assert ([], 0) == (case.received(), case.stream.room)


def test_an_engine_that_takes_no_look_ends_it():
    """The error is the first thing that the client hears."""
    engine = Script()
    engine.refusal = NotStreamableError("m", ["it runs backwards"])
    stream = Stream(Limits(100, 10), lambda: None)
    stream.begin(engine, KEY, None, None)
    assert ["not_streamable"] == [json.loads(data)["code"] for _, data in stream.answers()]


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ([[1, 2, 3]] * 5, "frame: expected at most 4 time steps, got 5"),
        ([1, 2, 3, 4], "frame: expected 12 bytes (3 float32 numbers) for each time step, got 16"),
        ([[1, 2, 3], [4, np.inf, 6]], "frame.4: expected a finite number, got Infinity"),
        ([], "frame: expected 12 bytes (3 float32 numbers) for each time step, got 0"),
    ],
)
def test_a_frame_of_many_steps_is_as_strict_as_one(frame, expected):
    """As a whole, or not at all."""
    case = Case((0, EPOCH), max_steps=4)
    case.received()
    case.send(frame)
    assert [] == case.requests()
    (error,) = case.received()
    assert (expected, 4422) == (error["message"], case.code)


def test_nothing_is_taken_behind_an_error():
    """A shell may have been waiting for the message when it came."""
    case = Case((0, EPOCH))
    case.send([1, 2, 3])
    case.stream.end(DrainingError())
    case.send([4, 5, 6])
    assert [0] == [request.position for request in case.requests()]


@pytest.mark.parametrize("frame", [None, "x" * 101])
def test_a_message_over_the_limit_ends_it_in_its_turn(frame):
    """Whether or not the shell has kept it; what was before it is answered."""
    case = Case(None, max_bytes=100)
    case.send([1, 2, 3], [4, 5, 6], frame)
    case.engine.answer()
    assert 2 == len(case.received())
    case.engine.answer()
    outputs, error = case.received()
    assert ([0, 1], "body_too_large", 1009) == (outputs, error["code"], case.code)


# --- another writer, and going on after a reconnect ---


def test_a_replay_that_was_not_asked_for_is_another_writer():
    """It was the first to send the same bytes."""
    case = Case((0, EPOCH))
    case.received()
    case.send([1, 2, 3])
    case.engine.answer(replayed=True)
    assert ["position_conflict"] == [error["code"] for error in case.received()]


def test_a_step_that_names_its_position_may_be_replayed():
    """It is how the client says that it may have sent it before."""
    case = Case((1, EPOCH))
    case.received()
    case.send({"inputs": [1, 2, 3], "position": 0})
    case.engine.answer(replayed=True)
    assert [True] == [reply["replayed"] for reply in case.received()]
    # And behind it what is before the session's head, unnamed.
    case = Case((2, EPOCH))
    case.received()
    case.send({"inputs": [1, 2, 3], "position": 0}, [4, 5, 6], [7, 8, 9])
    for _ in range(2):
        case.engine.answer(replayed=True)
    assert 2 == len(case.received())
    case.engine.answer(replayed=True)
    assert ["position_conflict"] == [error["code"] for error in case.received()]


def test_a_stream_goes_on_from_the_position_that_the_client_names():
    """The hello tells the session's own; what the client may have sent before is replayed."""
    case = Case((5, EPOCH), position=3, epoch=EPOCH)
    (hello,) = case.received()
    assert (5, EPOCH) == (hello["position"], hello["epoch"])
    case.send(*steps(3), [[1, 2, 3]] * 4)
    assert [3, 4, 5, 6] == [request.position for request in case.requests()]
    for replayed in (True, True, True, False):
        case.engine.answer(replayed=replayed)
    assert 4 == len(case.received())
    assert case.stream.close is None


def test_behind_a_window_a_resumed_stream_knows_other_writers_again():
    """No more of its own steps can have been in flight when the connection broke."""
    case = Case((0, EPOCH), position=0)
    case.received()
    case.send(*steps(REPLAY_WINDOW))
    for _ in range(REPLAY_WINDOW):
        case.engine.answer(replayed=True)
    assert REPLAY_WINDOW == len(case.received())
    case.send(*steps(1, REPLAY_WINDOW))
    case.engine.answer(replayed=True)
    assert ["position_conflict"] == [error["code"] for error in case.received()]


def test_a_client_that_names_position_0_may_find_the_session_begun_by_itself():
    """Its first step's answer may be what was lost."""
    case = Case(None, position=0)
    case.received()
    case.send([1, 2, 3])
    (request,) = case.requests()
    assert (0, None, False) == (request.position, request.epoch, request.must_begin)
    case.engine.answer(replayed=True)
    assert [[0, 1]] == case.received()


@pytest.mark.parametrize(
    ("at", "position", "epoch", "code"),
    [
        ((5, EPOCH), 6, EPOCH, 4409),
        ((5, EPOCH), 5, EPOCH + 1, 4409),
        ((5, EPOCH), None, EPOCH + 1, 4409),
        ((5, EPOCH), 2, EPOCH + 1, 4409),
        (None, 1, None, 4404),
        (None, 0, EPOCH, 4404),
        (None, None, EPOCH, 4404),
    ],
)
def test_a_place_where_the_session_cannot_be_ends_it_at_once(at, position, epoch, code):
    """Behind the hello, which tells where it is; no step is taken."""
    case = Case(at, position=position, epoch=epoch)
    hello, error = case.received()
    assert "hello" == hello["type"]
    assert code == case.code
    if at is not None:
        assert at == (error["position"], error["epoch"])
    assert 0 == case.stream.room


def test_the_engine_says_whether_an_earlier_position_can_be_replayed():
    """The first step from there is a conflict where it cannot."""
    case = Case((50, EPOCH), position=3, epoch=EPOCH)
    case.received()
    case.send([1, 2, 3])
    assert [3] == [r.position for r in case.requests() if isinstance(r, AdvanceRequest)]
    case.engine.answer(PositionConflictError(50, EPOCH, "elsewhere"))
    assert ([50], 4409) == ([e["position"] for e in case.received()], case.code)
