"""What becomes of sessions when Redis, or the way to it, fails."""

import asyncio
import signal
import socket
import time
from contextlib import contextmanager, suppress
from functools import partial

import pytest

from service.errors import StoreLostError, StoreUnavailableError
from service.stores.base import Commit, Outcome
from service.stores.redis import RedisStore
from tests.contract import redis_sessions
from tests.contract.lagging_proxy import lagging_proxy
from tests.contract.redis_server import is_followed, redis_server, wait_for
from tests.contract.redis_sessions import commit, key, position, record

TIMEOUT_S = 0.5
SLACK_S = 0.5
"""What a machine with other things to do may add."""


opened = partial(redis_sessions.opened, timeout_s=TIMEOUT_S)


@pytest.fixture
def server(tmp_path):
    """A server of the test's own."""
    with redis_server(tmp_path) as server:
        yield server


@pytest.fixture
async def store(server):
    """A store in it with one session."""
    async with opened(server.url) as store:
        await commit(store, None, record())
        yield store


async def test_a_crash_loses_nothing_from_an_append_only_file(tmp_path):
    """What was committed is there after `kill -9` of Redis; the store finds back by itself."""
    durable = [("appendonly", "yes"), ("appendfsync", "always")]
    with redis_server(tmp_path, *durable) as server:
        async with opened(server.url) as store:
            await commit(store, None, record(3))
            server.stop()
            with pytest.raises(StoreUnavailableError):
                await store.check()
            server.start()

            await store.check()
            assert 3 == await position(store)


@pytest.mark.parametrize("how", ["restart", "flush"])
async def test_a_store_that_came_back_empty_is_not_touched(server, store, how):
    """Nothing is read from it or written to it until an operator accepts the loss."""
    if how == "restart":
        server.stop()
        server.start()
        await asyncio.sleep(0.05)
    else:
        server.admin.flushall()

    with pytest.raises(StoreLostError):
        await commit(store, record(), record(1))
    with pytest.raises(StoreLostError):
        await commit(store, None, record(), "bob")
    with pytest.raises(StoreLostError):
        await position(store)
    with pytest.raises(StoreLostError):
        await store.check()
    with pytest.raises(StoreLostError):
        await store.open()
    assert 0 == server.admin.dbsize()

    assert await store.initialise()
    assert not await store.initialise()
    assert Outcome.CONFLICT == await commit(store, record(), record(1))
    assert Outcome.COMMITTED == await commit(store, None, record())


async def test_what_another_process_set_up_is_noticed(server, store):
    """A running process takes over the store's new identity with its next check."""
    server.admin.flushall()
    async with opened(server.url) as other:
        await commit(other, None, record(7))
        with pytest.raises(StoreLostError):
            await commit(store, record(), record(1))

        await store.check()

        assert Outcome.CONFLICT == await commit(store, record(), record(1))
        assert 7 == await position(store)


async def test_several_who_set_it_up_agree(server):
    """Processes that are started together on an empty store end with one identity."""
    stores = [RedisStore(server.url) for _ in range(8)]

    assert any(await asyncio.gather(*(store.initialise() for store in stores)))

    for store in stores:
        await store.open()
        await store.close()


@contextmanager
def stopped(server):
    """A process that is stopped: it takes connections and bytes, and answers nothing."""
    server.process.send_signal(signal.SIGSTOP)
    yield
    server.process.send_signal(signal.SIGCONT)


@contextmanager
def paused(server):
    """A server that answers, but puts off what may write."""
    server.admin.client_pause(60_000, all=False)
    yield
    server.admin.client_unpause()


@contextmanager
def gone(server):
    """A server that refuses connections, and comes back with what it held."""
    server.admin.config_set("appendonly", "yes")
    wait_for(lambda: not server.admin.info()["aof_rewrite_in_progress"], "no append-only file")
    server.stop(signal.SIGTERM)
    yield
    server._options = (("appendonly", "yes"),)  # noqa: SLF001
    server.start()


@contextmanager
def replica(server):
    """A server that has become another one's replica, as after a failover."""
    server.admin.config_set("replica-serve-stale-data", "yes")
    server.admin.replicaof("127.0.0.1", 1)
    yield
    server.admin.replicaof("NO", "ONE")


@contextmanager
def configured(server, name, value):
    """A server with another setting."""
    [before] = server.admin.config_get(name).values()
    server.admin.config_set(name, value)
    yield
    server.admin.config_set(name, before)


def out_of_memory(server):
    """A server without room for more."""
    return configured(server, "maxmemory", "1")


def without_replicas(server):
    """A server that wants replicas and has none."""
    return configured(server, "min-replicas-to-write", "1")


@contextmanager
def disk_full(server):
    """A server that could not write its snapshot, and therefore takes no more writes."""
    obstacle = server.directory / "dump.rdb"
    obstacle.mkdir()
    with configured(server, "save", "3600 1"):
        server.admin.bgsave()
        status = lambda: server.admin.info()["rdb_last_bgsave_status"]  # noqa: E731
        wait_for(lambda: status() == "err", "the snapshot was written")
        yield
        obstacle.rmdir()
        server.admin.bgsave()
        wait_for(lambda: status() == "ok", "the snapshot was not written")


@contextmanager
def busy(server):
    """A server in a script that does not end."""
    server.admin.config_set("busy-reply-threshold", "10")
    with socket.create_connection(("127.0.0.1", server.port)) as runaway:
        runaway.sendall(b'EVAL "while true do end" 0\r\n')
        time.sleep(0.05)
        yield
        server.admin.script_kill()


HINDRANCES = [
    stopped,
    paused,
    gone,
    replica,
    out_of_memory,
    without_replicas,
    disk_full,
    busy,
]


@pytest.mark.parametrize("hindrance", HINDRANCES, ids=lambda each: each.__name__)
async def test_a_hindered_store_says_so_in_time_and_recovers(server, store, hindrance):
    """Commits and checks fail within the timeout, the loop stays free, and all is well after."""
    with hindrance(server):
        await asyncio.sleep(0.02)
        for call in (commit(store, record(), record(1)), store.check()):
            began = time.perf_counter()
            ticking = asyncio.create_task(longest_pause())
            with pytest.raises(StoreUnavailableError):
                await call
            ticking.cancel()
            assert time.perf_counter() - began < TIMEOUT_S + SLACK_S
            assert (await ticking) < TIMEOUT_S

    await store.check()
    at = await position(store)
    assert at in {0, 1}
    assert Outcome.COMMITTED == await commit(store, record(at), record(at + 1))
    assert at + 1 == await position(store)


async def test_a_failure_is_told_once(server, store, caplog):
    """Not with every attempt to open it again, a part of which succeeds."""
    with replica(server):
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                await store.open()

    assert 1 == caplog.text.count("redis fails")


async def longest_pause():
    """Return how long the event loop did not run this, at most, until it is cancelled."""
    longest, last = 0.0, time.perf_counter()
    try:
        while True:
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
    except asyncio.CancelledError:
        return longest


async def test_sessions_can_be_read_while_memory_is_full(server, store):
    """Only what would need more room is refused."""
    with out_of_memory(server):
        assert 0 == await position(store)
        assert Outcome.COMMITTED == await commit(store, record(), None)


async def test_a_connection_that_was_cut_between_calls_costs_nothing(server, store):
    """The end of an idle connection is seen before anything is sent over it."""
    server.admin.client_kill_filter(_type="normal", skipme=True)
    await asyncio.sleep(0.05)

    assert Outcome.COMMITTED == await commit(store, record(), record(1))


@pytest.mark.parametrize(("cut", "expected"), [("request", 0), ("answer", 1)])
async def test_a_commit_that_was_cut_off_is_there_or_not(server, cut, expected):
    """It is made once or never, not sent again, and reading tells which."""
    async with lagging_proxy(server.port) as proxy:
        far = RedisStore(f"redis://127.0.0.1:{proxy.port}", timeout_s=TIMEOUT_S)
        await far.initialise()
        await far.open()
        await commit(far, None, record())
        calls = server.num_calls("evalsha")
        proxy.cuts = cut

        with pytest.raises(StoreUnavailableError, match="no connection"):
            await commit(far, record(), record(1))

        assert expected == server.num_calls("evalsha") - calls
        assert expected == await position(far)
        await far.close()


async def test_late_answers_meet_nobody(server, store):
    """After a timeout or a cancellation no call gets the answer of another."""
    await store.commit_many([Commit(key(f"c{n}"), None, record(n)) for n in range(1, 9)])
    with stopped(server):
        abandoned = [asyncio.create_task(position(store, f"c{n}")) for n in range(1, 5)]
        await asyncio.sleep(0.05)
        for task in abandoned[:2]:
            task.cancel()
        results = await asyncio.gather(*abandoned, return_exceptions=True)
    kinds = [asyncio.CancelledError] * 2 + [StoreUnavailableError] * 2
    assert kinds == [type(result) for result in results]

    numbers = list(range(1, 9))
    assert numbers == await asyncio.gather(*(position(store, f"c{n}") for n in numbers))


async def test_many_calls_share_few_connections(server):
    """Calls beyond the limit wait for a connection and need no more of them."""
    async with opened(server.url, timeout_s=10.0) as store:
        await asyncio.gather(*(position(store) for _ in range(200)))

        assert server.admin.info()["connected_clients"] <= 1 + 16


async def recovered(store):
    """Wait until a store takes commits again."""
    async with asyncio.timeout(20):
        while True:
            with suppress(StoreUnavailableError):
                return await store.check()
            await asyncio.sleep(0.05)


async def test_replicas_are_waited_for(tmp_path):
    """With `min_replicas` a commit counts when they have it, and only then is it told."""
    directories = [tmp_path / name for name in ("master", "replica")]
    for directory in directories:
        directory.mkdir()
    with redis_server(directories[0]) as master:
        following = ("replicaof", "127.0.0.1", str(master.port))
        master.admin.config_set("repl-diskless-sync-delay", "0")
        with redis_server(directories[1], following) as follower:
            wait_for(lambda: is_followed(master), "the replica did not join")
            master.admin.set("written", "")
            wait_for(lambda: master.admin.wait(1, 1000) == 1, "the replica did not catch up")
            async with opened(master.url, min_replicas=1) as store:
                assert Outcome.COMMITTED == await commit(store, None, record())
                assert 0 == await position(store)
                with stopped(follower):
                    for call in (
                        commit(store, record(), record(1)),
                        position(store),
                        store.check(),
                    ):
                        with pytest.raises(StoreUnavailableError, match="0 replicas acknowledge"):
                            await call
                await recovered(store)
                assert 1 == await position(store)
