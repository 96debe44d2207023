"""The stream: time steps of one session over a WebSocket, several in flight, answers in order.

A stream holds its session's position itself and expects it with every step, so that another writer
is noticed. The first error ends it, and nothing behind it applies.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from service.domain import (
    REPLAY_WINDOW,
    AdvanceReply,
    AdvanceRequest,
    LookRequest,
    Reply,
    SessionKey,
)
from service.engine import Engine
from service.errors import (
    BodyTooLargeError,
    DrainingError,
    InternalError,
    ServiceError,
    SessionUnknownError,
)
from service.jobs import Job
from service.transport.calls import Receive, Scope, Send
from service.transport.http_sessions import Engines, find_session
from service.transport.parse import parse_binary_step, parse_step
from service.transport.render import render_advance, render_error_frame, render_hello
from service.transport.routing import PathTree, raw_path_of
from service.transport.status import status_of

log = logging.getLogger(__name__)

_PATHS = PathTree(
    dict.fromkeys(
        (
            "/v1/models/{model}/sessions/{client_id}/stream",
            "/v1/sessions/{client_id}/stream",
        )
    )
)


class WebSocketEntrance:
    """Serves the streams and knows those that are open."""

    def __init__(self, engines: Engines, *, max_frame_bytes: int) -> None:
        """Take the engines by model name, the default model's first."""
        self._engines = engines
        self._max_frame_bytes = max_frame_bytes
        self._open: dict[Stream, asyncio.Event] = {}

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Serve a connection; false, and nothing done, if its path is no stream's."""
        found = _PATHS.find(raw_path_of(scope))
        if found is None:
            return False
        await receive()
        # What is wrong with the path is told in an error frame: a browser cannot read the answer
        # to a handshake that is refused.
        await send({"type": "websocket.accept"})
        # ASGI's `send` raises OSError if the client is gone, and then there is nobody to tell.
        with suppress(OSError):
            try:
                engine, key = find_session(self._engines, found[1])
                look = await _look(engine, key)
            except ServiceError as error:
                await send_error(send, error)
            else:
                await self._serve(Stream(engine, key, receive, send, self._max_frame_bytes), look)
        return True

    async def _serve(self, stream: Stream, look: tuple[int, int | None]) -> None:
        closed = self._open[stream] = asyncio.Event()
        try:
            await stream.run(*look)
        finally:
            del self._open[stream]
            closed.set()

    async def close(self) -> None:
        """End every stream with 1012, after the answers that are due."""
        closed = list(self._open.values())
        for stream in self._open:
            stream.end(DrainingError())
        for event in closed:
            await event.wait()


@dataclass(slots=True, eq=False)
class _InFlight:
    """A step that is not answered yet."""

    is_binary: bool
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
        if self._error is not None and not self._is_gone:
            await send_error(self._send, self._error)

    def end(self, error: ServiceError) -> None:
        """End the stream with an error, after the answers to the steps in flight."""
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
        if is_binary:
            request = AdvanceRequest(
                key=self._key,
                inputs=parse_binary_step(frame, self._engine.signature),
                return_sequences=False,
                position=self._position,
                epoch=self._epoch,
            )
        else:
            request = await self._expect(parse_step(frame, self._engine.signature, self._key))
        if self._error is not None:
            return
        step = _InFlight(is_binary)

        def complete(result: Reply | ServiceError) -> None:
            step.result = result
            self._answered.set()

        self._in_flight.append(step)
        try:
            step.job = self._engine.submit(request, complete)
        except ServiceError:
            self._in_flight.pop()
            raise
        assert request.position is not None
        self._position = request.position + 1

    async def _expect(self, request: AdvanceRequest) -> AdvanceRequest:
        """Fill in where the stream is, as far as a frame does not say where it belongs."""
        position = self._position if request.position is None else request.position
        while position != self._position and self._in_flight and self._error is None:
            # A jump, such as a retry from before a reconnect: what is in flight comes first, so
            # that nothing behind an error applies.
            await self._wait_for_room()
        epoch = self._epoch if request.epoch is None else request.epoch
        return AdvanceRequest(
            key=self._key,
            inputs=request.inputs,
            return_sequences=False,
            return_state=request.return_state,
            position=position,
            epoch=epoch,
        )

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


async def _look(engine: Engine, key: SessionKey) -> tuple[int, int | None]:
    try:
        reply = await engine.ask(LookRequest(key=key))
    except SessionUnknownError:
        return 0, None
    return reply.position, reply.epoch
