"""One tick over the jobs that have their turn: begin, advance, commit, resolve.

Knows no queue, no admission and no transport. What a request means to a session is decided in
`opening`, its steps are taken in `advancing`, its change is made durable in `committing`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

from service.advancing import Advancer
from service.answers import Answers
from service.arena import Arena
from service.committing import Committer
from service.domain import AdvanceReply, Reply
from service.errors import ServiceError
from service.jobs import Change, Job, Run
from service.opening import Elsewhere, Opener


class Ticker:
    """What gives jobs their turn: each is answered, or asks for another turn."""

    def __init__(
        self,
        opener: Opener,
        advancer: Advancer,
        committer: Committer,
        arena: Arena,
        answers: Answers,
        hand_over: Callable[[Job, str], None],
    ) -> None:
        """Bring the parts together.

        Args:
            opener: Begins the turns.
            advancer: Takes the time steps.
            committer: Makes changes durable.
            arena: The sessions at hand.
            answers: For the jobs.
            hand_over: Gives a job to the version of the model with a fingerprint, or raises a
                `ServiceError`.
        """
        self._opener = opener
        self._advancer = advancer
        self._committer = committer
        self._arena = arena
        self._answers = answers
        self._hand_over = hand_over

    async def tick(self, jobs: list[Job]) -> list[Job]:
        """Give every job its turn, one for each session; those not done then want another.

        Returns:
            Those whose turns end with the tick: all but those that another version has, or had.
        """
        self._answers.stats.num_ticks += 1
        # By what happens here: a job that came back may be in another tick already.
        sent: set[Job] = set()
        try:
            await self._process(jobs, sent)
        except (Exception, asyncio.CancelledError) as error:
            # The guard: whatever went wrong, every caller gets an answer, and the sessions are read
            # from the store again, since what is at hand may be half done. A cancellation that was
            # not meant for this task is a fault like any other.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            for job in jobs:
                if job in sent:
                    continue
                if not job.is_done:
                    # Those that ran in one piece with it too: their steps may be applied already.
                    followers = job.run.followers if job.run is not None else ()
                    for each in (job, *followers):
                        if not each.is_done:
                            self._answers.fail(each, error)
                self._arena.forget(job.key)
        return [job for job in jobs if job not in sent] if sent else jobs

    async def _process(self, jobs: list[Job], sent: set[Job]) -> None:
        starting: list[Job] = []
        runs: list[Run] = []
        changes: list[Change] = []
        for job in jobs:
            if job.is_cancelled and self._answers.skip_cancelled(job):
                continue
            if job.run is None:
                starting.append(job)
            else:
                runs.append(job.run)
        if starting:
            # One clock a tick, for who has waited the longest: they begin in the order of coming.
            self._answers.stats.waits_s.observe(perf_counter() - starting[0].taken_at)
            openings = await self._opener.open_all(starting)
            for job, opening in zip(starting, openings, strict=True):
                if isinstance(opening, Run):
                    self._begin(job, opening)
                    runs.append(opening)
                elif isinstance(opening, Change):
                    changes.append(opening)
                elif isinstance(opening, Elsewhere):
                    self._send(job, opening.fingerprint, sent)
                else:
                    self._answer(job, opening)
        await self._advancer.advance(runs, changes)
        if changes:
            await self._committer.commit(changes)

    def _begin(self, job: Job, run: Run) -> None:
        job.run = run
        if run.is_replay:
            self._answers.stats.num_replayed += 1
        for follower in run.followers:
            follower.begun_at = job.begun_at

    def _answer(self, job: Job, opening: Reply | Exception) -> None:
        if isinstance(opening, Exception):
            self._answers.fail(job, opening)
        else:
            self._answers.stats.num_replayed += isinstance(opening, AdvanceReply)
            self._answers.answer(job, opening)

    def _send(self, job: Job, fingerprint: str, sent: set[Job]) -> None:
        try:
            self._hand_over(job, fingerprint)
        except ServiceError as error:
            self._answers.fail(job, error)
        else:
            sent.add(job)
