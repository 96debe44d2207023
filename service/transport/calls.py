"""A request on its way through ASGI: its body, its answer, and callers who leave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from service.domain import Reply, Request
from service.engine import Engine
from service.errors import BodyTooLargeError, ServiceError
from service.transport.headers import Headers, check_json, length_of
from service.transport.problem import Answer

Scope = Any
Receive = Any
Send = Any
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
        timeout_s: How long the caller waits, None for any time.
        has_read_body: Whether the end of the body has come.
    """

    scope: Scope
    receive: Receive
    parameters: dict[str, str]
    headers: Headers
    max_body_bytes: int
    timeout_s: float | None = None
    has_read_body: bool = False

    @property
    def query(self) -> bytes:
        """The query string, percent-encoded."""
        query: bytes = self.scope["query_string"]
        return query

    async def read_body(self, check: Callable[[Headers], None] | None = check_json) -> bytes:
        """Read the body.

        Args:
            check: Looks at what the headers say that it is; None: who reads it does.

        Raises:
            UnsupportedMediaTypeError: It says that it is something else than is wanted.
            BodyTooLargeError: It is over the limit; what is over it was not kept.
            ClientGoneError: The caller left before its end.
        """
        if check is not None:
            check(self.headers)
        limit = self.max_body_bytes
        if length_of(self.headers, limit) > limit:
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

        job = engine.submit(request, complete, self.timeout_s)
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
