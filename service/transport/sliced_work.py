"""One request from its body to its answer, in slices where these are long. See `slices`.

Knows no protocol: subclasses say who is asked, and how a reply is written.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar

from service.errors import InternalError, ServiceError
from service.transport.problem import Answer
from service.transport.slices import SliceRunner, Slices
from service.transport.work import Done, Work

log = logging.getLogger(__name__)

RequestT = TypeVar("RequestT")
ReplyT = TypeVar("ReplyT")


class SlicedWork(ABC, Generic[RequestT, ReplyT]):
    """One request on its way; at each time it is read, asked, or written."""

    __slots__ = ("_current", "_done", "_ends_at", "_runner")

    def __init__(self, runner: SliceRunner, timeout_s: float | None, done: Done) -> None:
        """Take what it needs; `submit` or `read` sets it going.

        Args:
            runner: Shared with other long works, so that they take turns.
            timeout_s: How long the caller waits, None for any time.
            done: Called once with the answer or the error, unless the work was cancelled.
        """
        self._runner = runner
        self._done = done
        self._ends_at = None if timeout_s is None else monotonic() + timeout_s
        self._current: Work | asyncio.Task[RequestT] | asyncio.Task[Answer] | None = None

    @abstractmethod
    def ask(
        self,
        request: RequestT,
        complete: Callable[[ReplyT | ServiceError], None],
        timeout_s: float | None,
    ) -> Work:
        """Begin what is asked.

        Raises:
            ServiceError: It is not taken.
        """

    @abstractmethod
    def write(self, reply: ReplyT) -> Answer | Slices[Answer]:
        """Return the answer, or what writes it."""

    def submit(self, request: RequestT) -> None:
        """Begin with a request that is read already.

        Raises:
            ServiceError: It is not taken.
        """
        left_s = None if self._ends_at is None else max(0.0, self._ends_at - monotonic())
        self._current = self.ask(request, self._complete, left_s)

    def read(self, reading: Slices[RequestT]) -> None:
        """Begin with a body that is read in slices."""
        task = asyncio.get_running_loop().create_task(self._runner.run(reading))
        self._current = task
        task.add_done_callback(self._take_request)

    def cancel(self) -> None:
        """Say that nobody waits any more."""
        if self._current is not None:
            self._current.cancel()
            self._current = None

    def _take_request(self, task: asyncio.Task[RequestT]) -> None:
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

    def _complete(self, result: ReplyT | ServiceError) -> None:
        self._current = None  # else the job holds this, and this the job
        if isinstance(result, ServiceError):
            self._done(result)
            return
        written = self.write(result)
        if isinstance(written, Answer):
            self._done(written)
            return
        task = asyncio.get_running_loop().create_task(self._runner.run(written))
        self._current = task
        task.add_done_callback(self._take_answer)

    def _take_answer(self, task: asyncio.Task[Answer]) -> None:
        if task.cancelled():
            return
        error = task.exception()
        if self._current is not task:
            return  # nobody waits: that was said when the task had already ended
        self._current = None
        if error is None:
            self._done(task.result())
        else:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not isinstance(error, ServiceError):
            log.error("a long request failed", exc_info=error)
            error = InternalError()
        self._done(error)
