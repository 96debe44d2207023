"""What a store of sessions does. Knows records and keys; knows no runtime and no transport."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

from service.domain import Record, SessionKey, SessionSummary


class Outcome(Enum):
    """What became of a commit."""

    COMMITTED = auto()
    CONFLICT = auto()
    """The session was not as expected; nothing was changed."""
    FULL = auto()
    """There is no room for another session; nothing was changed."""


@dataclass(frozen=True, slots=True, eq=False)
class Commit:
    """A change of one session, made only if the session is as it was.

    Attributes:
        key: The session.
        before: What it is expected to be, compared by epoch and position; None means absent.
        after: What it shall be; None ends it.
    """

    key: SessionKey
    before: Record | None
    after: Record | None


class SessionStore(Protocol):
    """Where sessions are kept, and what decides between two writers."""

    async def load_many(self, keys: Sequence[SessionKey]) -> list[Record | None]:
        """Return the record of each key, None where there is none."""
        ...

    async def commit_many(self, commits: Sequence[Commit]) -> list[Outcome]:
        """Make each change whose session is as expected; tell what became of each.

        Args:
            commits: At most one for a key.
        """
        ...

    async def list_sessions(
        self, tenant: str, model: str, limit: int, cursor: str | None
    ) -> tuple[list[SessionSummary], str | None]:
        """Return up to `limit` sessions in no order, and the cursor of the rest, None at the end.

        Sessions that exist throughout a listing are in it once; others may be.
        """
        ...
