"""Sessions in an embedded store, as its tests make them and look at them."""

import sqlite3
from contextlib import asynccontextmanager

import numpy as np

from service.domain import SessionKey
from service.records import Record
from service.stores.base import Commit
from service.stores.embedded import EmbeddedStore

TOMBSTONE_S = 600.0


class Clock:
    """Tells the time that it is set to, in seconds since 1970."""

    def __init__(self):
        self.now = 1_000_000.0

    def __call__(self):
        """Return the time."""
        return self.now


@asynccontextmanager
async def opened(directory, **options):
    """Open a store, and close it."""
    options = {"max_sessions": 1000, "tombstone_s": TOMBSTONE_S} | options
    store = EmbeddedStore(directory, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


def key(client_id):
    """Return a client's key."""
    return SessionKey("default", "m", client_id)


def record(position=0, size=100):
    """Return a session's record, whose every value is its position."""
    return Record(
        fingerprint="f",
        epoch=1,
        position=position,
        row=np.full(size, position, np.float32),
        has_output=np.ones(1, np.bool_),
        nonce=1,
    )


async def commit(store, before, after, client_id="alice"):
    """Commit one change and return its outcome."""
    [outcome] = await store.commit_many([Commit(key(client_id), before, after)])
    return outcome


async def load(store, client_id="alice"):
    """Return what one session has."""
    [loaded] = await store.load_many([key(client_id)])
    return loaded


def log_bytes(directory):
    """Return the length of the write-ahead log."""
    return (directory / "sessions.sqlite-wal").stat().st_size


def execute(directory, statement, *parameters):
    """Do something to the file behind the store's back, and return what comes of it."""
    connection = sqlite3.connect(directory / "sessions.sqlite", isolation_level=None)
    try:
        return connection.execute(statement, parameters).fetchall()
    finally:
        connection.close()
