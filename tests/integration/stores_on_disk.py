"""Sessions in a store, and the command line beside it, for the tests of its commands."""

import asyncio
import time

import numpy as np

from service.__main__ import main
from service.domain import AdvanceReply, SessionKey
from service.records import LongReplay, Record, Replay
from service.stores.base import Commit, Outcome
from service.stores.embedded import EmbeddedStore


def key(client_id, model="net"):
    """Return a session's key."""
    return SessionKey("default", model, client_id)


def record(position=6, **changes):
    """Return a record with a short and a long answer in it, that was just touched."""
    values = np.arange(8, dtype=np.float32)
    reply = AdvanceReply(outputs=values[:3], position=position - 1, epoch=9, row=values)
    replays = (
        Replay(start=position - 2, digest=b"d" * 16, reply=reply),
        LongReplay(
            start=position - 1,
            digest=b"e" * 16,
            row_before=values,
            has_output_before=np.ones(1, np.bool_),
        ),
    )
    fields = {
        "fingerprint": "f" * 64,
        "epoch": 9,
        "position": position,
        "row": values,
        "has_output": np.ones(1, np.bool_),
        "touched_at": time.time(),
        "replays": replays,
    }
    return Record(**fields | changes)


async def commit(store, sessions):
    """Put new sessions into an open store."""
    commits = [Commit(key, None, record) for key, record in sessions.items()]
    assert {Outcome.COMMITTED} == set(await store.commit_many(commits))


def fill(directory, sessions):
    """Put new sessions into the embedded store of a directory."""

    async def run():
        store = EmbeddedStore(directory, max_sessions=10_000)
        await store.open()
        await commit(store, sessions)
        await store.close()

    asyncio.run(run())


class Commands:
    """The command line on the embedded store of a directory."""

    def __init__(self, directory, capsys):
        self.directory = directory
        self.capsys = capsys

    def __call__(self, *arguments):
        """Run a command; return its exit status, output and messages."""
        status = main([*map(str, arguments), "--data-dir", str(self.directory)])
        told = self.capsys.readouterr()
        return status, told.out, told.err
