"""Sessions in this process's memory: nothing survives it.

The most recently committed ones are kept as they are, so that their next step finds them without
any work; the others as bytes, which take less than half the memory and which the garbage collector
does not walk.
"""

from __future__ import annotations

import heapq
import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence

from service.domain import TOMBSTONE_S, Record, SessionKey, SessionSummary
from service.stores import packing
from service.stores.base import Commit, Loaded, Outcome, Stored, is_same

_BARREN_S = 1.0
"""A full store in which nothing had ended is not searched again for so long: that takes a while."""
NUM_RECENT = 16_384
"""How many sessions are not packed where nobody says otherwise."""

Owner = tuple[str, str]
"""Tenant and model."""


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
            num_recent: How many sessions stay as they are; those that came before them are packed.
            clock: Tells the seconds since 1970.
        """
        self._max_sessions = max_sessions
        self._tombstone_s = tombstone_s
        self._clock = clock
        self._num_sessions = 0
        self._barren_at = -math.inf
        self._num_recent = num_recent
        # A session is in one of the two.
        self._recent: dict[SessionKey, Record] = {}
        self._packed: defaultdict[Owner, dict[str, bytes]] = defaultdict(dict)
        # Every recent one is in it; so may be others, which have ended.
        self._order: deque[SessionKey] = deque()
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
        record = self._recent.get(key)
        if record is not None:
            return record
        packed = self._packed[key[:2]].get(key.client_id)
        return None if packed is None else self._packer.unpack(packed)

    async def commit_many(self, commits: Sequence[Commit]) -> list[Outcome]:
        """Make each change whose session is as expected; tell what became of each."""
        return [self._commit(commit) for commit in commits]

    def _commit(self, commit: Commit) -> Outcome:
        key, after = commit.key, commit.after
        actual = self._recent.get(key)
        if actual is None:
            return self._commit_packed(commit)
        # The very object that was read is the common case; the identity spares the comparison.
        if actual is not commit.before and not is_same(actual, commit.before):
            return Outcome.CONFLICT
        if after is None:
            del self._recent[key]
            self._num_sessions -= 1
        else:
            self._recent[key] = after
        return Outcome.COMMITTED

    def _commit_packed(self, commit: Commit) -> Outcome:
        """Commit a change of a session that is packed, or that there is not."""
        key, after = commit.key, commit.after
        sessions = self._packed[key[:2]]
        packed = sessions.get(key.client_id)
        if not _is_expected(packed, commit.before):
            return Outcome.CONFLICT
        if packed is None:
            if after is None:
                return Outcome.COMMITTED
            if self._num_sessions >= self._max_sessions and not self._bury():
                return Outcome.FULL
            self._num_sessions += 1
        else:
            del sessions[key.client_id]
            if after is None:
                self._num_sessions -= 1
                return Outcome.COMMITTED
        self._recent[key] = after
        self._order.append(key)
        if len(self._order) > self._num_recent:
            self._pack_oldest()
        return Outcome.COMMITTED

    def _pack_oldest(self) -> None:
        """Pack the session that has been recent for the longest, unless it has ended since.

        It may be in use all the time: its next commit makes it recent again.
        """
        key = self._order.popleft()
        record = self._recent.pop(key, None)
        if record is not None:
            self._packed[key[:2]][key.client_id] = self._packer.pack(record)

    def _bury(self) -> int:
        """Drop the sessions that are not to be known any more, and return how many they were."""
        now = self._clock()
        if self._barren_at <= now < self._barren_at + _BARREN_S:
            return 0
        buried_before = now - self._tombstone_s
        ended = [key for key, r in self._recent.items() if r.expires_at < buried_before]
        for key in ended:
            del self._recent[key]
        num_buried = len(ended)
        for sessions in self._packed.values():
            gone = [i for i, p in sessions.items() if packing.expires_at(p) < buried_before]
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
        rest = self._alive_behind((tenant, model), cursor, now)
        page = heapq.nsmallest(limit + 1, rest)
        summaries = [self._summary(SessionKey(tenant, model, i)) for i in page[:limit]]
        return summaries, page[limit - 1] if len(page) > limit else None

    def _alive_behind(self, owner: Owner, cursor: str | None, now: float) -> Iterator[str]:
        """Yield the client ids of an owner behind a cursor whose sessions have not ended."""
        for key, record in self._recent.items():
            client_id = key.client_id
            is_behind = cursor is None or client_id > cursor
            if is_behind and key[:2] == owner and now < record.expires_at:
                yield client_id
        for client_id, packed in self._packed[owner].items():
            is_behind = cursor is None or client_id > cursor
            if is_behind and now < packing.expires_at(packed):
                yield client_id

    def _summary(self, key: SessionKey) -> SessionSummary:
        record = self._recent.get(key)
        if record is not None:
            return SessionSummary(key.client_id, record.position, record.epoch)
        packed = self._packed[key[:2]][key.client_id]
        return SessionSummary(key.client_id, *packing.position_and_epoch(packed))

    async def list_keys(
        self, limit: int, cursor: str | None
    ) -> tuple[list[SessionKey], str | None]:
        """Return every key on one page, whatever the limit: they are in memory anyway."""
        del limit, cursor
        packed = [SessionKey(*owner, i) for owner, ps in self._packed.items() for i in ps]
        return [*self._recent, *packed], None


def _is_expected(packed: bytes | None, expected: Stored | None) -> bool:
    if packed is None:
        return expected is None
    return isinstance(expected, Record) and packing.is_version(packed, expected)
