"""Damage to the embedded store's file: records that are right, damaged or told of, never wrong."""

import asyncio
import os
import random
import shutil

import pytest

from service.errors import StoreUnavailableError
from service.records import Record
from service.stores.base import Commit, Damaged, Outcome
from service.stores.data_directory import DataDirectoryError
from tests.contract.embedded_sessions import (
    commit,
    execute,
    key,
    load,
    opened,
    record,
)


@pytest.mark.parametrize("after", [record(7), None], ids=["begun anew", "ended"])
@pytest.mark.parametrize(
    "damage",
    ["UPDATE sessions SET record = x'00'", "UPDATE sessions SET record = CAST(record AS TEXT)"],
)
async def test_damaged_bytes_are_kept_aside(tmp_path, damage, after):
    """They are damaged for their session alone, and kept when a commit takes their place."""
    async with opened(tmp_path) as store:
        await commit(store, None, record(3))
        await commit(store, None, record(4), "bob")
        execute(tmp_path, damage + " WHERE substr(key, -5) = x'616c696365'")

        damaged, other = await store.load_many([key("alice"), key("bob")])

        assert isinstance(damaged, Damaged)
        assert 4 == other.position
        assert ["bob"] == [
            s.client_id for s in (await store.list_sessions("default", "m", 9, None))[0]
        ]
        assert 2 == len((await store.list_keys(9, None))[0])
        assert Outcome.CONFLICT == await commit(store, Damaged(b"other", ""), after)
        assert Outcome.CONFLICT == await commit(store, record(3), after)
        assert Outcome.COMMITTED == await commit(store, damaged, after)
        [(name, kept)] = execute(tmp_path, "SELECT key, record FROM damaged")
        assert (b"default\0m\0alice", damaged.data) == (name, kept)
        assert (None if after is None else 7) == getattr(await load(store), "position", None)


async def test_a_hidden_row_is_damaged_and_not_absent(tmp_path):
    """Where a row cannot be reached, its session does not begin again behind its client's back."""
    async with opened(tmp_path) as store:
        await commit(store, None, record(3))
        execute(tmp_path, "UPDATE sessions SET id = 5")

        hidden = await load(store)

        assert isinstance(hidden, Damaged)
        assert "not in its place" in hidden.reason
        assert Outcome.DAMAGED == await commit(store, hidden, record())
        assert Outcome.COMMITTED == await commit(store, None, record(), "bob")


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory):
    """A file with sessions at position 2, and one at 1 with a log that takes them to 2."""
    directory = tmp_path_factory.mktemp("whole")

    async def make():
        async with opened(directory / "made") as store:
            before = [Commit(key(name), None, record(1, size)) for name, size in FLIPPED.items()]
            await store.commit_many(before)
        async with opened(directory / "made") as store:
            for name, size in FLIPPED.items():
                await commit(store, record(1), record(2, size), name)
            shutil.copytree(directory / "made", directory / "with log")

    asyncio.run(make())
    return directory


FLIPPED = {f"client-{i:02}": 5000 if i % 10 == 0 else 40 * (i % 20 + 1) for i in range(60)}
"""Sessions and the sizes of their states: some on a page with others, some over many."""


async def check_damaged_store(directory, positions):
    """Check that each session of a damaged file is right, damaged, or an error that is known."""
    told = set()
    try:
        async with opened(directory) as store:
            for name, size in FLIPPED.items():
                try:
                    loaded = await load(store, name)
                    told.add(type(loaded).__name__)
                    if isinstance(loaded, Record):
                        assert loaded.position in positions
                        assert (size,) == loaded.row.shape
                        assert (loaded.row == loaded.position).all()
                    else:
                        assert isinstance(loaded, Damaged)
                    outcome = await commit(store, loaded, record(9, size), name)
                    if loaded == Damaged(b"", getattr(loaded, "reason", "")):
                        assert outcome in {Outcome.COMMITTED, Outcome.DAMAGED}
                        continue
                    assert Outcome.COMMITTED == outcome
                    # Where damage has made rows overlap, one is not whole with the other.
                    after = await load(store, name)
                    assert isinstance(after, Damaged) or after.position == 9
                except StoreUnavailableError:
                    told.add("StoreUnavailableError")
            try:
                page, _ = await store.list_sessions("default", "m", 100, None)
                await store.list_keys(100, None)
                await store.check()
                assert {each.position for each in page} <= {9, *positions}
            except StoreUnavailableError:
                told.add("StoreUnavailableError")
    except DataDirectoryError as error:
        told.add("DataDirectoryError")
        assert "sessions.sqlite" in str(error)  # noqa: PT017 - the others are fine without
    return told


@pytest.mark.parametrize("kind", ["flips", "cuts"])
async def test_damage_to_the_file_is_never_a_wrong_state(tmp_path, whole_files, kind):
    """Wherever bits flip or the file is cut, sessions are right, damaged, or an error says so."""
    whole = (whole_files / "made" / "sessions.sqlite").read_bytes()
    rng = random.Random(os.environ.get("SEED", "file"))
    told = set()
    for i in range(int(os.environ.get("FLIPS", "60")) if kind == "flips" else 10):
        directory = tmp_path / str(i)
        directory.mkdir()
        data = bytearray(whole)
        if kind == "flips":
            # Half of them at the beginning of a page, where they hurt most.
            at = rng.randrange(len(data))
            at = at if i % 2 else at // 4096 * 4096 + rng.randrange(64)
            data[at] ^= 1 << rng.randrange(8)
        else:
            del data[rng.randrange(len(data)) :]
        (directory / "sessions.sqlite").write_bytes(data)

        told |= await check_damaged_store(directory, {2})
        shutil.rmtree(directory)

    assert {"DataDirectoryError", "Damaged"} & told


async def test_damage_to_the_log_is_never_a_wrong_state(tmp_path, whole_files):
    """Sessions fall back to what they were before the damage in the log, whole, and no further."""
    rng = random.Random(os.environ.get("SEED", "log"))
    for i in range(int(os.environ.get("FLIPS", "25"))):
        directory = tmp_path / str(i)
        shutil.copytree(whole_files / "with log", directory)
        (directory / "sessions.sqlite-shm").unlink()
        log = directory / "sessions.sqlite-wal"
        data = bytearray(log.read_bytes())
        at = rng.randrange(len(data)) if i % 4 else rng.randrange(32)
        data[at] ^= 1 << rng.randrange(8)
        log.write_bytes(data)

        assert {"Record"} == await check_damaged_store(directory, {1, 2})
        shutil.rmtree(directory)


async def test_damage_under_an_open_store_leaves_the_others_alone(tmp_path, whole_files):
    """A session on a bad page is damaged; those on other pages go on."""
    shutil.copytree(whole_files / "made", tmp_path / "d")
    async with opened(tmp_path / "d") as store:
        with (tmp_path / "d" / "sessions.sqlite").open("r+b") as file:
            file.seek(-5 * 4096, os.SEEK_END)
            file.write(os.urandom(4096))
        loaded = {name: await load(store, name) for name in FLIPPED}

        good = [name for name, each in loaded.items() if isinstance(each, Record)]
        assert len(FLIPPED) > len(good) > len(FLIPPED) // 2
        for name in good:
            assert Outcome.COMMITTED == await commit(store, record(2), record(3), name)
