"""The rules of a session, request by request."""

import numpy as np
import pytest
from msgspec.structs import replace

from service import decisions, sessions
from service.domain import (
    MAX_POSITION,
    MAX_STORED_ANSWER_BYTES,
    REPLAY_WINDOW,
    AdvanceReply,
    AdvanceRequest,
    DeleteRequest,
    ForkRequest,
    ImportRequest,
    LookRequest,
    ResetRequest,
    SessionKey,
)
from service.errors import (
    FingerprintMismatchError,
    InvalidRequestError,
    PositionConflictError,
    SessionExpiredError,
    SessionUnknownError,
)
from service.records import LongReplay, Record
from service.signature import Signature, StateVector

SIGNATURE = Signature(
    model="m",
    fingerprint="ours",
    input_size=2,
    output_size=3,
    vocabulary=None,
    returns_sequences=True,
    state_layout=(StateVector("lstm", "h", 2), StateVector("lstm", "c", 2)),
    streaming_obstacles=(),
    layers=(),
)
KEY = SessionKey("default", "m", "alice")
NOW = 1_000_000.0


def request(value=1.0, *, position=None, epoch=None, time=1, **options):
    """Return a request for steps of one value."""
    inputs = np.full((time, 2), value, np.float32)
    return AdvanceRequest(key=KEY, inputs=inputs, position=position, epoch=epoch, **options)


def record(position=0, epoch=7):
    """Return a session's record."""
    return Record(
        fingerprint="f",
        epoch=epoch,
        position=position,
        row=np.full(4, position, np.float32),
        has_output=np.ones(1, np.bool_),
    )


def after(before, asked, *, outputs=None):
    """Return the record after a request was answered."""
    reply = AdvanceReply(
        outputs=np.zeros(3, np.float32) if outputs is None else outputs,
        position=before.position + len(asked.inputs),
        epoch=before.epoch,
    )
    row = np.full(4, reply.position, np.float32)
    return sessions.advanced(before, asked, reply, row=row, has_output=before.has_output, now=NOW)


@pytest.mark.parametrize("position", [None, 0])
def test_a_first_step_begins_a_session(position):
    """Position absent or 0 is how a session begins."""
    decision = decisions.decide(None, request(position=position), NOW)

    assert isinstance(decision, decisions.Proceed)


@pytest.mark.parametrize("options", [{"position": 3}, {"epoch": 7}, {"position": 0, "epoch": 7}])
def test_a_later_step_never_begins_a_session(options):
    """A position above 0, or an epoch, means that the caller knew a session that is gone."""
    with pytest.raises(SessionUnknownError):
        decisions.decide(None, request(**options), NOW)


@pytest.mark.parametrize(
    "asked",
    [
        LookRequest(key=KEY),
        DeleteRequest(key=KEY),
        ResetRequest(key=KEY, position=2),
        ResetRequest(key=KEY, epoch=7),
    ],
)
def test_what_needs_a_session_says_that_there_is_none(asked):
    """Reading, ending and conditional resetting do not create sessions."""
    with pytest.raises(SessionUnknownError):
        decisions.decide(None, asked, NOW)


@pytest.mark.parametrize("position", [None, 5])
@pytest.mark.parametrize("epoch", [None, 7])
def test_the_right_position_runs(position, epoch):
    """Preconditions that hold, or none, let a step run."""
    decision = decisions.decide(record(5), request(position=position, epoch=epoch), NOW)

    assert isinstance(decision, decisions.Proceed)


@pytest.mark.parametrize(
    "options", [{"position": 4}, {"position": 6}, {"epoch": 8}, {"position": 5, "epoch": 8}]
)
def test_another_position_or_epoch_conflicts_and_tells_the_truth(options):
    """A gap, another writer and another life get the session's actual place."""
    with pytest.raises(PositionConflictError) as caught:
        decisions.decide(record(5), request(**options), NOW)

    assert (5, 7) == (caught.value.position, caught.value.epoch)


@pytest.mark.parametrize(
    "asked",
    [
        ResetRequest(key=KEY, position=4),
        DeleteRequest(key=KEY, epoch=8),
        ImportRequest(
            key=KEY,
            row=np.zeros(4, np.float32),
            has_output=np.zeros(1, np.bool_),
            new_position=0,
            position=4,
        ),
    ],
)
def test_preconditions_hold_for_every_change(asked):
    """Reset, import and deletion refuse a session that is elsewhere."""
    with pytest.raises(PositionConflictError):
        decisions.decide(record(5), asked, NOW)


def test_a_retry_gets_the_first_answer():
    """The same request from the same position is answered, not applied."""
    asked = request(position=0)
    stepped = after(record(), asked)

    decision = decisions.decide(stepped, asked, NOW)

    assert isinstance(decision, decisions.Answered)
    assert stepped.replays[-1].reply is decision.reply


def test_a_retry_of_a_request_without_position_is_known_by_its_start():
    """What ran without a position can be retried with the position that it started from."""
    stepped = after(record(3), request())

    assert isinstance(decisions.decide(stepped, request(position=3), NOW), decisions.Answered)


@pytest.mark.parametrize(
    "other",
    [
        {"value": 2.0},
        {"return_state": True},
        {"return_sequences": False},
        {"mask": np.ones(1, np.bool_)},
    ],
)
def test_another_request_from_an_old_position_conflicts(other):
    """Only the very same request is a retry; position and epoch are no part of that."""
    stepped = after(record(), request(position=0))

    with pytest.raises(PositionConflictError):
        decisions.decide(stepped, request(position=0, **other), NOW)


def test_a_retry_from_another_epoch_conflicts():
    """An answer of this life is not one of another."""
    stepped = after(record(), request(position=0))

    with pytest.raises(PositionConflictError):
        decisions.decide(stepped, request(position=0, epoch=8), NOW)


def test_the_replay_window_keeps_the_last_requests():
    """The last sixteen requests are answered again, the one before them conflicts."""
    current = record()
    for position in range(REPLAY_WINDOW + 1):
        current = after(current, request(position=position))

    assert REPLAY_WINDOW == len(current.replays)
    for position in range(1, REPLAY_WINDOW + 1):
        assert isinstance(
            decisions.decide(current, request(position=position), NOW), decisions.Answered
        )
    with pytest.raises(PositionConflictError):
        decisions.decide(current, request(position=0), NOW)


def test_a_long_answer_is_computed_again_from_the_row_before():
    """An answer over the limit is not kept; the state that it came from is, for one request."""
    before = record(2)
    long = np.zeros(MAX_STORED_ANSWER_BYTES // 4 + 1, np.float32)
    stepped = after(before, request(position=2), outputs=long)

    decision = decisions.decide(stepped, request(position=2), NOW)

    assert isinstance(decision, decisions.Recompute)
    assert before.row is decision.replay.row_before
    again = after(stepped, request(position=3))
    assert not any(isinstance(replay, LongReplay) for replay in again.replays)
    with pytest.raises(PositionConflictError):
        decisions.decide(again, request(position=2), NOW)


def test_a_state_of_other_weights_is_refused():
    """An import that names a fingerprint must name the model's."""
    asked = ImportRequest(
        key=KEY,
        row=np.zeros(4, np.float32),
        has_output=np.zeros(1, np.bool_),
        new_position=0,
        fingerprint="other",
    )

    with pytest.raises(FingerprintMismatchError):
        sessions.new_life(sessions.fresh_record(SIGNATURE, NOW, None), asked)


def test_a_step_that_must_begin_a_session_does_not_go_on_with_one():
    """A caller who saw no session is told that there is one by now."""
    assert isinstance(decisions.decide(None, request(must_begin=True), NOW), decisions.Proceed)
    with pytest.raises(PositionConflictError, match="there is one"):
        decisions.decide(record(0), request(must_begin=True), NOW)


def test_no_session_passes_the_last_position():
    """Beyond what a JSON number tells exactly no request could name the position again."""
    last = record(MAX_POSITION)

    assert isinstance(decisions.decide(record(MAX_POSITION - 1), request(), NOW), decisions.Proceed)
    with pytest.raises(InvalidRequestError, match="reset it"):
        decisions.decide(last, request(), NOW)


def expiring(ttl_s=10.0):
    """Return the record of a session that was last touched now."""
    return replace(record(5), touched_at=NOW, ttl_s=ttl_s)


@pytest.mark.parametrize(
    "asked",
    [
        request(),
        request(position=5),
        request(position=0),
        LookRequest(key=KEY),
        ForkRequest(key=KEY, target="bob"),
    ],
    ids=["step", "step-at-position", "step-at-0", "look", "fork"],
)
def test_an_ended_session_is_told_from_an_unknown_one(asked):
    """Until somebody begins it anew, a session past its time to live is gone, not absent."""
    assert isinstance(decisions.decide(expiring(), replace_position(asked), NOW + 9.9), KINDS)
    with pytest.raises(SessionExpiredError, match="10 s"):
        decisions.decide(expiring(), asked, NOW + 10.0)


KINDS = decisions.Proceed | decisions.Answered


def replace_position(asked):
    """Return a request that the session at position 5 would take."""
    return replace(asked, position=5) if isinstance(asked, AdvanceRequest) else asked


@pytest.mark.parametrize("asked", [ResetRequest(key=KEY), DeleteRequest(key=KEY)])
def test_an_ended_session_can_be_reset_and_deleted(asked):
    """Both end its being told as ended."""
    assert isinstance(decisions.decide(expiring(), asked, NOW + 99), decisions.Proceed)


def test_a_session_is_forgotten_after_its_tombstone():
    """Long after its end it counts as none, and at once for who means to begin it."""
    asked = LookRequest(key=KEY)

    assert decisions.known(expiring(), asked, NOW + 19.9, 10.0) is not None
    assert decisions.known(expiring(), asked, NOW + 20.0, 10.0) is None
    assert decisions.known(expiring(), request(must_begin=True), NOW + 11.0, 10.0) is None
    assert decisions.known(record(5), asked, NOW + 1e9, 10.0) is not None


def test_each_step_puts_the_end_off():
    """The time to live slides from the last applied request, and steps keep it."""
    stepped = after(replace(expiring(), touched_at=NOW - 5), request())

    assert (NOW, 10.0, NOW + 10) == (stepped.touched_at, stepped.ttl_s, stepped.expires_at)


def test_a_reset_sets_the_time_to_live():
    """A new life has the time to live that it is given, or the default."""
    fresh = sessions.fresh_record(SIGNATURE, NOW, 60.0)

    assert 5.0 == sessions.new_life(fresh, ResetRequest(key=KEY, ttl_s=5.0)).ttl_s
    assert 60.0 == sessions.new_life(fresh, ResetRequest(key=KEY)).ttl_s


def test_a_fork_inherits_all_but_the_replays():
    """A copy is at the same place with the same state and time to live, in a life of its own."""
    original = after(expiring(), request())

    copy = sessions.forked(original, NOW + 3)

    assert (original.position, original.fingerprint, 10.0, NOW + 3, ()) == (
        copy.position,
        copy.fingerprint,
        copy.ttl_s,
        copy.touched_at,
        copy.replays,
    )
    assert original.row.tolist() == copy.row.tolist()
    assert original.epoch != copy.epoch
