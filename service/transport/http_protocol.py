"""The entrance for HTTP inside uvicorn: plain requests for hot routes never become ASGI tasks.

A plain request is a POST by HTTP/1.1 that keeps its connection, with a body of known length, to a
route that is an operation. It is answered by a completion, from the engine's tick. Everything else
goes on to the ASGI application, which serves the same operations. Both kinds keep their order on a
connection: uvicorn's queue for pipelined requests holds either.

It also ends what uvicorn lets live: heads without an end, and clients who send or read too slowly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from time import monotonic, perf_counter
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.errors import ServiceError
from service.transport.headers import Headers, length_of, request_id_of, timeout_of
from service.transport.http import CLIENT_GONE_STATUS, HttpEntrance, answer_to_error
from service.transport.operations import Asked, Work
from service.transport.patience import Clock, Patience, Phase
from service.transport.problem import Answer, http_problem
from service.transport.routing import Route

MAX_HEAD_BYTES = 64 * 1024
"""A request's head that does not end within these is refused with 431."""


class _NoEvent:
    """Stands where uvicorn tells a request of its own that something has come."""

    def set(self) -> None:
        """Do nothing: a hot request waits for nothing."""


_NO_EVENT = _NoEvent()


class _Hot:
    """A plain request for a hot route: in uvicorn's eyes, its own `RequestResponseCycle`."""

    __slots__ = (
        "began",
        "body",
        "disconnected",
        "headers",
        "is_queued",
        "is_whole",
        "keep_alive",
        "message_event",
        "parameters",
        "protocol",
        "request_id",
        "response_complete",
        "route",
        "work",
    )

    def __init__(
        self,
        protocol: HotHttpProtocol,
        route: Route,
        parameters: dict[str, str],
        headers: Headers,
    ) -> None:
        self.protocol = protocol
        self.route = route
        self.parameters = parameters
        self.headers = headers
        self.body: bytes | bytearray = b""
        self.request_id = ""
        self.began = 0.0
        self.work: Work | None = None
        self.is_whole = False
        self.is_queued = False
        # What uvicorn reads and sets.
        self.keep_alive = True
        self.disconnected = False
        self.response_complete = False
        self.message_event = _NO_EVENT

    def begin(self) -> None:
        """Run the operation."""
        self.is_queued = False
        if not self.is_whole:
            return
        self.began = perf_counter()
        self.request_id = request_id_of(self.headers)
        operation = self.route.operation
        assert operation is not None, "only operations are hot"
        try:
            asked = Asked(self.parameters, self.headers, bytes(self.body), timeout_of(self.headers))
            work = operation(asked, self.done)
        except Exception as error:  # noqa: BLE001 - the guard: the caller gets a problem document
            self.done(answer_to_error(error, self.route, self.request_id))
        else:
            self.work = None if self.response_complete else work

    def done(self, result: Answer | ServiceError) -> None:
        """Write the answer."""
        if isinstance(result, ServiceError):
            result = answer_to_error(result, self.route, self.request_id)
        self.work = None
        self.protocol.answer(self, result)

    def extend(self, body: bytes) -> None:
        """Take a part of the body."""
        if not self.body:
            self.body = body
        elif isinstance(self.body, bytearray):
            self.body += body
        else:
            self.body = bytearray(self.body) + body

    def leave(self) -> None:
        """Drop what nobody waits for any more."""
        self.disconnected = True
        if self.work is not None:
            self.work.cancel()
            self.work = None
        if self.began and not self.response_complete:
            self.protocol.observe(self, CLIENT_GONE_STATUS)


class HotHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol over httptools, with the hot routes answered here; see `hot_protocol`."""

    entrance: HttpEntrance
    patience: Patience

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's
        """Take what uvicorn gives."""
        super().__init__(*arguments, **options)
        self._known_url = b""
        self._known_route: tuple[Route, dict[str, str]] | None = None
        self._is_head_open = False
        self._is_message_open = False
        self._num_head_bytes = 0
        self._holds_next = False
        self._clock = Clock(self.patience, monotonic())
        self._looking: asyncio.TimerHandle | None = None
        self._default_headers: list[tuple[bytes, bytes]] | None = None
        self._default_lines = b""

    # What asyncio calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch over the connection."""
        super().connection_made(transport)
        self._look_again(self.patience.shortest_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what nobody waits for any more."""
        self._stop_looking()
        for cycle in (self.cycle, *(queued for queued, _ in self.pipeline)):
            if isinstance(cycle, _Hot) and not cycle.disconnected:
                cycle.leave()
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come; the parser calls back below."""
        super().data_received(data)
        if self._is_message_open:
            self._note_part(len(data))

    def pause_writing(self) -> None:
        """Note that the client does not read."""
        super().pause_writing()
        self._clock.enter(Phase.SENDING, monotonic())

    def resume_writing(self) -> None:
        """Go on with a client who has read."""
        super().resume_writing()
        self._clock.enter(Phase.WORKING, monotonic())
        if self._holds_next:
            self._holds_next = False
            self.on_response_complete()

    # What the parser calls

    def on_message_begin(self) -> None:
        """Begin a request; what ASGI needs of it is made when it turns out to be for ASGI."""
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._is_message_open = self._is_head_open = True
        self._num_head_bytes = 0

    def on_headers_complete(self) -> None:
        """Find out which kind of request it is."""
        self._is_head_open = False
        hot = self._find_hot()
        if hot is None:
            url, headers, expects = self.url, self.headers, self.expect_100_continue
            super().on_message_begin()
            self.url, self.expect_100_continue = url, expects
            self.headers += headers  # in place: the scope has the list too
            super().on_headers_complete()
            return
        is_first = _is_answered(self.cycle)
        self.cycle = hot  # type: ignore[assignment]
        if not is_first:
            hot.is_queued = True
            self.flow.pause_reading()
            self.pipeline.appendleft((hot, self.app))  # type: ignore[arg-type]

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        cycle = self.cycle
        if isinstance(cycle, _Hot):
            cycle.extend(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Begin the request if it is its turn."""
        self._is_message_open = False
        cycle = self.cycle
        if isinstance(cycle, _Hot):
            cycle.is_whole = True
            if not cycle.is_queued:
                cycle.begin()
        else:
            super().on_message_complete()

    # What uvicorn calls

    def handle_websocket_upgrade(self) -> None:
        """Let another protocol have the connection."""
        self._stop_looking()
        super().handle_websocket_upgrade()

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:  # noqa: ANN401 - uvicorn's
        if isinstance(cycle, _Hot):
            cycle.begin()
        else:
            super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """Go on with the next request, or wait for one."""
        if self.transport.is_closing():
            return
        if self.flow.write_paused:
            # The answer stands in the buffer: its reader is not read from before it has gone.
            self._holds_next = True
            self.flow.pause_reading()
            return
        self.server_state.total_requests += 1
        self._clock.begin(Phase.IDLE, monotonic())
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    # The hot requests

    def _find_hot(self) -> _Hot | None:
        """Return the request that has come if it is answered here, else None."""
        if self.url != self._known_url:
            self._known_url, self._known_route = self.url, self._find_route(self.url)
        known, parser = self._known_route, self.parser
        if known is None or parser.get_method() != b"POST":
            return None
        headers: Headers = dict(self.headers)
        limit = self.entrance.max_body_bytes
        if (
            parser.get_http_version() != "1.1"
            or not parser.should_keep_alive()
            or parser.should_upgrade()
            or self.expect_100_continue
            or self.limit_concurrency is not None
            or b"content-length" not in headers
            or b"transfer-encoding" in headers
            or length_of(headers, limit) > limit
        ):
            return None
        return _Hot(self, *known, headers)

    def _find_route(self, url: bytes) -> tuple[Route, dict[str, str]] | None:
        match = self.entrance.routes.find(url)
        route = None if match is None else match.routes.get("POST")
        if match is None or route is None or route.operation is None:
            return None
        return route, match.parameters

    def answer(self, hot: _Hot, answer: Answer) -> None:
        """Write the answer of a hot request, and go on with the next one."""
        self.observe(hot, answer.status)
        hot.response_complete = True
        if self.transport.is_closing():
            return
        self.transport.write(self._head(answer, hot.request_id, closes=not hot.keep_alive))
        self.transport.write(answer.body)
        if not hot.keep_alive:
            self.transport.close()
        self.on_response_complete()

    def observe(self, hot: _Hot, status: int) -> None:
        """Tell the observer of the end of a hot request."""
        self.entrance.observe(hot.route.template, status, perf_counter() - hot.began)

    def _head(self, answer: Answer, request_id: str, *, closes: bool) -> bytes:
        """Return what stands before an answer's body, as uvicorn would write it."""
        if self._default_headers is not self.server_state.default_headers:
            # uvicorn makes a new list each second, for the date.
            self._default_headers = self.server_state.default_headers
            self._default_lines = _lines(self._default_headers)
        others = _lines(answer.headers) if answer.headers else b""
        if closes:
            others += b"connection: close\r\n"
        return b"%b%bcontent-type: %b\r\ncontent-length: %d\r\nx-request-id: %b\r\n%b\r\n" % (
            STATUS_LINE[answer.status],
            self._default_lines,
            answer.content_type,
            len(answer.body),
            request_id.encode(),
            others,
        )

    # Clients who keep the connection waiting

    def _note_part(self, num_bytes: int) -> None:
        """Note that what came is not the end of a request."""
        if self.flow.write_paused or not self._has_turn():
            self.flow.pause_reading()  # until the answers before it are written, and read
            return
        self._clock.enter(Phase.RECEIVING, monotonic())
        if self._is_head_open:
            self._num_head_bytes += num_bytes
            if self._num_head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, f"the head is over {MAX_HEAD_BYTES} bytes")

    def _has_turn(self) -> bool:
        """Tell whether every request before the one that is being received is answered."""
        return not (self.pipeline or (self._is_head_open and not _is_answered(self.cycle)))

    def _look_again(self, left_s: float) -> None:
        self._looking = self.loop.call_later(left_s, self._look)

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _look(self) -> None:
        """End the connection if its client has kept it waiting for too long."""
        now = monotonic()
        if self._clock.phase is not Phase.SENDING:
            if self._is_message_open and not self.flow.read_paused:
                self._clock.enter(Phase.RECEIVING, now)
            else:
                is_idle = _is_answered(self.cycle)
                self._clock.enter(Phase.IDLE if is_idle else Phase.WORKING, now)
        left_s = self._clock.left_s(now)
        if left_s > 0:
            self._look_again(left_s)
        elif self._clock.phase is Phase.SENDING:
            self.transport.abort()
        elif self._clock.phase is Phase.RECEIVING:
            self._refuse(408, f"the request was not whole within {self.patience.transfer_s:g} s")
        else:
            self.transport.close()

    def _refuse(self, status: int, detail: str) -> None:
        """Answer a request that will not be whole, and close."""
        request_id = request_id_of({})
        answer = http_problem(status, detail, request_id)
        self.transport.write(self._head(answer, request_id, closes=True) + answer.body)
        self.transport.close()


def hot_protocol(entrance: HttpEntrance, patience: Patience) -> type[HotHttpProtocol]:
    """Return the class that uvicorn is to take for HTTP.

    Args:
        entrance: Of the application that uvicorn serves.
        patience: How long clients may keep a connection waiting.
    """
    return type("HotHttpProtocol", (HotHttpProtocol,), {"entrance": entrance, "patience": patience})


def _is_answered(cycle: Any) -> bool:  # noqa: ANN401 - of either kind; None before the first one
    return cycle is None or cycle.response_complete


def _lines(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])
