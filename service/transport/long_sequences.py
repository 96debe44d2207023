"""A sequence from its body to its answer, in slices where these are long. See `slices`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from service.domain import AdvanceReply, AdvanceRequest, Reply
from service.engine import Engine
from service.errors import InternalError, ServiceError
from service.jobs import Job
from service.transport.problem import Answer
from service.transport.render import render_advance
from service.transport.slices import Slices, Turns, is_long, render_advance_in_slices

log = logging.getLogger(__name__)


class SequenceWork:
    """One sequence on its way; at each time it is read, in the engine, or written."""

    def __init__(
        self,
        engine: Engine,
        turns: Turns,
        timeout_s: float | None,
        done: Callable[[Answer | ServiceError], None],
    ) -> None:
        """Take what it needs; `submit` or `read` sets it going.

        Args:
            engine: Runs it.
            turns: Of all long works of this process.
            timeout_s: How long the caller waits, None for any time.
            done: Called once with the answer or the error, unless the work was cancelled.
        """
        self._engine = engine
        self._turns = turns
        self._done = done
        self._loop = asyncio.get_running_loop()
        self._ends_at = None if timeout_s is None else self._loop.time() + timeout_s
        self._current: Job | asyncio.Task[AdvanceRequest] | asyncio.Task[bytes] | None = None

    def submit(self, request: AdvanceRequest) -> None:
        """Begin with a request that is read already.

        Raises:
            ServiceError: It is not taken.
        """
        left_s = None if self._ends_at is None else max(0.0, self._ends_at - self._loop.time())
        self._current = self._engine.submit(request, self._complete, left_s)

    def read(self, reading: Slices[AdvanceRequest]) -> None:
        """Begin with a body that is read in slices."""
        task = self._loop.create_task(self._turns.run(reading))
        self._current = task
        task.add_done_callback(self._take_request)

    def cancel(self) -> None:
        """Say that nobody waits any more."""
        if self._current is not None:
            self._current.cancel()
            self._current = None

    def _take_request(self, task: asyncio.Task[AdvanceRequest]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if self._current is not task:
            return  # nobody waits: that was said when the task had already ended
        self._current = None
        if error is None:
            try:
                self.submit(task.result())
            except ServiceError as refusal:
                error = refusal
        if error is not None:
            self._fail(error)

    def _complete(self, result: Reply | ServiceError) -> None:
        self._current = None  # else the job holds this, and this the job
        if isinstance(result, ServiceError):
            self._done(result)
            return
        assert isinstance(result, AdvanceReply)
        signature = self._engine.signature
        if not is_long(result):
            self._done(Answer(200, render_advance(result, signature)))
            return
        task = self._loop.create_task(self._turns.run(render_advance_in_slices(result, signature)))
        self._current = task
        task.add_done_callback(self._take_answer)

    def _take_answer(self, task: asyncio.Task[bytes]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if self._current is not task:
            return  # nobody waits: that was said when the task had already ended
        self._current = None
        if error is None:
            self._done(Answer(200, task.result()))
        else:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, ServiceError):
            log.error("a sequence failed", exc_info=error)
            error = InternalError()
        self._done(error)
