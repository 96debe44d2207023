"""Frames of WebSocket (RFC 6455) as a server reads and writes them. No socket, no stream.

`websockets` has the protocol: control frames, the closing handshake, and every frame that is not
plain go through it. A whole message in one frame, as nearly all are, is cut out here: the library
takes three times as long for it as a step may cost.
"""

from __future__ import annotations

from collections.abc import Iterable

from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol

from service.transport.stream_messages import Incoming, Outgoing

try:
    from websockets.speedups import apply_mask
except ImportError:  # the library runs without its compiled part, and so do we
    from websockets.utils import apply_mask

MAX_OTHERS_AT_ONCE = 64
"""Most frames that are read at once through the library, each of which takes it up to 20 µs: pings
and fragments may be as short as six bytes, and forty thousand of them come in one read."""

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
        has_more: It has stopped so that others have their turn, and may be read from again at once.
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
        self.has_more = False
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
        self.has_more = False
        for _ in range(MAX_OTHERS_AT_ONCE):
            if self.is_over:
                return messages
            if not (self._is_fragmented or self.is_discarding):
                self._read_plain(messages, most)
            if len(messages) >= most or not self._read_other(messages):
                return messages
        self.has_more = True
        return messages

    def _read_plain(self, messages: list[Incoming], most: int) -> None:
        """Read whole messages of one frame and up to 64 KiB each, as long as they come."""
        data, at, end = self._data, self._at, len(self._data)
        # Two bytes and the mask are the shortest frame.
        while len(messages) < most and end - at > 5 and data[at] in _WHOLE:
            length, start = data[at + 1] ^ _IS_MASKED, at + 6
            if length == 126:
                length, start = data[at + 2] << 8 | data[at + 3], at + 8
            elif length > 125:
                break
            stop = start + length
            if stop > end or length > self._max_bytes:
                break
            payload = apply_mask(data[start:stop], data[start - 4 : start])
            is_text = data[at] == _TEXT
            at = stop
            if is_text and not self._is_utf8(payload):
                break
            messages.append((is_text, payload))
        self._at = at

    def _read_other(self, messages: list[Incoming]) -> bool:
        """Read a frame of any kind; false if none has come whole, or it breaks the protocol."""
        end = len(self._data)
        head = None if self.is_over else _read_head(self._data, self._at, end)
        if head is None:
            return False
        first, is_masked, start, stop = head
        problem = _problem(first, is_masked=is_masked, length=stop - start)
        if problem:
            self._fail(CloseCode.PROTOCOL_ERROR, problem)
            return False
        is_control = first & _IS_CONTROL
        is_long = stop - start > self._max_bytes - len(self._parts)
        if not is_control and (self.is_discarding or is_long):
            if not self.is_discarding:
                messages.append((False, None))
                self.discard()
            self._num_to_skip = max(0, stop - end)
            self._at = min(stop, end)
            return True
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


def _read_head(data: bytes | bytearray, at: int, end: int) -> tuple[int, bool, int, int] | None:
    """Return what the head of a frame tells, or None if it has not come.

    Args:
        data: What has come.
        at: Where the frame begins.
        end: The length of `data`.

    Returns:
        The frame's first byte, whether it is masked, and where its payload begins and ends.
    """
    if end - at < 2:
        return None
    is_masked, length = data[at + 1] >= _IS_MASKED, data[at + 1] & 0x7F
    start = at + 6
    if length > 125:
        num_bytes = 2 if length == 126 else 8
        start += num_bytes
        if is_masked and end < start:
            return None
        length = int.from_bytes(data[at + 2 : at + 2 + num_bytes])
    return data[at], is_masked, start, start + length


def _problem(first: int, *, is_masked: bool, length: int) -> str:
    """Return how a frame breaks the protocol, in the library's words; nothing if it does not."""
    if first & _OPCODE not in _OPCODES:
        return "invalid opcode"
    if not is_masked:
        return "incorrect masking"
    if first & _RESERVED:
        return "reserved bits must be 0"
    if first & _IS_CONTROL and length > 125:
        return "control frame too long"
    return ""
