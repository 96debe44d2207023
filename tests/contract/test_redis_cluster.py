"""What a Redis store does when its buckets are on several servers, that fail and move apart."""

import asyncio
import signal

import pytest

from service.errors import StoreLostError, StoreUnavailableError
from service.stores.base import Commit, Outcome
from service.stores.redis import RedisStore
from service.stores.redis.keys import SLOTS, locate
from tests.contract import redis_sessions
from tests.contract.redis_server import RedisCluster, is_followed, shared_cluster, wait_for
from tests.contract.redis_sessions import key, record

TIMEOUT_S = 0.5
IDS = [f"c{n}" for n in range(64)]


async def commit(store, before, after, *client_ids):
    """Make one change to several sessions, and return their outcomes without repetitions."""
    commits = [Commit(key(client_id), before, after) for client_id in client_ids]
    return set(await store.commit_many(commits))


async def positions(store, *client_ids):
    """Return where several sessions are, without repetitions."""
    loaded = await store.load_many([key(client_id) for client_id in client_ids])
    return {each and each.position for each in loaded}


def slot(client_id):
    """Return the hash slot that a session is in."""
    return SLOTS[locate(key(client_id))[0]]


def sessions_of(server):
    """Return which of `IDS` a server has."""
    names = set(server.admin.keys("{lstm:*}:default:*"))
    return [each for each in IDS if locate(key(each))[1] in names]


@pytest.fixture(scope="module")
def cluster():
    """Three masters that other tests use too."""
    return shared_cluster()


def opened(cluster):
    """Open a store for as long as the block lasts, set up if it was not."""
    return redis_sessions.opened(cluster.url, timeout_s=TIMEOUT_S)


@pytest.fixture
async def store(cluster):
    """A store in it with a session for each of `IDS`."""
    for server in cluster.servers:
        server.admin.flushall()
    async with opened(cluster) as store:
        await commit(store, None, record(), *IDS)
        yield store


async def test_sessions_are_spread(cluster, store):
    """Each server has its share, and a call goes to each of them once."""
    before = [server.admin.info("stats") for server in cluster.servers]
    assert {Outcome.COMMITTED} == await commit(store, record(), record(1), *IDS)
    after = [server.admin.info("stats") for server in cluster.servers]

    sizes = [len(sessions_of(server)) for server in cluster.servers]
    assert sum(sizes) == len(IDS)
    assert min(sizes) > len(IDS) / 6
    # Besides ours each has run the question for its figures.
    ran = [
        now["total_commands_processed"] - then["total_commands_processed"]
        for then, now in zip(before, after, strict=True)
    ]
    assert sizes == pytest.approx([(count - 1) / 4 for count in ran], abs=1)


async def test_one_empty_server_stops_its_own_sessions_only(cluster, store):
    """Its sessions are not taken for new ones; the others go on; accepting keeps them."""
    emptied = cluster.servers[1]
    lost = sessions_of(emptied)
    kept = [each for each in IDS if each not in lost]
    emptied.admin.flushall()

    with pytest.raises(StoreLostError):
        await commit(store, None, record(), *lost)
    with pytest.raises(StoreLostError):
        await positions(store, *IDS)
    with pytest.raises(StoreUnavailableError, match="a part of it"):
        await commit(store, record(), record(1), *IDS)
    assert {1} == await positions(store, *kept)
    with pytest.raises(StoreLostError):
        await store.check()
    assert 0 == emptied.admin.dbsize()

    assert await store.initialise()
    assert {1} == await positions(store, *kept)
    assert {Outcome.CONFLICT} == await commit(store, record(), record(1), *lost)
    assert {Outcome.COMMITTED} == await commit(store, None, record(), *lost)


async def test_a_bucket_may_move_at_any_time(cluster, store):
    """While it moves its sessions wait at worst, and then are found where it went."""
    one = IDS[0]
    here = next(each for each in cluster.servers if one in sessions_of(each))
    there = next(each for each in cluster.servers if each is not here)
    ids = {id(each): each.admin.execute_command("CLUSTER", "MYID") for each in (here, there)}

    def announce(server, *what):
        server.admin.execute_command("CLUSTER", "SETSLOT", slot(one), *what)

    def move(count):
        names = here.admin.execute_command("CLUSTER", "GETKEYSINSLOT", slot(one), count)
        here.admin.migrate("127.0.0.1", there.port, names, 0, 1000)

    announce(there, "IMPORTING", ids[id(here)])
    announce(here, "MIGRATING", ids[id(there)])
    assert {Outcome.COMMITTED} == await commit(store, record(), record(1), *IDS)

    # Some keys here and some there: nothing is run, neither here nor there.
    here.admin.migrate("127.0.0.1", there.port, [locate(key(one))[1]], 0, 1000)
    with pytest.raises(StoreUnavailableError, match="TRYAGAIN"):
        await commit(store, record(1), record(2), one)
    waiting = asyncio.create_task(commit(store, record(1), record(2), one))
    await asyncio.sleep(0.05)

    # All keys there, and the slot still here.
    move(1000)
    assert {Outcome.COMMITTED} == await waiting
    assert {Outcome.COMMITTED} == await commit(store, record(2), record(3), one)
    assert {3} == await positions(store, one)

    for server in (there, here):
        announce(server, "NODE", ids[id(there)])
    assert {Outcome.COMMITTED} == await commit(store, record(3), record(4), one)
    assert {4} == await positions(store, one)
    others = [each for each in IDS if slot(each) != slot(one)]
    assert {1} == await positions(store, *others)


async def test_a_stopped_server_does_not_hold_up_the_others(cluster, store):
    """Calls to it fail in time; calls to the others work at once."""
    stopped = cluster.servers[0]
    theirs = sessions_of(stopped)
    others = [each for each in IDS if each not in theirs]
    stopped.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(StoreUnavailableError, match="no answer"):
            await commit(store, record(), record(1), *theirs)
        assert {Outcome.COMMITTED} == await commit(store, record(), record(1), *others)
        with pytest.raises(StoreUnavailableError):
            await store.check()
    finally:
        stopped.process.send_signal(signal.SIGCONT)

    await store.check()
    assert {1} == await positions(store, *others)
    assert await positions(store, *theirs) <= {0, 1}


@pytest.mark.usefixtures("store")
async def test_each_server_has_its_own_replicas_to_wait_for(cluster):
    """`min_replicas` holds in a cluster too: here are none."""
    strict = RedisStore(cluster.url, timeout_s=TIMEOUT_S, min_replicas=1)

    with pytest.raises(StoreUnavailableError, match="0 replicas acknowledge"):
        await strict.open()

    await strict.close()


async def test_a_replica_takes_over(tmp_path):
    """The server of the URL dies, and its sessions go on where its replica has them."""
    quick = ("cluster-node-timeout", "500")
    cluster = RedisCluster(tmp_path, quick, has_replica=True)
    try:
        async with opened(cluster) as store:
            await commit(store, None, record(), *IDS)
            wait_for(lambda: is_followed(cluster.servers[0]), "the replica does not catch up")
            cluster.servers[0].stop()
            with pytest.raises(StoreUnavailableError):
                await commit(store, record(), record(1), *IDS)
            async with asyncio.timeout(20):
                while not await is_well(store):
                    await asyncio.sleep(0.05)

            theirs = sessions_of(cluster.replica)
            assert {Outcome.COMMITTED} == await commit(store, record(), record(1), *theirs)
            assert {1} == await positions(store, *theirs)
    finally:
        cluster.stop()


async def is_well(store):
    """Tell whether a store passes its check."""
    try:
        await store.check()
    except StoreUnavailableError:
        return False
    return True
