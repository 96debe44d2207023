"""What both faces share of the network: addresses, and how its failures are told to the core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed, InvalidStatus

from service.client.effects import Answer, Lost

STREAM_OPTIONS: Mapping[str, Any] = {
    "compression": None,  # numbers hardly compress, and every step would wait for it
    "close_timeout": 1.0,  # what is broken does not answer
    "max_size": None,
}
"""For `websockets.connect`, unless the caller says otherwise."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a service is.

    Attributes:
        url: Its root, such as `http://127.0.0.1:8000`, perhaps with a path.
        headers: For every request and handshake.
    """

    url: str
    headers: Mapping[str, str]

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"expected a URL that begins with http:// or https://: {self.url!r}")

    def http(self, path: str) -> str:
        """Return the URL of a path."""
        return self.url.rstrip("/") + path

    def stream(self, path: str) -> str:
        """Return the URL of a path for a WebSocket."""
        return "ws" + self.http(path).removeprefix("http")

    def http_headers(self, body: bytes | None) -> dict[str, str]:
        """Return the headers of a request."""
        return dict(self.headers) | ({} if body is None else {"content-type": "application/json"})

    def stream_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments of `websockets.connect`, the caller's last."""
        return {**STREAM_OPTIONS, "additional_headers": dict(self.headers), **options}


def answered(response: httpx.Response, took_s: float) -> Answer:
    """Tell of an answer."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(response.status_code, headers, response.content, took_s)


def unanswered(error: httpx.RequestError, took_s: float) -> Lost:
    """Tell of a request without an answer."""
    never_sent = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
    return Lost(_words(error), took_s, is_sent=not isinstance(error, never_sent))


def disconnected(error: Exception, took_s: float) -> Lost:
    """Tell of a stream that ended, or could not be opened."""
    if isinstance(error, InvalidStatus):
        return Lost(_words(error), took_s, status=error.response.status_code)
    if isinstance(error, ConnectionClosed) and error.rcvd is not None:
        return Lost(_words(error), took_s, close_code=error.rcvd.code)
    return Lost(_words(error), took_s)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
