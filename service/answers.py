"""How jobs end: the only room that answers them. Counts what the engine does."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from msgspec.structs import replace

from service.arena import Arena
from service.domain import AdvanceReply, Reply
from service.errors import (
    DeadlineExceededError,
    InternalError,
    PositionConflictError,
    ServiceError,
)
from service.histograms import Histogram
from service.jobs import Job, Run
from service.signature import Signature

log = logging.getLogger(__name__)

_BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
_WAITS_S = (1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)


@dataclass(slots=True)
class EngineStats:
    """What an engine has done since it began, for metrics. Numbers only grow.

    Attributes:
        num_expired: Requests whose turn did not come within their own timeout.
        batch_sizes: Sessions in each kernel call.
        waits_s: How long the first request of each tick had waited for it, of those that began.
    """

    num_steps: int = 0
    num_ticks: int = 0
    num_batches: int = 0
    num_batch_rows: int = 0
    num_replayed: int = 0
    num_conflicts: int = 0
    num_rejected: int = 0
    num_cancelled: int = 0
    num_internal_errors: int = 0
    num_ended: int = 0
    num_expired: int = 0
    batch_sizes: Histogram = field(default_factory=lambda: Histogram(_BATCH_SIZES))
    waits_s: Histogram = field(default_factory=lambda: Histogram(_WAITS_S))


class Answers:
    """The answers to the jobs of an engine.

    Attributes:
        stats: What the engine has done.
    """

    def __init__(self, arena: Arena, signature: Signature) -> None:
        """Answer jobs whose runs have slots in an arena of a version of the model."""
        self.stats = EngineStats()
        self._layout = signature.state_layout
        self._version = signature.version
        self._arena = arena

    def answer(self, job: Job, result: Reply | ServiceError) -> None:
        """Answer a job."""
        if job.run is not None:
            self.drop_run(job)
        # As `_end`, spelled out: it is done for each step.
        job.is_done = True
        if job.version is None:
            # Who asked may hold another version of the model than the one that ran.
            job.version = self._version
        self.stats.num_ended += 1
        if job.deadline is not None:
            job.deadline.cancel()
        if job.is_cancelled and not job.is_deputy:
            return
        if isinstance(result, AdvanceReply) and result.row is not None and not result.layout:
            result = replace(result, layout=self._layout)
        try:
            job.complete(result)
        except Exception:
            # One caller's fault is not the others'.
            log.exception("an answer of session %s could not be handed over", job.key)

    def expire(self, job: Job) -> None:
        """Answer a job that has had no turn in the time that its caller waits."""
        self.stats.num_expired += 1
        self.answer(job, DeadlineExceededError())
        # So that steps in one piece that it has joined meanwhile come apart.
        job.is_cancelled = True

    def fail(self, job: Job, error: BaseException) -> None:
        """Answer a job with what went wrong; what is no `ServiceError` is a fault of ours."""
        if not isinstance(error, ServiceError):
            log.error("a request for session %s failed", job.key, exc_info=error)
            self.stats.num_internal_errors += 1
            answer: ServiceError = InternalError()
        else:
            answer = error
            self.stats.num_conflicts += isinstance(error, PositionConflictError)
        # It holds the frames that it passed, and with them a list that holds it: a cycle with the
        # inputs of the whole tick.
        error.__traceback__ = None
        self.answer(job, answer)

    def skip_cancelled(self, job: Job) -> bool:
        """End a job that nobody waits for; false, and nothing done, if somebody does."""
        if not job.is_cancelled:
            return False
        self.stats.num_cancelled += 1
        self.drop_run(job)
        self._end(job)
        if job.is_deputy:
            # Who handed it over does not wait for the answer, but for the end of the turn.
            job.complete(InternalError())
        return True

    def take_apart(self, run: Run) -> None:
        """Let the jobs that ran in one piece start anew, each alone."""
        for job in (run.job, *run.followers):
            job.is_alone = True
        self.drop_run(run.job)

    def drop_run(self, job: Job) -> None:
        """Free the slot that a run has come to, if it is not the session's own."""
        run, job.run = job.run, None
        if run is not None and run.slot != run.live.slot:
            self._arena.free(run.slot)

    def _end(self, job: Job) -> None:
        job.is_done = True
        self.stats.num_ended += 1
        if job.deadline is not None:
            job.deadline.cancel()
