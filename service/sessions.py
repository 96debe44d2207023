"""What a request makes of a session's record, once it is decided that it runs.

Pure: no input or output, no clock, no event loop, no arithmetic.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence

import numpy as np
from msgspec.structs import replace

from service.domain import (
    ENDING_S,
    MAX_STORED_ANSWER_BYTES,
    REPLAY_WINDOW,
    AdvanceReply,
    AdvanceRequest,
    Bool,
    Float32,
    ImportRequest,
    ResetRequest,
)
from service.errors import (
    FingerprintMismatchError,
)
from service.records import LongReplay, Record, Replay, new_nonce
from service.signature import Signature

_EPOCH_BITS = 53  # what a JSON number carries exactly


def new_epoch() -> int:
    """Return a random number for a new life."""
    return secrets.randbits(_EPOCH_BITS)


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
