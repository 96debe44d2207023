"""A session's record as few bytes, for this process's memory alone.

Not for disks and not for other processes: no format number, no checksum, and what many sessions
have in common is kept once, beside the bytes. They begin with what compare-and-set compares.
Knows no store.
"""

from __future__ import annotations

import math
import struct

import numpy as np

from service.domain import AdvanceReply, LongReplay, Record, Replay

_STAMP = struct.Struct("<QQQ")
_HEAD = struct.Struct("<QQQddH")
"""The version, touched_at, ttl_s (NaN: none), and which of the kinds."""
_LIFETIME = struct.Struct("<dd")
_SMALL = struct.Struct("<B16sBBH")
_WIDE = struct.Struct("<B16sQQIQ")
"""Of a replay: its form, its digest, how far before the record's position it started and ended, and
the size of a step's output; where these are large or unusual, the number of steps too."""

_IS_LONG, _HAS_TIME, _HAS_ROW, _IS_WIDE = 1, 2, 4, 8

Kind = tuple[str, int, int]
"""Fingerprint, state size and number of flags: few, but in every record."""


def is_version(packed: bytes, record: Record) -> bool:
    """Tell whether bytes are those of a record, by its version."""
    return packed.startswith(_STAMP.pack(*record.version))


def position_and_epoch(packed: bytes) -> tuple[int, int]:
    """Return where a packed session is, and in which life."""
    epoch, position, _ = _STAMP.unpack_from(packed)
    return position, epoch


def expires_at(packed: bytes) -> float:
    """Return when a packed session's time to live is over, in seconds since 1970."""
    touched_at, ttl_s = _LIFETIME.unpack_from(packed, _STAMP.size)
    return math.inf if math.isnan(ttl_s) else touched_at + ttl_s


class Packer:
    """What makes bytes of records and records of bytes; only the same packer reads its own."""

    def __init__(self) -> None:
        """Begin with no kind."""
        self._kinds: list[Kind] = []
        self._numbers: dict[Kind, int] = {}

    def pack(self, record: Record) -> bytes:
        """Return a record as bytes."""
        kind = (record.fingerprint, len(record.row), len(record.has_output))
        number = self._numbers.get(kind)
        if number is None:
            number = self._numbers[kind] = len(self._kinds)
            self._kinds.append(kind)
        ttl_s = math.nan if record.ttl_s is None else record.ttl_s
        parts = [
            _HEAD.pack(*record.version, record.touched_at, ttl_s, number),
            record.has_output.tobytes(),
            record.row.tobytes(),
        ]
        for replay in record.replays:
            _pack_replay(replay, record.position, parts)
        return b"".join(parts)

    def unpack(self, packed: bytes) -> Record:
        """Return the record that bytes were made of. Its arrays look into the bytes."""
        epoch, position, nonce, touched_at, ttl_s, number = _HEAD.unpack_from(packed)
        fingerprint, state_size, num_flags = self._kinds[number]
        at = _HEAD.size
        has_output = np.frombuffer(packed, np.bool_, num_flags, at)
        at += num_flags
        row = np.frombuffer(packed, np.float32, state_size, at)
        at += row.nbytes
        replays: list[Replay | LongReplay] = []
        while at < len(packed):
            replay, at = _unpack_replay(packed, at, epoch, position, state_size, num_flags)
            replays.append(replay)
        return Record(
            fingerprint=fingerprint,
            epoch=epoch,
            position=position,
            row=row,
            has_output=has_output,
            touched_at=touched_at,
            ttl_s=None if math.isnan(ttl_s) else ttl_s,
            replays=tuple(replays),
            nonce=nonce,
        )


def _pack_replay(replay: Replay | LongReplay, position: int, parts: list[bytes]) -> None:
    """Append the bytes of a replay of a record at a position."""
    began = position - replay.start
    if isinstance(replay, LongReplay):
        parts.append(_WIDE.pack(_IS_LONG | _IS_WIDE, replay.digest, began, 0, 0, 0))
        parts.append(replay.has_output_before.tobytes())
        parts.append(replay.row_before.tobytes())
        return
    reply = replay.reply
    outputs, row = reply.outputs, reply.row
    form = (_HAS_TIME if outputs.ndim == 2 else 0) | (0 if row is None else _HAS_ROW)
    num_times = len(outputs) if outputs.ndim == 2 else 1
    output_size = outputs.shape[-1]
    ended = position - reply.position
    is_usual = outputs.ndim == 1 or num_times == began - ended
    if is_usual and 0 <= ended <= began < 256 and output_size < 65_536:
        parts.append(_SMALL.pack(form, replay.digest, began, ended, output_size))
    else:
        form |= _IS_WIDE
        parts.append(_WIDE.pack(form, replay.digest, began, ended, output_size, num_times))
    parts.append(outputs.tobytes())
    if row is not None:
        parts.append(row.tobytes())


def _unpack_replay(
    packed: bytes, at: int, epoch: int, position: int, state_size: int, num_flags: int
) -> tuple[Replay | LongReplay, int]:
    """Return the replay at an offset of a record's bytes, and the offset behind it."""
    form = packed[at]
    has_time = bool(form & _HAS_TIME)
    if form & _IS_WIDE:
        _, digest, began, ended, output_size, num_times = _WIDE.unpack_from(packed, at)
        at += _WIDE.size
    else:
        _, digest, began, ended, output_size = _SMALL.unpack_from(packed, at)
        num_times = began - ended if has_time else 1
        at += _SMALL.size
    start = position - began
    if form & _IS_LONG:
        flags = np.frombuffer(packed, np.bool_, num_flags, at)
        at += num_flags
        before = np.frombuffer(packed, np.float32, state_size, at)
        long = LongReplay(start=start, digest=digest, row_before=before, has_output_before=flags)
        return long, at + before.nbytes
    outputs = np.frombuffer(packed, np.float32, num_times * output_size, at)
    at += outputs.nbytes
    row = None
    if form & _HAS_ROW:
        row = np.frombuffer(packed, np.float32, state_size, at)
        at += row.nbytes
    reply = AdvanceReply(
        outputs=outputs.reshape(num_times, output_size) if has_time else outputs,
        position=position - ended,
        epoch=epoch,
        row=row,
    )
    return Replay(start=start, digest=digest, reply=reply), at
