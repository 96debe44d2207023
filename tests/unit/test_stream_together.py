"""Frames of a stream that came together: asked for as one request, answered each by its own."""

import numpy as np
import pytest

from service.domain import (
    REPLAY_WINDOW,
)
from service.errors import (
    DrainingError,
    InvalidRequestError,
    Problem,
    StateNotFiniteError,
)
from tests.unit.stream_script import EPOCH, Case, steps


def test_a_bad_frame_among_many_that_came_together_is_told_as_alone():
    """Those before it are applied, and none behind it."""
    case = Case((0, EPOCH))
    case.received()
    case.send(*steps(2), [1, np.nan, 3], *steps(2))
    assert [0, 1] == [request.position for request in case.requests()]
    case.engine.answer()
    case.engine.answer()
    *_, error = case.received()
    assert "frame.1: expected a finite number, got NaN" == error["message"]


def test_frames_that_came_together_keep_their_numbers():
    """They are asked for together, and answered each with a frame of its own."""
    case = Case((4, EPOCH))
    case.received()
    case.send(*steps(5))
    (request,) = case.requests()
    assert steps(5) == request.inputs.tolist()
    assert (4, EPOCH, True) == (request.position, request.epoch, request.are_apart)
    assert REPLAY_WINDOW - 5 == case.stream.room
    case.engine.answer()
    assert [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9]] == case.received()
    assert REPLAY_WINDOW == case.stream.room


def test_frames_that_may_have_come_before_are_asked_for_one_by_one():
    """A retry of one is told from the others, also where the client's place is in doubt."""
    case = Case((3, EPOCH), position=1)
    case.send(*steps(3))
    assert [1, 2, 3] == [request.position for request in case.requests()]
    assert not any(request.are_apart for request in case.requests())


@pytest.mark.parametrize(
    "error",
    [
        StateNotFiniteError("a state"),
        InvalidRequestError([Problem(("position",), "the session would pass the last one")]),
    ],
)
def test_frames_that_fail_together_are_asked_for_again_one_by_one(error):
    """So those before the one whose fault it is are applied, and nothing behind it."""
    case = Case((0, EPOCH))
    case.received()
    case.send(*steps(3))
    case.send(*steps(2, 3))
    assert [0, 3] == [request.position for request in case.requests()]
    case.engine.answer(error)
    later, *jobs = case.engine.jobs
    assert later.is_cancelled
    case.engine.jobs.pop(0)
    assert [0, 1, 2] == [job.request.position for job in jobs[:3]]
    assert steps(3) == [job.request.inputs[0].tolist() for job in jobs[:3]]
    assert not any(job.is_cancelled or job.request.are_apart for job in jobs[:3])
    assert [3] == [job.request.position for job in jobs[3:]]
    case.engine.answer()
    case.engine.answer(StateNotFiniteError("a state"))
    assert all(job.is_cancelled for job in case.engine.jobs)
    outputs, error = case.received()
    assert ([0, 1], "state_not_finite", 4422) == (outputs, error["code"], case.code)


def test_frames_that_fail_together_are_asked_for_again_where_something_behind_them_has_failed():
    """As their own failure would have ended the stream before it, and so it does."""
    case = Case((0, EPOCH))
    case.send(*steps(3))
    case.send("no JSON")
    case.received()
    told = case.num_told
    case.engine.answer(StateNotFiniteError("a state"))
    assert [0, 1, 2] == [request.position for request in case.requests()]
    assert (0, []) == (case.stream.room, case.received())
    case.engine.answer()
    case.engine.answer(StateNotFiniteError("a state"))
    assert told < case.num_told
    outputs, error = case.received()
    assert ([0, 1], "state_not_finite", 4422) == (outputs, error["code"], case.code)


def test_a_stream_that_is_told_to_end_ends_where_frames_fail_together():
    """The engine takes none of them again; its word is the last one."""
    case = Case((0, EPOCH))
    case.send(*steps(3))
    case.stream.end(DrainingError())
    case.received()
    told = case.num_told
    case.engine.refusal = DrainingError()
    case.engine.answer(StateNotFiniteError("a state"))
    assert told < case.num_told
    assert ["draining"] == [error["code"] for error in case.received()]
    assert (1012, "draining") == case.stream.close
