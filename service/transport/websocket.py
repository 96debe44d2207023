"""The entrance for WebSockets: which streams may be opened, and which are open."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Literal

from service.errors import DrainingError, ServiceError
from service.served import ServedModels
from service.transport.calls import Receive, Scope, Send
from service.transport.headers import Admit
from service.transport.http_sessions import find_session
from service.transport.query import parse_preconditions
from service.transport.routing import PathTree, raw_path_of
from service.transport.stream import Stream
from service.transport.stream_asgi import AsgiStream
from service.transport.stream_messages import Limits
from service.transport.uvicorn_versions import is_extended

PATIENCE_S = 30.0
"""A client who reads nothing for so long while answers wait for it is cut off."""

_PATHS = PathTree(
    dict.fromkeys(
        (
            "/v1/models/{model}/sessions/{client_id}/stream",
            "/v1/sessions/{client_id}/stream",
        )
    )
)


class WebSocketEntrance:
    """Opens the streams, serves them by ASGI, and knows those that are open.

    Attributes:
        limits: What a stream takes.
        patience_s: How long a client may read nothing while answers wait for it, in seconds.
    """

    def __init__(
        self,
        engines: ServedModels,
        *,
        max_frame_bytes: int,
        max_frame_steps: int,
        patience_s: float = PATIENCE_S,
        admit: Admit | None = None,
    ) -> None:
        """Take the engines by model name, the default model's first.

        Args:
            engines: What is served.
            max_frame_bytes: A longer message is refused.
            max_frame_steps: Most time steps of one message.
            patience_s: See the class.
            admit: Asked before a stream begins.
        """
        self._engines = engines
        self.limits = Limits(max_frame_bytes, max_frame_steps)
        self.patience_s = patience_s
        self._admit = admit
        self._open: dict[Stream, asyncio.Event] = {}

    def find(self, raw_path: bytes, headers: Mapping[bytes, bytes]) -> dict[str, str] | None:
        """Return the parameters of a stream's path; None if it is none, or of a strange page.

        Args:
            raw_path: Percent-encoded, without the root path.
            headers: Of the handshake.
        """
        found = _PATHS.find(raw_path)
        return found[1] if found is not None and is_same_origin(headers) else None

    def open(
        self,
        parameters: dict[str, str],
        query: bytes,
        headers: Mapping[bytes, bytes],
        on_answers: Callable[[], None],
    ) -> Stream:
        """Open a stream; what is wrong with the handshake is its only answer.

        A browser could not read it in the answer to a handshake that is refused.

        Args:
            parameters: Of the path.
            query: Percent-encoded.
            headers: Of the handshake.
            on_answers: See `Stream`.
        """
        stream = Stream(self.limits, on_answers)
        self._open[stream] = asyncio.Event()
        try:
            if self._admit is not None:
                self._admit(headers)
            engine, key = find_session(self._engines, parameters)
            position, epoch = parse_preconditions(query)
        except ServiceError as error:
            stream.end(error)
        else:
            stream.begin(engine, key, position, epoch)
        return stream

    def forget(self, stream: Stream) -> None:
        """Note that a stream has ended; once more does no harm."""
        closed = self._open.pop(stream, None)
        if closed is not None:
            closed.set()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Serve an ASGI connection; false, and nothing done, if its path is no stream's."""
        raw_path = raw_path_of(scope)
        if _PATHS.find(raw_path) is None:
            return False
        await receive()
        headers = dict(scope["headers"])
        parameters = self.find(raw_path, headers)
        if parameters is None:
            # Before it is accepted: the server answers 403.
            await send({"type": "websocket.close", "code": 1008})
            return True
        await send({"type": "websocket.accept"})
        shell = AsgiStream(receive, send, self.patience_s)
        query = scope.get("query_string", b"")
        stream = self.open(parameters, query, headers, shell.on_answers)
        try:
            # ASGI's `send` raises OSError if the client is gone, and then there is nobody to tell;
            # a `TimeoutError` is one too.
            with suppress(OSError):
                await shell.run(stream)
        finally:
            self.forget(stream)
        return True

    async def close(self) -> None:
        """End every stream with 1012, after the answers that are due."""
        closed = list(self._open.values())
        for stream in list(self._open):
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


def stream_protocol(
    entrance: WebSocketEntrance,
) -> type[asyncio.Protocol] | Literal["websockets-sansio"]:
    """Return what uvicorn's `ws` shall be: the class that opens streams itself, if it fits."""
    if not is_extended("streams"):
        return "websockets-sansio"
    # Another uvicorn may lack what it extends.
    from service.transport.websocket_protocol import protocol_class  # noqa: PLC0415

    return protocol_class(entrance)
