"""Commits that are answered before they are durable, a bounded number of them for a bounded time.

Each session's latest record goes to the store behind in the background, all that have changed
together. What the store then says of another writer is told to the session's next request. While
the store does not answer, commits are taken until a bound is reached, and refused from then on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

from service.domain import SessionKey, SessionSummary
from service.errors import StoreUnavailableError, UnavailableError
from service.stores.base import Commit, Damaged, Loaded, Lost, Outcome, SessionStore, is_same
from service.stores.unflushed import Unflushed, count_steps, is_made

log = logging.getLogger(__name__)

_RETRY_S = 0.02
_CLOSING_S = 5.0
"""How long, at most, `close` waits for a store behind that does not answer."""
_TRIP = 128
"""Most sessions in one trip to the store behind: the embedded store holds the event loop for it."""


class WriteBehindStore:
    """A `SessionStore` over another one, for the mode `async`.

    Attributes:
        num_lost: Sessions whose answered changes met another writer's, or a full store.
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
        self._ahead: dict[SessionKey, Unflushed] = {}
        self._lost: set[SessionKey] = set()
        self._unsure: set[SessionKey] = set()
        self._num_steps = 0
        self._num_begun = 0
        self._last_flushed = 0
        self._trip_began: float | None = None
        self._is_full = False
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
        give_up_at = monotonic() + min(self._max_s, _CLOSING_S)
        try:
            while self._ahead:
                await self._flush_or_pause(give_up_at)
        except UnavailableError:
            log.critical("%d answered changes are lost with this process", self._num_steps)
        finally:
            await self._store.close()

    async def _flush_or_pause(self, give_up_at: float) -> None:
        """Flush, and where that fails leave some time before the next attempt.

        Raises:
            UnavailableError: The store behind does not answer, and it is time to give up.
        """
        try:
            await self._flush()
        except UnavailableError:
            if monotonic() > give_up_at:
                raise
            await asyncio.sleep(_RETRY_S)

    async def check(self) -> None:
        """Ask the store behind.

        Raises:
            UnavailableError: It takes no commits.
        """
        await self._store.check()

    async def load_many(self, keys: Sequence[SessionKey]) -> list[Loaded]:
        """Return what each key has: here where it is ahead, else in the store behind."""
        loaded: dict[SessionKey, Loaded] = {}
        # Once more for those that were ahead and were flushed while the store was asked for others.
        while behind := [
            key
            for key in keys
            if key not in loaded and key not in self._ahead and key not in self._lost
        ]:
            loaded |= zip(behind, await self._store.load_many(behind), strict=True)
        return [self._load(key, loaded) for key in keys]

    def _load(self, key: SessionKey, loaded: dict[SessionKey, Loaded]) -> Loaded:
        if key in self._lost:
            self._lost.discard(key)
            return Lost()
        # It may have gone ahead while the store was asked.
        ahead = self._ahead.get(key)
        return loaded[key] if ahead is None else ahead.latest

    async def commit_many(self, commits: Sequence[Commit]) -> list[Outcome]:
        """Take each change whose session is as expected, as far as is known here.

        Raises:
            UnavailableError: The store behind does not answer, and no more may go ahead.
        """
        outcomes: dict[SessionKey, Outcome] = {}
        if must_wait := self._find_those_to_wait_for(commits):
            outcomes |= await self._commit_behind(must_wait)
        others = [commit for commit in commits if commit.key not in outcomes]
        await self._wait_for_room(sum(map(count_steps, others)))
        outcomes |= {commit.key: self._take(commit) for commit in others}
        self._wake.set()
        return [outcomes[commit.key] for commit in commits]

    def _find_those_to_wait_for(self, commits: Sequence[Commit]) -> Sequence[Commit]:
        """Return the changes that are to be durable before they are answered."""
        if sum(map(count_steps, commits)) > self._max_steps:
            return commits
        return [
            commit
            for commit in commits
            if commit.key not in self._ahead
            # What cannot be read may refuse to be replaced, and would keep all others waiting.
            and (
                commit.key in self._unsure
                or isinstance(commit.before, Damaged)
                or (self._is_full and commit.before is None)
            )
        ]

    async def _commit_behind(self, commits: Sequence[Commit]) -> dict[SessionKey, Outcome]:
        """Make changes in the store behind, after those of their sessions that are ahead.

        Raises:
            UnavailableError: It does not answer.
        """
        while any(commit.key in self._ahead for commit in commits):
            await self._wait_for_flush()
        outcomes = dict.fromkeys((commit.key for commit in commits), Outcome.CONFLICT)
        to_make = [commit for commit in commits if commit.key not in self._lost]
        keys = [commit.key for commit in to_make]
        settled = set(keys) - self._unsure
        # One that stays unanswered may still be made at any time. Until another one has taken its
        # place nothing of its session goes ahead: the answer would be lost to it.
        self._unsure.update(keys)
        made = dict(zip(keys, await self._store.commit_many(to_make), strict=True))
        settled |= {key for key, outcome in made.items() if outcome is Outcome.COMMITTED}
        self._unsure -= settled
        outcomes |= made
        self._is_full = Outcome.FULL in made.values()
        return outcomes

    def _take(self, commit: Commit) -> Outcome:
        if commit.key in self._lost:
            return Outcome.CONFLICT
        num_steps = count_steps(commit)
        ahead = self._ahead.get(commit.key)
        if ahead is None:
            # As old as those that went ahead again during a trip: the oldest stay in front.
            since = monotonic() if self._trip_began is None else self._trip_began
            self._ahead[commit.key] = Unflushed(commit.before, commit.after, since, num_steps)
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
        await self._wait_for_flush()
        return await self._store.list_sessions(tenant, model, limit, cursor)

    async def list_keys(
        self, limit: int, cursor: str | None
    ) -> tuple[list[SessionKey], str | None]:
        """Return about `limit` keys of the store behind, once it is up to date."""
        await self._wait_for_flush()
        return await self._store.list_keys(limit, cursor)

    async def _wait_for_room(self, num_steps: int) -> None:
        """Wait until so many steps may go ahead; `max_steps` at most.

        Raises:
            UnavailableError: The store behind does not answer.
        """
        while self._ahead and (
            self._num_steps + num_steps > self._max_steps or self.unflushed_s > self._max_s
        ):
            await self._wait_for_trip()

    async def _wait_for_flush(self) -> None:
        """Wait until what is ahead now is in the store behind, whatever goes ahead meanwhile.

        Raises:
            UnavailableError: The store behind does not answer.
        """
        # One that is on its way lacks what came after its beginning.
        wanted = self._num_begun + 1
        while self._ahead and self._last_flushed < wanted:
            await self._wait_for_trip()

    async def _wait_for_trip(self) -> None:
        if self._error is not None:
            raise self._error.again()
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
            except Exception as error:
                if not isinstance(error, UnavailableError):
                    log.exception("changes could not be made durable")
                    error = StoreUnavailableError("a fault of the service")
                self._error = error.again()
                await asyncio.sleep(_RETRY_S)
                self._wake.set()
            finally:
                self._flushed.set()

    async def _flush(self) -> None:
        """Send what is ahead to the store behind.

        Raises:
            UnavailableError: It does not answer.
        """
        self._num_begun += 1
        waiting = list(self._ahead)
        is_settled = True
        for begin in range(0, len(waiting), _TRIP):
            if begin:
                await asyncio.sleep(0)
            is_settled &= await self._make_trip(waiting[begin : begin + _TRIP])
            self._error = None
            self._flushed.set()
        if is_settled:
            self._last_flushed = self._num_begun
            self._flushed.set()

    async def _make_trip(self, keys: Sequence[SessionKey]) -> bool:
        """Send some of what is ahead; tell whether the store behind has all of it now.

        Raises:
            UnavailableError: It does not answer.
        """
        sent = [(key, a := self._ahead[key], a.latest, a.num_steps) for key in keys]
        began = self._trip_began = monotonic()
        try:
            outcomes = await self._store.commit_many(
                [Commit(key, ahead.base, latest) for key, ahead, latest, _ in sent]
            )
        except BaseException:
            # Whatever went wrong, a cancellation by `close` too: some of it may have been made.
            for _, ahead, latest, _ in sent:
                if not ahead.attempted or not is_same(ahead.attempted[-1], latest):
                    ahead.attempted.append(latest)
            raise
        finally:
            self._trip_began = None
        in_doubt = []
        for (key, ahead, latest, num_steps), outcome in zip(sent, outcomes, strict=True):
            if outcome is Outcome.COMMITTED:
                self._num_steps -= num_steps
                del self._ahead[key]
                if ahead.latest is not latest:
                    since_then = ahead.num_steps - num_steps
                    self._ahead[key] = Unflushed(latest, ahead.latest, began, since_then)
            elif ahead.attempted and outcome is Outcome.CONFLICT:
                in_doubt.append(key)
            else:
                self._is_full |= outcome is Outcome.FULL
                self._lose(key)
        if in_doubt:
            await self._settle(in_doubt)
        return not in_doubt

    async def _settle(self, keys: Sequence[SessionKey]) -> None:
        """Find out of sessions with unanswered commits if it was one of those that won.

        Raises:
            UnavailableError: The store behind does not answer.
        """
        for key, stored in zip(keys, await self._store.load_many(keys), strict=True):
            ahead = self._ahead[key]
            if any(is_made(stored, attempt) for attempt in ahead.attempted):
                assert not isinstance(stored, Lost), "identical to what was sent"
                ahead.base = stored
            else:
                self._lose(key)

    def _lose(self, key: SessionKey) -> None:
        why = "found the store full" if self._is_full else "met another writer's"
        log.error("answered changes of session %s %s and are lost", key, why)
        self.num_lost += 1
        self._lost.add(key)
        self._num_steps -= self._ahead.pop(key).num_steps
