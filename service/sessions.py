"""The rules of a session: whether a request runs, and what it leaves behind.

Pure: no input or output, no clock, no event loop, no arithmetic.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from msgspec.structs import replace

from service.domain import (
    ENDING_S,
    MAX_POSITION,
    MAX_STORED_ANSWER_BYTES,
    REPLAY_WINDOW,
    AdvanceReply,
    AdvanceRequest,
    Bool,
    DeleteRequest,
    Float32,
    ForkRequest,
    ImportRequest,
    LongReplay,
    LookRequest,
    Record,
    Replay,
    Request,
    ResetRequest,
    new_nonce,
)
from service.errors import (
    FingerprintMismatchError,
    InvalidRequestError,
    PositionConflictError,
    Problem,
    SessionExpiredError,
    SessionUnknownError,
)
from service.signature import Signature

_EPOCH_BITS = 53  # what a JSON number carries exactly


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


def new_epoch() -> int:
    """Return a random number for a new life."""
    return secrets.randbits(_EPOCH_BITS)


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


def advanced(
    before: Record,
    request: AdvanceRequest,
    reply: AdvanceReply,
    row: Float32,
    has_output: Bool,
    now: float,
) -> Record:
    """Return the record of a session that has taken a request's steps.

    Args:
        before: What it was; a new session's is at position 0 of its new epoch.
        request: What was asked.
        reply: Its answer.
        row: `(state_size,)` float32, the new state.
        has_output: `(recurrent layers,)` bool, the new flags.
        now: Seconds since 1970.
    """
    if request.are_apart:
        replays = _replays_apart(before, request, reply)
        return _next(before, replays, reply.position, row, has_output, now)
    num_bytes = reply.outputs.nbytes + (0 if reply.row is None else reply.row.nbytes)
    replay: Replay | LongReplay
    if num_bytes <= MAX_STORED_ANSWER_BYTES:
        replay = Replay(before.position, request.digest(), reply)
    else:
        replay = LongReplay(
            start=before.position,
            digest=request.digest(),
            row_before=before.row,
            has_output_before=before.has_output,
        )
    return _next(before, (replay,), reply.position, row, has_output, now)


def _replays_apart(before: Record, request: AdvanceRequest, reply: AdvanceReply) -> list[Replay]:
    """Return what is kept of the steps of one request as if each had been a request."""
    start, epoch = before.position, before.epoch
    return [
        Replay(position, digest, AdvanceReply(output, position + 1, epoch))
        for position, (digest, output) in enumerate(
            zip(request.digests_apart(), reply.outputs, strict=True), start
        )
    ]


def advanced_together(
    before: Record,
    steps: Iterable[tuple[AdvanceRequest, AdvanceReply]],
    *,
    row: Float32,
    has_output: Bool,
    now: float,
) -> Record:
    """Return the record of a session that has taken steps in one piece, as if each ran alone.

    Args:
        before: As for `advanced`.
        steps: What was asked, with the answers, all short enough to be kept, in the order of their
            steps.
        row: As for `advanced`, after the last step.
        has_output: Likewise.
        now: Seconds since 1970.
    """
    replays = []
    position = before.position
    for request, reply in steps:
        replays.append(Replay(position, request.digest(), reply))
        position = reply.position
    return _next(before, replays, position, row, has_output, now)


def _next(
    before: Record,
    replays: Sequence[Replay | LongReplay],
    position: int,
    row: Float32,
    has_output: Bool,
    now: float,
) -> Record:
    kept = before.replays
    if kept and isinstance(kept[-1], LongReplay):
        # Only the last request may be computed again: older states are not kept.
        kept = kept[:-1]
    num_over = len(kept) + len(replays) - REPLAY_WINDOW
    return Record(
        before.fingerprint,
        before.epoch,
        position,
        row,
        has_output,
        now,
        before.ttl_s,
        (*kept, *replays) if num_over <= 0 else (*kept, *replays)[num_over:],
        new_nonce(),
    )


def ended(record: Record, request: AdvanceRequest, tombstone_s: float) -> Record | None:
    """Return what is kept of a session that a request has ended; None: nothing.

    Args:
        record: What the request made of it.
        request: It; without a position no other one can be known as its retry.
        tombstone_s: How long the store keeps what has ended.
    """
    if request.position is None:
        return None
    return replace(record, ttl_s=min(0.0, ENDING_S - tombstone_s), replays=record.replays[-1:])


def fresh_record(signature: Signature, now: float, ttl_s: float | None) -> Record:
    """Return what a session of a model begins as: zeros, at position 0 of a new epoch.

    Args:
        signature: The model's.
        now: Seconds since 1970.
        ttl_s: How long after its last request it ends, in seconds; None means never.
    """
    return Record(
        fingerprint=signature.fingerprint,
        epoch=new_epoch(),
        position=0,
        row=np.zeros(signature.state_size, np.float32),
        has_output=np.zeros(signature.num_recurrent, np.bool_),
        touched_at=now,
        ttl_s=ttl_s,
    )


def new_life(fresh: Record, request: ResetRequest | ImportRequest) -> Record:
    """Return what a session is after a reset or an import.

    Args:
        fresh: What a session without a state begins as.
        request: What is asked.

    Raises:
        FingerprintMismatchError: An imported state belongs to other weights.
    """
    if isinstance(request, ResetRequest):
        return replace(
            fresh,
            row=fresh.row if request.row is None else request.row,
            ttl_s=fresh.ttl_s if request.ttl_s is None else request.ttl_s,
        )
    if request.fingerprint not in (None, fresh.fingerprint):
        remedy = "to take it over all the same, leave the fingerprint out"
        raise FingerprintMismatchError(fresh.fingerprint, str(request.fingerprint), remedy)
    return replace(
        fresh, position=request.new_position, row=request.row, has_output=request.has_output
    )


def forked(record: Record, now: float) -> Record:
    """Return the record of a new session with the state, position and time to live of another."""
    return replace(record, epoch=new_epoch(), touched_at=now, replays=(), nonce=new_nonce())
