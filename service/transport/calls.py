"""A request on its way through ASGI: its body, its answer, and callers who leave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from service.domain import Reply, Request
from service.engine import Engine
from service.errors import BodyTooLargeError, ServiceError, UnsupportedMediaTypeError
from service.transport.problem import Answer

Scope = Any
Receive = Any
Send = Any
Headers = dict[bytes, bytes]
_T = TypeVar("_T")

_WATCH_AFTER_S = 0.01
"""A job that is answered sooner costs no task that watches for the caller's leaving."""


class ClientGoneError(Exception):
    """The caller has left: there is nobody to answer."""


@dataclass(slots=True)
class Call:
    """One HTTP request.

    Attributes:
        scope: ASGI's.
        receive: ASGI's.
        parameters: The path's, percent-decoded.
        headers: By lower-case name; the last one where a name comes twice.
        max_body_bytes: More is refused.
        has_read_body: Whether the end of the body has come.
    """

    scope: Scope
    receive: Receive
    parameters: dict[str, str]
    headers: Headers
    max_body_bytes: int
    has_read_body: bool = False

    @property
    def query(self) -> bytes:
        """The query string, percent-encoded."""
        query: bytes = self.scope["query_string"]
        return query

    async def read_body(self, check: Callable[[Headers], None] | None = None) -> bytes:
        """Read the body.

        Args:
            check: Looks at what the headers say that it is; None means `check_json`.

        Raises:
            UnsupportedMediaTypeError: It says that it is something else than is wanted.
            BodyTooLargeError: It is over the limit; what is over it was not kept.
            ClientGoneError: The caller left before its end.
        """
        (check or check_json)(self.headers)
        limit = self.max_body_bytes
        length = self.headers.get(b"content-length", b"").lstrip(b"0")
        # The server has checked that it is a number; one of too many digits is not converted.
        if len(length) > len(str(limit)) or int(length or 0) > limit:
            raise BodyTooLargeError(limit)
        message = await self.receive()
        body: bytes = message.get("body", b"")
        if message["type"] == "http.request" and not message.get("more_body"):
            self.has_read_body = True
            if len(body) > limit:
                raise BodyTooLargeError(limit)
            return body
        chunks = []
        size = 0
        while True:
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > limit:
                raise BodyTooLargeError(limit)
            chunks.append(chunk)
            if not message.get("more_body"):
                self.has_read_body = True
                return b"".join(chunks)
            message = await self.receive()

    async def ask(self, engine: Engine, request: Request) -> Reply:
        """Submit a request and wait for its answer; a caller who leaves cancels it.

        Raises:
            ServiceError: It failed; nothing was applied.
            ClientGoneError: The caller left first.
        """
        answered: asyncio.Future[Reply | ServiceError] = asyncio.get_running_loop().create_future()

        def complete(result: Reply | ServiceError) -> None:
            if not answered.done():
                answered.set_result(result)

        job = engine.submit(request, complete)
        try:
            result = await self.wait(answered)
        except (asyncio.CancelledError, ClientGoneError):
            job.cancel()
            raise
        if isinstance(result, ServiceError):
            raise result
        return result

    async def wait(self, answered: asyncio.Future[_T]) -> _T:
        """Wait for a future or a task, but no longer than the caller does.

        Raises:
            ClientGoneError: The caller left first; what was waited for is cancelled.
        """
        is_gone = False
        watcher: asyncio.Task[None] | None = None

        async def watch() -> None:
            nonlocal is_gone
            while (message := await self.receive())["type"] != "http.disconnect":
                if not message.get("more_body"):
                    if self.has_read_body:
                        # Behind the body there is nothing but the end. A server that says something
                        # else must not keep this loop turning.
                        return
                    self.has_read_body = True
            is_gone = answered.cancel()

        def begin_watching() -> None:
            nonlocal watcher
            watcher = loop.create_task(watch())

        loop = asyncio.get_running_loop()
        timer = loop.call_later(_WATCH_AFTER_S, begin_watching)
        try:
            return await answered
        except asyncio.CancelledError:
            if is_gone:
                raise ClientGoneError from None
            raise
        finally:
            timer.cancel()
            if watcher is not None:
                watcher.cancel()


def check_json(headers: Headers) -> None:
    """Check that a body is said to be JSON, or not said to be anything.

    Raises:
        UnsupportedMediaTypeError: It is said to be something else, or to be compressed.
    """
    content_type = headers.get(b"content-type")
    if content_type not in (None, b"", b"application/json"):
        media_type, *parameters = content_type.decode("latin-1").lower().split(";")
        media_type = media_type.strip()
        is_json = media_type == "application/json" or (
            media_type.startswith("application/") and media_type.endswith("+json")
        )
        charsets = [p.partition("=")[2].strip(' "') for p in parameters if "charset" in p]
        if not is_json or any(charset not in ("utf-8", "utf8") for charset in charsets):
            raise UnsupportedMediaTypeError(content_type.decode("latin-1")[:100])
    check_plain(headers)


def check_plain(headers: Headers) -> None:
    """Check that a body is not compressed.

    Raises:
        UnsupportedMediaTypeError: It is.
    """
    encoding = headers.get(b"content-encoding")
    if encoding not in (None, b"", b"identity"):
        raise UnsupportedMediaTypeError(f"{encoding.decode('latin-1')[:100]}-encoded")


async def send_answer(send: Send, answer: Answer, request_id: bytes) -> None:
    """Write an answer to ASGI."""
    headers = [
        (b"content-type", answer.content_type),
        (b"content-length", b"%d" % len(answer.body)),
        (b"x-request-id", request_id),
        *answer.headers,
    ]
    if answer.status == 204:
        headers = headers[2:]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
