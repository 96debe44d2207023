"""Sessions in a Redis store, as its tests make them and look at them."""

from contextlib import asynccontextmanager, suppress

import numpy as np
from msgspec.structs import replace

from service.domain import SessionKey
from service.errors import StoreUnavailableError
from service.records import Record
from service.stores.base import Commit
from service.stores.redis import RedisStore


def key(client_id="alice"):
    """Return a client's key."""
    return SessionKey("default", "m", client_id)


def record(position=0, **fields):
    """Return a session's record."""
    row = np.full(4, position, np.float32)
    has_output = np.ones(1, np.bool_)
    plain = Record(
        fingerprint="f", epoch=1, position=position, row=row, has_output=has_output, nonce=1
    )
    return replace(plain, **fields)


async def commit(store, before, after, client_id="alice"):
    """Commit one change and return its outcome."""
    [outcome] = await store.commit_many([Commit(key(client_id), before, after)])
    return outcome


async def position(store, client_id="alice"):
    """Return where a session is, None where there is none."""
    [loaded] = await store.load_many([key(client_id)])
    return loaded and loaded.position


@asynccontextmanager
async def opened(url, **settings):
    """Open a store for as long as the block lasts, set up if it was not."""
    store = RedisStore(url, **settings)
    for _ in range(5):
        # A machine with other things to do may let a short time-out pass before the test begins.
        with suppress(StoreUnavailableError):
            await store.initialise()
            break
    try:
        await store.open()
        yield store
    finally:
        await store.close()
