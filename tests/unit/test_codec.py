"""Records as bytes."""

from zlib import crc32

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.domain import AdvanceReply, SessionKey
from service.records import Record, Replay
from service.stores import codec

KEY = SessionKey("default", "m", "alice")


def record():
    """Return a record with an answer in it."""
    reply = AdvanceReply(outputs=np.ones(3, np.float32), position=6, epoch=9)
    return Record(
        fingerprint="f" * 64,
        epoch=9,
        position=6,
        row=np.arange(8, dtype=np.float32),
        has_output=np.ones(1, np.bool_),
        replays=(Replay(start=5, digest=b"d" * 16, reply=reply),),
    )


def test_bytes_hold_the_record():
    """What was encoded is decoded, and encodes to the same bytes again."""
    data = codec.encode(KEY, record())

    decoded = codec.decode(KEY, data)

    assert (9, 6, "f" * 64, None) == (
        decoded.epoch,
        decoded.position,
        decoded.fingerprint,
        decoded.ttl_s,
    )
    assert list(range(8)) == decoded.row.tolist()
    assert data == codec.encode(KEY, decoded)


def test_the_stamp_is_where_it_is_said_to_be():
    """A store compares epoch and position in the bytes themselves."""
    committed = record()
    assert codec.stamp(committed) == codec.encode(KEY, committed)[codec.STAMP]


@given(st.data())
def test_no_damage_is_read_as_a_state(data):
    """Any flipped bit and any missing end is found."""
    encoded = bytearray(codec.encode(KEY, record()))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(0, 8 * len(encoded) - 1))
        encoded[at // 8] ^= 1 << at % 8
    else:
        del encoded[data.draw(st.integers(0, len(encoded) - 1)) :]

    with pytest.raises(codec.DamagedRecordError):
        codec.decode(KEY, bytes(encoded))


def test_bytes_belong_to_one_session():
    """A record that was copied to another key is not read."""
    with pytest.raises(codec.DamagedRecordError, match="another session's"):
        codec.decode(KEY._replace(client_id="bob"), codec.encode(KEY, record()))


def test_a_format_of_the_future_is_named():
    """An older replica tells that it cannot read a newer one's record."""
    encoded = bytearray(codec.encode(KEY, record()))
    encoded[4] = 200

    with pytest.raises(codec.DamagedRecordError, match="format 200 is not known here"):
        codec.decode(KEY, bytes(encoded))


def test_a_foreign_layout_is_no_record():
    """Bytes whose checksum fits but whose lengths do not fail for their session alone."""
    body = codec.encode(KEY, record())[:-4].replace(b"f" * 64, b"\xff" * 64)

    with pytest.raises(codec.DamagedRecordError, match="the layout does not fit"):
        codec.decode(KEY, body + crc32(body, crc32(b"default\0m\0alice")).to_bytes(4, "little"))
