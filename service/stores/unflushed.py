"""What is known of a session that is ahead of a store. Knows no store and no clock."""

from __future__ import annotations

from dataclasses import dataclass, field

from service.records import Record
from service.stores.base import Commit, Loaded, Lost, Stored, is_same


@dataclass(slots=True, eq=False)
class Unflushed:
    """A session that is ahead of the store behind.

    Attributes:
        base: What the store is expected to have.
        latest: What it shall have; None ends the session.
        since: When the session went ahead, on the monotonic clock, or a little before.
        num_steps: Time steps, and other changes, between the two.
        attempted: What was sent without an answer: the store may have it.
    """

    base: Stored | None
    latest: Record | None
    since: float
    num_steps: int
    attempted: list[Record | None] = field(default_factory=list)


def count_steps(commit: Commit) -> int:
    """Return how many time steps a change is worth; one that takes none counts as one."""
    before, after = commit.before, commit.after
    if isinstance(before, Record) and after is not None and before.epoch == after.epoch:
        return after.position - before.position
    return 1 if after is None else max(1, after.position)


def is_made(loaded: Loaded, attempt: Record | None) -> bool:
    """Tell whether what a store has is what was sent to it."""
    return not isinstance(loaded, Lost) and is_same(loaded, attempt)
