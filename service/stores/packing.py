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
from typing import Any

import numpy as np

from service.domain import AdvanceReply, Bool, Float32, LongReplay, Record, Replay

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

_FLOAT32 = np.dtype(np.float32)
_FORM_AT = 2
_IS_LONG, _HAS_TIME, _HAS_ROW = 1, 2, 4


@dataclass(frozen=True, slots=True)
class _Kind:
    """What few records differ in, and every one has.

    Attributes:
        shape: Of the row.
        num_flags: How many flags stand behind the row: none where all are set.
        all_set: The flags then, one read-only array for all sessions; else None.
    """

    fingerprint: str
    shape: tuple[int]
    num_flags: int
    all_set: Bool | None


_Common = tuple[str, int, int, bool]
"""What tells kinds apart: fingerprint, state size, number of flags, and whether all are set."""


class UnpackedRecord(Record):
    """A record that was made of bytes. What a step makes of it is not one."""

    __slots__ = ()


class PackedReplay(Replay):
    """A replay that is read from its bytes when somebody asks for it; few ever do.

    Attributes:
        packed: The bytes.
        epoch: The session's.
    """

    __slots__ = ("epoch", "packed")

    def __init__(self, packed: bytes, epoch: int) -> None:
        """Read nothing yet: what the dataclass has is missing, which calls `__getattr__`."""
        self.packed = packed
        self.epoch = epoch
        self.encoded = None

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever it is
        """Read all of it, and return what was asked for."""
        if name not in ("start", "digest", "reply"):
            raise AttributeError(name)
        self.start, self.digest, self.reply = _read_replay(self.packed, self.epoch)
        return getattr(self, name)


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
        self._kinds.append(_Kind(fingerprint, (state_size,), num_flags, all_set))
        return number

    def unpack(self, packed: bytes) -> Record:
        """Return the record that bytes were made of. Its arrays look into them."""
        epoch, position, nonce, touched_at, ttl_s, number = _HEAD.unpack_from(packed)
        kind = self._kinds[number]
        # Not frombuffer(), which takes twice as long.
        row: Float32 = np.ndarray(kind.shape, _FLOAT32, packed, _HEAD.size)
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
            replay = packed[at : at + size]
            is_long = replay[_FORM_AT] & _IS_LONG
            replays.append(_read_long(replay) if is_long else PackedReplay(replay, epoch))
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


def _read_replay(packed: bytes, epoch: int) -> tuple[int, bytes, AdvanceReply]:
    """Return where a packed replay started, its digest and its reply."""
    size, form, digest, start = _STEP.unpack_from(packed)
    row = None
    if size:
        end = start + 1
        outputs = np.frombuffer(packed, np.float32, offset=_STEP.size)
        if form & _HAS_TIME:
            outputs = outputs[None]
    else:
        *_, end, width, num_times = _WIDE.unpack_from(packed)
        outputs = np.frombuffer(packed, np.float32, num_times * width, _WIDE.size)
        if form & _HAS_ROW:
            row = np.frombuffer(packed, np.float32, offset=_WIDE.size + outputs.nbytes)
        if form & _HAS_TIME:
            outputs = outputs.reshape(num_times, width)
    return start, digest, AdvanceReply(outputs, end, epoch, row=row)


def _read_long(packed: bytes) -> LongReplay:
    _, _, digest, start, _, _, num_flags, _ = _WIDE.unpack_from(packed)
    return LongReplay(
        start=start,
        digest=digest,
        has_output_before=np.frombuffer(packed, np.bool_, num_flags, _WIDE.size),
        row_before=np.frombuffer(packed, np.float32, offset=_WIDE.size + num_flags),
    )
