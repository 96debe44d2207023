"""Time steps on their way through the kernel, to the changes that they make of their sessions.

Knows no queue, no store and no transport.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from service import batching, sessions
from service.answers import Answers
from service.arena import Arena
from service.chunks import Chunks
from service.compute import Compute
from service.domain import AdvanceReply, AdvanceRequest, Bool, Float32
from service.errors import ServiceError
from service.jobs import Change, Run
from service.records import Record


class Advancer:
    """Takes the next steps of runs."""

    def __init__(
        self,
        arena: Arena,
        compute: Compute,
        answers: Answers,
        chunk_steps: int,
        chunk_us: float,
        tombstone_s: float,
        clock: Callable[[], float],
    ) -> None:
        """Bring the parts together.

        Args:
            arena: The sessions at hand.
            compute: Runs the kernels on the arena's rows.
            answers: For runs that fail or change nothing.
            chunk_steps: Most time steps of one run at a time, but for `chunk_us`.
            chunk_us: As many more are taken as are expected to take no longer than this.
            tombstone_s: How long the store keeps what has ended.
            clock: Tells the seconds since 1970.
        """
        self._arena = arena
        self._compute = compute
        self._answers = answers
        self._chunk_steps = chunk_steps
        self._chunk_us = chunk_us
        self._tombstone_s = tombstone_s
        self._clock = clock

    async def advance(self, runs: Sequence[Run], changes: list[Change]) -> None:
        """Take the next chunk of each run.

        Args:
            runs: Of different sessions.
            changes: What finished runs make of their sessions is added here.
        """
        cold = self._arena.unwritten(runs)
        if cold:
            runs = await self._write_rows(runs, cold)
        for batch in batching.plan(runs, self._choose_chunk(runs)):
            await self._advance(batch, changes)

    async def _write_rows(
        self, runs: Sequence[Run], cold: dict[int, tuple[Float32, Bool]]
    ) -> Sequence[Run]:
        """Have the device hold the rows of sessions that come back; return the runs that can go on.

        Args:
            runs: Those of the tick.
            cold: The row `(state_size,)` and the flags of each slot that lacks them.
        """
        rows, flags = zip(*cold.values(), strict=True)
        try:
            await self._compute.write_many(list(cold), np.stack(rows), np.stack(flags))
        except Exception as error:  # noqa: BLE001 - the fault of those that come back, if anybody's
            for run in runs:
                if run.slot in cold:
                    for job in (run.job, *run.followers):
                        if job.is_done:
                            continue  # it was too late while the tick asked the store for others
                        again = error.again() if isinstance(error, ServiceError) else error
                        self._answers.fail(job, again)
            return [run for run in runs if run.slot not in cold]
        self._arena.note_written(cold)
        return runs

    def _choose_chunk(self, runs: Sequence[Run]) -> int:
        """Return the most time steps of one run in this tick.

        A tick costs as much as many steps do, and a single step that comes meanwhile waits for it.
        """
        num_long = sum([run.num_left > self._chunk_steps for run in runs])
        if not num_long:
            return self._chunk_steps
        return max(self._chunk_steps, self._compute.steps_within(self._chunk_us, num_long))

    async def _advance(self, batch: batching.Batch[Run], changes: list[Change]) -> None:
        """Take one chunk of each run; a run that fails leaves its session as it was."""
        runs, lengths = batch.jobs, batch.lengths
        inputs, mask = _gather_inputs(runs, lengths)
        to_slots = self._arena.allocate_many(len(runs))
        from_slots = [run.slot for run in runs]
        try:
            advanced = await self._compute.advance(from_slots, to_slots, inputs, lengths, mask)
        except Exception as error:  # noqa: BLE001 - alone, each run shows if the fault is its own
            for slot in to_slots:
                self._arena.free(slot)
            if len(runs) == 1:
                self._fail_run(runs[0], error)
                return
            for run, length in zip(runs, lengths, strict=True):
                await self._advance(batching.Batch([run], [length]), changes)
            return
        stats = self._answers.stats
        stats.num_batches += 1
        stats.num_batch_rows += len(runs)
        stats.batch_sizes.observe(len(runs))
        stats.num_steps += sum(lengths)
        chunks = Chunks(advanced)
        now = self._clock()
        for index, run in enumerate(runs):
            try:
                if len(run.inputs) == 1 and not run.is_replay:
                    changes.append(self._finish_step(run, to_slots[index], chunks, index, now))
                else:
                    length = lengths[index]
                    change = self._take_chunk(run, to_slots[index], chunks, index, length, now)
                    if change is not None:
                        changes.append(change)
            except Exception as error:  # noqa: BLE001 - the guard of one job
                self._fail_run(run, error)

    def _finish_step(self, run: Run, slot: int, chunks: Chunks, index: int, now: float) -> Change:
        """Do as `_take_chunk` for a request of one time step, as nearly all are, in one go.

        Raises:
            StateNotFiniteError: It came to no state that a session may have.
        """
        run.slot = slot
        run.num_left = 0
        if not chunks.are_finite:
            chunks.check_finite(index)
        request, start, job, live = run.request, run.start, run.job, run.live
        output, row = chunks.single_outputs[index], chunks.rows[index]
        reply = AdvanceReply(
            output[None] if request.return_sequences else output,
            start.position + 1,
            start.epoch,
            False,  # noqa: FBT003 - not replayed
            row if request.return_state else None,
        )
        has_output = chunks.has_output[index]
        after: Record | None = sessions.advanced(start, request, reply, row, has_output, now)
        if request.ends and after is not None:
            after = sessions.ended(after, request, self._tombstone_s)
        return Change(job.key, live.stored, after, job, (reply,), live, run)

    def _take_chunk(
        self, run: Run, slot: int, chunks: Chunks, index: int, length: int, now: float
    ) -> Change | None:
        """Move a run to the slot that its chunk ended in, and finish it if that was the last.

        Raises:
            StateNotFiniteError: It came to no state that a session may have.
        """
        if run.slot != run.live.slot:
            self._arena.free(run.slot)
        run.slot = slot
        run.num_left -= length
        if not chunks.are_finite:
            chunks.check_finite(index)
        request = run.request
        if run.num_left:
            if request.return_sequences:
                if not isinstance(run.chunks, list):
                    run.chunks = []
                run.chunks.append(chunks.outputs(index, 0, length))
            return None
        if run.followers:
            return self._finish_together(run, chunks, index, now)
        first = 0 if request.return_sequences else length - 1
        outputs = chunks.outputs(index, first, length)
        if run.chunks:
            outputs = np.concatenate((*run.chunks, outputs))
        return self._finish(run, outputs, chunks, index, now)

    def _finish(
        self, run: Run, outputs: Float32, chunks: Chunks, index: int, now: float
    ) -> Change | None:
        """Finish a run of one request, which gave `(time, output_size)` outputs."""
        request, start, row = run.request, run.start, chunks.rows[index]
        reply = AdvanceReply(
            outputs if request.return_sequences else outputs[-1],
            start.position + len(run.inputs),
            start.epoch,
            run.is_replay,
            row if request.return_state else None,
        )
        job, live = run.job, run.live
        if run.is_replay:
            self._answers.answer(job, reply)
            return None
        has_output = chunks.has_output[index]
        after: Record | None = sessions.advanced(start, request, reply, row, has_output, now)
        if request.ends and after is not None:
            after = sessions.ended(after, request, self._tombstone_s)
        return Change(job.key, live.stored, after, job, (reply,), live, run)

    def _finish_together(self, run: Run, chunks: Chunks, index: int, now: float) -> Change:
        """Finish a run of several jobs, a step each."""
        steps = _replies_apart(run, chunks.outputs(index, 0, len(run.inputs)))
        after = sessions.advanced_together(
            run.start,
            steps,
            row=chunks.rows[index],
            has_output=chunks.has_output[index],
            now=now,
        )
        replies = [reply for _, reply in steps]
        job, live = run.job, run.live
        return Change(job.key, live.stored, after, job, replies, live, run)

    def _fail_run(self, run: Run, error: Exception) -> None:
        """Answer what went wrong with a run; where it is several jobs', find out whose fault."""
        if run.followers:
            self._answers.take_apart(run)
        else:
            self._answers.fail(run.job, error)


def _replies_apart(run: Run, outputs: Float32) -> list[tuple[AdvanceRequest, AdvanceReply]]:
    """Return the answer of each of the jobs that ran in one piece, a step each."""
    steps = []
    for index, job in enumerate((run.job, *run.followers)):
        request = job.request
        assert isinstance(request, AdvanceRequest)
        # A copy: a view would keep the answers of all as long as this one is kept.
        output = outputs[index].copy()
        reply = AdvanceReply(
            output[None] if request.return_sequences else output,
            run.start.position + index + 1,
            run.start.epoch,
        )
        steps.append((request, reply))
    return steps


def _gather_inputs(runs: Sequence[Run], lengths: Sequence[int]) -> tuple[Float32, Bool | None]:
    """Return the next time steps of each run, `(batch, time, input_size)`, and their mask."""
    first = runs[0]
    if len(runs) == 1 and lengths[0] == len(first.inputs):
        return first.inputs[None], None if first.mask is None else first.mask[None]
    time = max(lengths)
    features = first.inputs.shape[1]
    if time == 1 and first.mask is None:
        parts = [run.inputs[-run.num_left] for run in runs]
        return np.concatenate(parts).reshape(len(runs), 1, features), None
    inputs = np.zeros((len(runs), time, features), np.float32)
    mask = np.ones((len(runs), time), np.bool_) if first.mask is not None else None
    for index, (run, length) in enumerate(zip(runs, lengths, strict=True)):
        span = slice(run.num_done, run.num_done + length)
        inputs[index, :length] = run.inputs[span]
        if mask is not None and run.mask is not None:
            mask[index, :length] = run.mask[span]
    return inputs, mask
