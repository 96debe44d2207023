"""uvicorn's protocol for HTTP, with an eye on what it lets live: owns clock and back-pressure.

It ends heads without an end and clients who send or read too slowly, reads no further where too
much is queued, and says whose turn it is. Knows nothing of routes, nor of which requests are hot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.transport.headers import request_id_of
from service.transport.hot import AnswerHeads
from service.transport.patience import Clock, Patience, Phase
from service.transport.problem import Answer, http_problem

MAX_HEAD_BYTES = 64 * 1024
"""A request's head that does not end within these is refused with 431."""
MAX_QUEUED = 16
"""With more requests waiting for their turn a connection is not read. Not 0, as for uvicorn: that a
client has left is noticed only where it is read."""
MAX_QUEUED_BYTES = HIGH_WATER_LIMIT
"""The same for the bytes of their bodies."""


class Gate(FlowControl):
    """uvicorn's flow control, which its requests open as they like.

    Attributes:
        is_shut: Whether it stays closed to what is read.
    """

    is_shut = False

    def resume_reading(self) -> None:
        """Read on, unless it is shut."""
        if not self.is_shut:
            super().resume_reading()


class WatchedHttpProtocol(HttpToolsProtocol):
    """One connection.

    What is kept of the message that is being parsed is told by the subclass's callbacks.

    Attributes:
        patience: How long its client may keep it waiting.
        note_refusal: Told of the status that it ends with where no request has come whole.
    """

    patience: Patience
    note_refusal: Callable[[int], None]
    flow: Gate
    _heads: AnswerHeads

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's
        """Take what uvicorn gives."""
        super().__init__(*arguments, **options)
        self._is_head_open = False
        self._is_message_open = False
        self._num_head_bytes = 0
        self._has_ended_one = False
        self._early = b""  # what came behind a handshake
        self._holds_next = False
        self._last: Callable[[], None] | None = None  # what is done behind the last answer
        self._clock = Clock(self.patience, monotonic())
        self._looking: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to watch over the connection."""
        super().connection_made(transport)
        self.flow = Gate(transport)
        self._look_again(self.patience.shortest_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop to watch."""
        self._stop_looking()
        self._last = None
        super().connection_lost(exc)

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

    def handle_websocket_upgrade(self) -> None:
        """Let another protocol have the connection."""
        self._stop_looking()
        self.flow.resume_reading()
        super().handle_websocket_upgrade()
        protocol: Any = self.transport.get_protocol()
        # Frames of a client who does not wait for the handshake's answer. Where that comes later,
        # from ASGI, they would be answered before it.
        if self._early and getattr(protocol, "handshake_complete", False):
            protocol.data_received(self._early)

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP, and close."""
        self.note_refusal(400)
        super().send_400_response(msg)

    # What is read

    def _parse(self, data: bytes) -> bool:
        """Parse what has come; false if nothing may follow it."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.logger.warning("a request is not HTTP")
            self._end_with(lambda: self.send_400_response("Invalid HTTP request received."))
            return False
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self._early = data[upgrade.args[0] :]
                self._end_with(self.handle_websocket_upgrade)
                return False
            self._unsupported_upgrade_warning()
        return True

    def _note_part(self, num_bytes: int) -> None:
        """Note that what came is not the end of a request."""
        if self._is_head_open and not self._has_ended_one:
            self._num_head_bytes += num_bytes
            if self._num_head_bytes > MAX_HEAD_BYTES:
                self._refuse_head()
                return
        if self.flow.write_paused:
            self.flow.pause_reading()  # until the answers before it are read
        elif self._has_turn():
            self._clock.enter(Phase.RECEIVING, monotonic())

    def _regulate_reading(self) -> None:
        """Read on, or not where enough is queued."""
        flow, pipeline = self.flow, self.pipeline
        flow.is_shut = (
            self._holds_next
            or self._last is not None
            or len(pipeline) > MAX_QUEUED
            or sum(len(cycle.body) for cycle, _ in pipeline) > MAX_QUEUED_BYTES
        )
        if flow.is_shut:
            flow.pause_reading()
        else:
            flow.resume_reading()

    # Whose turn it is

    def _has_turn(self) -> bool:
        """Tell whether every request before what is being received is answered."""
        if self.pipeline or self._holds_next:
            return False
        is_its_own = self._is_message_open and not self._is_head_open
        return is_its_own or is_answered(self.cycle)

    def _end_with(self, last: Callable[[], None]) -> None:
        """Do something that nothing follows, behind the answers of what came before."""
        self._last = last
        if self._has_turn():
            self._do_last()
        else:
            self._regulate_reading()

    def _do_last(self) -> None:
        last, self._last = self._last, None
        self.flow.is_shut = False
        if last is not None and not self.transport.is_closing():
            last()

    # Clients who keep the connection waiting

    def _look_again(self, left_s: float) -> None:
        self._looking = self.loop.call_later(left_s, self._look)

    def _stop_looking(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _look(self) -> None:
        """End the connection if its client has kept it waiting for too long."""
        now = monotonic()
        if self.transport.is_closing():
            # What is written still may never be read.
            self._clock.enter(Phase.SENDING, now)
        elif self._clock.phase is not Phase.SENDING:
            if self._is_message_open and self._has_turn() and not self.flow.read_paused:
                self._clock.enter(Phase.RECEIVING, now)
            else:
                is_idle = is_answered(self.cycle)
                self._clock.enter(Phase.IDLE if is_idle else Phase.WORKING, now)
        left_s = self._clock.left_s(now)
        if left_s > 0:
            # Not later than the phase that may follow would end.
            self._look_again(min(left_s, self.patience.shortest_s))
            return
        if self._clock.phase is Phase.SENDING:
            self.transport.abort()
            return
        self._look_again(self.patience.shortest_s)
        has_asked = self._is_head_open or not is_answered(self.cycle)
        if self._clock.phase is Phase.RECEIVING and has_asked:
            self._refuse(408, f"the request was not whole within {self.patience.transfer_s:g} s")
        else:
            self.transport.close()

    def _refuse_head(self) -> None:
        detail = f"the head is over {MAX_HEAD_BYTES} bytes"
        self._end_with(lambda: self._refuse(431, detail))

    def _refuse(self, status: int, detail: str) -> None:
        """Answer a request that will not be whole, and close."""
        self.note_refusal(status)
        request_id = request_id_of({})
        answer = http_problem(status, detail, request_id)
        self.transport.write(self._whole(answer, request_id, closes=True))
        self.transport.close()

    def _whole(self, answer: Answer, request_id: str, *, closes: bool) -> bytes:
        """Return the bytes of an answer."""
        headers = self.server_state.default_headers
        return self._heads.render(headers, answer, request_id, closes=closes)


def is_answered(cycle: Any) -> bool:  # noqa: ANN401 - of either kind; None before the first one
    """Tell whether a request that uvicorn knows is answered."""
    return cycle is None or cycle.response_complete
