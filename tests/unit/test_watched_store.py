"""A store that fails, and comes back."""

import asyncio

import pytest

from service.domain import SessionKey
from service.errors import StoreUnavailableError
from service.stores.memory import MemoryStore
from service.stores.watched import WatchedStore

KEY = SessionKey("default", "m", "alice")


class SickStore(MemoryStore):
    """A store that does not answer while it is down."""

    def __init__(self):
        super().__init__(max_sessions=10)
        self.is_down = False
        self.num_calls = 0

    def _call(self):
        self.num_calls += 1
        if self.is_down:
            raise StoreUnavailableError("down")

    async def open(self):
        """Answer, or not."""
        self._call()

    async def check(self):
        """Answer, or not."""
        self._call()

    async def load_many(self, keys):
        """Answer, or not."""
        self._call()
        return await super().load_many(keys)


async def until_available(watched):
    """Wait until the store is back."""
    async with asyncio.timeout(5):
        while watched.error is not None:
            await asyncio.sleep(0.001)


async def test_a_store_that_is_down_is_not_asked_and_comes_back():
    """Its first failure closes it to everybody, and its recovery is noticed by itself."""
    sick = SickStore()
    trips: list[float] = []
    watched = WatchedStore(sick, trips.append)
    await watched.open()
    await watched.check()
    assert [None] == await watched.load_many([KEY])

    sick.is_down = True
    with pytest.raises(StoreUnavailableError):
        await watched.load_many([KEY])
    num_calls = sick.num_calls
    for call in (watched.load_many([KEY]), watched.commit_many([]), watched.check()):
        with pytest.raises(StoreUnavailableError):
            await call
    assert (num_calls, 3, 1) == (sick.num_calls, watched.num_errors, len(trips))

    sick.is_down = False
    await until_available(watched)
    await watched.check()
    assert [None] == await watched.load_many([KEY])
    await watched.close()


async def test_a_store_that_is_down_at_the_start_is_waited_for():
    """The service starts, is not ready, and becomes it."""
    sick = SickStore()
    sick.is_down = True
    watched = WatchedStore(sick)
    await watched.open()
    with pytest.raises(StoreUnavailableError):
        await watched.check()

    sick.is_down = False
    await until_available(watched)

    assert [None] == await watched.load_many([KEY])
    await watched.close()


async def test_a_store_that_fails_as_it_is_closed_is_not_opened_again():
    """The failure does not make the watcher miss that it is to end."""
    store = SickStore()
    watched = WatchedStore(store)
    await watched.open()
    await asyncio.sleep(0.01)
    store.is_down = True
    with pytest.raises(StoreUnavailableError):
        await watched.load_many([KEY])

    await watched.close()
    num_calls = store.num_calls
    await asyncio.sleep(0.05)

    assert num_calls == store.num_calls
