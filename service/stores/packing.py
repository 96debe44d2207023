"""A session's record as few bytes, for this process's memory alone.

Not for disks and not for other processes: no format number, no checksum, and what many sessions
have in common is kept once, beside the bytes. They begin with what compare-and-set compares; then
come the row, the flags where not all are set, and the replays, whose bytes stay the same from one
record of the session to the next. Knows no store.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np

from service.domain import AdvanceReply, Bool
from service.records import LongReplay, Record, Replay

_STAMP = struct.Struct("<QQQ")
_HEAD = struct.Struct("<QQQddH")
"""The version, touched_at, ttl_s (NaN: none), and which of the kinds."""
_LIFETIME = struct.Struct("<dd")
_STEP = struct.Struct("<HB16sQ")
"""Of a replay: its size in bytes, its form, its digest and where it started. Outputs follow."""
_WIDE = struct.Struct("<HB16sQIQIQ")
"""Where it is not that of a step: 0 in the place of the size, and behind the start the size, where
it ended, the size of a step's output or the number of flags, and the number of steps in it."""
_SIZE = struct.Struct("<I")

_IS_LONG, _HAS_TIME, _HAS_ROW = 1, 2, 4


@dataclass(frozen=True, slots=True)
class _Kind:
    """What few records differ in, and every one has.

    Attributes:
        num_flags: How many flags stand behind the row: none where all are set.
        all_set: The flags then, one read-only array for all sessions; else None.
    """

    fingerprint: str
    state_size: int
    num_flags: int
    all_set: Bool | None


_Common = tuple[str, int, int, bool]
"""What tells kinds apart: fingerprint, state size, number of flags, and whether all are set."""


class UnpackedRecord(Record, eq=False, gc=False):
    """A record that was made of bytes. What a step makes of it is not one."""


class PackedReplay(Replay, eq=False, gc=False):
    """A replay that was made of bytes, with them, for the session's next record.

    Attributes:
        packed: The bytes.
    """

    packed: bytes = b""


def is_version(packed: bytes, record: Record) -> bool:
    """Tell whether bytes are those of a record, by its version."""
    return packed.startswith(_STAMP.pack(record.epoch, record.position, record.nonce))


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
        self._kinds: list[_Kind] = []
        self._numbers: dict[_Common, int] = {}

    def pack(self, record: Record) -> bytes:
        """Return a record as bytes."""
        row, flags, ttl_s = record.row, record.has_output.tobytes(), record.ttl_s
        are_all_set = 0 not in flags
        common = (record.fingerprint, len(row), len(flags), are_all_set)
        number = self._numbers.get(common)
        if number is None:
            number = self._add_kind(common)
        parts = [
            _HEAD.pack(
                record.epoch,
                record.position,
                record.nonce,
                record.touched_at,
                math.nan if ttl_s is None else ttl_s,
                number,
            ),
            row.tobytes(),
        ]
        if not are_all_set:
            parts.append(flags)
        parts += [
            each.packed if isinstance(each, PackedReplay) else _pack_replay(each)
            for each in record.replays
        ]
        return b"".join(parts)

    def _add_kind(self, common: _Common) -> int:
        fingerprint, state_size, num_flags, are_all_set = common
        number = self._numbers[common] = len(self._kinds)
        all_set = None
        if are_all_set:
            all_set = np.ones(num_flags, np.bool_)
            all_set.flags.writeable = False
            num_flags = 0
        self._kinds.append(_Kind(fingerprint, state_size, num_flags, all_set))
        return number

    def unpack(self, packed: bytes) -> Record:
        """Return the record that bytes were made of. Its arrays look into them."""
        epoch, position, nonce, touched_at, ttl_s, number = _HEAD.unpack_from(packed)
        kind = self._kinds[number]
        row = np.frombuffer(packed, np.float32, kind.state_size, _HEAD.size)
        at = _HEAD.size + row.nbytes
        has_output = kind.all_set
        if has_output is None:
            has_output = np.frombuffer(packed, np.bool_, kind.num_flags, at)
            at += kind.num_flags
        replays: list[Replay | LongReplay] = []
        while at < len(packed):
            size = (
                packed[at] + 256 * packed[at + 1] or _SIZE.unpack_from(packed, at + _STEP.size)[0]
            )
            replays.append(_unpack_replay(packed[at : at + size], epoch))
            at += size
        return UnpackedRecord(
            kind.fingerprint,
            epoch,
            position,
            row,
            has_output,
            touched_at,
            None if math.isnan(ttl_s) else ttl_s,
            tuple(replays),
            nonce,
        )


def _pack_replay(replay: Replay | LongReplay) -> bytes:
    if isinstance(replay, LongReplay):
        before, flags = replay.row_before.tobytes(), replay.has_output_before.tobytes()
        return _pack_wide(_IS_LONG, replay, 0, len(flags), 0, flags + before)
    reply = replay.reply
    outputs, row = reply.outputs, reply.row
    has_time = outputs.ndim == 2
    form = _HAS_TIME if has_time else 0
    num_times = len(outputs) if has_time else 1
    data = outputs.tobytes()
    size = _STEP.size + len(data)
    if num_times == 1 and reply.position == replay.start + 1 and row is None and size < 65_536:
        return _STEP.pack(size, form, replay.digest, replay.start) + data
    if row is not None:
        form |= _HAS_ROW
        data += row.tobytes()
    return _pack_wide(form, replay, reply.position, outputs.shape[-1], num_times, data)


def _pack_wide(
    form: int,
    replay: Replay | LongReplay,
    end: int,
    width: int,
    num_times: int,
    data: bytes,
) -> bytes:
    size = _WIDE.size + len(data)
    head = _WIDE.pack(0, form, replay.digest, replay.start, size, end, width, num_times)
    return head + data


def _unpack_replay(packed: bytes, epoch: int) -> Replay | LongReplay:
    size, form, digest, start = _STEP.unpack_from(packed)
    if size:
        outputs = np.frombuffer(packed, np.float32, offset=_STEP.size)
        if form & _HAS_TIME:
            outputs = outputs[None]
        return PackedReplay(start, digest, AdvanceReply(outputs, start + 1, epoch), None, packed)
    *_, end, width, num_times = _WIDE.unpack_from(packed)
    at = _WIDE.size
    if form & _IS_LONG:
        flags = np.frombuffer(packed, np.bool_, width, at)
        before = np.frombuffer(packed, np.float32, offset=at + width)
        return LongReplay(start=start, digest=digest, row_before=before, has_output_before=flags)
    outputs = np.frombuffer(packed, np.float32, num_times * width, at)
    at += outputs.nbytes
    row = np.frombuffer(packed, np.float32, offset=at) if form & _HAS_ROW else None
    if form & _HAS_TIME:
        outputs = outputs.reshape(num_times, width)
    return PackedReplay(start, digest, AdvanceReply(outputs, end, epoch, row=row), None, packed)
