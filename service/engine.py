"""The one asynchronous shell around a network: it admits requests and gives their jobs turns.

An engine serves the sessions of one model. It owns the queue and the loop; what happens in a turn
is `tick`'s. It knows no transport.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import cast

import numpy as np

from lstm_core.runtime.base import Runtime
from service.advancing import Advancer
from service.answers import Answers, EngineStats
from service.arena import Arena
from service.committing import Committer
from service.compute import Compute
from service.domain import (
    DEFAULT_TENANT,
    AdvanceRequest,
    Bool,
    Float32,
    ForecastReply,
    ForecastRequest,
    LookRequest,
    Reply,
    Request,
    SessionKey,
    SessionReply,
    SessionSummary,
)
from service.errors import (
    DrainingError,
    FingerprintMismatchError,
    InvalidRequestError,
    NotStreamableError,
    Problem,
    QueueFullError,
    ServiceError,
    StateNotFiniteError,
)
from service.histograms import Histogram, Tally
from service.jobs import Complete, Job
from service.limits import EngineLimits
from service.opening import Lifetimes, Opener
from service.signature import Signature
from service.stores.base import SessionStore
from service.tick import Ticker
from service.turns import Turns
from service.versions import Versions


class Engine:
    """Sessions over one network. Everything but the kernels runs on the event loop's thread.

    Attributes:
        signature: What the model takes and gives.
        stats: What the engine has done.
        versions: The engines of the model's other versions.
    """

    def __init__(
        self,
        signature: Signature,
        runtime: Runtime,
        store: SessionStore,
        limits: EngineLimits | None = None,
        lifetimes: Lifetimes | None = None,
        *,
        earlier: Sequence[Engine] = (),
        is_alone: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Bring the parts together; `start` sets them going.

        Args:
            signature: What the model takes and gives.
            runtime: Its arena holds `limits.arena_rows` rows; nobody else uses it.
            store: Where sessions are kept; may be shared with other engines.
            limits: What to take on.
            lifetimes: How long sessions last.
            earlier: Engines of earlier versions of the model, over the same store, for the sessions
                that belong to them. They start and end with this one, and are not alone.
            is_alone: Whether no other engine of this process writes to the same sessions.
            clock: Tells the seconds since 1970.
        """
        self.signature = signature
        self._obstacles = list(signature.streaming_obstacles)
        self._limits = limits or EngineLimits()
        self._store = store
        self._compute = Compute(runtime, signature.model, self._limits.inline_us)
        self._turns: Turns[Job] = Turns()
        self._lifetimes = lifetimes or Lifetimes()
        self._clock = clock
        self.versions: Versions[Engine] = Versions(earlier)
        self._arena = Arena(runtime, self._turns.is_out)
        self._answers = Answers(self._arena, signature.state_layout)
        self.stats: EngineStats = self._answers.stats
        self._opener = Opener(
            signature,
            self._arena,
            store,
            self._lifetimes,
            self.versions,
            self._limits.chunk_steps,
            self._turns.behind,
            clock,
            is_alone=is_alone and not earlier and not store.is_shared,
        )
        self._ticker = Ticker(
            self._opener,
            Advancer(
                self._arena,
                self._compute,
                self._answers,
                self._limits.chunk_steps,
                self._limits.chunk_us,
                self._lifetimes.tombstone_s,
                clock,
            ),
            Committer(self._arena, store, self._answers, self._turns.is_out),
            self._arena,
            self._answers,
            self._hand_over,
        )
        self._waking: asyncio.Future[None] | None = None  # what the loop waits for, if it does
        self._idle = asyncio.Event()
        self._refusal: ServiceError | None = None
        self._loop_task: asyncio.Task[None] | None = None
        self._passivation_task: asyncio.Task[None] | None = None
        self._num_taken = 0
        self._num_predictions = 0

    @property
    def earlier(self) -> tuple[Engine, ...]:
        """The engines of earlier versions of the model."""
        return self.versions.earlier

    @property
    def all_versions(self) -> tuple[Engine, ...]:
        """This one, those of earlier versions, and for what they have counted those dropped."""
        return (self, *self.versions.earlier, *self.versions.dropped)

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken."""
        is_running = self._loop_task is not None and not self._loop_task.done()
        return is_running and self._refusal is None

    @property
    def num_pending(self) -> int:
        """How many requests wait or run."""
        return self._num_taken - self.stats.num_ended + self._num_predictions

    @property
    def kernel_s(self) -> float:
        """Time spent in the kernels so far, in seconds."""
        return self._compute.kernel_s

    @property
    def kernel_call_s(self) -> Histogram:
        """How often a kernel call took how long, in seconds."""
        return self._compute.call_s

    @property
    def kernel_calls_s(self) -> Mapping[int, Tally]:
        """The kernel calls for sessions by the number of their rows, with their time in seconds."""
        return self._compute.calls_s

    @property
    def num_traces(self) -> int:
        """How many graphs TensorFlow has made for the model; 0 without it."""
        return self._compute.num_traces

    @property
    def arena(self) -> Arena:
        """The sessions at hand."""
        return self._arena

    @property
    def num_live(self) -> int:
        """How many sessions have their row at hand."""
        return len(self._arena)

    def submit(self, request: Request, complete: Complete, timeout_s: float | None = None) -> Job:
        """Take a request into its session's turn.

        Args:
            request: It fits the signature: shapes, finite numbers.
            complete: Called once, from the event loop, with the answer or the error; never if the
                job is cancelled.
            timeout_s: The job fails, and is certainly not applied, if its turn has not come within
                so many seconds; None means that it may wait.

        Raises:
            DrainingError: The engine is about to end.
            QueueFullError: Too many requests wait.
            NotStreamableError: The model has no sessions.
        """
        if (heir := self.versions.heir) is not None:
            return heir.submit(request, complete, timeout_s)
        if self._obstacles:
            raise NotStreamableError(self.signature.model, self._obstacles)
        job = Job(request.key, request, complete, perf_counter())
        taker = self._taker(job.key) if self.versions.earlier else self
        taker.take(job)
        if timeout_s is not None:
            taker._set_deadline(job, timeout_s)  # noqa: SLF001 - as this one
        return job

    def submit_many(
        self,
        requests: Sequence[AdvanceRequest],
        complete: Callable[[int, Reply | ServiceError], None],
        timeout_s: float | None = None,
    ) -> list[Job]:
        """Take requests into their sessions' turns, as `submit` does each of them, but in one go.

        Args:
            requests: As for `submit`.
            complete: Called with a request's index and its answer, or its error, which may be that
                it was not taken.
            timeout_s: As for `submit`.

        Returns:
            The jobs of those that were taken.

        Raises:
            DrainingError: The engine is about to end: none was taken.
            NotStreamableError: The model has no sessions.
        """
        if (heir := self.versions.heir) is not None:
            return heir.submit_many(requests, complete, timeout_s)
        if self._obstacles:
            raise NotStreamableError(self.signature.model, self._obstacles)
        if self._refusal is not None:
            raise self._refusal.again()
        if self.versions.earlier:
            return self._submit_each(requests, complete, timeout_s)
        taken_at = perf_counter()
        room = max(0, self._limits.max_pending - self.num_pending)
        jobs = [
            Job(request.key, request, partial(complete, index), taken_at)
            for index, request in enumerate(requests[:room])
        ]
        self._num_taken += len(jobs)
        for job in jobs:
            self._turns.add(job)
        self._wake()
        if timeout_s is not None:
            for job in jobs:
                self._set_deadline(job, timeout_s)
        for index in range(len(jobs), len(requests)):
            self.stats.num_rejected += 1
            complete(index, QueueFullError(self._limits.max_pending))
        return jobs

    def _submit_each(
        self,
        requests: Sequence[AdvanceRequest],
        complete: Callable[[int, Reply | ServiceError], None],
        timeout_s: float | None,
    ) -> list[Job]:
        """Do as `submit_many` where the requests may belong to different engines."""
        jobs = []
        for index, request in enumerate(requests):
            try:
                jobs.append(self.submit(request, partial(complete, index), timeout_s))
            except ServiceError as error:
                complete(index, error)
        return jobs

    def _taker(self, key: SessionKey) -> Engine:
        """Return the engine that has jobs of a session still which it took before this one came.

        What comes now goes behind them. Without any, this one takes it.
        """
        return (not self.has_jobs(key) and self.versions.with_jobs(key)) or self

    def has_jobs(self, key: SessionKey) -> bool:
        """Tell whether a session has jobs here."""
        return self._turns.is_out(key)

    def take(self, job: Job) -> None:
        """Take a job into its session's turn; see `submit`."""
        self._admit()
        self._num_taken += 1
        self._turns.add(job)
        self._wake()

    async def ask(self, request: Request) -> Reply:
        """Submit a request and wait for its answer; a cancelled wait cancels the job.

        Raises:
            ServiceError: It failed; nothing was applied.
        """
        answered: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def complete(result: Reply | ServiceError) -> None:
            if answered.done():
                return
            if isinstance(result, ServiceError):
                answered.set_exception(result)
            else:
                answered.set_result(result)

        job = self.submit(request, complete)
        try:
            return await answered
        except asyncio.CancelledError:
            job.cancel()
            raise

    async def predict(
        self, inputs: Float32, mask: Bool | None = None, timeout_s: float | None = None
    ) -> Float32:
        """Run whole sequences from zero states; no session is touched.

        Args:
            inputs: `(batch, time, input_size)` float32, finite, time at least 1.
            mask: `(batch, time)` bool, true where a step is live; None means everywhere.
            timeout_s: It fails if it has not begun within so many seconds; None means that it may
                wait.

        Returns:
            `(batch, time, output_size)` float32, or `(batch, output_size)` where the model returns
            no sequences.

        Raises:
            DrainingError: The engine is about to end.
            QueueFullError: Too many requests wait.
            DeadlineExceededError: It had not begun in time.
            StateNotFiniteError: An output is not finite.
        """
        if (heir := self.versions.heir) is not None:
            return await heir.predict(inputs, mask, timeout_s)
        self._admit()
        self._num_predictions += 1
        try:
            outputs = await self._compute.predict(inputs, mask, timeout_s)
        finally:
            self._num_predictions -= 1
            self._note_idle()
        if not np.isfinite(outputs).all():
            raise StateNotFiniteError("an output")
        return outputs

    async def forecast(self, request: ForecastRequest) -> ForecastReply:
        """Run a session's state on with its own outputs; the session is not touched.

        Raises:
            DrainingError: The engine is about to end.
            QueueFullError: Too many requests wait.
            NotStreamableError: The model has no sessions.
            SessionUnknownError, SessionExpiredError, PositionConflictError: As for any request.
            FingerprintMismatchError: The session's version of the model does not run here.
            InvalidRequestError: The first input is missing, and the session has had no output.
            StateNotFiniteError: A state or an output is not finite.
        """
        if (heir := self.versions.heir) is not None:
            return await heir.forecast(request)
        look = LookRequest(key=request.key, position=request.position, epoch=request.epoch)
        session = cast(SessionReply, await self.ask(look))
        # In the place of the look, which was admitted.
        self._num_predictions += 1
        try:
            compute = self._compute_of(session)
            if request.first_input is None and not session.has_output[-1]:
                problem = "missing: the session has had no output that could be fed back"
                raise InvalidRequestError([Problem(("inputs",), problem)])
            outputs = await compute.forecast(request, session.row, session.has_output)
        finally:
            self._num_predictions -= 1
            self._note_idle()
        if outputs is None:
            raise StateNotFiniteError("a state or an output")
        return ForecastReply(outputs=outputs, position=session.position, epoch=session.epoch)

    def _compute_of(self, session: SessionReply) -> Compute:
        """Return what computes with the weights that a session's state belongs to.

        Raises:
            FingerprintMismatchError: They are not here.
        """
        if session.fingerprint == self.signature.fingerprint:
            return self._compute
        engine = self.versions.find(session.fingerprint)
        if engine is None:
            raise self._unserved(session.fingerprint)
        return engine._compute  # noqa: SLF001 - an engine as this one

    def signature_of(self, fingerprint: str) -> Signature:
        """Return that of the version which a state belongs to; of this one if it is not here."""
        engine = self.versions.find(fingerprint)
        return self.signature if engine is None else engine.signature

    def _unserved(self, fingerprint: str) -> FingerprintMismatchError:
        remedy = "reset it, or serve that version too"
        return FingerprintMismatchError(self.signature.fingerprint, fingerprint, remedy)

    async def check_store(self) -> None:
        """Tell whether commits would be taken.

        Raises:
            UnavailableError: They would not.
        """
        await self._store.check()

    async def list_sessions(
        self, limit: int, cursor: str | None
    ) -> tuple[list[SessionSummary], str | None]:
        """Return up to `limit` sessions, and the cursor to ask for the rest with."""
        return await self._store.list_sessions(DEFAULT_TENANT, self.signature.model, limit, cursor)

    async def start(self) -> None:
        """Begin to take requests."""
        for engine in self.versions.earlier:
            await engine.start()
        loop = asyncio.get_running_loop()
        self._loop_task = loop.create_task(self._run())
        self._passivation_task = loop.create_task(self._passivate())

    def passivate(self) -> int:
        """Let idle sessions leave the arena, as happens now and then; return how many they were."""
        return self._arena.passivate(self._clock() - self._lifetimes.idle_s)

    def succeed(self, predecessor: Engine) -> None:
        """Take the place of the engine that has run the model so far, as a newer version.

        What is asked of that one from now on is asked of this one, by whoever still holds it. Its
        sessions stay with it, those of the versions before it with them.

        Args:
            predecessor: It has started, as this one has, which may be one of its earlier ones.
        """
        self._opener.is_alone = predecessor._opener.is_alone = False
        self.versions.succeed(self, predecessor)

    def send_on(self, successor: Engine) -> None:
        """Ask another engine, which runs the model now, what is asked of this one from now on."""
        self.versions.send_on(successor)

    def add_earlier(self, engine: Engine) -> None:
        """Let an engine, which has started and is not alone, run the sessions of its version."""
        self._opener.is_alone = False
        self.versions.add(engine)

    def drop_earlier(self, fingerprint: str) -> Engine:
        """Refuse the sessions of an earlier version from now on, unless they are reset.

        Returns:
            What has run them, which is to be ended.
        """
        return self.versions.drop(fingerprint)

    def refuse(self, reason: ServiceError | None = None) -> None:
        """Take no new requests from now on; those taken are answered.

        Args:
            reason: What the others are answered; None: that the replica is about to end.
        """
        self._refusal = self._refusal or reason or DrainingError()

    async def drain(self) -> None:
        """Refuse new requests, answer those taken, and end."""
        self.refuse()
        while self.num_pending:  # a forecast may have followed its look
            self._idle.clear()
            await self._idle.wait()
        for engine in self.versions.earlier:
            await engine.drain()
        for task in (self._loop_task, self._passivation_task):
            if task is not None:
                task.cancel()
        self._compute.close()

    async def end(self) -> None:
        """Drain, and give back the memory of weights and rows, whoever still holds this.

        What it has counted stays.
        """
        await self.drain()
        for engine in self.versions.earlier:
            await engine.end()
        # Here and now: the garbage collector leaves alone what the start has built.
        del self._ticker, self._opener, self._answers, self._arena
        self._compute.release()
        self.versions.clear()

    def _admit(self) -> None:
        if self._refusal is not None:
            raise self._refusal.again()
        if self.num_pending >= self._limits.max_pending:
            self.stats.num_rejected += 1
            raise QueueFullError(self._limits.max_pending)

    def _set_deadline(self, job: Job, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        job.deadline = loop.call_later(timeout_s, self._expire, job)

    def _note_idle(self) -> None:
        if not self.num_pending:
            self._idle.set()

    def _wake(self) -> None:
        waking, self._waking = self._waking, None
        if waking is not None and not waking.done():
            waking.set_result(None)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            if not self._turns.has_ready:
                # Not an `Event`: each wait for one costs a call of the system, in `getpid`.
                self._waking = loop.create_future()
                await self._waking
            if self._limits.max_wait_us:
                await asyncio.sleep(self._limits.max_wait_us / 1e6)
            while self._turns.has_ready:
                await self._give_turns()
                if self._turns.has_ready:
                    # Sockets are read between two ticks; what they bring joins the next one.
                    await asyncio.sleep(0)

    async def _passivate(self) -> None:
        while True:
            await asyncio.sleep(min(self._lifetimes.idle_s / 4, 60.0))
            self.passivate()

    async def _give_turns(self) -> None:
        jobs = self._turns.take(self._limits.max_batch_rows)
        now = perf_counter()
        for job in jobs:
            job.begun_at = job.begun_at or now
            job.is_away = False
        await self._ticker.tick(jobs)
        end = self._turns.end
        for job in jobs:
            if job.is_away:
                continue  # its turn ends in `_hand_over`, or has ended there before this tick did
            if job.is_done:
                end(job)
            else:
                self._turns.again(job.key)
        self._note_idle()

    def _expire(self, job: Job) -> None:
        if not (job.begun_at or job.is_done or job.is_cancelled):
            self._answers.expire(job)
            # Here and now: jobs that count no more would else pile up behind a store that hangs.
            self._turns.drop(job)
            self._note_idle()

    def _hand_over(self, job: Job, fingerprint: str) -> None:
        """Let another version of the model run a job; its session's turn lasts until then.

        Raises:
            ServiceError: It does not take it.
        """
        version = self.versions.find(fingerprint)
        if version is None:
            raise self._unserved(fingerprint)  # since its turn began

        def take_back(result: Reply | ServiceError) -> None:
            job.deputy = None  # which holds this job: a cycle
            if isinstance(result, FingerprintMismatchError):
                # The session is not that version's any more: another replica was here.
                self._turns.again(job.key)
            else:
                self._answers.answer(job, result)
                self._turns.end(job)
                self._note_idle()
            self._wake()

        deputy = Job(job.key, job.request, take_back, perf_counter())
        deputy.is_cancelled, deputy.is_deputy = job.is_cancelled, True
        version.take(deputy)
        job.deputy = deputy
