"""Sessions in this process's memory: nothing survives it."""

from __future__ import annotations

import heapq
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence

from service.domain import TOMBSTONE_S, Record, SessionKey, SessionSummary
from service.stores.base import Commit, Loaded, Outcome, is_same

_BARREN_S = 1.0
"""A full store in which nothing had ended is not searched again for so long: that takes a while."""


class MemoryStore:
    """A `SessionStore` for tests and for sessions that nobody would miss."""

    is_shared = False

    def __init__(
        self,
        max_sessions: int,
        *,
        tombstone_s: float = TOMBSTONE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin empty.

        Args:
            max_sessions: More than these are refused.
            tombstone_s: How long a session whose time to live is over is still known.
            clock: Tells the seconds since 1970.
        """
        self._max_sessions = max_sessions
        self._tombstone_s = tombstone_s
        self._clock = clock
        self._num_sessions = 0
        self._barren_at = -math.inf
        self._records: defaultdict[tuple[str, str], dict[str, Record]] = defaultdict(dict)

    async def open(self) -> None:
        """Do nothing: it is there."""

    async def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    async def check(self) -> None:
        """Do nothing: commits are always taken."""

    async def load_many(self, keys: Sequence[SessionKey]) -> list[Loaded]:
        """Return the record of each key, None where there is none."""
        return [self._records[key[:2]].get(key.client_id) for key in keys]

    async def commit_many(self, commits: Sequence[Commit]) -> list[Outcome]:
        """Make each change whose session is as expected; tell what became of each."""
        return [self._commit(commit) for commit in commits]

    def _commit(self, commit: Commit) -> Outcome:
        records = self._records[commit.key[:2]]
        client_id = commit.key.client_id
        actual = records.get(client_id)
        # The very object that was read is the common case; the identity spares the comparison.
        if actual is not commit.before and not is_same(actual, commit.before):
            return Outcome.CONFLICT
        if commit.after is None:
            if records.pop(client_id, None) is not None:
                self._num_sessions -= 1
            return Outcome.COMMITTED
        if actual is None:
            if self._num_sessions >= self._max_sessions and not self._bury():
                return Outcome.FULL
            self._num_sessions += 1
        records[client_id] = commit.after
        return Outcome.COMMITTED

    def _bury(self) -> int:
        """Drop the sessions that are not to be known any more, and return how many they were."""
        now = self._clock()
        if self._barren_at <= now < self._barren_at + _BARREN_S:
            return 0
        buried_before = now - self._tombstone_s
        num_buried = 0
        for records in self._records.values():
            for client_id in [i for i, r in records.items() if r.expires_at < buried_before]:
                del records[client_id]
                num_buried += 1
        self._num_sessions -= num_buried
        if not num_buried:
            self._barren_at = now
        return num_buried

    async def list_sessions(
        self, tenant: str, model: str, limit: int, cursor: str | None
    ) -> tuple[list[SessionSummary], str | None]:
        """Return up to `limit` sessions by client id, and the last of them as the next cursor."""
        records = self._records[tenant, model]
        now = self._clock()
        rest = (
            i for i, r in records.items() if (cursor is None or i > cursor) and now < r.expires_at
        )
        page = heapq.nsmallest(limit + 1, rest)
        summaries = [SessionSummary(i, records[i].position, records[i].epoch) for i in page[:limit]]
        return summaries, page[limit - 1] if len(page) > limit else None

    async def list_keys(
        self, limit: int, cursor: str | None
    ) -> tuple[list[SessionKey], str | None]:
        """Return every key on one page, whatever the limit: they are in memory anyway."""
        del limit, cursor
        return [SessionKey(*owner, i) for owner, rs in self._records.items() for i in rs], None
