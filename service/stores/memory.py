"""Sessions in this process's memory: nothing survives it.

Those whose steps find them at hand are kept as they are, so that each step costs no work here; the
others as bytes, which take less than half the memory and which the garbage collector does not walk.
A session that is loaded for a step goes back to bytes with its commit, while what it was made of is
still in the processor's cache.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence

from service.domain import TOMBSTONE_S, SessionKey, SessionSummary
from service.records import Record
from service.stores import packing
from service.stores.base import Commit, Loaded, Outcome, Stored, is_same

_BARREN_S = 1.0
"""A full store in which nothing had ended is not searched again for so long: that takes a while."""
NUM_RECENT = 16_384
"""How many sessions are not packed where nobody says otherwise."""

Owner = tuple[str, str]
"""Tenant and model."""
Kept = Record | bytes
"""A session: as it is, or packed."""


class MemoryStore:
    """A `SessionStore` for tests and for sessions that nobody would miss."""

    is_shared = False

    def __init__(
        self,
        max_sessions: int,
        *,
        tombstone_s: float = TOMBSTONE_S,
        num_recent: int = NUM_RECENT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin empty.

        Args:
            max_sessions: More than these are refused.
            tombstone_s: How long a session whose time to live is over is still known.
            num_recent: How many sessions are kept as they are, at most: the latest of those whose
                steps found them at hand.
            clock: Tells the seconds since 1970.
        """
        self._max_sessions = max_sessions
        self._tombstone_s = tombstone_s
        self._clock = clock
        self._num_sessions = 0
        self._barren_at = -math.inf
        self._num_recent = num_recent
        self._sessions: defaultdict[Owner, dict[str, Kept]] = defaultdict(dict)
        # Every one that is not packed is in it; so may be others, which have ended.
        self._recent: deque[SessionKey] = deque()
        self._packer = packing.Packer()

    async def open(self) -> None:
        """Do nothing: it is there."""

    async def close(self) -> None:
        """Do nothing: there is nothing to let go of."""

    async def check(self) -> None:
        """Do nothing: commits are always taken."""

    async def load_many(self, keys: Sequence[SessionKey]) -> list[Loaded]:
        """Return the record of each key, None where there is none."""
        return [self._load(key) for key in keys]

    def _load(self, key: SessionKey) -> Record | None:
        kept = self._sessions[key[:2]].get(key.client_id)
        return self._packer.unpack(kept) if isinstance(kept, bytes) else kept

    async def commit_many(self, commits: Sequence[Commit]) -> list[Outcome]:
        """Make each change whose session is as expected; tell what became of each."""
        return [self._commit(commit) for commit in commits]

    def _commit(self, commit: Commit) -> Outcome:
        key, before, after = commit.key, commit.before, commit.after
        client_id = key.client_id
        sessions = self._sessions[key[:2]]
        kept = sessions.get(client_id)
        # The very object that was read is a common case; the identity spares the comparison.
        if kept is not before and not _is_expected(kept, before):
            return Outcome.CONFLICT
        if after is None:
            if kept is not None:
                del sessions[client_id]
                self._num_sessions -= 1
            return Outcome.COMMITTED
        if kept is None:
            if self._num_sessions >= self._max_sessions and not self._bury():
                return Outcome.FULL
            self._num_sessions += 1
        if isinstance(kept, Record):
            sessions[client_id] = after
        elif kept is None or isinstance(before, packing.UnpackedRecord):
            sessions[client_id] = self._packer.pack(after)
        else:
            # Who commits has it from an earlier commit: it was at hand, and is likely to stay so.
            sessions[client_id] = after
            self._recent.append(key)
            if len(self._recent) > self._num_recent:
                self._pack_oldest()
        return Outcome.COMMITTED

    def _pack_oldest(self) -> None:
        """Pack the session that has been kept as it is for the longest, unless it has ended since.

        It may be in use all the time: a later commit takes it back.
        """
        key = self._recent.popleft()
        sessions = self._sessions[key[:2]]
        kept = sessions.get(key.client_id)
        if isinstance(kept, Record):
            sessions[key.client_id] = self._packer.pack(kept)

    def _bury(self) -> int:
        """Drop the sessions that are not to be known any more, and return how many they were."""
        now = self._clock()
        if self._barren_at <= now < self._barren_at + _BARREN_S:
            return 0
        buried_before = now - self._tombstone_s
        num_buried = 0
        for sessions in self._sessions.values():
            gone = [i for i, kept in sessions.items() if _expires_at(kept) < buried_before]
            for client_id in gone:
                del sessions[client_id]
            num_buried += len(gone)
        self._num_sessions -= num_buried
        if not num_buried:
            self._barren_at = now
        return num_buried

    async def list_sessions(
        self, tenant: str, model: str, limit: int, cursor: str | None
    ) -> tuple[list[SessionSummary], str | None]:
        """Return up to `limit` sessions by client id, and the last of them as the next cursor."""
        now = self._clock()
        sessions = self._sessions[tenant, model]
        rest = (
            client_id
            for client_id, kept in sessions.items()
            if (cursor is None or client_id > cursor) and now < _expires_at(kept)
        )
        page = heapq.nsmallest(limit + 1, rest)
        summaries = [SessionSummary(i, *_position_and_epoch(sessions[i])) for i in page[:limit]]
        return summaries, page[limit - 1] if len(page) > limit else None

    async def list_keys(
        self, limit: int, cursor: str | None
    ) -> tuple[list[SessionKey], str | None]:
        """Return every key on one page, whatever the limit: they are in memory anyway."""
        del limit, cursor
        return [SessionKey(*owner, i) for owner, ids in self._sessions.items() for i in ids], None


def _is_expected(kept: Kept | None, expected: Stored | None) -> bool:
    if isinstance(kept, bytes):
        return isinstance(expected, Record) and packing.is_version(kept, expected)
    return is_same(kept, expected)


def _expires_at(kept: Kept) -> float:
    return packing.expires_at(kept) if isinstance(kept, bytes) else kept.expires_at


def _position_and_epoch(kept: Kept) -> tuple[int, int]:
    if isinstance(kept, bytes):
        return packing.position_and_epoch(kept)
    return kept.position, kept.epoch
