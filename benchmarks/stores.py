"""What a store costs: commits a row by batch size, loads, and passive sessions.

    python benchmarks/stores.py                     # every store that is installed
    python benchmarks/stores.py --only embedded --sessions 1000000

Records are as a model with 128 state values leaves them, with all 16 replays: about 2.4 kB. A
commit changes sessions that exist, picked at random, encoding included. Stores take turns, and
figures are medians over the rounds. `lmdb` is here for comparison (`pip install lmdb`): it does no
more than the figures need. `redis` is a server of its own on this machine, with an append-only file
that is synced every second.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import importlib.util
import random
import resource
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol

import numpy as np
from servers import free_port

from service.domain import REPLAY_WINDOW, AdvanceReply, SessionKey
from service.errors import UnavailableError
from service.records import Record, Replay
from service.stores import codec
from service.stores.base import Commit, Loaded, Outcome
from service.stores.embedded import EmbeddedStore
from service.stores.memory import MemoryStore

BATCHES = (1, 16, 64, 256)
STATE_SIZE, OUTPUT_SIZE = 128, 16


class Store(Protocol):
    """What is measured of a `SessionStore`."""

    async def open(self) -> None:
        """Open it."""

    async def close(self) -> None:
        """Close it."""

    async def load_many(self, keys: Sequence[SessionKey]) -> list[Loaded]:
        """Return what each key has."""
        ...

    async def commit_many(self, commits: Sequence[Commit]) -> list[Outcome]:
        """Make the changes."""
        ...


class LmdbStore:
    """The least that LMDB needs to do: no expiry, no limit, no damage, and no sync."""

    def __init__(self, directory: Path) -> None:
        """Keep sessions in a directory."""
        lmdb = importlib.import_module("lmdb")
        self._environment: Any = lmdb.open(str(directory), map_size=1 << 36, sync=False)

    async def open(self) -> None:
        """Do nothing: it is open."""

    async def close(self) -> None:
        """Close it."""
        self._environment.close()

    async def load_many(self, keys: Sequence[SessionKey]) -> list[Loaded]:
        """Return what each key has."""
        with self._environment.begin(buffers=True) as transaction:
            return [codec.decode(key, bytes(transaction.get(_name(key)))) for key in keys]

    async def commit_many(self, commits: Sequence[Commit]) -> list[Outcome]:
        """Make each change whose session is as expected."""
        with self._environment.begin(write=True, buffers=True) as transaction:
            return [self._commit(transaction, commit) for commit in commits]

    def _commit(self, transaction: Any, commit: Commit) -> Outcome:
        name = _name(commit.key)
        actual = transaction.get(name)
        before = commit.before
        stamp = codec.stamp(before) if isinstance(before, Record) else None
        if (None if actual is None else bytes(actual[codec.STAMP])) != stamp:
            return Outcome.CONFLICT
        assert commit.after is not None, "nothing is ended here"
        transaction.put(name, codec.encode(commit.key, commit.after))
        return Outcome.COMMITTED


class OwnRedis:
    """A `RedisStore` with a server of its own."""

    def __init__(self, directory: Path) -> None:
        """Start the server in a directory."""
        from service.stores.redis import RedisStore

        port = free_port()
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port)]
        options = ["--dir", str(directory), "--save", "", "--appendonly", "yes"]
        log = (directory / "log").open("wb")
        self._process = subprocess.Popen([*command, *options], stdout=log, stderr=log)
        self._store = RedisStore(f"redis://127.0.0.1:{port}", timeout_s=10.0)
        self.load_many = self._store.load_many
        self.commit_many = self._store.commit_many

    async def open(self) -> None:
        """Wait until the server answers, and set it up."""
        for _ in range(100):
            try:
                await self._store.initialise()
                break
            except UnavailableError:
                await asyncio.sleep(0.05)
        else:
            raise RuntimeError("redis-server has not started")
        await self._store.open()

    async def close(self) -> None:
        """Stop the server."""
        await self._store.close()
        self._process.terminate()
        self._process.wait()


def _name(key: SessionKey) -> bytes:
    return "\0".join(key).encode()


STORES: dict[str, Callable[[Path], Store]] = {
    "memory": lambda _: MemoryStore(10**9),
    "embedded": lambda directory: EmbeddedStore(directory, max_sessions=10**9),
    "embedded, fsync": lambda directory: EmbeddedStore(directory, max_sessions=10**9, fsync=True),
    "redis": OwnRedis,
    "lmdb": LmdbStore,
}
"""Each makes a store from a directory of its own."""


def key(number: int) -> SessionKey:
    """Return a session's key."""
    return SessionKey("default", "vowels", f"client-{number:08}")


def step(before: Record | None) -> Record:
    """Return the record after one step."""
    start = 0 if before is None else before.position
    reply = AdvanceReply(
        outputs=np.random.default_rng(start).standard_normal(OUTPUT_SIZE, np.float32),
        position=start + 1,
        epoch=7,
    )
    replay = Replay(start=start, digest=random.randbytes(16), reply=reply)
    return Record(
        fingerprint="f" * 64,
        epoch=7,
        position=start + 1,
        row=np.frombuffer(random.randbytes(4 * STATE_SIZE), np.float32),
        has_output=np.ones(1, np.bool_),
        touched_at=1e9,
        replays=(*(() if before is None else before.replays), replay)[-REPLAY_WINDOW:],
    )


async def fill(store: Store, num_sessions: int, record: Record) -> None:
    """Begin so many sessions."""
    for begin in range(0, num_sessions, 500):
        numbers = range(begin, min(begin + 500, num_sessions))
        await store.commit_many([Commit(key(n), None, record) for n in numbers])


class Subject:
    """A store, and the sessions that are in it.

    Attributes:
        commit_us: By batch size, microseconds a row of each trip.
        load_us: Microseconds of each load of one session.
    """

    def __init__(self, store: Store, num_sessions: int, begin: Record) -> None:
        """Measure on sessions that all have the record `begin`."""
        self._store = store
        self._records = [begin] * num_sessions
        self.commit_us: dict[int, list[float]] = {batch: [] for batch in BATCHES}
        self.load_us: list[float] = []

    async def commit(self, batch: int) -> None:
        """Measure one trip with one step of each of a few sessions."""
        numbers = random.sample(range(len(self._records)), batch)
        afters = [step(self._records[n]) for n in numbers]
        commits = [
            Commit(key(n), self._records[n], after)
            for n, after in zip(numbers, afters, strict=True)
        ]
        began = perf_counter()
        outcomes = await self._store.commit_many(commits)
        self.commit_us[batch].append((perf_counter() - began) / batch * 1e6)
        assert {Outcome.COMMITTED} == set(outcomes)
        for n, after in zip(numbers, afters, strict=True):
            self._records[n] = after

    async def load(self) -> None:
        """Measure the resumption of one session."""
        number = random.randrange(len(self._records))
        began = perf_counter()
        [loaded] = await self._store.load_many([key(number)])
        self.load_us.append((perf_counter() - began) * 1e6)
        assert isinstance(loaded, Record)
        assert loaded.position == self._records[number].position


def resident_mib() -> float:
    """Return what the process has needed at most, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def measure(names: Sequence[str], num_sessions: int, rounds: int, directory: Path) -> None:
    """Print a line for each store."""
    begin = None
    for _ in range(REPLAY_WINDOW):
        begin = step(begin)
    assert begin is not None
    subjects = {}
    stores = []
    before_mib = resident_mib()
    for name in names:
        (directory / name).mkdir()
        store = STORES[name](directory / name)
        stores.append(store)
        await store.open()
        await fill(store, num_sessions, begin)
        subjects[name] = Subject(store, num_sessions, begin)
    print(
        f"{num_sessions} sessions of {len(codec.encode(key(0), begin))} bytes;"
        f" {resident_mib() - before_mib:.0f} MiB of memory for all stores"
    )
    for _ in range(rounds):
        for subject in subjects.values():
            for batch in BATCHES:
                await subject.commit(batch)
            for _ in range(20):
                await subject.load()
    titles = "".join(f"{f'batch {batch}':>11}" for batch in BATCHES)
    print(f"{'µs a row':18}{titles}{'load p50':>11}{'p99':>8}")
    for name, subject in subjects.items():
        figures = "".join(f"{statistics.median(subject.commit_us[b]):11.1f}" for b in BATCHES)
        p99 = statistics.quantiles(subject.load_us, n=100)[-1]
        print(f"{name:18}{figures}{statistics.median(subject.load_us):11.1f}{p99:8.1f}")
    for store in stores:
        await store.close()


def run(main: Coroutine[Any, Any, None]) -> None:
    """Run on the event loop that the service has."""
    import uvloop

    uvloop.run(main)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure the stores of sessions.")
    parser.add_argument("--only", action="append", choices=STORES, help="repeatable")
    parser.add_argument("--sessions", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=50)
    return parser.parse_args()


if __name__ == "__main__":
    options = parse()
    is_missing = {
        "lmdb": importlib.util.find_spec("lmdb") is None,
        "redis": shutil.which("redis-server") is None,
    }
    chosen = options.only or [name for name in STORES if not is_missing.get(name)]
    temporary = Path(tempfile.mkdtemp(prefix="stores-"))
    try:
        run(measure(chosen, options.sessions, options.rounds, temporary))
    finally:
        shutil.rmtree(temporary)
