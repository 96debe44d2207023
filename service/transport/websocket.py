"""The entrance for WebSockets: which streams may be opened, and which are open."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress

from service.domain import LookRequest, SessionKey, SessionReply
from service.engine import Engine
from service.errors import DrainingError, ServiceError, SessionUnknownError
from service.transport.calls import Receive, Scope, Send
from service.transport.http_sessions import Engines, find_session
from service.transport.routing import PathTree, raw_path_of
from service.transport.stream import Stream, send_error

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
        if not is_same_origin(dict(scope["headers"])):
            # Before it is accepted: the server answers 403.
            await send({"type": "websocket.close", "code": 1008})
            return True
        # What is wrong with the path is told in an error frame: a browser cannot read the answer
        # to a handshake that is refused.
        await send({"type": "websocket.accept"})
        # ASGI's `send` raises OSError if the client is gone, and then there is nobody to tell.
        with suppress(OSError):
            try:
                engine, key = find_session(self._engines, found[1])
                look = await _look(engine, key)
            except ServiceError as error:
                error.__traceback__ = None  # it may hold what was waited for, and that the error
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


def is_same_origin(headers: Mapping[bytes, bytes]) -> bool:
    """Tell whether a handshake comes from no web page, or from one of this very host and port.

    A browser lets every page open a WebSocket to every host, and says only in `Origin` whose page
    it is: without a look at it, any page could drive the sessions of a service on localhost.
    """
    origin = headers.get(b"origin")
    if origin is None:
        return True
    _, _, address = origin.partition(b"://")
    return bool(address) and address.lower() == headers.get(b"host", b"").lower()


async def _look(engine: Engine, key: SessionKey) -> tuple[int, int | None]:
    try:
        reply = await engine.ask(LookRequest(key=key))
    except SessionUnknownError as error:
        error.__traceback__ = None  # it holds the future that was waited for, and that the error
        return 0, None
    assert isinstance(reply, SessionReply)
    return reply.position, reply.epoch
