"""What a Redis store does beyond what every store does: its data, its URLs, its trips."""

import asyncio
import time

import numpy as np
import pytest
from msgspec.structs import replace

from service.domain import SessionKey
from service.errors import InvalidRequestError, StoreUnavailableError
from service.stores.base import Commit, Damaged, Outcome
from service.stores.codec import STAMP, encode, stamp
from service.stores.redis import RedisStore
from service.stores.redis.keys import damaged_key, locate, session_of
from tests.contract.lagging_proxy import lagging_proxy
from tests.contract.redis_server import certificate, redis_server, shared_server
from tests.contract.redis_sessions import commit, key, opened, position, record

SECRET = "s3cr3t/#?@:"  # noqa: S105 - of servers that live for a test
QUOTED = "s3cr3t%2F%23%3F%40%3A"


@pytest.fixture(scope="module")
def server():
    """A server that other tests use too."""
    return shared_server()


@pytest.fixture
async def store(server):
    """An empty store in it."""
    server.admin.flushall()
    async with opened(server.url) as store:
        yield store


@pytest.mark.parametrize("num_rows", [1, 64])
async def test_a_call_is_one_trip(server, num_rows):
    """However many sessions it is about, a call waits once for the answer of Redis."""
    server.admin.flushall()
    keys = [key(f"c{n}") for n in range(num_rows)]
    async with lagging_proxy(server.port) as proxy:
        far = RedisStore(f"redis://127.0.0.1:{proxy.port}")
        await far.initialise()
        await far.open()
        proxy.lag_s = 0.4
        began = time.perf_counter()
        await far.commit_many([Commit(each, None, record()) for each in keys])
        committed = time.perf_counter()
        await far.load_many(keys)
        loaded = time.perf_counter()
        await far.check()
        checked = time.perf_counter()
        await far.close()

    trips = np.diff([began, committed, loaded, checked]) / proxy.lag_s
    assert [1, 1, 1] == np.floor(trips).tolist()


async def test_two_writers_never_both_win(server, store):
    """Of all who commit on the same state exactly one does."""
    won = []

    async def write(name, own):
        while (at := await position(own)) < 50:
            fields = {"touched_at": float(name)}
            if await commit(own, record(at), record(at + 1, **fields)) is Outcome.COMMITTED:
                won.append((at, name))

    await commit(store, None, record())
    async with opened(server.url) as other:
        await asyncio.gather(*(write(n, other if n % 2 else store) for n in range(16)))

    assert list(range(len(won))) == [at for at, _ in won]
    assert len(won) == await position(store)
    assert len({name % 2 for _, name in won}) == 2


@pytest.mark.parametrize("value", [b"", b"short", b"x" * 500, {"a": "hash"}], ids=repr)
@pytest.mark.parametrize("after", [record(), None], ids=["replaced", "ended"])
async def test_what_is_no_record_is_kept_aside(server, store, value, after):
    """Damaged and foreign values are told, replaced only by who has seen them, and kept."""
    name = locate(key())[1]
    write = server.admin.set if isinstance(value, bytes) else server.admin.hset
    write(name, value) if isinstance(value, bytes) else write(name, mapping=value)
    server.admin.expire(name, 100)

    [damaged] = await store.load_many([key()])

    assert "not the bytes of a session" in damaged.reason
    assert Outcome.CONFLICT == await commit(store, None, record())
    assert Outcome.CONFLICT == await commit(store, record(), record(1))
    assert Outcome.CONFLICT == await commit(store, Damaged(b"other", ""), record())
    assert ([], None) == await store.list_sessions("default", "m", 10, None)
    assert Outcome.COMMITTED == await commit(store, damaged, after)
    assert (after and 0) == await position(store)
    aside = damaged_key(name, damaged.data)
    assert -1 == server.admin.ttl(aside)
    is_text = isinstance(value, bytes)
    assert value == server.admin.get(aside) if is_text else server.admin.hlen(aside) == 1


async def test_another_sessions_bytes_are_damage(server, store):
    """Bytes that were copied from one key to another are not taken for a state."""
    await commit(store, None, record(3), "bob")
    server.admin.set(locate(key())[1], server.admin.get(locate(key("bob"))[1]))

    [loaded] = await store.load_many([key()])

    assert isinstance(loaded, Damaged)


def test_the_script_reads_the_stamp():
    """The bytes that `commit.lua` compares are those that the codec means."""
    assert slice(8, 32) == STAMP
    committed = replace(record(9), epoch=7)
    assert stamp(committed) == encode(key(), committed)[STAMP]


async def test_redis_itself_forgets_what_has_ended(server, store):
    """A session is kept for its time to live and the tombstone's, or for ever."""
    now = time.time()
    await commit(store, None, record(touched_at=now, ttl_s=50.0))
    await commit(store, None, record(touched_at=now - 1e9, ttl_s=50.0), "long over")
    await commit(store, None, record(touched_at=now, ttl_s=1e300), "for ages")
    await commit(store, None, record(), "for ever")

    await asyncio.sleep(0.01)

    names = ["alice", "long over", "for ages", "for ever"]
    alice, over, ages, ever = (server.admin.ttl(locate(key(name))[1]) for name in names)
    assert 50 + 7 * 24 * 3600 == pytest.approx(alice, abs=2)
    assert (-2, -1) == (over, ever)
    assert ages > 1e9


async def test_scripts_are_loaded_again(server, store):
    """A server that forgot the scripts is given them, and what it did run is not run again."""
    await commit(store, None, record())
    server.admin.script_flush()

    assert Outcome.COMMITTED == await commit(store, record(), record(1))
    assert 1 == await position(store)


@pytest.mark.parametrize("limit", [100, 1500])
async def test_a_long_listing_has_every_session_once(store, limit):
    """Pages end in the middle of what SCAN gives, and nothing is missed."""
    ids = {f"c{n}" for n in range(3000)}
    await store.commit_many([Commit(key(each), None, record()) for each in ids])

    listed, cursor = [], None
    while True:
        page, cursor = await store.list_sessions("default", "m", limit, cursor)
        assert len(page) <= limit
        listed += [summary.client_id for summary in page]
        if cursor is None:
            break

    assert sorted(ids) == sorted(listed)


async def test_a_listing_survives_a_restart(tmp_path):
    """A restarted server counts its keys in another order: it is walked anew."""
    with redis_server(tmp_path, ("appendonly", "yes")) as server:
        async with opened(server.url) as store:
            ids = {f"c{n}" for n in range(2500)}
            await store.commit_many([Commit(key(each), None, record()) for each in ids])
            listed, cursor = await store.list_sessions("default", "m", 1200, None)
            server.stop()
            server.start()
            await asyncio.sleep(0.05)
            while cursor is not None:
                page, cursor = await store.list_sessions("default", "m", 1200, cursor)
                listed += page

    assert ids == {summary.client_id for summary in listed}


@pytest.mark.parametrize("cursor", ["", "x", "WzFd", "bnVsbA", "é", "W10", "AAAA"])
async def test_a_foreign_cursor_is_refused(store, cursor):
    """A cursor comes from a client, who may have made it up."""
    with pytest.raises(InvalidRequestError, match="cursor"):
        await store.list_sessions("default", "m", 10, cursor)


def test_keys_and_sessions_belong_together():
    """A key tells whose it is, whatever the names have in them; others are no session's."""
    strange = SessionKey("a:b/c", "*[x]?", "c:d@e")
    assert strange == session_of(locate(strange)[1])
    aside = damaged_key(locate(key())[1], b"bytes")
    others = [aside, b"{lstm:1}:identity", b"{lstm:1}:default:m:alice", b"\xff}:a:b:c", b"x"]
    assert [None] * 5 == [session_of(other) for other in others]


async def test_a_user_logs_in_by_the_url(tmp_path, caplog):
    """Name and password come from the URL, and never into an error or a log."""
    needed = "auth evalsha script|load get set getrange exists del rename persist dump scan"
    rules = ["on", f">{SECRET}", "~{lstm:*", "-@all", *(f"+{each}" for each in needed.split())]
    with redis_server(tmp_path, ("user", "lstm", *rules)) as server:
        async with opened(f"redis://lstm:{QUOTED}@127.0.0.1:{server.port}") as store:
            assert Outcome.COMMITTED == await commit(store, None, record(ttl_s=9.0))
            assert ([key()], None) == await store.list_keys(10, None)
        wrong = RedisStore(f"redis://lstm:x{QUOTED}@127.0.0.1:{server.port}")
        with pytest.raises(StoreUnavailableError, match="refuses the user") as caught:
            await wrong.open()

    assert "s3cr3t" not in f"{caught.value!r} {caught.value.__cause__!r} {caplog.text}"


async def test_tls_is_asked_for_by_the_url(tmp_path):
    """A certificate is checked against the authority that the URL names."""
    own, private = certificate(tmp_path)
    options = [("tls-cert-file", own), ("tls-key-file", private), ("tls-auth-clients", "no")]
    settings = {"scheme": "rediss", "ssl": True, "ssl_ca_certs": own}
    with redis_server(tmp_path, *options, **settings) as server:
        async with opened(f"{server.url}?ssl_ca_certs={own}") as store:
            assert Outcome.COMMITTED == await commit(store, None, record())
        with pytest.raises(StoreUnavailableError, match="no connection"):
            await RedisStore(server.url).open()


async def test_a_unix_socket_will_do(tmp_path):
    """A store on the same machine needs no port."""
    path = tmp_path / "socket"
    with redis_server(tmp_path, ("unixsocket", str(path))):
        async with opened(f"unix://{path}") as store:
            assert Outcome.COMMITTED == await commit(store, None, record())


async def test_a_cluster_needs_no_naming(server):
    """Whether it is one is known from its answers, also where the URL says so."""
    async with opened(server.url.replace("redis://", "redis+cluster://")) as store:
        await store.check()


@pytest.mark.parametrize(
    "url",
    [
        f"redis://u:{SECRET}@host:6379",
        "redis://:s3cr3t/x@host:6379",
        "http://u:s3cr3t@host",
        "redis://u:s3cr3t@host?timeout=3",
        "redis://u:s3cr3t@host?ssl_ca_certs=s3cr3t",
        "rediss://u:s3cr3t@host?ssl_unheard_of=s3cr3t",
        "rediss://u:s3cr3t@host?ssl_cert_reqs=s3cr3t",
    ],
)
def test_what_is_no_url_is_refused_without_repeating_it(url):
    """The error does not tell the password."""
    with pytest.raises(ValueError, match="store's URL") as caught:
        RedisStore(url)

    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None


async def test_settings_that_lose_sessions_are_told(tmp_path, caplog):
    """An operator hears of eviction and of a missing append-only file."""
    eviction = [("maxmemory", "100mb"), ("maxmemory-policy", "allkeys-lru")]
    with redis_server(tmp_path, *eviction) as server:
        async with opened(server.url):
            pass

    assert "maxmemory-policy allkeys-lru" in caplog.text
    assert "appendonly no" in caplog.text
