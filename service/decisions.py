"""Whether a request of a session runs, was answered before, or is refused.

Pure: no input or output, no clock, no event loop, no arithmetic.
"""

from __future__ import annotations

from dataclasses import dataclass

from service.domain import (
    MAX_POSITION,
    AdvanceReply,
    AdvanceRequest,
    DeleteRequest,
    ForkRequest,
    ImportRequest,
    LookRequest,
    Request,
    ResetRequest,
)
from service.errors import (
    InvalidRequestError,
    PositionConflictError,
    Problem,
    SessionExpiredError,
    SessionUnknownError,
)
from service.records import LongReplay, Record, Replay


@dataclass(frozen=True, slots=True)
class Proceed:
    """The request runs from the session's state."""


_PROCEED = Proceed()


@dataclass(frozen=True, slots=True)
class Answered:
    """The request ran before; `reply` is what it was answered."""

    reply: AdvanceReply


@dataclass(frozen=True, slots=True)
class Recompute:
    """The request ran before, and its answer is computed again from the state before it."""

    replay: LongReplay


Decision = Proceed | Answered | Recompute


def known(record: Record | None, request: Request, now: float, tombstone_s: float) -> Record | None:
    """Return the record that a request meets: None where what there was counts as none.

    Args:
        record: What is kept of the session.
        request: What is asked.
        now: Seconds since 1970.
        tombstone_s: How long an ended session is told from one that never was.
    """
    if record is None:
        return None
    advance = request if isinstance(request, AdvanceRequest) else None
    if record.is_ended or (advance is not None and advance.begins_anew):
        return record if advance is not None and _is_retry(record, advance, now) else None
    if now < record.expires_at:
        return record
    begins = advance is not None and advance.must_begin
    return None if begins or now >= record.expires_at + tombstone_s else record


def _is_retry(record: Record, request: AdvanceRequest, now: float) -> bool:
    """Tell whether what begins or ends a session is the very request that did."""
    if request.position is None or not record.replays:
        return False
    last = record.replays[-1]
    return (
        last.start == request.position
        and (record.is_ended or now < record.expires_at)
        and (request.epoch is None or request.epoch == record.epoch)
        and last.digest == request.digest()
    )


def goes_on(record: Record, request: AdvanceRequest, now: float) -> bool:
    """Tell whether a request simply goes on from a record; what `decide` says first, in short.

    Args:
        record: The session as it is.
        request: What is asked.
        now: Seconds since 1970.
    """
    return (
        (request.position is None or request.position == record.position)
        and (request.epoch is None or request.epoch == record.epoch)
        and not request.must_begin
        and not request.begins_anew
        and (record.ttl_s is None or now < record.touched_at + record.ttl_s)
        and record.position + len(request.inputs) <= MAX_POSITION
    )


def decide(record: Record | None, request: Request, now: float) -> Decision:
    """Decide what a request in its turn does.

    Args:
        record: The session as it is, or None where there is none.
        request: What is asked.
        now: Seconds since 1970.

    Raises:
        SessionUnknownError: The session does not exist and the request cannot begin it.
        SessionExpiredError: Its time to live is over and the request cannot begin it anew.
        PositionConflictError: The session is elsewhere, or in another epoch.
        InvalidRequestError: The session would come to a position that no number can tell.
    """
    if isinstance(request, AdvanceRequest) and record is not None and goes_on(record, request, now):
        return _PROCEED
    if (
        record is not None
        and record.ttl_s is not None
        and now >= record.expires_at
        and not record.is_ended
        and isinstance(request, (AdvanceRequest, LookRequest, ForkRequest))
    ):
        raise SessionExpiredError(request.key.client_id, record.ttl_s)
    if isinstance(request, AdvanceRequest):
        return _decide_advance(record, request)
    if isinstance(request, ResetRequest | ImportRequest | DeleteRequest):
        if record is not None:
            _expect(record, request.position, request.epoch)
        elif request.position or request.epoch is not None:
            raise SessionUnknownError(request.key.client_id)
    if record is None and not isinstance(request, ResetRequest | ImportRequest):
        raise SessionUnknownError(request.key.client_id)
    if record is not None and isinstance(request, LookRequest):
        _expect(record, request.position, request.epoch)
    return _PROCEED


def _decide_advance(record: Record | None, request: AdvanceRequest) -> Decision:
    if record is None:
        if request.position or request.epoch is not None or request.must_exist:
            raise SessionUnknownError(request.key.client_id)
        return _PROCEED
    if request.must_begin:
        problem = "the request begins a session, but there is one"
        raise PositionConflictError(record.position, record.epoch, problem)
    if request.position is None or request.position == record.position:
        _expect(record, request.position, request.epoch)
        text = f"the session would pass {MAX_POSITION}, the last one; reset it"
        raise InvalidRequestError([Problem(("position",), text)])
    if request.epoch is None or request.epoch == record.epoch:
        digest = request.digest()
        for replay in reversed(record.replays):
            if replay.start == request.position and replay.digest == digest:
                return Answered(replay.reply) if isinstance(replay, Replay) else Recompute(replay)
            if replay.start == request.position:
                problem = f"another request ran from position {request.position}"
                raise PositionConflictError(record.position, record.epoch, problem)
    _expect(record, request.position, request.epoch)
    raise AssertionError("unreachable: the positions differ")


def _expect(record: Record, position: int | None, epoch: int | None) -> None:
    if epoch is not None and epoch != record.epoch:
        problem = f"the request is for epoch {epoch}"
        raise PositionConflictError(record.position, record.epoch, problem)
    if position is not None and position != record.position:
        problem = f"the request starts from position {position}"
        raise PositionConflictError(record.position, record.epoch, problem)


def may_join(record: Record, request: AdvanceRequest, num_before: int) -> bool:
    """Tell whether a step may run in one piece with those before it, as if each ran alone.

    Args:
        record: Where the first of them starts from.
        request: The step.
        num_before: Steps between the two.
    """
    position = record.position + num_before
    return (
        is_plain_step(request)
        and (request.position is None or request.position == position)
        and (request.epoch is None or request.epoch == record.epoch)
        and position < MAX_POSITION
    )


def is_plain_step(request: AdvanceRequest) -> bool:
    """Tell whether a request is for one step and nothing else."""
    return (
        len(request.inputs) == 1
        and request.mask is None
        and not request.return_state
        and not request.must_begin
        and not request.begins_anew
        and not request.ends
    )
