"""Sessions in this process's memory: nothing survives it."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Sequence

from service.domain import Record, SessionKey, SessionSummary
from service.stores.base import Commit, Outcome


class MemoryStore:
    """A `SessionStore` for tests and for sessions that nobody would miss."""

    def __init__(self, max_sessions: int) -> None:
        """Begin empty.

        Args:
            max_sessions: More than these are refused.
        """
        self._max_sessions = max_sessions
        self._num_sessions = 0
        self._records: defaultdict[tuple[str, str], dict[str, Record]] = defaultdict(dict)

    async def load_many(self, keys: Sequence[SessionKey]) -> list[Record | None]:
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
        if actual is not commit.before and not _is_same(actual, commit.before):
            return Outcome.CONFLICT
        if commit.after is None:
            if records.pop(client_id, None) is not None:
                self._num_sessions -= 1
            return Outcome.COMMITTED
        if actual is None:
            if self._num_sessions >= self._max_sessions:
                return Outcome.FULL
            self._num_sessions += 1
        records[client_id] = commit.after
        return Outcome.COMMITTED

    async def list_sessions(
        self, tenant: str, model: str, limit: int, cursor: str | None
    ) -> tuple[list[SessionSummary], str | None]:
        """Return up to `limit` sessions by client id, and the last of them as the next cursor."""
        records = self._records[tenant, model]
        rest = (i for i in records if cursor is None or i > cursor)
        page = heapq.nsmallest(limit + 1, rest)
        summaries = [SessionSummary(i, records[i].position, records[i].epoch) for i in page[:limit]]
        return summaries, page[limit - 1] if len(page) > limit else None


def _is_same(actual: Record | None, expected: Record | None) -> bool:
    if actual is None or expected is None:
        return actual is expected
    return (actual.epoch, actual.position) == (expected.epoch, expected.position)
