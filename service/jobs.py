"""A request inside the engine, and the time steps of one on their way. Knows no event loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from service.domain import (
    AdvanceRequest,
    Float32,
    Record,
    Reply,
    Request,
    SessionKey,
)
from service.errors import ServiceError
from service.stores.base import Stored

Complete = Callable[[Reply | ServiceError], None]


@dataclass(slots=True, eq=False)
class Live:
    """A session at hand.

    Attributes:
        stored: What the store has of it as far as this process knows; None while there is nothing.
        slot: Where its row is.
        used_at: When it was last asked for, in seconds since 1970.
    """

    stored: Stored | None
    slot: int
    used_at: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class Change:
    """A change of one session that waits for its commit.

    Attributes:
        job: Who asked for it.
        key: The session: the job's own, or the second one of a fork.
        before: What the store is expected to have of it.
        after: What it shall be; None ends it.
        reply: The answer once it is.
        live: The session at hand; None for the second one of a fork.
        run: Whose slot holds the new row; None where the change computed nothing.
    """

    job: Job
    key: SessionKey
    before: Stored | None
    after: Record | None
    reply: Reply
    live: Live | None
    run: Run | None = None


@dataclass(slots=True, eq=False)
class Job:
    """A request, from its admission to its answer.

    Attributes:
        request: What is asked.
        complete: Called once with the answer or the error, unless the job was cancelled.
        is_cancelled: Nobody waits for the answer any more.
        is_done: It is answered, or nobody waited.
        is_away: Another engine has taken it over in this turn, and will end the turn or has.
        deputy: The job that the other engine has for it.
        is_deputy: This is one: it is completed even where it is cancelled, to end the other's turn.
        run: How its time steps go, once they have begun.
    """

    request: Request
    complete: Complete
    is_cancelled: bool = False
    is_done: bool = False
    is_away: bool = False
    deputy: Job | None = None
    is_deputy: bool = False
    run: Run | None = None

    @property
    def key(self) -> SessionKey:
        """The session."""
        return self.request.key

    def cancel(self) -> None:
        """Say that nobody waits any more: what has not gone to the store will not be applied."""
        self.is_cancelled = True
        if self.deputy is not None:
            self.deputy.cancel()


@dataclass(slots=True, eq=False)
class Run:
    """The time steps of an `AdvanceRequest` on their way.

    Attributes:
        job: Whose.
        request: Of the job.
        live: The session.
        start: The record that the steps start from; of a new session, position 0 of its new epoch.
        digest: Of the request.
        slot: Where the state is now: the session's own slot until the first chunk is done.
        is_replay: The answer is computed again and nothing changes.
        num_done: Time steps taken.
        chunks: What they gave, `(steps, output_size)` each; only the last where only that is asked.
    """

    job: Job
    request: AdvanceRequest
    live: Live
    start: Record
    digest: bytes
    slot: int
    is_replay: bool = False
    num_done: int = 0
    chunks: list[Float32] = field(default_factory=list)

    @property
    def num_left(self) -> int:
        """Time steps still to take."""
        return len(self.request.inputs) - self.num_done

    @property
    def has_mask(self) -> bool:
        """Whether some steps may be masked."""
        return self.request.mask is not None
