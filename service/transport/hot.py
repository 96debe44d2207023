"""A plain request for a hot route, from its head to its answer, in the place of an ASGI task.

Knows no socket: a connection gives it the body and takes its answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import perf_counter
from typing import NamedTuple, Protocol

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.errors import ServiceError
from service.transport.headers import Headers, length_of, request_id_of, timeout_of
from service.transport.http import CLIENT_GONE_STATUS, HttpEntrance, answer_to_error
from service.transport.problem import Answer
from service.transport.problem import Headers as Lines
from service.transport.routing import Route
from service.transport.work import Begin, Work

_MAX_BEGINNINGS = 256
"""Most beginnings of answers that are kept at hand."""


class Head(NamedTuple):
    """What stands before the body of a plain request for a hot route.

    Attributes:
        route: Where it goes, an operation's.
        begin: What is done there.
        headers: By lower-case name.
        num_body_bytes: The length of the body.
        timeout_s: How long the caller waits, None for any time.
    """

    route: Route
    begin: Begin
    headers: Headers
    num_body_bytes: int
    timeout_s: float | None


def find_head(entrance: HttpEntrance, url: bytes, headers: Headers) -> Head | None:
    """Return the head of a POST request by HTTP/1.1 if it is plain and hot, None if it is for ASGI.

    Args:
        entrance: What serves it.
        url: As it was sent.
        headers: By lower-case name.
    """
    num_body_bytes = length_of(headers, entrance.max_body_bytes)
    if (
        b"content-length" not in headers
        or b"transfer-encoding" in headers
        or b"upgrade" in headers
        or b"expect" in headers
        or num_body_bytes > entrance.max_body_bytes
    ):
        return None
    match = entrance.routes.find(url)
    route = None if match is None else match.routes.get("POST")
    if match is None or route is None or route.operation is None:
        return None
    try:
        begin, timeout_s = route.operation(match.parameters), timeout_of(headers)
    except ServiceError:
        return None  # ASGI says what is wrong with the path or the time
    return Head(route, begin, headers, num_body_bytes, timeout_s)


class Connection(Protocol):
    """What carries hot requests."""

    entrance: HttpEntrance

    def answer(self, hot: Hot, answer: Answer) -> None:
        """Write the answer of a request, unless its client has gone."""
        ...


class _NoEvent:
    """Stands where uvicorn tells a request of its own that something has come."""

    def set(self) -> None:
        """Do nothing: a hot request waits for nothing."""


_NO_EVENT = _NoEvent()


class Hot(msgspec.Struct, eq=False):
    """One request. In uvicorn's eyes it is a `RequestResponseCycle`.

    Attributes:
        connection: It came by this one.
        head: What stands before its body.
        body: What has come of it.
        request_id: What its answer is called by.
        is_whole: Whether all of the body has come.
        is_queued: Whether others of its connection are to be answered before.
        keep_alive: uvicorn's: whether the connection goes on after its answer.
        disconnected: uvicorn's: whether the client has gone.
        response_complete: uvicorn's: whether it is answered.
    """

    connection: Connection
    head: Head
    body: bytes | bytearray = b""
    request_id: str = ""
    is_whole: bool = False
    is_queued: bool = False
    keep_alive: bool = True
    disconnected: bool = False
    response_complete: bool = False
    message_event: _NoEvent = _NO_EVENT
    _work: Work | None = None
    _began: float = 0.0

    def extend(self, body: bytes) -> None:
        """Take a part of the body."""
        if not self.body:
            self.body = body
        elif isinstance(self.body, bytearray):
            self.body += body
        else:
            self.body = bytearray(self.body) + body

    def begin(self) -> None:
        """Do what is asked, if all of it has come."""
        self.is_queued = False
        if not self.is_whole:
            return
        self._began = perf_counter()
        head = self.head
        headers = head.headers
        self.request_id = request_id_of(headers)
        try:
            self.connection.entrance.admit(headers)
            work = head.begin(headers, bytes(self.body), head.timeout_s, self.done)
        except Exception as error:  # noqa: BLE001 - the guard: the caller gets a problem document
            self.done(answer_to_error(error, self.head.route, self.request_id))
        else:
            if not self.response_complete:
                self._work = work

    def done(self, result: Answer | ServiceError) -> None:
        """Answer it."""
        if isinstance(result, ServiceError):
            result = answer_to_error(result, self.head.route, self.request_id)
        self._work = None
        self.response_complete = True
        self._observe(result.status)
        self.connection.answer(self, result)

    def leave(self) -> None:
        """Drop it: its client has gone."""
        self.disconnected = True
        if self.response_complete:
            return
        if self._work is not None:
            self._work.cancel()
            self._work = None
        self._began = self._began or perf_counter()
        self._observe(CLIENT_GONE_STATUS)

    def _observe(self, status: int) -> None:
        seconds = perf_counter() - self._began
        self.connection.entrance.observe(self.head.route.template, status, seconds)


class AnswerHeads:
    """Writes answers as uvicorn would, and remembers what stands before their bodies."""

    def __init__(self) -> None:
        """Know no default headers yet."""
        self._default_headers: list[tuple[bytes, bytes]] | None = None
        self._beginnings: dict[tuple[int, bytes, Lines], bytes] = {}

    def render(
        self,
        default_headers: list[tuple[bytes, bytes]],
        answer: Answer,
        request_id: str,
        *,
        closes: bool,
    ) -> bytes:
        """Return the bytes of an answer.

        Args:
            default_headers: uvicorn's, such as the date; another list where they are others.
            answer: The answer.
            request_id: What it is called by.
            closes: Whether the connection ends with it.
        """
        if self._default_headers is not default_headers:
            self._default_headers = default_headers
            self._beginnings.clear()
        kind = (answer.status, answer.content_type, answer.headers)
        beginning = self._beginnings.get(kind)
        if beginning is None:
            headers = [*default_headers, (b"content-type", answer.content_type), *answer.headers]
            beginning = STATUS_LINE[answer.status] + _lines(headers) + b"content-length: "
            if len(self._beginnings) == _MAX_BEGINNINGS:
                self._beginnings.clear()
            self._beginnings[kind] = beginning
        return b"%b%d\r\nx-request-id: %b\r\n%b\r\n%b" % (
            beginning,
            len(answer.body),
            request_id.encode(),
            b"connection: close\r\n" if closes else b"",
            answer.body,
        )


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])
