"""Frames of WebSocket (RFC 6455) as a server reads and writes them. No socket, no stream.

`websockets` has the protocol: control frames, the closing handshake, and every frame that is not
plain go through it. A whole message in one frame, as nearly all are, is cut out here: the library
takes three times as long for it as a step may cost.
"""

from __future__ import annotations

from collections.abc import Iterable

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol

from service.transport.stream import Incoming, Outgoing

try:
    from websockets.speedups import apply_mask
except ImportError:  # the library runs without its compiled part, and so do we
    from websockets.utils import apply_mask

_TEXT, _BINARY = 0x81, 0x82  # whole messages: the last frame of one and its opcode, no reserved bit
_WHOLE = frozenset((_TEXT, _BINARY))
_OPCODE, _RESERVED = 0x0F, 0x70
_OPCODES = frozenset(Opcode)
_IS_CONTROL = 0x08
_IS_MASKED = 0x80
_SHORT_HEADS = [bytes((_BINARY, length)) for length in range(126)]


def encode(messages: Iterable[Outgoing]) -> bytes:
    """Return the frames of messages, one after the other."""
    parts = []
    for is_text, payload in messages:
        length = len(payload)
        if length < 126 and not is_text:
            parts.append(_SHORT_HEADS[length])
        elif length < 126:
            parts.append(bytes((_TEXT, length)))
        else:
            first = _TEXT if is_text else _BINARY
            is_long = length > 0xFFFF
            head = bytes((first, 127 if is_long else 126))
            parts.append(head + length.to_bytes(8 if is_long else 2))
        parts.append(payload)
    return b"".join(parts)


class FrameReader:
    """What a client has sent, from bytes to messages.

    Attributes:
        controls: Pings, pongs and a close, as they come; the library has answered them. Whoever
            looks at them takes them out.
        is_over: Nothing more is read: the client has closed, or broken the protocol.
        is_discarding: Messages are thrown away.
    """

    def __init__(self, connection: Protocol, max_bytes: int) -> None:
        """Read behind a handshake.

        Args:
            connection: The server's side of it, without an extension.
            max_bytes: A longer message is not kept.
        """
        self.controls: list[Frame] = []
        self.is_over = False
        self.is_discarding = False
        self._connection = connection
        self._max_bytes = max_bytes
        self._data: bytes | bytearray = b""
        self._at = 0
        # A message that comes in several frames, so far.
        self._parts = bytearray()
        self._is_fragmented = False
        self._is_text = False
        self._num_to_skip = 0

    @property
    def num_unread(self) -> int:
        """How many bytes have come and are not read."""
        return len(self._data) - self._at

    def discard(self) -> None:
        """Throw messages away from now on, whatever their length, and wait for the close."""
        self.is_discarding = True

    def feed(self, data: bytes) -> None:
        """Take what a client has sent."""
        if self._num_to_skip:
            num_skipped = min(self._num_to_skip, len(data))
            self._num_to_skip -= num_skipped
            data = data[num_skipped:]
        if not self.num_unread:
            self._data = data
        else:
            # A long message comes in many pieces: each is copied once.
            if isinstance(self._data, bytes):
                self._data = bytearray(self._data[self._at :])
            else:
                del self._data[: self._at]
            self._data += data
        self._at = 0

    def read(self, most: int) -> list[Incoming]:
        """Return up to `most` messages of those that are whole, `most` being at least 1."""
        messages: list[Incoming] = []
        data, end = self._data, len(self._data)
        while len(messages) < most and end - self._at > 1 and not self.is_over:
            at = self._at
            if data[at + 1] < _IS_MASKED:
                self._fail(CloseCode.PROTOCOL_ERROR, "incorrect masking")
                break
            head = _read_head(data, at, end)
            if head is None:
                break
            first, start, stop = head
            is_plain = first in _WHOLE and not (self._is_fragmented or self.is_discarding)
            if is_plain and stop <= end and stop - start <= self._max_bytes:
                self._at = stop
                payload = apply_mask(data[start:stop], data[start - 4 : start])
                if first == _BINARY or self._is_utf8(payload):
                    messages.append((first == _TEXT, payload))
            elif not self._read_other(first, start, stop, messages):
                break
        return messages

    def _read_other(self, first: int, start: int, stop: int, messages: list[Incoming]) -> bool:
        """Read a frame that is not a whole plain message; false if it has not come as a whole."""
        end, length = len(self._data), stop - start
        if first & _OPCODE not in _OPCODES:
            self._fail(CloseCode.PROTOCOL_ERROR, "invalid opcode")
            return False
        if first & _IS_CONTROL:
            if length > 125:
                self._fail(CloseCode.PROTOCOL_ERROR, "control frame too long")
                return False
        elif self.is_discarding or length > self._max_bytes - len(self._parts):
            if not self.is_discarding:
                messages.append((False, None))
                self.discard()
            self._num_to_skip = max(0, stop - end)
            self._at = min(stop, end)
            return True
        if first & _RESERVED:
            self._fail(CloseCode.PROTOCOL_ERROR, "reserved bits must be 0")
            return False
        if stop > end:
            return False
        frame = bytes(self._data[self._at : stop])
        self._at = stop
        self._pass_on(frame, messages)
        return True

    def _pass_on(self, frame: bytes, messages: list[Incoming]) -> None:
        """Let the library look at a whole frame."""
        self._connection.receive_data(frame)
        for event in self._connection.events_received():
            assert isinstance(event, Frame)
            if event.opcode in {Opcode.PING, Opcode.PONG, Opcode.CLOSE}:
                self.controls.append(event)
                self.is_over |= event.opcode is Opcode.CLOSE
                continue
            if event.opcode is not Opcode.CONT:
                self._is_text = event.opcode is Opcode.TEXT
            self._parts += event.data
            self._is_fragmented = not event.fin
            if event.fin:
                payload, self._parts = bytes(self._parts), bytearray()
                if not self._is_text or self._is_utf8(payload):
                    messages.append((self._is_text, payload))
        if self._connection.parser_exc is not None:
            self.is_over = True

    def _is_utf8(self, payload: bytes) -> bool:
        if payload.isascii():
            return True
        try:
            payload.decode()
        except UnicodeDecodeError:
            self._fail(CloseCode.INVALID_DATA, "a text message is no UTF-8")
            return False
        return True

    def _fail(self, code: CloseCode, reason: str) -> None:
        self._connection.fail(code, reason)
        self.is_over = True


def _read_head(data: bytes | bytearray, at: int, end: int) -> tuple[int, int, int] | None:
    """Return a frame's first byte, and where its payload begins and ends; None if it has not come.

    Args:
        data: Of which two bytes of the frame are there.
        at: Where it begins.
        end: The length of `data`.
    """
    length = data[at + 1] & 0x7F
    start = at + 6
    if length > 125:
        num_bytes = 2 if length == 126 else 8
        start += num_bytes
        if end < start:
            return None
        length = int.from_bytes(data[at + 2 : at + 2 + num_bytes])
    return data[at], start, start + length
