"""The loop that gives the jobs of one model's sessions their turns, tick after tick.

Two lanes, each a task, take turns at it: while the tick of one waits, for a kernel on its thread or
for the store, the other may begin the next one. Where nothing waits, one lane does everything.

A lane waits, looks for jobs, or has a tick on its way. While one looks no other is woken, since it
will find what comes. So nothing is left lying if, whenever none looks any more or more jobs are
ready or fewer are enough, a lane that waits is woken where enough are ready: `_wake_if_due`.

Brings the rooms of a tick together; what happens in one is `tick`'s. Owns the queue of turns and
the sessions at hand. Admits whatever it is given, and knows no other version's engine.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Container, Iterable
from time import perf_counter

from lstm_core.runtime.base import Runtime
from service.advancing import Advancer
from service.answers import Answers, EngineStats
from service.arena import Arena
from service.committing import Committer
from service.compute import Compute
from service.domain import ForkRequest, Reply, SessionKey
from service.errors import FingerprintMismatchError, ServiceError
from service.jobs import Job
from service.limits import EngineLimits
from service.opening import Lifetimes, Opener
from service.signature import Signature
from service.stores.base import SessionStore
from service.tick import Ticker
from service.turns import Turns

_NUM_LANES = 2
"""How many ticks may be on their way."""


class SessionLoop:
    """What runs the sessions of one version of a model.

    Attributes:
        arena: The sessions at hand.
        stats: What has been done.
    """

    def __init__(
        self,
        signature: Signature,
        runtime: Runtime,
        compute: Compute,
        store: SessionStore,
        limits: EngineLimits,
        lifetimes: Lifetimes,
        versions: Container[str],
        clock: Callable[[], float],
        *,
        is_alone: bool,
        send: Callable[[str, Job], None],
        on_ended: Callable[[], None],
    ) -> None:
        """Bring the parts together; `start` sets them going.

        Args:
            signature: What the model takes and gives.
            runtime: Owns the rows.
            compute: Runs it.
            store: Where sessions are kept.
            limits: What to take on in a tick.
            lifetimes: How long sessions last.
            versions: Fingerprints of the other versions of the model that run here.
            clock: Tells the seconds since 1970.
            is_alone: Whether nobody else writes to the store's sessions of this model.
            send: Gives a job to the version with a fingerprint, or raises a `ServiceError`.
            on_ended: Called when jobs may have ended.
        """
        self._limits = limits
        self._lifetimes = lifetimes
        self._clock = clock
        self._send = send
        self._on_ended = on_ended
        self._turns: Turns[Job] = Turns()
        self.arena = Arena(runtime, self._turns.is_wanted)
        self._answers = Answers(self.arena, signature)
        self.stats: EngineStats = self._answers.stats
        self._opener = Opener(
            signature,
            self.arena,
            store,
            lifetimes,
            versions,
            limits.chunk_steps,
            self._turns.behind,
            clock,
            is_alone=is_alone,
        )
        advancer = Advancer(
            self.arena,
            compute,
            self._answers,
            limits.chunk_steps,
            limits.chunk_us,
            lifetimes.tombstone_s,
            clock,
        )
        committer = Committer(self.arena, store, self._answers, self._turns.is_out)
        self._ticker = Ticker(
            self._opener, advancer, committer, self.arena, self._answers, self._hand_over
        )
        self._waiting: list[asyncio.Future[None]] = []  # of each lane that waits
        self._num_looking = _NUM_LANES
        self._rows_out: list[int] = []  # of the ticks on their way
        # How many sessions the next tick must have. Beside another one, as many as that: a tick
        # costs little less for half of them, so those that come one by one wait for company while
        # there is something else to do.
        self._num_wanted = 1
        # Forks that wait or run. They change another session out of its turn, so no tick is beside
        # theirs: of two changes of the same state, a store that is written behind may take both.
        self._num_forks = 0
        self._tasks: tuple[asyncio.Task[None], ...] = ()

    @property
    def is_running(self) -> bool:
        """Whether it has been started and goes on."""
        return bool(self._tasks) and not any(task.done() for task in self._tasks)

    def start(self) -> None:
        """Begin with the turns, if it has not."""
        if self._tasks:
            return
        loop = asyncio.get_running_loop()
        lanes = (loop.create_task(self._run()) for _ in range(_NUM_LANES))
        self._tasks = (*lanes, loop.create_task(self._passivate()))

    def stop(self) -> None:
        """End, with nothing in the queue."""
        for task in self._tasks:
            task.cancel()

    def release(self) -> None:
        """Give back the memory of rows and sessions; what was counted stays."""
        # Here and now: the garbage collector leaves alone what the start has built.
        del self._ticker, self._opener, self._answers, self.arena

    def share(self) -> None:
        """Know that others write to the store's sessions of this model too."""
        self._opener.is_alone = False

    def has_jobs(self, key: SessionKey) -> bool:
        """Tell whether a session has jobs here."""
        return self._turns.is_out(key)

    def add(self, job: Job) -> None:
        """Queue a job behind the others of its session."""
        self._turns.add(job)
        if isinstance(job.request, ForkRequest):
            self._num_forks += 1
            self._num_wanted = self._num_wanted_beside()
        if not self._num_looking:
            self._wake_if_due()

    def add_all(self, jobs: Iterable[Job]) -> None:
        """Queue jobs, none of them forks, as `add` does each."""
        for job in jobs:
            self._turns.add(job)
        self._wake_if_due()

    def expire_after(self, job: Job, timeout_s: float) -> None:
        """Fail a job, and certainly not apply it, if its turn has not come in so many seconds."""
        loop = asyncio.get_running_loop()
        job.deadline = loop.call_later(timeout_s, self._expire, job)

    def _expire(self, job: Job) -> None:
        if not (job.begun_at or job.is_done or job.is_cancelled):
            self._answers.expire(job)
            # Here and now: jobs that count no more would else pile up behind a store that hangs.
            self._turns.drop(job)
            if isinstance(job.request, ForkRequest):
                self._num_forks -= 1
                self._num_wanted = self._num_wanted_beside()
                self._wake_if_due()
            self._on_ended()

    def passivate(self) -> int:
        """Let idle sessions leave the arena, as happens now and then; return how many they were."""
        return self.arena.passivate(self._clock() - self._lifetimes.idle_s)

    async def _passivate(self) -> None:
        while True:
            await asyncio.sleep(min(self._lifetimes.idle_s / 4, 60.0))
            self.passivate()

    def _wake_if_due(self) -> None:
        """Have a lane that waits look for jobs, if there are enough and no other one looks."""
        if (
            not self._num_looking
            and self._waiting
            and len(self._turns.ready) >= self._num_wanted
            and not (waiting := self._waiting.pop()).done()  # as it is behind the end
        ):
            self._num_looking += 1
            waiting.set_result(None)

    async def _run(self) -> None:
        """Be a lane."""
        loop = asyncio.get_running_loop()
        ready = self._turns.ready
        while True:
            while len(ready) < self._num_wanted:
                # Not an `Event`: each wait for one costs a call of the system, in `getpid`.
                waiting = loop.create_future()
                self._waiting.append(waiting)
                self._num_looking -= 1
                await waiting
            if self._limits.max_wait_us:
                await asyncio.sleep(self._limits.max_wait_us / 1e6)
            while len(ready) >= self._num_wanted:
                await self._give_turns()
                if len(ready) >= self._num_wanted:
                    # Sockets are read between two ticks; what they bring joins the next one.
                    await asyncio.sleep(0)

    async def _give_turns(self) -> None:
        jobs = self._turns.take(self._limits.max_batch_rows)
        num_rows = len(jobs)
        self._rows_out.append(num_rows)
        self._num_wanted = self._num_wanted_beside() if self._num_forks else num_rows
        self._num_looking -= 1
        if self._turns.ready:
            self._wake_if_due()
        now = perf_counter()
        for job in jobs:
            job.begun_at = job.begun_at or now
        end = self._turns.end
        # Those handed over end their turns in `_hand_over`, or have before this tick ended.
        for job in await self._ticker.tick(jobs):
            if job.is_done:
                end(job)
            else:
                self._turns.again(job.key)
        if self._num_forks:
            self._num_forks -= sum(j.is_done and isinstance(j.request, ForkRequest) for j in jobs)
        self._num_looking += 1
        self._rows_out.remove(num_rows)
        self._num_wanted = self._num_wanted_beside() if self._rows_out else 1
        self._on_ended()

    def _num_wanted_beside(self) -> int:
        """Return how many sessions a tick must have that would begin now."""
        if not self._rows_out:
            return 1
        return sys.maxsize if self._num_forks else self._rows_out[-1]

    def _hand_over(self, job: Job, fingerprint: str) -> None:
        """Let another version of the model run a job; its session's turn lasts until then.

        Raises:
            ServiceError: It does not take it.
        """

        def take_back(result: Reply | ServiceError) -> None:
            job.deputy = None  # which holds this job: a cycle
            if isinstance(result, FingerprintMismatchError):
                # The session is not that version's any more: another replica was here.
                self._turns.again(job.key)
            else:
                job.version = deputy.version
                self._answers.answer(job, result)
                self._turns.end(job)
                self._on_ended()
            self._wake_if_due()

        deputy = Job(job.key, job.request, take_back, perf_counter())
        deputy.is_cancelled, deputy.is_deputy = job.is_cancelled, True
        self._send(fingerprint, deputy)
        job.deputy = deputy
