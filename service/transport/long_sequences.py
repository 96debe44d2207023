"""A sequence from its body to its answer, in slices where these are long."""

from __future__ import annotations

from collections.abc import Callable

from service.domain import AdvanceReply, AdvanceRequest, Reply
from service.engine import Engine
from service.errors import ServiceError
from service.jobs import Job
from service.transport.problem import Answer
from service.transport.render import render_advance
from service.transport.sliced_work import SlicedWork
from service.transport.slices import SliceRunner, Slices, is_long, render_advance_in_slices
from service.transport.work import Done


class SequenceWork(SlicedWork[AdvanceRequest, Reply]):
    """One sequence on its way through an engine."""

    __slots__ = ("_engine",)

    def __init__(
        self, engine: Engine, runner: SliceRunner, timeout_s: float | None, done: Done
    ) -> None:
        """Take what it needs: see `SlicedWork`."""
        super().__init__(runner, timeout_s, done)
        self._engine = engine

    def ask(
        self,
        request: AdvanceRequest,
        complete: Callable[[Reply | ServiceError], None],
        timeout_s: float | None,
    ) -> Job:
        """Ask the engine."""
        return self._engine.submit(request, complete, timeout_s)

    def write(self, reply: Reply) -> Answer | Slices[Answer]:
        """Write the reply."""
        assert isinstance(reply, AdvanceReply)
        if not is_long(reply):
            return Answer(200, render_advance(reply, self._engine.signature))
        return self._write_in_slices(reply)

    def _write_in_slices(self, reply: AdvanceReply) -> Slices[Answer]:
        body = yield from render_advance_in_slices(reply, self._engine.signature)
        return Answer(200, body)
