"""Records as few bytes."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from msgspec.structs import replace

from service.domain import AdvanceReply
from service.records import LongReplay, Record, Replay
from service.stores import packing

WORDS = st.integers(0, 2**64 - 1)
SECONDS = st.floats(0, 1e12, allow_nan=False)
STATE_SIZE = 6
ROWS = arrays(np.float32, STATE_SIZE)
FLAGS = arrays(np.bool_, 2)


@st.composite
def records(draw):
    """Draw a record with every kind of replay."""
    epoch = draw(WORDS)
    position = draw(st.integers(0, 2**53 - 1))

    def replay():
        start = draw(st.integers(max(0, position - 400), position))
        digest = draw(st.binary(min_size=16, max_size=16))
        if draw(st.booleans()):
            return LongReplay(
                start=start, digest=digest, row_before=draw(ROWS), has_output_before=draw(FLAGS)
            )
        end = draw(st.integers(start, position))
        shape = draw(st.sampled_from([(3,), (max(1, end - start), 3), (2, 1)]))
        reply = AdvanceReply(
            outputs=draw(arrays(np.float32, shape)),
            position=end,
            epoch=epoch,
            row=draw(st.none() | ROWS),
        )
        return Replay(start=start, digest=digest, reply=reply)

    return Record(
        fingerprint=draw(st.sampled_from(["a" * 64, "b" * 64])),
        epoch=epoch,
        position=position,
        row=draw(ROWS),
        has_output=draw(FLAGS),
        touched_at=draw(SECONDS),
        ttl_s=draw(st.none() | SECONDS),
        replays=tuple(replay() for _ in range(draw(st.integers(0, 3)))),
        nonce=draw(WORDS),
    )


def told(value):
    """Return everything that a record holds, to compare: an array by its type, shape and bytes."""
    if isinstance(value, np.ndarray):
        return (value.dtype, value.shape, value.tobytes())
    if isinstance(value, tuple):
        return tuple(map(told, value))
    for kind in (Record, Replay, LongReplay, AdvanceReply):
        if isinstance(value, kind):
            return (kind, *(told(getattr(value, name)) for name in kind.__struct_fields__))
    return value


@given(st.lists(records(), min_size=1, max_size=3))
def test_nothing_of_a_record_is_lost(drawn):
    """Whatever a session has, it has again; records of several models take turns."""
    packer = packing.Packer()

    packed = [packer.pack(record) for record in drawn]

    assert list(map(told, drawn)) == [told(packer.unpack(each)) for each in packed]


@given(records(), st.integers(0, 1000))
def test_replays_go_from_record_to_record_as_they_are(record, num_steps):
    """The next record has them from their bytes, wherever the session has gone meanwhile."""
    packer = packing.Packer()
    before = packer.unpack(packer.pack(record))
    after = replace(before, position=before.position + num_steps, replays=before.replays[1:])

    again = packer.unpack(packer.pack(after))

    assert told(record.replays[1:]) == told(again.replays)
    assert told(replace(record, position=after.position, replays=after.replays)) == told(again)


@given(records())
def test_what_a_store_compares_is_read_without_unpacking(record):
    """The version, the end of the time to live, and where the session is."""
    packed = packing.Packer().pack(record)

    assert record.expires_at == packing.expires_at(packed)
    assert (record.position, record.epoch) == packing.position_and_epoch(packed)
    assert packing.is_version(packed, record)
    record.nonce ^= 1
    assert not packing.is_version(packed, record)


def test_a_session_after_a_step_has_few_bytes_beyond_its_row_and_answer():
    """There are a million of them."""
    reply = AdvanceReply(outputs=np.ones((1, 8), np.float32), position=1, epoch=9)
    record = Record(
        fingerprint="f" * 64,
        epoch=9,
        position=1,
        row=np.zeros(256, np.float32),
        has_output=np.ones(1, np.bool_),
        replays=(Replay(start=0, digest=b"d" * 16, reply=reply),),
    )

    assert len(packing.Packer().pack(record)) <= 4 * 256 + 4 * 8 + 71
    assert math.isinf(record.expires_at)
