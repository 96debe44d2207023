"""One tick over the jobs that have their turn: begin, advance, commit, resolve.

Knows no queue, no admission and no transport; what a request means to a session is decided in
`opening`, what runs together in `batching`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from lstm_core.runtime.cpu import Advanced
from service import batching, sessions
from service.arena import Arena
from service.compute import Compute
from service.domain import AdvanceReply, Bool, Float32, Reply, SessionKey
from service.errors import (
    InternalError,
    PositionConflictError,
    ServiceError,
    SessionDamagedError,
    StateNotFiniteError,
    TooManySessionsError,
    UnavailableError,
)
from service.jobs import Change, Job, Run
from service.opening import Elsewhere, Opener, Opening
from service.stores.base import Commit, Damaged, Outcome, SessionStore

log = logging.getLogger(__name__)


@dataclass(slots=True)
class EngineStats:
    """What an engine has done since it began, for metrics. Numbers only grow."""

    num_steps: int = 0
    num_ticks: int = 0
    num_batches: int = 0
    num_batch_rows: int = 0
    num_replayed: int = 0
    num_conflicts: int = 0
    num_rejected: int = 0
    num_cancelled: int = 0
    num_internal_errors: int = 0


class Ticker:
    """What gives jobs their turn: each is answered, or asks for another turn.

    Attributes:
        stats: What it has done.
    """

    def __init__(
        self,
        opener: Opener,
        arena: Arena,
        compute: Compute,
        store: SessionStore,
        chunk_steps: int,
        is_busy: Callable[[SessionKey], bool],
        hand_over: Callable[[Job, str], None],
        clock: Callable[[], float],
    ) -> None:
        """Bring the parts together.

        Args:
            opener: Begins the turns.
            arena: The sessions at hand.
            compute: Runs the kernels on the arena's rows.
            store: Where sessions are kept.
            chunk_steps: Most time steps of one request in one tick.
            is_busy: Whether a session has jobs.
            hand_over: Gives a job to the version of the model with a fingerprint, or raises a
                `ServiceError`.
            clock: Tells the seconds since 1970.
        """
        self.stats = EngineStats()
        self._opener = opener
        self._arena = arena
        self._compute = compute
        self._store = store
        self._chunk_steps = chunk_steps
        self._is_busy = is_busy
        self._hand_over = hand_over
        self._clock = clock
        self._changes: list[Change] = []

    async def tick(self, jobs: list[Job]) -> None:
        """Give every job its turn, one for each session; those not done then want another."""
        self.stats.num_ticks += 1
        try:
            await self._process(jobs)
        except (Exception, asyncio.CancelledError) as error:
            # The guard: whatever went wrong, every caller gets an answer, and the sessions are read
            # from the store again, since what is at hand may be half done. A cancellation that was
            # not meant for this task is a fault like any other.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self._changes.clear()
            for job in jobs:
                if not (job.is_done or job.is_away):
                    self._fail(job, error)
                self._arena.forget(job.key)

    async def _process(self, jobs: list[Job]) -> None:
        waiting = [job for job in jobs if not self._skip_cancelled(job)]
        starting = [job for job in waiting if job.run is None]
        for job, opening in zip(starting, await self._opener.open_all(starting), strict=True):
            self._begin(job, opening)
        runs = [job.run for job in waiting if job.run is not None]
        for batch in batching.plan(runs, self._chunk_steps):
            await self._advance(batch)
        await self._commit()

    def _skip_cancelled(self, job: Job) -> bool:
        if not job.is_cancelled:
            return False
        self.stats.num_cancelled += 1
        self._drop_run(job)
        job.is_done = True
        if job.is_deputy:
            # Who handed it over does not wait for the answer, but for the end of the turn.
            job.complete(InternalError())
        return True

    def _begin(self, job: Job, opening: Opening) -> None:
        if isinstance(opening, Run):
            self.stats.num_replayed += opening.is_replay
            job.run = opening
        elif isinstance(opening, Change):
            self._changes.append(opening)
        elif isinstance(opening, Elsewhere):
            self._send(job, opening.fingerprint)
        elif isinstance(opening, Exception):
            self._fail(job, opening)
        else:
            self.stats.num_replayed += isinstance(opening, AdvanceReply)
            self.answer(job, opening)

    def _send(self, job: Job, fingerprint: str) -> None:
        try:
            self._hand_over(job, fingerprint)
        except ServiceError as error:
            self._fail(job, error)
        else:
            job.is_away = True

    async def _advance(self, batch: batching.Batch[Run]) -> None:
        """Take one chunk of each run; a run that fails leaves its session as it was."""
        runs, lengths = batch.jobs, batch.lengths
        inputs, mask = _gather_inputs(runs, lengths)
        to_slots = [self._arena.allocate() for _ in runs]
        from_slots = [run.slot for run in runs]
        try:
            advanced = await self._compute.advance(from_slots, to_slots, inputs, lengths, mask)
        except Exception as error:  # noqa: BLE001 - alone, each run shows if the fault is its own
            for slot in to_slots:
                self._arena.free(slot)
            if len(runs) == 1:
                self._fail(runs[0].job, error)
                return
            for run, length in zip(runs, lengths, strict=True):
                await self._advance(batching.Batch([run], [length]))
            return
        self.stats.num_batches += 1
        self.stats.num_batch_rows += len(runs)
        self.stats.num_steps += sum(lengths)
        for index, run in enumerate(runs):
            try:
                self._take_chunk(run, to_slots[index], advanced, index, lengths[index])
            except Exception as error:  # noqa: BLE001 - the guard of one job
                self._fail(run.job, error)

    def _take_chunk(self, run: Run, slot: int, advanced: Advanced, index: int, length: int) -> None:
        """Move a run to the slot that its chunk ended in, and finish it if that was the last.

        Raises:
            StateNotFiniteError: It came to no state that a session may have.
        """
        if run.slot != run.live.slot:
            self._arena.free(run.slot)
        run.slot = slot
        run.num_done += length
        if not advanced.is_state_finite[index]:
            raise StateNotFiniteError("a state")
        if not advanced.is_output_finite[index]:
            raise StateNotFiniteError("an output")
        # Copies: a view would keep the whole batch in memory as long as this answer is kept.
        if run.request.return_sequences:
            run.chunks.append(advanced.outputs[index, :length].copy())
        elif not run.num_left:
            run.chunks.append(advanced.outputs[index, length - 1 : length].copy())
        if not run.num_left:
            self._finish(run, advanced.rows[index].copy(), advanced.has_output[index].copy())

    def _finish(self, run: Run, row: Float32, has_output: Bool) -> None:
        request = run.request
        outputs = run.chunks[0] if len(run.chunks) == 1 else np.concatenate(run.chunks)
        reply = AdvanceReply(
            outputs=outputs if request.return_sequences else outputs[0],
            position=run.start.position + len(request.inputs),
            epoch=run.start.epoch,
            replayed=run.is_replay,
            row=row if request.return_state else None,
        )
        if run.is_replay:
            self.answer(run.job, reply)
            return
        after = sessions.advanced(
            run.start,
            request,
            run.digest,
            reply,
            row=row,
            has_output=has_output,
            now=self._clock(),
        )
        change = Change(run.job, run.job.key, run.live.stored, after, reply, run.live, run)
        self._changes.append(change)

    def _take_changes(self) -> dict[SessionKey, Change]:
        """Return what the tick changes, one change a session; the other jobs start anew."""
        changes: dict[SessionKey, Change] = {}
        for change in self._changes:
            # A caller may have gone while the kernel ran: what it asked for is not applied any
            # more. And a fork's second session may have a change of its own.
            if self._skip_cancelled(change.job):
                continue
            if change.key in changes:
                self._drop_run(change.job)
            else:
                changes[change.key] = change
        self._changes = []
        return changes

    async def _commit(self) -> None:
        """Make the tick's changes durable in one trip, then answer."""
        changes = self._take_changes()
        if not changes:
            return
        commits = [Commit(c.key, c.before, c.after) for c in changes.values()]
        try:
            outcomes = await self._store.commit_many(commits)
        except UnavailableError as error:
            # Whether they were made is not known. What the store says before the next job of each
            # session will settle it.
            for change in changes.values():
                self._fail(change.job, error.again())
                self._forget(change)
            return
        for change, outcome in zip(changes.values(), outcomes, strict=True):
            match outcome:
                case Outcome.COMMITTED:
                    self._apply(change)
                    self.answer(change.job, change.reply)
                case Outcome.FULL:
                    self._fail(change.job, TooManySessionsError())
                case Outcome.DAMAGED:
                    self._fail(change.job, _damaged(change))
                case Outcome.CONFLICT:
                    self.stats.num_conflicts += 1
                    # Another writer was here. The job starts anew from what the store says now.
                    self._drop_run(change.job)
                    self._forget(change)

    def _apply(self, change: Change) -> None:
        if change.live is None or change.after is None:
            self._forget(change)
        elif change.run is not None:
            self._arena.keep(change.key, change.live, change.after, change.run.slot)
            change.job.run = None
        else:
            slot = self._arena.slot_with(change.after.row, change.after.has_output)
            self._arena.keep(change.key, change.live, change.after, slot)

    def _forget(self, change: Change) -> None:
        """Let go of a session that is not as it is at hand."""
        # The second session of a fork may have a job of its own on its way, from a state that its
        # commit will find out to be another.
        if change.live is not None or not self._is_busy(change.key):
            self._arena.forget(change.key)

    def answer(self, job: Job, result: Reply | ServiceError) -> None:
        """Answer a job: the only place that does."""
        self._drop_run(job)
        job.is_done = True
        if job.is_cancelled:
            return
        try:
            job.complete(result)
        except Exception:
            # One caller's fault is not the others'.
            log.exception("an answer of session %s could not be handed over", job.key)

    def _fail(self, job: Job, error: BaseException) -> None:
        """Answer a job with what went wrong; what is no `ServiceError` is a fault of ours."""
        if not isinstance(error, ServiceError):
            log.error("a request for session %s failed", job.key, exc_info=error)
            self.stats.num_internal_errors += 1
            error = InternalError()
        elif isinstance(error, PositionConflictError):
            self.stats.num_conflicts += 1
        self.answer(job, error)

    def _drop_run(self, job: Job) -> None:
        """Free the slot that a run has come to, if it is not the session's own."""
        run, job.run = job.run, None
        if run is not None and run.slot != run.live.slot:
            self._arena.free(run.slot)


def _damaged(change: Change) -> SessionDamagedError:
    reason = change.before.reason if isinstance(change.before, Damaged) else "it cannot be replaced"
    return SessionDamagedError(change.key.client_id, reason)


def _gather_inputs(runs: Sequence[Run], lengths: Sequence[int]) -> tuple[Float32, Bool | None]:
    """Return the next time steps of each run, `(batch, time, input_size)`, and their mask."""
    time = max(lengths)
    features = runs[0].request.inputs.shape[1]
    inputs = np.zeros((len(runs), time, features), np.float32)
    mask = np.ones((len(runs), time), np.bool_) if runs[0].has_mask else None
    for index, (run, length) in enumerate(zip(runs, lengths, strict=True)):
        span = slice(run.num_done, run.num_done + length)
        inputs[index, :length] = run.request.inputs[span]
        if mask is not None and run.request.mask is not None:
            mask[index, :length] = run.request.mask[span]
    return inputs, mask
