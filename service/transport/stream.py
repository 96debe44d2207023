"""The stream: time steps of one session over a WebSocket, several in flight, answers in order.

A stream holds its session's position itself and expects it with every step, so that another writer
is noticed. The first error ends it, and nothing behind it applies.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass

from service.domain import (
    REPLAY_WINDOW,
    AdvanceReply,
    AdvanceRequest,
    Reply,
    SessionKey,
)
from service.engine import Engine
from service.errors import (
    BodyTooLargeError,
    InternalError,
    PositionConflictError,
    ServiceError,
)
from service.jobs import Job
from service.transport.calls import Receive, Send
from service.transport.parse import parse_binary_step, parse_step
from service.transport.render import render_advance, render_error_frame, render_hello
from service.transport.status import status_of

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _InFlight:
    """A step that is not answered yet.

    Attributes:
        is_binary: How it came, and is answered.
        may_replay: Whether it may be an earlier request that comes again.
        job: The engine's, until there is a result.
        result: What the engine said.
    """

    is_binary: bool
    may_replay: bool
    job: Job | None = None
    result: Reply | ServiceError | None = None


class Stream:
    """One open stream."""

    def __init__(
        self,
        engine: Engine,
        key: SessionKey,
        receive: Receive,
        send: Send,
        max_frame_bytes: int,
    ) -> None:
        """Bring the parts together; `run` begins.

        Args:
            engine: The model's.
            key: The session.
            receive: ASGI's.
            send: ASGI's, the connection being accepted.
            max_frame_bytes: A longer frame is refused.
        """
        self._engine = engine
        self._key = key
        self._receive = receive
        self._send = send
        self._max_frame_bytes = max_frame_bytes
        self._position = 0
        self._head = 0
        self._epoch: int | None = None
        self._in_flight: deque[_InFlight] = deque()
        self._answered = asyncio.Event()
        self._has_room = asyncio.Event()
        self._error: ServiceError | None = None
        self._is_gone = False

    async def run(self, position: int, epoch: int | None) -> None:
        """Say hello, and answer steps until the stream ends.

        Args:
            position: Where the session is.
            epoch: The life that it is in; None where there is no session.
        """
        self._position, self._epoch = position, epoch
        # How far the session is known to have come: only steps before it can come again.
        self._head = position
        hello = render_hello(
            self._engine.signature, position=position, epoch=epoch, replay_window=REPLAY_WINDOW
        )
        await _send_text(self._send, hello)
        reader = asyncio.create_task(self._read())
        reader.add_done_callback(self._on_read)
        try:
            await self._write()
        finally:
            reader.cancel()
            for step in self._in_flight:
                if step.job is not None:
                    step.job.cancel()
            self._in_flight.clear()
        if self._error is not None and not self._is_gone:
            await send_error(self._send, self._error)

    def end(self, error: ServiceError) -> None:
        """End the stream with an error, after the answers to the steps in flight."""
        # It holds the frames that it passed, and those hold the stream: a cycle with the inputs.
        error.__traceback__ = None
        if self._error is None:
            self._error = error
        self._answered.set()

    async def _read(self) -> None:
        """Submit frames as they come, while there is room for one more in flight."""
        while self._error is None:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                self._is_gone = True
                self._answered.set()
                return
            try:
                await self._submit(message.get("text"), message.get("bytes"))
            except ServiceError as error:
                self.end(error)
            while len(self._in_flight) >= REPLAY_WINDOW:
                await self._wait_for_room()

    def _on_read(self, reader: asyncio.Task[None]) -> None:
        """End the stream if reading failed for a reason of ours, so that nobody waits for ever."""
        if not reader.cancelled() and (fault := reader.exception()) is not None:
            log.error("a stream failed", exc_info=fault)
            self.end(InternalError())

    async def _submit(self, text: str | None, data: bytes | None) -> None:
        is_binary = text is None
        frame = (data or b"") if text is None else text.encode()
        if len(frame) > self._max_frame_bytes:
            raise BodyTooLargeError(self._max_frame_bytes)
        named, epoch, return_state = None, None, False
        if is_binary:
            inputs = parse_binary_step(frame, self._engine.signature)
        else:
            asked = parse_step(frame, self._engine.signature, self._key)
            inputs, return_state = asked.inputs, asked.return_state
            named, epoch = asked.position, asked.epoch
        position = self._position if named is None else named
        await self._wait_for_turn(position)
        if self._error is not None:
            return
        request = AdvanceRequest(
            key=self._key,
            inputs=inputs,
            return_sequences=False,
            return_state=return_state,
            position=position,
            epoch=self._epoch if epoch is None else epoch,
            # A step that names its position may be the retry of the one that began the session.
            must_begin=self._epoch is None and named is None,
        )
        step = _InFlight(is_binary, may_replay=named is not None or position < self._head)

        def complete(result: Reply | ServiceError) -> None:
            self._complete(step, result)

        self._in_flight.append(step)
        try:
            step.job = self._engine.submit(request, complete)
        except ServiceError:
            self._in_flight.pop()
            raise
        self._position = position + 1

    async def _wait_for_turn(self, position: int) -> None:
        """Wait until a step from this position may follow those in flight, or the stream ends."""
        while (
            (position != self._position or self._epoch is None)
            and self._in_flight
            and self._error is None
        ):
            # A jump, such as a retry from before a reconnect: what is in flight comes first, so
            # that nothing behind an error applies. And behind the step that begins the session, so
            # that its epoch is known.
            await self._wait_for_room()

    def _complete(self, step: _InFlight, result: Reply | ServiceError) -> None:
        """Take the engine's word; an error ends the stream before the next step has its turn."""
        if isinstance(result, AdvanceReply):
            self._head = max(self._head, result.position)
            if result.replayed and not step.may_replay:
                problem = "another writer has sent the same step"
                result = PositionConflictError(result.position, result.epoch, problem)
        step.result = result
        step.job = None  # which holds this step in its turn: a cycle
        if isinstance(result, ServiceError):
            self.end(result)
            for other in self._in_flight:
                if other.result is None and other.job is not None:
                    other.job.cancel()
        self._answered.set()

    async def _wait_for_room(self) -> None:
        self._has_room.clear()
        await self._has_room.wait()

    async def _write(self) -> None:
        """Send answers in the order of their steps, until the stream ends."""
        while not self._is_gone:
            while self._in_flight and self._in_flight[0].result is not None:
                step = self._in_flight[0]
                if isinstance(step.result, ServiceError):
                    self._error = step.result
                    return
                assert isinstance(step.result, AdvanceReply)
                self._epoch = step.result.epoch
                await self._send_reply(step.result, is_binary=step.is_binary)
                # Only now: a caller who does not read is not read from either.
                self._in_flight.popleft()
                self._has_room.set()
            if self._error is not None and not self._in_flight:
                return
            self._answered.clear()
            await self._answered.wait()

    async def _send_reply(self, reply: AdvanceReply, *, is_binary: bool) -> None:
        if is_binary:
            data = reply.outputs.astype("<f4", copy=False).tobytes()
            await self._send({"type": "websocket.send", "bytes": data})
        else:
            await _send_text(self._send, render_advance(reply, self._engine.signature))


async def send_error(send: Send, error: ServiceError) -> None:
    """Send an error frame and close with the error's code."""
    await _send_text(send, render_error_frame(error))
    code = status_of(error).websocket
    await send({"type": "websocket.close", "code": code, "reason": error.code})


async def _send_text(send: Send, document: bytes) -> None:
    await send({"type": "websocket.send", "text": document.decode()})
