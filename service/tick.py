"""One tick over the jobs that have their turn: load, begin, advance, commit, resolve.

Owns the arena and what a tick leaves behind. Knows no queue, no admission and no transport; what a
request means to a session is decided in `sessions`, what runs together in `batching`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lstm_core.runtime.cpu import Advanced, CpuRuntime
from service import batching, sessions
from service.arena import Arena, absent
from service.compute import Compute
from service.domain import (
    AdvanceReply,
    AdvanceRequest,
    Bool,
    DeleteRequest,
    Float32,
    ImportRequest,
    Record,
    Reply,
    ResetRequest,
    SessionKey,
    SessionReply,
    Signature,
)
from service.errors import (
    InternalError,
    PositionConflictError,
    ServiceError,
    StateNotFiniteError,
    TooManySessionsError,
)
from service.jobs import Job, Live, Run
from service.stores.base import Commit, Outcome, SessionStore

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


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """A change of a session that waits for its commit.

    Attributes:
        job: Who asked for it.
        live: The session as it is.
        after: What it shall be; None ends it.
        reply: The answer once it is.
        run: Whose slot holds the new row; None where the change computed nothing.
    """

    job: Job
    live: Live
    after: Record | None
    reply: Reply
    run: Run | None = None


class Ticker:
    """What gives jobs their turn: each is answered, or asks for another turn.

    Attributes:
        stats: What it has done.
    """

    def __init__(
        self,
        signature: Signature,
        runtime: CpuRuntime,
        compute: Compute,
        store: SessionStore,
        chunk_steps: int,
        is_busy: Callable[[SessionKey], bool],
    ) -> None:
        """Bring the parts together.

        Args:
            signature: What the model takes and gives.
            runtime: Owns the rows.
            compute: Runs it.
            store: Where sessions are kept.
            chunk_steps: Most time steps of one request in one tick.
            is_busy: Whether a session has jobs.
        """
        self.stats = EngineStats()
        self._signature = signature
        self._compute = compute
        self._store = store
        self._chunk_steps = chunk_steps
        self._arena = Arena(runtime, is_busy)
        self._changes: list[_Change] = []

    @property
    def num_live(self) -> int:
        """How many sessions have their row at hand."""
        return len(self._arena)

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
                if not job.is_done:
                    self._fail(job, error)
                self._arena.forget(job.key)

    async def _process(self, jobs: list[Job]) -> None:
        waiting = [job for job in jobs if not self._skip_cancelled(job)]
        starting = [job for job in waiting if job.run is None]
        for job, live in zip(starting, await self._load(starting), strict=True):
            try:
                self._begin(job, live)
            except Exception as error:  # noqa: BLE001 - the guard of one job
                self._fail(job, error)
        runs = [job.run for job in waiting if job.run is not None]
        for batch in batching.plan(runs, self._chunk_steps):
            await self._advance(batch)
        await self._commit()

    def _skip_cancelled(self, job: Job) -> bool:
        if job.is_cancelled:
            self.stats.num_cancelled += 1
            self._drop_run(job)
            job.is_done = True
        return job.is_cancelled

    async def _load(self, jobs: list[Job]) -> list[Live]:
        """Return each job's session, those not at hand from the store in one trip."""
        found = {job.key: self._arena.find(job.key) for job in jobs}
        cold = [key for key, live in found.items() if live is None]
        if cold:
            for key, record in zip(cold, await self._store.load_many(cold), strict=True):
                found[key] = absent() if record is None else self._arena.place(key, record)
        return [live for live in found.values() if live is not None]

    def _begin(self, job: Job, live: Live) -> None:
        """Decide what a job does: answer it, note its change, or set its run up.

        Raises:
            ServiceError: It may not run.
        """
        request = job.request
        decision = sessions.decide(live.record, request)
        if isinstance(request, AdvanceRequest):
            self._begin_run(job, request, live, decision)
        elif isinstance(request, ResetRequest | ImportRequest):
            after = sessions.new_life(self._signature, request)
            self._changes.append(_Change(job, live, after, _session_reply(after)))
        else:
            assert live.record is not None, "decide() refuses absent sessions"
            reply = _session_reply(live.record)
            if isinstance(request, DeleteRequest):
                self._changes.append(_Change(job, live, None, reply))
            else:
                self._resolve(job, reply)

    def _begin_run(
        self, job: Job, request: AdvanceRequest, live: Live, decision: sessions.Decision
    ) -> None:
        start = live.record or sessions.fresh_record(self._signature)
        match decision:
            case sessions.Answered(reply):
                self.stats.num_replayed += 1
                self._resolve(job, replace(reply, replayed=True))
            case sessions.Recompute(replay):
                self.stats.num_replayed += 1
                slot = self._arena.slot_with(replay.row_before, replay.has_output_before)
                start = replace(start, position=replay.start)
                job.run = Run(job, request, live, start, b"", slot, is_replay=True)
            case sessions.Proceed(digest):
                job.run = Run(job, request, live, start, digest, live.slot)

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
            self._resolve(run.job, reply)
            return
        after = sessions.advanced(
            run.start, request, run.digest, reply, row=row, has_output=has_output
        )
        self._changes.append(_Change(run.job, run.live, after, reply, run))

    async def _commit(self) -> None:
        """Make the tick's changes durable in one trip, then answer."""
        # A caller may have gone while the kernel ran: what it asked for is not applied any more.
        changes = [change for change in self._changes if not self._skip_cancelled(change.job)]
        self._changes = []
        if not changes:
            return
        outcomes = await self._store.commit_many(
            [Commit(change.job.key, change.live.record, change.after) for change in changes]
        )
        for change, outcome in zip(changes, outcomes, strict=True):
            match outcome:
                case Outcome.COMMITTED:
                    self._apply(change)
                    self._resolve(change.job, change.reply)
                case Outcome.FULL:
                    self._fail(change.job, TooManySessionsError())
                case Outcome.CONFLICT:
                    self.stats.num_conflicts += 1
                    # Another writer was here. The job starts anew from what the store says now.
                    self._drop_run(change.job)
                    self._arena.forget(change.job.key)

    def _apply(self, change: _Change) -> None:
        key = change.job.key
        if change.after is None:
            self._arena.forget(key)
        elif change.run is not None:
            self._arena.keep(key, change.live, change.after, change.run.slot)
            change.job.run = None
        else:
            slot = self._arena.slot_with(change.after.row, change.after.has_output)
            self._arena.keep(key, change.live, change.after, slot)

    def _resolve(self, job: Job, result: Reply | ServiceError) -> None:
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
        self._resolve(job, error)

    def _drop_run(self, job: Job) -> None:
        """Free the slot that a run has come to, if it is not the session's own."""
        run, job.run = job.run, None
        if run is not None and run.slot != run.live.slot:
            self._arena.free(run.slot)


def _session_reply(record: Record) -> SessionReply:
    return SessionReply(
        position=record.position,
        epoch=record.epoch,
        fingerprint=record.fingerprint,
        row=record.row,
        has_output=record.has_output,
    )


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
