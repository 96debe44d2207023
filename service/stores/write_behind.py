"""Commits that are answered before they are durable, a bounded number of them for a bounded time.

Each session's latest record goes to the store behind in the background, one trip for all that have
changed. What the store then says of another writer is told to the session's next request. While the
store does not answer, commits are taken until a bound is reached, and refused from then on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

from service.domain import Record, SessionKey, SessionSummary
from service.errors import StoreUnavailableError, UnavailableError
from service.stores.base import Commit, Loaded, Lost, Outcome, SessionStore, Stored, is_same

log = logging.getLogger(__name__)

_RETRY_S = 0.02


@dataclass(slots=True, eq=False)
class _Unflushed:
    """A session that is ahead of the store behind.

    Attributes:
        base: What the store is expected to have.
        latest: What it shall have; None ends the session.
        since: When the session went ahead, on the monotonic clock.
        num_steps: Time steps, and other changes, between the two.
        attempted: What was sent without an answer: the store may have it.
    """

    base: Stored | None
    latest: Record | None
    since: float
    num_steps: int
    attempted: list[Record | None] = field(default_factory=list)


class WriteBehindStore:
    """A `SessionStore` over another one, for the mode `async`.

    Attributes:
        num_lost: Sessions whose answered changes met another writer's.
    """

    def __init__(self, store: SessionStore, *, max_steps: int, max_ms: float) -> None:
        """Go ahead of `store` by so much and no more.

        Args:
            store: The store behind.
            max_steps: Most time steps, and other changes, that may be lost.
            max_ms: Longest time for which a change may be in danger, in milliseconds.
        """
        self.is_shared = store.is_shared
        self.num_lost = 0
        self._store = store
        self._max_steps = max_steps
        self._max_s = max_ms / 1000
        self._ahead: dict[SessionKey, _Unflushed] = {}
        self._lost: set[SessionKey] = set()
        self._num_steps = 0
        self._error: UnavailableError | None = None
        self._wake = asyncio.Event()
        self._flushed = asyncio.Event()
        self._flushing: asyncio.Task[None] | None = None

    @property
    def num_unflushed_steps(self) -> int:
        """How many time steps, and other changes, a crash would lose now."""
        return self._num_steps

    @property
    def unflushed_s(self) -> float:
        """For how long the oldest of them has been in danger, in seconds."""
        oldest = next(iter(self._ahead.values()), None)
        return 0.0 if oldest is None else monotonic() - oldest.since

    async def open(self) -> None:
        """Open the store behind, and begin to follow."""
        await self._store.open()
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Bring the store behind up to date if it answers, and close it."""
        if self._flushing is not None:
            self._flushing.cancel()
            with suppress(asyncio.CancelledError):
                await self._flushing
        try:
            while self._ahead:
                await self._flush()
        except UnavailableError:
            log.critical("%d answered changes are lost with this process", self._num_steps)
        await self._store.close()

    async def check(self) -> None:
        """Ask the store behind.

        Raises:
            UnavailableError: It takes no commits.
        """
        await self._store.check()

    async def load_many(self, keys: Sequence[SessionKey]) -> list[Loaded]:
        """Return what each key has: here where it is ahead, else in the store behind."""
        behind = [key for key in keys if key not in self._ahead and key not in self._lost]
        loaded = dict(
            zip(behind, await self._store.load_many(behind), strict=True) if behind else ()
        )
        return [self._load(key, loaded) for key in keys]

    def _load(self, key: SessionKey, loaded: dict[SessionKey, Loaded]) -> Loaded:
        if key in self._lost:
            self._lost.discard(key)
            return Lost()
        # A flush may have ended while the store was asked.
        ahead = self._ahead.get(key)
        return loaded[key] if ahead is None else ahead.latest

    async def commit_many(self, commits: Sequence[Commit]) -> list[Outcome]:
        """Take each change whose session is as expected, as far as is known here."""
        num_steps = sum(map(_count_steps, commits))
        await self._wait_for_room(num_steps)
        outcomes = [self._take(commit) for commit in commits]
        self._wake.set()
        if num_steps > self._max_steps:
            await self._wait_for_room(self._max_steps)
        return outcomes

    def _take(self, commit: Commit) -> Outcome:
        if commit.key in self._lost:
            return Outcome.CONFLICT
        num_steps = _count_steps(commit)
        ahead = self._ahead.get(commit.key)
        if ahead is None:
            self._ahead[commit.key] = _Unflushed(
                commit.before, commit.after, monotonic(), num_steps
            )
        elif is_same(ahead.latest, commit.before):
            ahead.latest = commit.after
            ahead.num_steps += num_steps
        else:
            return Outcome.CONFLICT
        self._num_steps += num_steps
        return Outcome.COMMITTED

    async def list_sessions(
        self, tenant: str, model: str, limit: int, cursor: str | None
    ) -> tuple[list[SessionSummary], str | None]:
        """Return up to `limit` sessions as the store behind has them, once it is up to date."""
        await self._wait_for_room(self._max_steps)
        return await self._store.list_sessions(tenant, model, limit, cursor)

    async def list_keys(
        self, limit: int, cursor: str | None
    ) -> tuple[list[SessionKey], str | None]:
        """Return about `limit` keys of the store behind, once it is up to date."""
        await self._wait_for_room(self._max_steps)
        return await self._store.list_keys(limit, cursor)

    async def _wait_for_room(self, num_steps: int) -> None:
        """Wait until so many steps may go ahead; all must be flushed where they are too many.

        Raises:
            UnavailableError: The store behind does not answer.
        """
        while self._ahead and (
            self._num_steps + num_steps > self._max_steps or self.unflushed_s > self._max_s
        ):
            if self._error is not None:
                raise self._error.with_traceback(None)
            self._flushed.clear()
            self._wake.set()
            await self._flushed.wait()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while self._ahead:
                    await self._flush()
                self._error = None
            except Exception as error:
                if not isinstance(error, UnavailableError):
                    log.exception("changes could not be made durable")
                    error = StoreUnavailableError("a fault of the service")
                self._error = error
                await asyncio.sleep(_RETRY_S)
                self._wake.set()
            finally:
                self._flushed.set()

    async def _flush(self) -> None:
        """Send what is ahead to the store behind, in one trip.

        Raises:
            UnavailableError: It does not answer.
        """
        sent = [(key, ahead, ahead.latest, ahead.num_steps) for key, ahead in self._ahead.items()]
        began = monotonic()
        try:
            outcomes = await self._store.commit_many(
                [Commit(key, ahead.base, latest) for key, ahead, latest, _ in sent]
            )
        except UnavailableError:
            for _, ahead, latest, _ in sent:
                if not ahead.attempted or not is_same(ahead.attempted[-1], latest):
                    ahead.attempted.append(latest)
            raise
        in_doubt = []
        ahead_again = {}
        for (key, ahead, latest, num_steps), outcome in zip(sent, outcomes, strict=True):
            if outcome is Outcome.COMMITTED:
                self._num_steps -= num_steps
                del self._ahead[key]
                if ahead.latest is not latest:
                    since_then = ahead.num_steps - num_steps
                    ahead_again[key] = _Unflushed(latest, ahead.latest, began, since_then)
            elif ahead.attempted and outcome is Outcome.CONFLICT:
                in_doubt.append(key)
            else:
                self._lose(key)
        # The oldest stay in front.
        self._ahead = ahead_again | self._ahead
        if in_doubt:
            await self._settle(in_doubt)
        self._flushed.set()

    async def _settle(self, keys: Sequence[SessionKey]) -> None:
        """Find out of sessions with unanswered commits if it was one of those that won.

        Raises:
            UnavailableError: The store behind does not answer.
        """
        for key, stored in zip(keys, await self._store.load_many(keys), strict=True):
            ahead = self._ahead[key]
            if any(_is_made(stored, attempt) for attempt in ahead.attempted):
                assert not isinstance(stored, Lost), "identical to what was sent"
                ahead.base = stored
            else:
                self._lose(key)

    def _lose(self, key: SessionKey) -> None:
        log.error("answered changes of session %s met another writer's and are lost", key)
        self.num_lost += 1
        self._lost.add(key)
        self._num_steps -= self._ahead.pop(key).num_steps


def _count_steps(commit: Commit) -> int:
    """Return how many time steps a change is worth; one that takes none counts as one."""
    before, after = commit.before, commit.after
    if isinstance(before, Record) and after is not None and before.epoch == after.epoch:
        return after.position - before.position
    return 1 if after is None else max(1, after.position)


def _is_made(loaded: Loaded, attempt: Record | None) -> bool:
    return not isinstance(loaded, Lost) and is_same(loaded, attempt)
