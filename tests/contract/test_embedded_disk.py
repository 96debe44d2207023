"""The embedded store's file and its log: a full disk, and how long the log gets."""

import asyncio
import resource
import sqlite3

import pytest

from service.errors import StoreUnavailableError
from service.stores.base import Commit, Outcome
from tests.contract.embedded_sessions import commit, key, load, log_bytes, opened, record


async def check_often(store):
    """Check until a page that is almost full is full."""
    for _ in range(5):
        await store.check()


async def test_commits_recover_when_the_disk_has_room_again(tmp_path):
    """On a full disk commits and checks fail without a trace, and reads go on."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    names = [f"c{i}" for i in range(50)]
    async with opened(tmp_path) as store:
        await store.commit_many([Commit(key(name), None, record(1)) for name in names])
        changes = [Commit(key(name), record(1), record(2)) for name in names]
        ended = [Commit(key("c0"), record(1), None), Commit(key("new"), None, record(1))]
        resource.setrlimit(resource.RLIMIT_FSIZE, (log_bytes(tmp_path) + 5000, limits[1]))
        try:
            for commits in (changes, ended + changes[1:]):
                with pytest.raises(StoreUnavailableError, match=r"sessions\.sqlite"):
                    await store.commit_many(commits)
            loaded = await store.load_many([key(name) for name in [*names, "new"]])
            with pytest.raises(StoreUnavailableError):
                await check_often(store)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

        assert [1] * 50 == [each.position for each in loaded[:-1]]
        assert loaded[-1] is None
        await store.check()
        assert {Outcome.COMMITTED} == set(await store.commit_many(changes))


async def test_a_full_disk_does_not_hinder_a_start(tmp_path):
    """What is there can be read, and written to as soon as there is room."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with opened(tmp_path) as store:
        await commit(store, None, record(1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (34_000, limits[1]))
    try:
        async with opened(tmp_path) as store:
            assert 1 == (await load(store)).position
            changes = [Commit(key(f"c{i}"), None, record(1)) for i in range(200)]
            with pytest.raises(StoreUnavailableError):
                await store.commit_many(changes)
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            assert {Outcome.COMMITTED} == set(await store.commit_many(changes))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def test_a_full_disk_gives_room_back_from_the_log(tmp_path):
    """Where nothing more fits into a long log, it is moved into the file by itself."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with opened(tmp_path) as store:
        await commit(store, None, record(0))
        for position in range(400):
            await commit(store, record(position), record(position + 1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (log_bytes(tmp_path), limits[1]))
        try:
            with pytest.raises(StoreUnavailableError):
                await commit(store, record(400), record(401))
            await asyncio.sleep(0.5)
            assert Outcome.COMMITTED == await commit(store, record(400), record(401))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


async def test_a_log_that_cannot_be_moved_is_told_once(tmp_path, caplog):
    """Not with every attempt, of which there are several a second while the disk is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    async with opened(tmp_path) as store:
        await commit(store, None, record(0))
        for position in range(400):
            await commit(store, record(position), record(position + 1))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            for _ in range(4):
                with pytest.raises(StoreUnavailableError):
                    await commit(store, record(400), record(401))
                await asyncio.sleep(0.05)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert 1 == caplog.text.count("cannot be moved into it")


async def test_the_log_is_bounded_while_commits_go_on(tmp_path):
    """Without a pause between commits it stays within a few times its size, and nothing is lost."""
    longest = 0
    async with opened(tmp_path, log_bytes=300_000) as store:
        names = [f"c{i}" for i in range(64)]
        await store.commit_many([Commit(key(name), None, record(0)) for name in names])
        for position in range(300):
            changes = [Commit(key(n), record(position), record(position + 1)) for n in names]
            assert {Outcome.COMMITTED} == set(await store.commit_many(changes))
            longest = max(longest, log_bytes(tmp_path))
            await asyncio.sleep(0)

        assert [300] * 64 == [s.position for s in await store.load_many(list(map(key, names)))]
    assert longest < 4 * 300_000 + 64 * 4200 * 2


async def test_a_foreign_reader_does_not_stop_commits(tmp_path):
    """A backup that reads for long makes the log grow, and it is shortened afterwards."""
    async with opened(tmp_path, log_bytes=100_000) as store:
        await commit(store, None, record(0))
        backup = sqlite3.connect(tmp_path / "sessions.sqlite", isolation_level=None)
        backup.execute("BEGIN")
        backup.execute("SELECT count(*) FROM sessions").fetchall()
        for position in range(100):
            await commit(store, record(position), record(position + 1))
            await asyncio.sleep(0.002)
        assert log_bytes(tmp_path) > 100_000
        backup.close()
        for position in range(100, 400):
            await commit(store, record(position), record(position + 1))
            await asyncio.sleep(0.001)

        assert log_bytes(tmp_path) < 400_000
