"""What a store of sessions does. Knows records and keys; knows no runtime and no transport."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

import msgspec

from service.domain import SessionKey, SessionSummary
from service.records import Record


class Outcome(Enum):
    """What became of a commit."""

    COMMITTED = auto()
    CONFLICT = auto()
    """The session was not as expected; nothing was changed."""
    FULL = auto()
    """There is no room for another session; nothing was changed."""
    DAMAGED = auto()
    """What is there can be neither read nor replaced; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """What a store holds for a session, but cannot be read.

    Attributes:
        data: The bytes.
        reason: What is wrong with them.
    """

    data: bytes
    reason: str


class Lost:
    """Changes of a session that were answered before their commit met another writer's."""


Stored = Record | Damaged
Loaded = Stored | Lost | None


def is_same(actual: Stored | None, expected: Stored | None) -> bool:
    """Tell whether two are the same: records by their versions, damaged bytes whole."""
    if isinstance(actual, Record) and isinstance(expected, Record):
        return actual.version == expected.version
    return actual == expected


class Commit(msgspec.Struct, eq=False):
    """A change of one session, made only if the session is as it was. Never changed itself.

    Attributes:
        key: The session.
        before: What it is expected to be, records compared by their versions, damaged bytes
            whole; None means absent.
        after: What it shall be; None ends it.
    """

    key: SessionKey
    before: Stored | None
    after: Record | None


class SessionStore(Protocol):
    """Where sessions are kept, and what decides between two writers.

    A record whose time to live is over stays for the store's `tombstone_s`, so that its end can be
    told from its never having been; then it goes by itself, at once or later. Damaged bytes that a
    commit takes the place of are kept aside for inspection.

    Attributes:
        is_shared: Whether other processes may write to the same sessions.
    """

    is_shared: bool

    async def open(self) -> None:
        """Make ready what the other methods need; it may fail, and be called again.

        Raises:
            UnavailableError: The store does not answer, or is not the one that it was.
        """
        ...

    async def close(self) -> None:
        """Make durable what is not yet, and let go of everything."""
        ...

    async def check(self) -> None:
        """Do what tells whether commits would be taken.

        Raises:
            UnavailableError: They would not.
        """
        ...

    async def load_many(self, keys: Sequence[SessionKey]) -> list[Loaded]:
        """Return what each key has, None where there is nothing.

        A store that answers before it commits says `Lost` once, to the first who asks.

        Raises:
            UnavailableError: The store does not answer.
        """
        ...

    async def commit_many(self, commits: Sequence[Commit]) -> list[Outcome]:
        """Make each change whose session is as expected; tell what became of each.

        Args:
            commits: At most one for a key.

        Raises:
            UnavailableError: What became of them is not known: each was made whole or not at all,
                or still will be.
        """
        ...

    async def list_sessions(
        self, tenant: str, model: str, limit: int, cursor: str | None
    ) -> tuple[list[SessionSummary], str | None]:
        """Return up to `limit` sessions in no order, and the cursor of the rest, None at the end.

        Sessions that exist throughout a listing are in it at least once; others may be. Those whose
        time to live is over, and damaged ones, are left out.
        """
        ...

    async def list_keys(
        self, limit: int, cursor: str | None
    ) -> tuple[list[SessionKey], str | None]:
        """Return about `limit` keys of all tenants and models, and the cursor of the rest.

        Those of ended and of damaged sessions are among them.
        """
        ...
