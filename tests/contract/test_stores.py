"""One suite for every `SessionStore`."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

from service.domain import AdvanceReply, SessionKey
from service.records import LongReplay, Record, Replay
from service.stores.base import Commit, Outcome
from service.stores.embedded import EmbeddedStore
from service.stores.memory import MemoryStore
from service.stores.redis import RedisStore
from tests.contract.redis_server import shared_cluster, shared_server

TOMBSTONE_S = 600.0


@asynccontextmanager
async def memory(directory, clock):
    """Open a memory store."""
    del directory
    yield MemoryStore(max_sessions=1000, tombstone_s=TOMBSTONE_S, clock=clock)


@asynccontextmanager
async def packed_memory(directory, clock):
    """Open a memory store that packs every session at once."""
    del directory
    yield MemoryStore(max_sessions=1000, tombstone_s=TOMBSTONE_S, num_recent=0, clock=clock)


@asynccontextmanager
async def redis(directory, clock, make=shared_server):
    """Open a store in a Redis server."""
    del directory
    server = make()
    for each in getattr(server, "servers", [server]):
        each.admin.flushall()
    store = RedisStore(server.url, tombstone_s=TOMBSTONE_S, clock=clock)
    await store.initialise()
    await store.open()
    yield store
    await store.close()


@asynccontextmanager
async def embedded(directory, clock):
    """Open an embedded store."""
    store = EmbeddedStore(directory, max_sessions=1000, tombstone_s=TOMBSTONE_S, clock=clock)
    await store.open()
    yield store
    await store.close()


STORES: dict[str, Callable[..., AbstractAsyncContextManager[Any]]] = {
    "memory": memory,
    "packed memory": packed_memory,
    "embedded": embedded,
    "redis": redis,
    "redis cluster": partial(redis, make=shared_cluster),
}
"""Context managers that open an empty store, given a directory of its own and a clock."""


class Clock:
    """Tells the time that it is set to, in seconds since 1970."""

    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        """Return the time."""
        return self.now


@pytest.fixture
def clock():
    """What the store takes for the time."""
    return Clock()


@pytest.fixture(params=STORES)
async def store(request, tmp_path, clock):
    """Every store that there is, open and empty."""
    async with STORES[request.param](tmp_path, clock) as opened:
        yield opened


def key(client_id, model="m", tenant="default"):
    """Return a client's key."""
    return SessionKey(tenant, model, client_id)


def record(position=0, epoch=1, nonce=1):
    """Return a session's record."""
    return Record(
        fingerprint="f",
        epoch=epoch,
        position=position,
        row=np.full(4, position, np.float32),
        has_output=np.ones(1, np.bool_),
        nonce=nonce,
    )


async def commit(store, before, after, client_id="alice"):
    """Commit one change and return its outcome."""
    [outcome] = await store.commit_many([Commit(key(client_id), before, after)])
    return outcome


async def test_what_was_committed_is_loaded(store):
    """A record comes back as it was, beside None for what is not there."""
    assert Outcome.COMMITTED == await commit(store, None, record(3))

    loaded, missing = await store.load_many([key("alice"), key("bob")])

    assert (1, 3, "f") == (loaded.epoch, loaded.position, loaded.fingerprint)
    np.testing.assert_array_equal(np.full(4, 3, np.float32), loaded.row)
    assert missing is None


@pytest.mark.parametrize(
    "expected",
    [None, record(2), record(3, epoch=2), record(3, nonce=2)],
    ids=["absent", "position", "epoch", "nonce"],
)
async def test_a_commit_on_another_state_is_a_conflict(store, expected):
    """Compare-and-set is on existence and version, and changes nothing if it fails."""
    await commit(store, None, record(3))

    assert Outcome.CONFLICT == await commit(store, expected, record(4))
    [loaded] = await store.load_many([key("alice")])
    assert 3 == loaded.position


async def test_an_equal_record_need_not_be_the_same_object(store):
    """A process that loaded the session may commit on it."""
    await commit(store, None, record(3))

    assert Outcome.COMMITTED == await commit(store, record(3), record(4))


async def test_an_ended_session_is_gone_and_may_begin_again(store):
    """A commit of nothing ends a session; a commit on nothing begins one."""
    await commit(store, None, record(3))

    assert Outcome.COMMITTED == await commit(store, record(3), None)
    assert [None] == await store.load_many([key("alice")])
    assert Outcome.CONFLICT == await commit(store, record(3), record(4))
    assert Outcome.COMMITTED == await commit(store, None, record())


async def test_a_session_that_begins_and_ends_in_one_commit_leaves_nothing(store):
    """Nor does it end one that another writer has begun."""
    assert Outcome.COMMITTED == await commit(store, None, None)
    assert [None] == await store.load_many([key("alice")])
    await commit(store, None, record(3))
    assert Outcome.CONFLICT == await commit(store, None, None)
    assert [None] != await store.load_many([key("alice")])


async def test_commits_fail_one_by_one(store):
    """A conflict does not hold up the commits beside it."""
    await commit(store, None, record(3))

    outcomes = await store.commit_many(
        [Commit(key("alice"), None, record()), Commit(key("bob"), None, record())]
    )

    assert [Outcome.CONFLICT, Outcome.COMMITTED] == outcomes


async def test_tenants_and_models_do_not_meet(store):
    """The same client id is another session under another tenant or model."""
    await commit(store, None, record(3))

    others = [key("alice", model="n"), key("alice", tenant="t")]

    assert [None, None] == await store.load_many(others)
    assert ([], None) == await store.list_sessions("default", "n", 10, None)


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
async def test_a_listing_has_every_session_once(store, limit):
    """Page by page, every session comes up exactly once, with its position and epoch."""
    ids = {f"c{i}" for i in range(7)}
    for client_id in ids:
        await commit(store, None, replace(record(5), epoch=9), client_id)

    listed, cursor = [], None
    while True:
        page, cursor = await store.list_sessions("default", "m", limit, cursor)
        assert len(page) <= limit
        listed += page
        if cursor is None:
            break

    assert sorted(ids) == sorted(summary.client_id for summary in listed)
    assert {(5, 9)} == {(summary.position, summary.epoch) for summary in listed}


async def test_a_record_comes_back_whole(store, clock):
    """Flags, times and the stored answers are kept, those that are computed again too."""
    reply = AdvanceReply(outputs=np.arange(6, dtype=np.float32).reshape(3, 2), position=4, epoch=9)
    short = AdvanceReply(
        outputs=np.ones(2, np.float32), position=5, epoch=9, row=np.full(4, 7, np.float32)
    )
    committed = replace(
        record(7, epoch=9),
        has_output=np.array([True, False]),
        touched_at=clock.now + 0.5,
        ttl_s=60.0,
        replays=(
            Replay(start=1, digest=b"a" * 16, reply=reply),
            Replay(start=4, digest=b"b" * 16, reply=short),
            LongReplay(
                start=5,
                digest=b"c" * 16,
                row_before=np.full(4, 8, np.float32),
                has_output_before=np.array([False, True]),
            ),
        ),
    )
    await commit(store, None, committed)

    [loaded] = await store.load_many([key("alice")])

    assert [True, False] == loaded.has_output.tolist()
    assert (clock.now + 0.5, 60.0) == (loaded.touched_at, loaded.ttl_s)
    first, second, last = loaded.replays
    assert (1, b"a" * 16, 4, 9) == (first.start, first.digest, first.reply.position, 9)
    assert reply.outputs.tolist() == first.reply.outputs.tolist()
    assert first.reply.row is None
    assert [1, 1] == second.reply.outputs.tolist()
    assert [7] * 4 == second.reply.row.tolist()
    assert (5, b"c" * 16) == (last.start, last.digest)
    assert ([8] * 4, [False, True]) == (last.row_before.tolist(), last.has_output_before.tolist())


async def test_an_expired_session_stays_known_for_a_while(store, clock):
    """Its record is there for as long as its end is told, but it is in no list."""
    await commit(store, None, replace(record(3), touched_at=clock.now, ttl_s=10.0))
    clock.now += TOMBSTONE_S

    [loaded] = await store.load_many([key("alice")])

    assert 3 == loaded.position
    assert ([], None) == await store.list_sessions("default", "m", 10, None)
    assert Outcome.COMMITTED == await commit(store, loaded, record(epoch=2))


async def test_a_session_that_its_last_request_ended_is_there_for_the_retry(store, clock):
    """Exactly as it was committed; in no list, and another one may take its place."""
    replay = Replay(
        start=2,
        digest=b"a" * 16,
        reply=AdvanceReply(outputs=np.ones((1, 2), np.float32), position=3, epoch=1),
    )
    ended = replace(record(3), touched_at=clock.now, ttl_s=300.0 - TOMBSTONE_S, replays=(replay,))
    await commit(store, None, record(2))
    assert Outcome.COMMITTED == await commit(store, record(2), ended)

    [loaded] = await store.load_many([key("alice")])

    assert loaded.is_ended
    assert (3, ended.ttl_s, 2) == (loaded.position, loaded.ttl_s, loaded.replays[0].start)
    assert ([], None) == await store.list_sessions("default", "m", 10, None)
    assert Outcome.CONFLICT == await commit(store, None, record(epoch=2))
    assert Outcome.COMMITTED == await commit(store, loaded, record(epoch=2))


async def test_every_key_is_listed(store):
    """A whole store can be walked, over tenants and models."""
    keys = {key("a"), key("b", model="n"), key("c", tenant="t"), key("d")}
    await store.commit_many([Commit(each, None, record()) for each in keys])

    listed, cursor = [], None
    while True:
        page, cursor = await store.list_keys(2, cursor)
        listed += page
        if cursor is None:
            break

    assert keys == set(listed)


async def test_a_store_that_is_open_can_be_checked(store):
    """A store that takes commits says so by not raising."""
    await store.check()
    assert Outcome.COMMITTED == await commit(store, None, record())
