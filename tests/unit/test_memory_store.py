"""What is the memory store's own: its limit, and sessions that it packs."""

import numpy as np
import pytest
from msgspec.structs import replace

from service.domain import REPLAY_WINDOW, SessionKey
from service.errors import PositionConflictError, TooManySessionsError
from service.limits import EngineLimits
from service.records import Record
from service.stores.base import Commit, Outcome
from service.stores.memory import MemoryStore
from tests.unit.engines import inputs, make_engine, step


def record():
    """Return a session's record."""
    return Record(
        fingerprint="f",
        epoch=1,
        position=0,
        row=np.zeros(2, np.float32),
        has_output=np.zeros(1, np.bool_),
    )


async def test_a_full_store_buries_what_need_not_be_known_any_more():
    """Searching for it takes a while, so where there was nothing it is not searched at once."""
    now = 1000.0
    store = MemoryStore(max_sessions=1, tombstone_s=5.0, clock=lambda: now)
    alice, bob = (SessionKey("default", "m", name) for name in ("alice", "bob"))
    mortal = replace(record(), touched_at=now, ttl_s=10.0)
    await store.commit_many([Commit(alice, None, mortal)])

    assert [Outcome.FULL] == await store.commit_many([Commit(bob, None, record())])
    now = 1015.5
    assert [Outcome.COMMITTED] == await store.commit_many([Commit(bob, None, record())])
    assert [Outcome.FULL] == await store.commit_many([Commit(alice, None, record())])
    assert [None] == await store.load_many([alice])


async def test_a_full_store_refuses_new_sessions_only():
    """At the limit the sessions that exist go on, and an ended one makes room."""
    store = MemoryStore(max_sessions=1)
    alice, bob = (SessionKey("default", "m", name) for name in ("alice", "bob"))
    first = record()

    assert [Outcome.COMMITTED] == await store.commit_many([Commit(alice, None, first)])
    assert [Outcome.FULL] == await store.commit_many([Commit(bob, None, record())])
    assert [Outcome.COMMITTED] == await store.commit_many([Commit(alice, first, None)])
    assert [Outcome.COMMITTED] == await store.commit_many([Commit(bob, None, record())])


async def test_a_session_that_was_packed_goes_on_as_if_it_had_not_been():
    """Two sessions take turns in a store that keeps one of them as it is."""
    store = MemoryStore(max_sessions=2, num_recent=1)
    engine = make_engine(store=store, limits=EngineLimits(arena_rows=3, max_pending=1))
    await engine.start()
    (x,) = inputs(1)
    first = await engine.ask(step(x, "alice", position=0))
    for position in range(3):
        await engine.ask(step(x, "bob", position=position))
    for name in ("carol", "dave"):
        with pytest.raises(TooManySessionsError):
            await engine.ask(step(x, name))

    again = await engine.ask(step(x, "alice", position=0))
    second = await engine.ask(step(x, "alice", position=1))

    assert first.outputs.tobytes() == again.outputs.tobytes()
    assert (1, 2) == (again.position, second.position)
    assert first.epoch == again.epoch == second.epoch
    listed, _ = await store.list_sessions("default", "m", 10, None)
    assert [("alice", 2), ("bob", 3)] == [(each.client_id, each.position) for each in listed]
    await engine.drain()


async def test_a_packed_session_is_only_changed_by_who_has_read_it():
    """The version is compared in the bytes; what was loaded is another object than was kept."""
    store = MemoryStore(max_sessions=2, num_recent=0)
    alice = SessionKey("default", "m", "alice")
    first, second = record(), replace(record(), position=1)
    await store.commit_many([Commit(alice, None, first)])
    (loaded,) = await store.load_many([alice])
    assert isinstance(loaded, Record)

    assert [Outcome.CONFLICT] == await store.commit_many([Commit(alice, None, second)])
    assert [Outcome.CONFLICT] == await store.commit_many([Commit(alice, second, None)])
    assert [Outcome.COMMITTED] == await store.commit_many([Commit(alice, loaded, second)])
    assert [Outcome.CONFLICT] == await store.commit_many([Commit(alice, loaded, None)])


async def test_a_session_is_kept_as_it_is_once_its_step_finds_it_at_hand():
    """Until others have been so more lately; one that is loaded for each step stays packed."""
    store = MemoryStore(max_sessions=2, num_recent=1)
    alice, bob = (SessionKey("default", "m", name) for name in ("alice", "bob"))
    records = [replace(record(), position=position) for position in range(4)]

    async def load(key):
        (loaded,) = await store.load_many([key])
        assert isinstance(loaded, Record)
        return loaded

    async def commit(key, before, after):
        assert [Outcome.COMMITTED] == await store.commit_many([Commit(key, before, after)])
        return await load(key) is after

    assert not await commit(alice, None, records[0])
    assert not await commit(alice, await load(alice), records[1])
    assert await commit(alice, records[1], records[2])
    assert await commit(alice, records[2], records[3])
    assert not await commit(bob, None, records[0])
    assert await commit(bob, records[0], records[1])
    assert records[3] is not await load(alice)
    assert records[3].version == (await load(alice)).version


async def test_the_last_answers_of_a_packed_session_are_given_again():
    """Each step finds the session packed, and passes its earlier answers on."""
    engine = make_engine(
        store=MemoryStore(max_sessions=9, num_recent=0),
        limits=EngineLimits(arena_rows=3, max_pending=1),
    )
    await engine.start()
    xs = inputs(REPLAY_WINDOW + 2)
    first = []
    for position, x in enumerate(xs):
        first.append(await engine.ask(step(x, "alice", position=position)))
        for name in ("bob", "carol", "dave"):
            await engine.ask(step(x, name))

    again = [
        await engine.ask(step(x, "alice", position=position))
        for position, x in enumerate(xs)
        if position >= 2
    ]
    with pytest.raises(PositionConflictError):
        await engine.ask(step(xs[1], "alice", position=1))

    assert [reply.outputs.tobytes() for reply in first[2:]] == [
        reply.outputs.tobytes() for reply in again
    ]
    assert list(range(3, REPLAY_WINDOW + 3)) == [reply.position for reply in again]
    assert all(reply.replayed for reply in again)
    await engine.drain()


async def test_packed_sessions_end_and_make_room():
    """A full store buries those too."""
    now = 1000.0
    store = MemoryStore(max_sessions=1, tombstone_s=5.0, num_recent=0, clock=lambda: now)
    alice, bob = (SessionKey("default", "m", name) for name in ("alice", "bob"))
    await store.commit_many([Commit(alice, None, replace(record(), touched_at=now, ttl_s=10.0))])

    now = 1011.0
    assert ([], None) == await store.list_sessions("default", "m", 10, None)
    assert [Outcome.FULL] == await store.commit_many([Commit(bob, None, record())])
    now = 1015.5
    assert [Outcome.COMMITTED] == await store.commit_many([Commit(bob, None, record())])
    assert [None] == await store.load_many([alice])
