"""What a session asks of the network, and what both kinds of it share: addresses and failures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.protocol import Protocol as WebSocketProtocol

Frame = str | bytes
"""A text frame, or a binary one."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer of any status; the names of its headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer, or the end of a stream's connection.

    Attributes:
        reason: In words.
        status: With what a handshake was refused or the other side closed the stream, if it did.
        is_sent: Whether the request may have arrived.
    """

    reason: str
    status: int | None = None
    is_sent: bool = True


class Network(Protocol):
    """HTTP, and at most one WebSocket. A blocking one never suspends who awaits it."""

    async def request(
        self, method: str, path: str, body: bytes | None, timeout_s: float
    ) -> Answer | Lost:
        """Make an HTTP request; the body is JSON."""
        ...

    async def connect(self, path: str, timeout_s: float) -> Lost | None:
        """Open a WebSocket; one that is open already is closed first."""
        ...

    async def send(self, frames: Sequence[Frame]) -> None:
        """Send frames, in one write. What becomes of them is told by what is received."""
        ...

    async def receive(self, timeout_s: float) -> Frame | Lost:
        """Return the next frame, or how the WebSocket ended, behind the last one."""
        ...

    async def disconnect(self) -> None:
        """Close the WebSocket, if there is one."""
        ...

    async def pause(self, seconds: float) -> None:
        """Wait."""
        ...


class Address:
    """Where a service is.

    Attributes:
        url: Its root, such as `http://127.0.0.1:8000`, perhaps with a path.
        headers: For every request and handshake.
        is_encrypted: Whether certificates are needed; to load them takes longer than many steps.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None) -> None:
        """Look at the URL, but not yet for what is there.

        Raises:
            ValueError: It is none.
        """
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ValueError(f"{url!r} is no URL: {error}") from error
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query:
            raise ValueError(f"expected a URL such as http://127.0.0.1:8000, got {url!r}")
        self.url = url.rstrip("/")
        self.headers = dict(headers or {})
        self.is_encrypted = parsed.scheme == "https"

    def request(self, path: str, body: bytes | None) -> dict[str, Any]:
        """Return the arguments of `httpx.Client.stream` behind the method."""
        headers = self.headers | ({} if body is None else {"content-type": "application/json"})
        return {"url": self.url + path, "content": body, "headers": headers}

    def stream(self, path: str, timeout_s: float) -> dict[str, Any]:
        """Return the arguments of `websockets.connect` for a path."""
        return {
            "uri": f"ws{self.url[len('http') :]}{path}",
            "additional_headers": self.headers,
            "open_timeout": timeout_s,
            "compression": None,  # numbers hardly compress, and every step would wait for it
            "close_timeout": 1.0,  # what is broken does not answer
            "max_size": None,
        }


def frame_bytes(protocol: WebSocketProtocol, frames: Sequence[Frame]) -> bytes:
    """Return what a connection is to write for frames, all of it together.

    The library's own `send` writes each by itself, and the service reads few of them at once then.
    """
    for frame in frames:
        if isinstance(frame, str):
            protocol.send_text(frame.encode())
        else:
            protocol.send_binary(frame)
    return b"".join(protocol.data_to_send())


def unanswered(error: httpx.RequestError) -> Lost:
    """Tell of a request without an answer."""
    never_sent = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
    return Lost(_words(error), is_sent=not isinstance(error, never_sent))


def disconnected(error: Exception) -> Lost:
    """Tell of a stream that ended, or could not be opened."""
    if isinstance(error, InvalidStatus):
        return Lost(_words(error), error.response.status_code)
    if isinstance(error, ConnectionClosed) and error.rcvd is not None:
        return Lost(_words(error), error.rcvd.code)
    return Lost(_words(error))


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
