"""The operations that are answered most: step, sequence, steps. Knows no server.

An operation begins with a request whose body is there, and tells a completion what came of it, so
that an entrance needs no task for it. Every entrance that speaks HTTP runs these.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import cast

from service.domain import AdvanceReply, AdvanceRequest, Reply, SessionKey
from service.engine import Engine
from service.errors import ServiceError
from service.jobs import Job
from service.served import ServedModels
from service.signature import Signature
from service.transport import binary_steps, render
from service.transport.headers import Headers, check_json, check_plain
from service.transport.http_sessions import find_engine, find_session
from service.transport.long_sequences import SequenceWork
from service.transport.parse import parse_sequence, parse_step
from service.transport.parse_steps import Row, parse_steps
from service.transport.problem import Answer
from service.transport.slices import LARGE_BODY_BYTES, SliceRunner, parse_sequence_in_slices
from service.transport.work import Begin, Done, Work

MAX_ROWS_IN_FLIGHT = 256
"""Most places in the engine's queue that one request takes."""


Results = list[AdvanceReply | ServiceError]
"""One answer a row."""
WriteRows = Callable[[Results], Answer]


class SessionOperations:
    """The operations that take time steps of sessions."""

    def __init__(self, engines: ServedModels, *, max_sequence_steps: int) -> None:
        """Take the engines by model name, the default model's first."""
        self._engines = engines
        self._max_sequence_steps = max_sequence_steps
        self._runner = SliceRunner()

    def step(self, parameters: dict[str, str]) -> Begin:
        """Take one time step."""
        return partial(_step, *find_session(self._engines, parameters))

    def sequence(self, parameters: dict[str, str]) -> Begin:
        """Take many time steps."""
        return partial(self._sequence, *find_session(self._engines, parameters))

    def steps(self, parameters: dict[str, str]) -> Begin:
        """Take one time step of many sessions."""
        return partial(_steps, find_engine(self._engines, parameters))

    def _sequence(
        self,
        engine: Engine,
        key: SessionKey,
        headers: Headers,
        body: bytes,
        timeout_s: float | None,
        done: Done,
    ) -> Work:
        check_json(headers)
        work = SequenceWork(engine, self._runner, timeout_s, done)
        most = self._max_sequence_steps
        if len(body) <= LARGE_BODY_BYTES:
            work.submit(parse_sequence(body, engine.signature, key, most))
        else:
            work.read(parse_sequence_in_slices(body, engine.signature, key, most))
        return work


def _step(
    engine: Engine,
    key: SessionKey,
    headers: Headers,
    body: bytes,
    timeout_s: float | None,
    done: Done,
) -> Work:
    check_json(headers)
    request = parse_step(body, engine.signature, key)
    return engine.submit(request, partial(_answer, done, engine.signature), timeout_s)


def _answer(done: Done, signature: Signature, result: Reply | ServiceError) -> None:
    if isinstance(result, AdvanceReply):
        done(Answer(200, render.render_advance(result, signature)))
    else:
        assert isinstance(result, ServiceError)
        done(result)


def _steps(
    engine: Engine, headers: Headers, body: bytes, timeout_s: float | None, done: Done
) -> Work:
    if binary_steps.is_binary_steps(headers):
        check_plain(headers)
        rows = binary_steps.parse_binary_steps(body, engine.signature)
        write: WriteRows = partial(_write_binary_rows, engine.signature.output_size)
    else:
        check_json(headers)
        rows, write = parse_steps(body, engine.signature), _write_rows
    work = _ManySteps(engine, rows, timeout_s, lambda results: done(write(results)))
    work.ask_slice()
    return work


def _write_rows(results: Results) -> Answer:
    return Answer(200, render.render_steps(results))


def _write_binary_rows(output_size: int, results: Results) -> Answer:
    body = binary_steps.render_binary_steps(results, output_size)
    return Answer(200, body, binary_steps.MEDIA_TYPE.encode())


class _ManySteps:
    """The rows of one request, a slice at a time, so that others find room in the queue."""

    def __init__(
        self,
        engine: Engine,
        rows: list[Row],
        timeout_s: float | None,
        done: Callable[[Results], None],
    ) -> None:
        """Take the rows; those that are errors already are not asked for."""
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._ends_at = None if timeout_s is None else self._loop.time() + timeout_s
        self._done = done
        self._rows = rows
        self._results: list[AdvanceReply | ServiceError | None] = [
            row if isinstance(row, ServiceError) else None for row in rows
        ]
        self._good = [i for i, row in enumerate(rows) if not isinstance(row, ServiceError)]
        self._num_begun = 0
        self._num_waiting = 0
        # Of the slice that is asked for, and of its jobs those that were taken.
        self._slice: list[int] = []
        self._jobs: list[Job] = []
        self._is_cancelled = False

    def cancel(self) -> None:
        """Apply no row that has not gone to the store yet."""
        self._is_cancelled = True
        for job in self._jobs:
            job.cancel()
        self._jobs = []  # they hold this in what completes them: a cycle, with the inputs in it

    def ask_slice(self) -> None:
        """Ask for the first rows, or those behind the ones that are answered.

        Raises:
            NotStreamableError: The model has no sessions.
            DrainingError: The engine takes no rows at all.
        """
        part = self._slice = self._good[self._num_begun : self._num_begun + MAX_ROWS_IN_FLIGHT]
        is_first = not self._num_begun
        self._num_begun += len(part)
        # One more than there are, so that no row ends the slice before all are asked for.
        self._num_waiting = len(part) + 1
        left_s = None if self._ends_at is None else max(0.0, self._ends_at - self._loop.time())
        requests = cast(list[AdvanceRequest], [self._rows[index] for index in part])
        try:
            self._jobs = self._engine.submit_many(requests, self._complete, left_s)
        except ServiceError as error:
            if is_first:
                raise
            for index in range(len(part)):
                self._complete(index, error)
        self._end_one()

    def _complete(self, index: int, result: Reply | ServiceError) -> None:
        if isinstance(result, ServiceError):
            # It holds the frames that it passed, and those hold these results: a cycle.
            result.__traceback__ = None
        self._results[self._slice[index]] = cast(AdvanceReply | ServiceError, result)
        self._end_one()

    def _end_one(self) -> None:
        self._num_waiting -= 1
        if not self._num_waiting:
            self._end_slice()

    def _end_slice(self) -> None:
        self._jobs = []  # as in `cancel`
        if self._is_cancelled:
            return
        if self._num_begun < len(self._good):
            self.ask_slice()
            return
        self._done([result for result in self._results if result is not None])
