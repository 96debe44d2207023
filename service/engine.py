"""The one asynchronous shell around a network: what a model is asked, it admits or refuses.

An engine serves the sessions of one version of a model, and lets the engines of other versions run
what belongs to them. `session_loop` gives the jobs their turns. It knows no transport.
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
from service.answers import EngineStats
from service.arena import Arena
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
from service.opening import Lifetimes
from service.session_loop import SessionLoop
from service.signature import Signature
from service.stores.base import SessionStore
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
        self.versions: Versions[Engine] = Versions(earlier)
        self._sessions = SessionLoop(
            signature,
            runtime,
            self._compute,
            store,
            self._limits,
            lifetimes or Lifetimes(),
            self.versions,
            clock,
            is_alone=is_alone and not earlier and not store.is_shared,
            send=self._send,
            on_ended=self._note_idle,
        )
        self.stats: EngineStats = self._sessions.stats
        self._idle = asyncio.Event()
        self._refusal: ServiceError | None = None
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
        return self._sessions.is_running and self._refusal is None

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
        return self._sessions.arena

    @property
    def num_live(self) -> int:
        """How many sessions have their row at hand."""
        return len(self._sessions.arena)

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
            taker._sessions.expire_after(job, timeout_s)  # noqa: SLF001 - as this one
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
        self._sessions.add_all(jobs)
        if timeout_s is not None:
            for job in jobs:
                self._sessions.expire_after(job, timeout_s)
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
        if self.has_jobs(key):
            return self
        return self.versions.with_jobs(key) or self

    def has_jobs(self, key: SessionKey) -> bool:
        """Tell whether a session has jobs here."""
        return self._sessions.has_jobs(key)

    def take(self, job: Job) -> None:
        """Take a job into its session's turn; see `submit`."""
        self._admit()
        self._num_taken += 1
        self._sessions.add(job)

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
        self._sessions.start()

    def passivate(self) -> int:
        """Let idle sessions leave the arena, as happens now and then; return how many they were."""
        return self._sessions.passivate()

    def succeed(self, predecessor: Engine) -> None:
        """Take the place of the engine that has run the model so far, as a newer version.

        What is asked of that one from now on is asked of this one, by whoever still holds it. Its
        sessions stay with it, those of the versions before it with them.

        Args:
            predecessor: It has started, as this one has, which may be one of its earlier ones.
        """
        self._sessions.share()
        predecessor._sessions.share()
        self.versions.succeed(self, predecessor)

    def send_on(self, successor: Engine) -> None:
        """Ask another engine, which runs the model now, what is asked of this one from now on."""
        self.versions.send_on(successor)

    def add_earlier(self, engine: Engine) -> None:
        """Let an engine, which has started and is not alone, run the sessions of its version."""
        self._sessions.share()
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
        self._sessions.stop()
        self._compute.close()

    async def end(self) -> None:
        """Drain, and give back the memory of weights and rows, whoever still holds this.

        What it has counted stays.
        """
        await self.drain()
        for engine in self.versions.earlier:
            await engine.end()
        self._sessions.release()
        self._compute.release()
        self.versions.clear()

    def _admit(self) -> None:
        if self._refusal is not None:
            raise self._refusal.again()
        if self.num_pending >= self._limits.max_pending:
            self.stats.num_rejected += 1
            raise QueueFullError(self._limits.max_pending)

    def _note_idle(self) -> None:
        if not self.num_pending:
            self._idle.set()

    def _send(self, fingerprint: str, job: Job) -> None:
        """Let another version of the model run a job.

        Raises:
            ServiceError: It does not take it.
        """
        version = self.versions.find(fingerprint)
        if version is None:
            raise self._unserved(fingerprint)  # since the job's turn began
        version.take(job)
