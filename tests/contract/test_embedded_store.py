"""What is the embedded store's own: one process, its crashes, and its limits."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from service.errors import StoreUnavailableError
from service.stores import embedded_sessions
from service.stores.base import Commit, Outcome
from service.stores.data_directory import DataDirectoryError
from tests.contract.embedded_sessions import (
    TOMBSTONE_S,
    Clock,
    commit,
    execute,
    key,
    load,
    opened,
    record,
)


def run_second(directory):
    """Let another process open a store."""
    script = (
        "import asyncio, sys; from pathlib import Path;"
        "from service.stores.embedded import EmbeddedStore;"
        "asyncio.run(EmbeddedStore(Path(sys.argv[1]), max_sessions=1).open())"
    )
    return subprocess.run(
        [sys.executable, "-c", script, directory], check=False, capture_output=True, text=True
    )


async def test_a_second_process_is_refused(tmp_path):
    """The error names the directory, who has it, and what to do."""
    async with opened(tmp_path):
        second = await asyncio.to_thread(run_second, tmp_path)

    assert second.returncode != 0
    message = second.stderr.splitlines()[-1]
    assert message.startswith("service.stores.data_directory.DataDirectoryError")
    for part in (str(tmp_path), f"process {os.getpid()}", "--data-dir", "redis://"):
        assert part in message


async def test_a_closed_store_lets_the_next_one_in(tmp_path):
    """What was committed is there after closing and opening again, for this user alone."""
    directory = tmp_path / "data"
    async with opened(directory) as store:
        await store.open()
        assert Outcome.COMMITTED == await commit(store, None, record(3))
    assert {"lock", "sessions.sqlite"} == {path.name for path in directory.iterdir()}

    async with opened(directory) as store:
        assert 3 == (await load(store)).position
    assert 0o700 == directory.stat().st_mode & 0o777
    assert 0o600 == (directory / "sessions.sqlite").stat().st_mode & 0o777


async def test_a_closed_store_is_not_available(tmp_path):
    """Before opening and after closing, everything fails in the way that is expected."""
    async with opened(tmp_path) as store:
        pass

    for call in (store.check(), commit(store, None, record()), load(store)):
        with pytest.raises(StoreUnavailableError, match="not open"):
            await call


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda d: execute(d, "PRAGMA user_version = 2"), "version 2"),
        (lambda d: execute(d, "PRAGMA application_id = 7"), "no file of this service"),
        (lambda d: execute(d, "DROP INDEX sessions_by_key"), "damaged"),
        (lambda d: os.truncate(d / "sessions.sqlite", 0), "no file of this service"),
        (lambda d: os.truncate(d / "sessions.sqlite", 10_000), r"damaged|cannot be opened"),
        (lambda d: (d / "sessions.sqlite").write_bytes(b"no" * 5000), r"\.recover"),
        (lambda d: (d / "sessions.sqlite").rename(d / "sessions.sqlite-wal"), "both back"),
    ],
    ids=["newer", "foreign", "schema", "empty", "truncated", "no database", "log alone"],
)
async def test_a_file_that_cannot_be_used_is_refused(tmp_path, damage, expected):
    """The error names the file and says what to do, and the directory is free again."""
    async with opened(tmp_path) as store:
        await commit(store, None, record())
    damage(tmp_path)

    for _ in range(2):
        with pytest.raises(DataDirectoryError, match=expected) as raised:
            async with opened(tmp_path):
                pass
        assert "sessions.sqlite" in str(raised.value)


async def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    """A path that is a file already is told."""
    (tmp_path / "file").touch()

    with pytest.raises(DataDirectoryError, match="choose another"):
        async with opened(tmp_path / "file"):
            pass


@pytest.mark.parametrize("name", ["lock", "sessions.sqlite", "sessions.sqlite-wal"])
async def test_a_file_that_is_taken_away_is_noticed(tmp_path, name):
    """What would be committed to it would be lost; once it is back, all is well."""
    path, aside = tmp_path / name, tmp_path / "aside"
    async with opened(tmp_path) as store:
        await commit(store, None, record(0))
        for put_in_its_place in (lambda: None, path.touch):
            path.rename(aside)
            put_in_its_place()
            with pytest.raises(StoreUnavailableError, match=f"{name} was removed"):
                await store.check()
            aside.replace(path)
            await store.check()
        assert Outcome.COMMITTED == await commit(store, record(0), record(1))


CHILD = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_embedded_store import NAMES, commit_all, opened

async def main():
    async with opened(Path(sys.argv[1]), fsync=sys.argv[3] == "1", log_bytes=200_000) as store:
        await commit_all(store, lambda position: print(position, flush=True))

asyncio.run(main())
"""
NAMES = [f"c{i}" for i in range(40)]


async def commit_all(store, committed):
    """Step all sessions at once, for ever, and tell each position that was committed."""
    befores = await store.load_many([key(name) for name in NAMES])
    while True:
        afters = [record(0 if before is None else before.position + 1) for before in befores]
        changes = zip(NAMES, befores, afters, strict=True)
        outcomes = await store.commit_many([Commit(key(n), b, a) for n, b, a in changes])
        assert {Outcome.COMMITTED} == set(outcomes)
        committed(afters[0].position)
        befores = afters
        await asyncio.sleep(0)


def run_and_kill(directory, *, fsync):
    """Let another process commit for a moment, and return the last position that it told."""
    arguments = [directory, Path(__file__).parent, str(int(fsync))]
    child = subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stdout=subprocess.PIPE)
    assert child.stdout is not None
    first = child.stdout.readline()
    time.sleep(random.random() * 0.2)
    child.send_signal(signal.SIGKILL)
    told = first + child.communicate()[0]
    return int(told.split(b"\n")[-2])


@pytest.mark.parametrize("fsync", [False, True])
async def test_a_killed_process_loses_nothing(tmp_path, fsync):
    """What it told to be committed is there, and each transaction whole or not at all."""
    last = -1
    for _ in range(6):
        acknowledged = await asyncio.to_thread(run_and_kill, tmp_path, fsync=fsync)
        async with opened(tmp_path) as store:
            loaded = await store.load_many([key(name) for name in NAMES])

        [position] = {each.position for each in loaded}
        assert last < acknowledged <= position <= acknowledged + 1
        assert all((each.row == position).all() for each in loaded)
        last = position


async def test_a_cancelled_commit_does_not_hold_up_the_next(tmp_path):
    """A synced commit ends without its caller, and only then does the next one begin."""
    async with opened(tmp_path, fsync=True) as store:
        task = asyncio.create_task(commit(store, None, record()))
        await asyncio.sleep(0)
        task.cancel()

        assert Outcome.COMMITTED == await commit(store, None, record(), "bob")
        assert 0 == (await load(store)).position


async def test_sessions_are_dropped_when_they_need_not_be_known(tmp_path):
    """Checks drop what is over, little by little; the others stay."""
    clock = Clock()
    async with opened(tmp_path, clock=clock) as store:
        short = replace(record(), touched_at=clock.now, ttl_s=10.0)
        long = replace(record(), touched_at=clock.now, ttl_s=5000.0)
        endless = replace(record(), touched_at=clock.now, ttl_s=1e300)
        names = [f"c{i}" for i in range(100)]
        await store.commit_many([Commit(key(name), None, short) for name in names])
        for name, each in {"long": long, "endless": endless, "never": record()}.items():
            await commit(store, None, each, name)
        clock.now += TOMBSTONE_S
        await store.check()
        assert 103 == len((await store.list_keys(1000, None))[0])

        clock.now += 400
        await store.check()

        assert ["endless", "long", "never"] == [
            each.client_id for each in (await store.list_keys(1000, None))[0]
        ]


async def test_a_step_moves_the_end_of_a_session(tmp_path):
    """What has a time to live is kept as long as it is stepped, and as its last step says."""
    clock = Clock()
    async with opened(tmp_path, clock=clock) as store:
        before = None
        for position in range(20):
            after = replace(record(position), touched_at=clock.now, ttl_s=1000.0)
            assert Outcome.COMMITTED == await commit(store, before, after)
            before = after
            clock.now += 900
            await store.check()

        assert Outcome.COMMITTED == await commit(store, before, record(20))
        clock.now += 1e6
        await store.check()
        assert 20 == (await load(store)).position


async def test_a_full_store_refuses_new_sessions_only(tmp_path):
    """At the limit the others go on; what need not be known makes room; reopening counts again."""
    clock = Clock()
    async with opened(tmp_path, max_sessions=2, clock=clock) as store:
        over = replace(record(), touched_at=clock.now, ttl_s=10.0)
        assert Outcome.COMMITTED == await commit(store, None, over, "a")
        assert Outcome.COMMITTED == await commit(store, None, record(), "b")
        assert Outcome.FULL == await commit(store, None, record(), "c")
        assert Outcome.CONFLICT == await commit(store, None, record(), "b")
        assert Outcome.COMMITTED == await commit(store, record(), record(1), "b")
        clock.now += TOMBSTONE_S + 400
        assert Outcome.COMMITTED == await commit(store, None, record(), "c")
        assert Outcome.FULL == await commit(store, None, record(), "d")

    async with opened(tmp_path, max_sessions=2, clock=clock) as store:
        assert Outcome.FULL == await commit(store, None, record(), "d")
        assert Outcome.COMMITTED == await commit(store, record(1), None, "b")
        assert Outcome.COMMITTED == await commit(store, None, record(), "d")


async def test_a_list_passes_over_ended_sessions_a_few_at_a_time(tmp_path):
    """A page costs no more than so much, however many have ended: then it is short or empty."""
    clock = Clock()
    async with opened(tmp_path, max_sessions=3000, clock=clock) as store:
        over = replace(record(size=4), touched_at=clock.now, ttl_s=10.0)
        names = [f"c{i:04}" for i in range(2500)]
        await store.commit_many([Commit(key(name), None, over) for name in names])
        await commit(store, None, record(), "last")
        clock.now += 20

        pages: list[list[str]] = []
        cursor = None
        while not pages or cursor is not None:
            page, cursor = await store.list_sessions("default", "m", 10, cursor)
            pages.append([each.client_id for each in page])

        assert [[], [], ["last"]] == pages


async def test_keys_with_the_same_hash_do_not_meet(tmp_path, monkeypatch):
    """The second one finds no room; it is never taken for the first."""
    monkeypatch.setattr(embedded_sessions, "_number", lambda _: 5)
    async with opened(tmp_path) as store:
        assert Outcome.COMMITTED == await commit(store, None, record(3), "alice")

        assert await load(store, "bob") is None
        assert Outcome.FULL == await commit(store, None, record(), "bob")
        assert 3 == (await load(store)).position
