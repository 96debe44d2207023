"""A request inside the engine, and the time steps of one on their way. Knows no event loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from service.domain import AdvanceRequest, Bool, Float32, Reply, Request, SessionKey
from service.errors import ServiceError
from service.records import Record
from service.stores.base import Commit, Stored

Complete = Callable[[Reply | ServiceError], None]


class Timer(Protocol):
    """Something that will happen at a set time."""

    def cancel(self) -> None:
        """Let it not happen."""
        ...


class Live(msgspec.Struct, eq=False):
    """A session at hand.

    Attributes:
        stored: What the store has of it as far as this process knows; None while there is nothing.
        slot: Where its row is.
        used_at: When it was last asked for, in seconds since 1970.
    """

    stored: Stored | None
    slot: int
    used_at: float = 0.0


class Change(Commit, eq=False):
    """A change of one session that waits for its commit. Never changed itself.

    Attributes:
        job: Who asked for it, the first one where several jobs ran in one piece.
        replies: The answers once it is, one for each job.
        live: The session at hand; None for the second one of a fork.
        run: Whose slot holds the new row; None where the change computed nothing.
    """

    job: Job
    replies: Sequence[Reply]
    live: Live | None
    run: Run | None = None

    @property
    def jobs(self) -> Sequence[Job]:
        """Who asked for it, all of them."""
        if self.run is None or not self.run.followers:
            return (self.job,)
        return (self.job, *self.run.followers)


class Job(msgspec.Struct, eq=False):
    """A request, from its admission to its answer.

    Attributes:
        key: The session.
        request: What is asked.
        complete: Called once with the answer or the error, unless the job was cancelled.
        taken_at: When it was admitted, in seconds of `perf_counter`.
        is_cancelled: Nobody waits for the answer any more.
        is_done: It is answered, or nobody waited.
        begun_at: When it had its first turn, in seconds of `perf_counter`; from then on its outcome
            is the answer, however late. 0: it has had none.
        is_alone: It may not run in one piece with others.
        deputy: The job that the other engine has for it.
        is_deputy: This is one: it is completed even where it is cancelled, to end the other's turn.
        deadline: What answers it if it has had no turn by then.
        run: How its time steps go, once they have begun.
        version: Of the model: the one that gave the answer, None before. Empty where that does not
            run here.
    """

    key: SessionKey
    request: Request
    complete: Complete
    taken_at: float = 0.0
    is_cancelled: bool = False
    is_done: bool = False
    begun_at: float = 0.0
    is_alone: bool = False
    deputy: Job | None = None
    is_deputy: bool = False
    deadline: Timer | None = None
    run: Run | None = None
    version: str | None = None

    def cancel(self) -> None:
        """Say that nobody waits any more: what has not gone to the store will not be applied."""
        self.is_cancelled = True
        if self.deadline is not None:
            self.deadline.cancel()
        if self.deputy is not None:
            self.deputy.cancel()


class Run(msgspec.Struct, eq=False):
    """Time steps of one session on their way: those of a request, or of several in one piece.

    Attributes:
        job: Whose; the first one's.
        request: What that one asks.
        live: The session.
        start: The record that the steps start from; of a new session, position 0 of its new epoch.
        slot: Where the state is now: the session's own slot until the first chunk is done.
        inputs: `(time, input_size)` float32.
        num_left: Time steps still to take.
        mask: `(time,)` bool, true where a step is live; None means everywhere.
        is_replay: The answer is computed again and nothing changes.
        followers: The jobs that run in one piece with the first one, a step each.
        chunks: What the steps gave, `(steps, output_size)` each; only the last where only that is
            asked.
    """

    job: Job
    request: AdvanceRequest
    live: Live
    start: Record
    slot: int
    inputs: Float32
    num_left: int
    mask: Bool | None = None
    is_replay: bool = False
    followers: Sequence[Job] = ()
    chunks: list[Float32] | tuple[()] = ()

    @property
    def num_done(self) -> int:
        """Time steps taken."""
        return len(self.inputs) - self.num_left
