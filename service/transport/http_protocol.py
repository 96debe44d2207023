"""The entrance for HTTP inside uvicorn: plain requests for hot routes never become ASGI tasks.

A plain request is a POST by HTTP/1.1 that keeps its connection, with a body of known length, to a
route that is an operation. It is answered by a completion, from the engine's tick. Everything else
goes on to the ASGI application, which serves the same operations. Both kinds keep their order on a
connection: uvicorn's queue for pipelined requests holds either.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from time import monotonic
from typing import Any, TypeVar

from service.transport.connection_watch import (
    MAX_HEAD_BYTES,
    WatchedHttpProtocol,
    is_answered,
)
from service.transport.headers import Headers
from service.transport.hot import AnswerHeads, Head, Hot, find_head
from service.transport.http import HttpEntrance
from service.transport.patience import Patience, Phase
from service.transport.problem import Answer

MAX_KNOWN_HEADS = 16
"""Most heads that a connection remembers: those of one client differ in the body's length only."""

_PLAIN_LINE = re.compile(rb"POST (/[!-~]*+) HTTP/1\.1\r\n")
_T = TypeVar("_T")


class HotHttpProtocol(WatchedHttpProtocol):
    """uvicorn's protocol over httptools, with the hot routes answered here; see `hot_protocol`."""

    entrance: HttpEntrance

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's
        """Take what uvicorn gives."""
        super().__init__(*arguments, **options)
        self._known_heads: dict[bytes, Head] = {}
        self._known_lines: dict[bytes, Headers] = {}  # those of headers, whatever the path
        self._num_messages = 0
        self._running: Any = None  # the request that has its turn, of either kind
        self._is_going_on = False

    # What asyncio calls

    def connection_lost(self, exc: Exception | None) -> None:
        """Cancel what nobody waits for any more."""
        running = self._running
        if isinstance(running, Hot):
            running.leave()
        elif not is_answered(running):
            # uvicorn tells the one that came last, which may be another.
            running.disconnected = True
            running.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Begin a request whose head is known, or parse what has come: see the callbacks."""
        end = data.find(b"\r\n\r\n") + 4
        if not self._is_message_open and not self._holds_next and is_answered(self.cycle):
            known = self._known_heads.get(data[:end]) or self._find_alike(data, end)
            if known is not None and len(data) == end + known.num_body_bytes:
                self._running = self.cycle = hot = Hot(self, known)  # type: ignore[assignment]
                hot.body = data[end:]
                hot.is_whole = True
                hot.begin()
                return
        if self._last is not None:
            return  # nothing may follow it: neither a parser's error nor a handshake
        if end > MAX_HEAD_BYTES and not self._is_message_open:
            self._refuse_head()
            return
        is_begin, num_before = not self._is_message_open, self._num_messages
        self._has_ended_one = False
        if not self._parse(data) or self.transport.is_closing():
            return
        if self.pipeline:
            self._regulate_reading()
        if self._is_message_open:
            self._note_part(len(data))
        elif is_begin and self._num_messages == num_before + 1 and isinstance(self.cycle, Hot):
            self._learn(data, end, self.cycle.head)

    def _find_alike(self, data: bytes, end: int) -> Head | None:
        """Return a head with known headers and another path, as of many sessions' requests."""
        line = _PLAIN_LINE.match(data)
        headers = None if line is None else self._known_lines.get(data[line.end() : end])
        if line is None or headers is None:
            return None
        head = find_head(self.entrance, line[1], headers)
        if head is not None:
            _remember(self._known_heads, data[:end], head)
        return head

    def _learn(self, data: bytes, end: int, head: Head) -> None:
        """Remember a head, if nothing but it and its body came.

        The next head of a connection is nearly always the same, byte by byte, or has another path
        only, and the parser keeps nothing from one request to the next: it would say the same of
        it.
        """
        if len(data) == end + head.num_body_bytes:
            _remember(self._known_heads, data[:end], head)
            line = _PLAIN_LINE.match(data)
            if line is not None:
                _remember(self._known_lines, data[line.end() : end], head.headers)

    # What the parser calls

    def on_message_begin(self) -> None:
        """Begin a request; what ASGI needs of it is made when it turns out to be for ASGI."""
        self.url = b""
        self.headers = []
        self._is_message_open = self._is_head_open = True
        self._num_messages += 1
        self._num_head_bytes = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Find out which kind of request it is."""
        self._is_head_open = False
        hot = self._find_hot()
        if hot is None:
            url, headers = self.url, self.headers
            super().on_message_begin()
            self.url = url
            self.headers += headers  # in place: the scope has the list too
            self.expect_100_continue = (b"expect", b"100-continue") in [
                (name, value.lower()) for name, value in headers
            ]
            if self._holds_next:
                self.cycle = _HELD  # so that uvicorn queues it
            super().on_headers_complete()
            return
        is_first = is_answered(self.cycle) and not self._holds_next
        self.cycle = hot  # type: ignore[assignment]
        if is_first:
            self._running = hot
        else:
            hot.is_queued = True
            self.pipeline.appendleft((hot, self.app))  # type: ignore[arg-type]

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        cycle = self.cycle
        if isinstance(cycle, Hot):
            if not cycle.is_whole:
                cycle.extend(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Begin the request if it is its turn."""
        self._is_message_open = False
        self._has_ended_one = True
        cycle = self.cycle
        if isinstance(cycle, Hot):
            if cycle.is_whole:
                return  # the end of a request for an upgrade, which has no cycle of its own
            cycle.is_whole = True
            if not cycle.is_queued:
                cycle.begin()
        else:
            super().on_message_complete()

    # What uvicorn calls

    def _start_asgi_task(self, cycle: Any, app: Any) -> None:  # noqa: ANN401 - uvicorn's
        self._running = cycle
        if isinstance(cycle, Hot):
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
            self._regulate_reading()
            return
        self.server_state.total_requests += 1
        self._clock.begin(Phase.IDLE, monotonic())
        if self.pipeline or self._last is not None:
            if not self._is_going_on:
                self._go_on()
        elif self.flow.read_paused:
            self._regulate_reading()

    def _go_on(self) -> None:
        """Begin what is queued, until something is not answered at once."""
        # A loop: were each answer to begin the next request, a thousand would need as many frames.
        self._is_going_on = True
        try:
            while self.pipeline and is_answered(self._running) and not self._holds_next:
                self._start_asgi_task(*self.pipeline.pop())
        finally:
            self._is_going_on = False
        if self._last is not None and self._has_turn():
            self._do_last()
        elif not self.transport.is_closing():
            self._regulate_reading()

    # The hot requests

    def _find_hot(self) -> Hot | None:
        """Return the request that has come if it is answered here, else None."""
        parser = self.parser
        if (
            parser.get_method() != b"POST"
            or parser.get_http_version() != "1.1"
            or not parser.should_keep_alive()
        ):
            return None
        head = find_head(self.entrance, self.url, dict(self.headers))
        return None if head is None else Hot(self, head)

    def answer(self, hot: Hot, answer: Answer) -> None:
        """Write the answer of a hot request, unless its client has gone, and go on."""
        if hot.disconnected or self.transport.is_closing():
            return
        self.transport.write(self._whole(answer, hot.request_id, closes=not hot.keep_alive))
        if not hot.keep_alive:
            self.transport.close()
        self.on_response_complete()


def hot_protocol(
    entrance: HttpEntrance, patience: Patience, note_refusal: Callable[[int], None]
) -> type[HotHttpProtocol]:
    """Return the class that uvicorn is to take for HTTP.

    Args:
        entrance: Of the application that uvicorn serves.
        patience: How long clients may keep a connection waiting.
        note_refusal: Told of the status of each connection that is ended because what came is no
            whole request.
    """
    members = {
        "entrance": entrance,
        "patience": patience,
        "note_refusal": staticmethod(note_refusal),
        "_heads": AnswerHeads(),
    }
    return type("HotHttpProtocol", (HotHttpProtocol,), members)


def _remember(known: dict[bytes, _T], data: bytes, value: _T) -> None:
    if len(known) == MAX_KNOWN_HEADS:
        known.clear()
    known[data] = value


class _Held:
    """Stands where uvicorn looks whether the request before is answered, and may go on."""

    response_complete = False


_HELD: Any = _Held()
