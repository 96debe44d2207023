"""A store that is watched: while it does not answer, nobody waits for it to fail once more.

The first failure closes it, and a background task opens it again as soon as it takes commits. In
between every call fails at once with the reason. Knows no session's rules.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from time import perf_counter
from typing import TypeVar, TypeVarTuple

from service.domain import SessionKey, SessionSummary
from service.errors import UnavailableError
from service.stores.base import Commit, Loaded, Outcome, SessionStore

log = logging.getLogger(__name__)

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

_CHECK_EVERY_S = 1.0
_FIRST_RETRY_S = 0.02
_LAST_RETRY_S = 0.5


class WatchedStore:
    """A `SessionStore` over another one.

    Attributes:
        error: Why it is not available; None while it is.
        num_errors: Calls that failed, those that were not tried included.
        observe_trip: Told of each trip to the store: the seconds that it took.
    """

    def __init__(
        self, store: SessionStore, observe_trip: Callable[[float], None] = lambda _: None
    ) -> None:
        """Watch over `store` from `open` on."""
        self.error: UnavailableError | None = None
        self.num_errors = 0
        self.observe_trip = observe_trip
        self.is_shared = store.is_shared
        self._store = store
        self._failed = asyncio.Event()
        self._watching: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the store if it answers, and watch over it from now on either way."""
        try:
            await self._store.open()
        except UnavailableError as error:
            self._note(error)
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def close(self) -> None:
        """Close the store."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching
        await self._store.close()

    async def check(self) -> None:
        """Tell what is known.

        Raises:
            UnavailableError: The store is not available.
        """
        if self.error is not None:
            raise self.error.again()

    async def load_many(self, keys: Sequence[SessionKey]) -> list[Loaded]:
        """Return what each key has, None where there is nothing."""
        return await self._trip(self._store.load_many, keys)

    async def commit_many(self, commits: Sequence[Commit]) -> list[Outcome]:
        """Make each change whose session is as expected; tell what became of each."""
        return await self._trip(self._store.commit_many, commits)

    async def list_sessions(
        self, tenant: str, model: str, limit: int, cursor: str | None
    ) -> tuple[list[SessionSummary], str | None]:
        """Return up to `limit` sessions, and the cursor of the rest."""
        return await self._trip(self._store.list_sessions, tenant, model, limit, cursor)

    async def list_keys(
        self, limit: int, cursor: str | None
    ) -> tuple[list[SessionKey], str | None]:
        """Return about `limit` keys, and the cursor of the rest."""
        return await self._trip(self._store.list_keys, limit, cursor)

    async def _trip(self, call: Callable[[*Arguments], Awaitable[T]], *arguments: *Arguments) -> T:
        if self.error is not None:
            self.num_errors += 1
            raise self.error.again()
        began = perf_counter()
        try:
            result = await call(*arguments)
        except UnavailableError as error:
            self.num_errors += 1
            self._note(error)
            raise
        self.observe_trip(perf_counter() - began)
        return result

    def _note(self, error: UnavailableError) -> None:
        if self.error is None:
            log.error("not ready: %s", error)
        self.error = error.again()
        self._failed.set()

    async def _watch(self) -> None:
        """Check the store now and then, and at once when it has failed, until it answers again."""
        retry_s = _FIRST_RETRY_S
        while True:
            try:
                if self.error is not None:
                    await self._store.open()
                await self._store.check()
            except UnavailableError as error:
                self._note(error)
            except Exception:
                log.exception("the session store could not be checked")
            else:
                if self.error is not None:
                    log.info("the session store is available again")
                    self.error = None
            if self.error is None:
                self._failed.clear()
                retry_s = _FIRST_RETRY_S
                # Not wait_for(), which may lose the cancellation by `close`.
                with suppress(TimeoutError):
                    async with asyncio.timeout(_CHECK_EVERY_S):
                        await self._failed.wait()
            else:
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, _LAST_RETRY_S)
