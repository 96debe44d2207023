"""A stream's shell inside of uvicorn: from a socket's bytes to its rules, and back in one write.

The connection never becomes an ASGI task. Everything but streams is left to uvicorn's own class,
and so are keepalive pings and the shutdown.
"""

from __future__ import annotations

import asyncio
import logging
from typing import ClassVar

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Opcode
from websockets.http11 import Request

from service.transport.stream import Stream
from service.transport.websocket import WebSocketEntrance
from service.transport.websocket_frames import FrameReader, encode

log = logging.getLogger(__name__)

MAX_UNREAD_BYTES = 64 * 1024
"""With more of a client's bytes waiting for room, its socket is not read."""


class StreamProtocol(WebSocketsSansIOProtocol):
    """One connection; see `protocol_class`.

    Attributes:
        entrance: What opens the streams.
    """

    entrance: ClassVar[WebSocketEntrance]

    _stream: Stream | None = None
    _reader: FrameReader
    _has_left = False
    _is_write_paused = False
    _num_unsent = 0
    _patience: asyncio.TimerHandle | None = None
    _reading_on: asyncio.Handle | None = None

    # --- uvicorn's and asyncio's side ---

    def handle_connect(self, event: Request) -> None:
        """Accept a handshake for a stream; uvicorn has the others."""
        raw_path, _, query = event.path.partition("?")
        headers = {
            name.lower().encode(): value.encode("latin-1", "replace")
            for name, value in event.headers.raw_items()
        }
        parameters = self.entrance.find(raw_path.encode(), headers)
        if parameters is None:
            super().handle_connect(event)
            return
        # Numbers hardly compress, and every step would wait for it.
        self.conn.available_extensions = []
        self.request = event
        self.response = self.conn.accept(event)
        self.handshake_initiated = self.handshake_complete = True
        is_accepted = self.response.status_code == 101
        if is_accepted:
            del self.response.headers["Date"]  # the server's own is among the others
            for name, value in self.default_headers:
                self.response.headers[name.decode("latin-1")] = value.decode("latin-1")
        self.conn.send_response(self.response)
        self._write_library()
        if not is_accepted:
            self.close_sent = True
            self.transport.close()
            return
        self.logger.info('%s - "WebSocket %s" [accepted]', self.client, raw_path)
        self._reader = FrameReader(self.conn, self.entrance.limits.frame_bytes)
        self._stream = self.entrance.open(parameters, query.encode(), headers, self._on_answers)
        self.start_keepalive()

    def data_received(self, data: bytes) -> None:
        """Read what has come."""
        if self._stream is None:
            super().data_received(data)
        elif not self._has_left:
            self._reader.feed(data)
            self._pump(self._stream)

    def pause_writing(self) -> None:
        """Take no more answers out; a client who goes on not to read is cut off."""
        super().pause_writing()
        self._is_write_paused = True
        if self._stream is not None:
            self._wait_for_client()

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        self._is_write_paused = False
        self._stop_waiting()
        if self._stream is not None:
            self._on_answers()

    def shutdown(self) -> None:
        """End now: `WebSocketEntrance.close` has given streams their time."""
        self._leave()
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of the stream."""
        super().connection_lost(exc)
        self._leave()

    def keepalive_timeout(self) -> None:
        """Give a client up who answers no ping, unless its answer may lie unread."""
        if self._stream is None:
            super().keepalive_timeout()
        elif not self._has_left and (self._is_write_paused or not self._stream.room):
            # It waits for the engine, or for its client to read, which has its own time limit.
            assert self.ping_timeout is not None
            self.pong_timer = self.loop.call_later(self.ping_timeout, self.keepalive_timeout)
        else:
            super().keepalive_timeout()
            self._abort_later()
            self._leave()

    # --- the stream's side ---

    def _on_answers(self) -> None:
        # A tick completes many steps of this stream: their answers are written together, behind it.
        self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        stream = self._stream
        if self._has_left or self._is_write_paused or stream is None:
            return
        answers = stream.answers()
        if answers:
            self.transport.write(encode(answers))
        if stream.close is not None and not self.close_sent:
            self._close(*stream.close)
        self._pump(stream)

    def _pump(self, stream: Stream) -> None:
        """Hand over what there is room for, and read the socket only if that is enough."""
        reader = self._reader
        while not self._has_left:
            room = 0 if self._is_write_paused else stream.room
            if not (room or reader.is_discarding):
                break
            messages = reader.read(room or 1)
            if reader.controls or reader.is_over:
                self._control()
            if messages:
                stream.take(messages)
            if reader.has_more:
                self._read_on_later()
                break
            if not messages or not reader.num_unread:
                break
        self._regulate_reading(stream)

    def _read_on_later(self) -> None:
        if self._reading_on is None:
            self._reading_on = self.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        self._reading_on = None
        self._flush()

    def _regulate_reading(self, stream: Stream) -> None:
        reader = self._reader
        has_no_room = self._is_write_paused or not stream.room
        is_full = reader.num_unread > MAX_UNREAD_BYTES and (
            reader.has_more or (has_no_room and not reader.is_discarding)
        )
        if is_full is not self.read_paused and not self.transport.is_closing():
            self.read_paused = is_full
            if is_full:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    def _control(self) -> None:
        """Answer pings, take pongs, and end with a close or a breach of the protocol."""
        self._write_library()
        controls, self._reader.controls = self._reader.controls, []
        for frame in controls:
            if frame.opcode is Opcode.PONG:
                self.handle_pong(frame)
        if self._reader.is_over:
            # What is in flight is not applied any more, if it is not on its way to the store.
            self.close_sent = True
            self._leave()
            self.transport.close()
            self._abort_later()

    def _close(self, code: int, reason: str) -> None:
        """Say why it ends, and wait for the client's own close; what else comes is thrown away."""
        self.stop_keepalive()
        self.conn.send_close(code, reason)
        self._write_library()
        self.close_sent = True
        self._reader.discard()
        self._abort_later()
        assert self._stream is not None
        self.entrance.forget(self._stream)

    def _abort_later(self) -> None:
        if self.close_timer is not None:
            self.close_timer.cancel()
        # Not `close`: that would wait for a client who does not read.
        self.close_timer = self.loop.call_later(self.close_timeout, self.transport.abort)

    def _leave(self) -> None:
        """Let go of the stream: there is nobody to be answered."""
        if self._stream is None or self._has_left:
            return
        self._has_left = True
        self._stop_waiting()
        self.stop_keepalive()
        self._stream.abandon()
        self.entrance.forget(self._stream)

    def _write_library(self) -> None:
        output = b"".join(self.conn.data_to_send())
        if output and not self.transport.is_closing():
            self.transport.write(output)

    def _wait_for_client(self) -> None:
        self._num_unsent = self.transport.get_write_buffer_size()
        self._patience = self.loop.call_later(self.entrance.patience_s, self._lose_patience)

    def _lose_patience(self) -> None:
        if self.transport.get_write_buffer_size() < self._num_unsent:
            self._wait_for_client()
            return
        log.info("a client of a stream reads nothing for %s s: cut off", self.entrance.patience_s)
        self._leave()
        self.transport.abort()

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def protocol_class(entrance: WebSocketEntrance) -> type[StreamProtocol]:
    """Return a class for uvicorn's `ws`, whose connections open streams of `entrance`."""
    return type("StreamProtocol", (StreamProtocol,), {"entrance": entrance})
