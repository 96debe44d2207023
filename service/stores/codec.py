"""A session's record as bytes: versioned, bound to its session, and checked.

What compare-and-set compares stands at `STAMP`, so that a store need not read further. The
bytes end with a checksum over all before it and the session's key: bytes of another
session, of another program or of a failing disk are never read as a state. Little-endian
throughout. Knows no store.
"""

from __future__ import annotations

import math
import struct
from zlib import crc32

import numpy as np

from service.domain import AdvanceReply, Float32, SessionKey
from service.records import LongReplay, Record, Replay

STAMP = slice(8, 32)
"""Where a record's `version` is: records of one session with the same stamp are the same record."""

_MAGIC = b"LSTM"
_FORMAT = 1

_HEAD = struct.Struct("<4sBBHQQQddHHI")
"""Magic, format, replays, (nothing), epoch, position, nonce, touched_at, ttl_s (NaN: none), the
lengths of fingerprint and flags, and the state's size."""
_REPLAY = struct.Struct("<BBHIQ16sQII")
"""Kind, the outputs' dimensions, flags' length, length of what follows, start, digest, the position
after it, output size, and the length of the row."""
_STAMP = struct.Struct("<QQQ")
_CHECKSUM = struct.Struct("<I")

_SHORT, _LONG = 0, 1


class DamagedRecordError(Exception):
    """Bytes are no record of the session. The message says what is wrong with them."""


def stamp(record: Record) -> bytes:
    """Return what stands at `STAMP` of a record's bytes."""
    return _STAMP.pack(*record.version)


def encode(key: SessionKey, record: Record) -> bytes:
    """Return the bytes of a session's record."""
    fingerprint = record.fingerprint.encode()
    parts = [
        _HEAD.pack(
            _MAGIC,
            _FORMAT,
            len(record.replays),
            0,
            *record.version,
            record.touched_at,
            math.nan if record.ttl_s is None else record.ttl_s,
            len(fingerprint),
            len(record.has_output),
            len(record.row),
        ),
        fingerprint,
        record.has_output.tobytes(),
        record.row.tobytes(),
    ]
    for replay in record.replays:
        if replay.encoded is None:
            replay.encoded = _encode_replay(replay)
        parts.append(replay.encoded)
    body = b"".join(parts)
    return body + _CHECKSUM.pack(crc32(body, _seed(key)))


def decode(key: SessionKey, data: bytes) -> Record:
    """Return the record that a session's bytes hold.

    Raises:
        DamagedRecordError: They hold none, or another session's.
    """
    if len(data) < _HEAD.size + _CHECKSUM.size or data[:4] != _MAGIC:
        raise DamagedRecordError("these are not the bytes of a session")
    if data[4] != _FORMAT:
        raise DamagedRecordError(f"format {data[4]} is not known here, only {_FORMAT}")
    end = len(data) - _CHECKSUM.size
    body = memoryview(data)[:end]
    if _CHECKSUM.unpack_from(data, end)[0] != crc32(body, _seed(key)):
        raise DamagedRecordError("the checksum does not fit: damaged, or another session's bytes")
    try:
        return _decode_body(data)
    except (struct.error, ValueError) as error:
        # Whole, but written by another program, as one of another version that kept the number.
        raise DamagedRecordError(f"the layout does not fit: {error}") from error


def _decode_body(data: bytes) -> Record:
    (
        _,
        _,
        num_replays,
        _,
        epoch,
        position,
        nonce,
        touched_at,
        ttl_s,
        fingerprint_length,
        num_flags,
        state_size,
    ) = _HEAD.unpack_from(data)
    at = _HEAD.size
    fingerprint = data[at : at + fingerprint_length].decode()
    at += fingerprint_length
    has_output = np.frombuffer(data, np.bool_, num_flags, at)
    at += num_flags
    row = np.frombuffer(data, "<f4", state_size, at)
    at += row.nbytes
    replays = []
    for _ in range(num_replays):
        replay, at = _decode_replay(data, at, epoch)
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


def _seed(key: SessionKey) -> int:
    return crc32("\0".join(key).encode())


def _encode_replay(replay: Replay | LongReplay) -> bytes:
    if isinstance(replay, LongReplay):
        flags = replay.has_output_before.tobytes()
        row = replay.row_before.tobytes()
        lengths = (len(flags), len(flags) + len(row))
        head = _REPLAY.pack(
            _LONG, 0, *lengths, replay.start, replay.digest, 0, 0, len(replay.row_before)
        )
        return head + flags + row
    outputs = replay.reply.outputs
    row = b"" if replay.reply.row is None else replay.reply.row.tobytes()
    body = outputs.tobytes() + row
    after = (replay.reply.position, outputs.shape[-1], len(row) // 4)
    head = _REPLAY.pack(_SHORT, outputs.ndim, 0, len(body), replay.start, replay.digest, *after)
    return head + body


def _decode_replay(data: bytes, at: int, epoch: int) -> tuple[Replay | LongReplay, int]:
    """Return the replay at an offset of a record's bytes, and the offset behind it."""
    (kind, ndim, num_flags, length, start, digest, position, output_size, row_size) = (
        _REPLAY.unpack_from(data, at)
    )
    begin = at + _REPLAY.size
    end = begin + length
    row = np.frombuffer(data, "<f4", row_size, end - 4 * row_size)
    if kind == _LONG:
        flags = np.frombuffer(data, np.bool_, num_flags, begin)
        return LongReplay(
            start=start,
            digest=digest,
            row_before=row,
            has_output_before=flags,
            encoded=data[at:end],
        ), end
    outputs: Float32 = np.frombuffer(data, "<f4", (end - begin) // 4 - row_size, begin)
    reply = AdvanceReply(
        outputs=outputs.reshape(-1, output_size) if ndim == 2 else outputs,
        position=position,
        epoch=epoch,
        row=row if row_size else None,
    )
    return Replay(start=start, digest=digest, reply=reply, encoded=data[at:end]), end
