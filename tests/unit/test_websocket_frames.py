"""The frames of a server, beside the whole of `websockets` reading the same bytes."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import CloseCode, Frame, Opcode
from websockets.protocol import Protocol, Side

from service.transport.websocket_frames import MAX_OTHERS_AT_ONCE, FrameReader, encode

MAX_BYTES = 200
LONG = 70_000  # bytes: more than any frame below may wait for
WHOLE = [Opcode.TEXT, Opcode.BINARY]


def server(max_size=MAX_BYTES):
    """Return the library's side of a connection that is open."""
    return Protocol(Side.SERVER, max_size=max_size)


def frame(opcode, payload=b"", *, fin=True, mask=True, reserved=0):
    """Return a frame's bytes, also of those that no library would write."""
    first = 0x80 * fin | reserved << 4 | opcode
    bit, length = 0x80 * mask, len(payload)
    if length < 126:
        head = bytes((first, bit | length))
    elif length < 65536:
        head = bytes((first, bit | 126)) + length.to_bytes(2)
    else:
        head = bytes((first, bit | 127)) + length.to_bytes(8)
    if not mask:
        return head + payload
    key = random.randbytes(4)
    return head + key + bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))


def read(data, sizes=(LONG,), max_bytes=MAX_BYTES, most=16):
    """Return what a reader makes of bytes that come in pieces: messages, and its connection."""
    connection = server()
    reader = FrameReader(connection, max_bytes)
    messages = []
    at = index = 0
    while at < len(data) and not reader.is_over:
        size = sizes[index % len(sizes)]
        reader.feed(data[at : at + size])
        while (got := reader.read(most)) or reader.has_more:
            messages += got
        at, index = at + size, index + 1
    return messages, connection, reader


def expected(data):
    """Return what the library makes of the bytes: messages, and its side of the connection."""
    connection = server()
    connection.receive_data(data)
    messages = []
    parts, is_text = b"", False
    for event in connection.events_received():
        if event.opcode in {Opcode.TEXT, Opcode.BINARY}:
            is_text = event.opcode is Opcode.TEXT
        if event.opcode in {Opcode.TEXT, Opcode.BINARY, Opcode.CONT}:
            parts += event.data
            if event.fin:
                messages.append((is_text, parts))
                parts = b""
    return messages, connection


def anything(generator):
    """Return the bytes of a client who mostly keeps the protocol, and its end."""
    data = b""
    is_open = False
    for _ in range(generator.randint(1, 12)):
        opcode = generator.choice([*WHOLE * 3, *Opcode, *Opcode])
        if generator.random() < 0.9:  # as fragments should follow one another
            opcode = Opcode.CONT if is_open and opcode in WHOLE else opcode
            opcode = Opcode.TEXT if opcode is Opcode.CONT and not is_open else opcode
        if opcode is Opcode.CLOSE and generator.random() < 0.7:
            opcode = Opcode.PING
        is_control = opcode >= Opcode.CLOSE
        length = generator.choice(
            [0, 1, 4, 60, 124, 125, *([126, 127, 150, 201] * (not is_control))]
        )
        payload = generator.randbytes(length) if generator.random() < 0.5 else b"x" * length
        if opcode is Opcode.CLOSE and generator.random() < 0.7:
            payload = generator.choice([b"", b"\x03\xe8", b"\x03\xe8bye", b"\x03", b"\x00\x01"])
        fin = is_control or generator.random() < 0.7
        odd = generator.random()
        bits = {"mask": odd > 0.02, "reserved": 4 if odd > 0.98 else 0}
        if 0.96 < odd < 0.98:
            fin = False
        if 0.94 < odd < 0.96:
            opcode = generator.choice([3, 7, 11, 15])
        data += frame(opcode, payload, fin=fin, **bits)
        if not is_control:
            is_open = not fin
    return data


@settings(max_examples=1000, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_it_reads_what_the_library_reads(seed):
    """The same messages, the same answers, and the same end, however the bytes are cut."""
    generator = random.Random(seed)
    data = anything(generator) + bytes(LONG)  # in the end both are waiting for nothing
    sizes = [generator.choice([1, 2, 7, 64, LONG]) for _ in range(5)]
    messages, connection, reader = read(data, sizes, most=generator.randint(1, 16))
    oracle_messages, oracle = expected(data)
    assert oracle.close_sent is not None
    code = oracle.close_sent.code
    for index, (is_text, payload) in enumerate(oracle_messages):
        if is_text and not is_utf8(payload):  # which the library leaves to others
            oracle_messages[index:] = []
            code = CloseCode.INVALID_DATA
            break
    if code == CloseCode.MESSAGE_TOO_BIG:
        # Whoever reads it says so, behind the answers to what came before. Or the library does, of
        # a ping between fragments, whose length it adds to theirs.
        is_told = messages[-1:] == [(False, None)]
        assert oracle_messages == messages[: -1 if is_told else None]
        assert reader.is_discarding if is_told else reader.is_over
        return
    assert oracle_messages == messages
    assert reader.is_over
    assert connection.close_sent is not None
    assert code == connection.close_sent.code
    if code != CloseCode.INVALID_DATA:
        assert oracle.data_to_send() == connection.data_to_send()


def is_utf8(payload):
    """Tell whether bytes are text."""
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(Opcode.BINARY, b"1", mask=False), 1002),
        (frame(Opcode.BINARY, b"1", reserved=4), 1002),
        (frame(Opcode.BINARY, b"1", reserved=1), 1002),
        (frame(3), 1002),
        (frame(0xB), 1002),
        (frame(Opcode.CONT, b"1"), 1002),
        (frame(Opcode.PING, fin=False), 1002),
        (frame(Opcode.PING, b"x" * 126), 1002),
        (frame(Opcode.TEXT, fin=False) + frame(Opcode.BINARY), 1002),
        (frame(Opcode.CLOSE, b"\x03"), 1002),
        (frame(Opcode.TEXT, b"\xff"), 1007),
        (frame(Opcode.TEXT, b"\xc3", fin=False) + frame(Opcode.CONT, b"x"), 1007),
        (frame(Opcode.CLOSE, b"\x03\xe8\xff"), 1007),
    ],
    # The masks are random, so the bytes are no names.
    ids=[
        "unmasked",
        "reserved-bit",
        "compressed",
        "reserved-opcode",
        "reserved-control-opcode",
        "continues-nothing",
        "ping-in-fragments",
        "long-ping",
        "message-in-a-message",
        "close-with-half-a-code",
        "text-not-utf-8",
        "fragments-not-utf-8",
        "reason-not-utf-8",
    ],
)
def test_a_breach_of_the_protocol_ends_the_connection(data, code):
    """With the code that says how, and nothing behind it is read."""
    messages, connection, reader = read(data + frame(Opcode.BINARY, b"behind"))
    assert ([], True, code) == (messages, reader.is_over, connection.close_sent.code)


def test_a_breach_is_noticed_before_the_payload_comes():
    """Nothing is kept for a frame that is wrong from its first bytes."""
    for head in (frame(Opcode.PING, b"x" * 200), frame(0xB, b"x" * 100), frame(5, b"x" * 100)):
        messages, _, reader = read(head[:10])
        assert ([], True) == (messages, reader.is_over)


def test_a_message_over_the_limit_is_not_kept():
    """It is told from its first bytes, what has come and will come of it is thrown away."""
    whole = frame(Opcode.BINARY, bytes(LONG))
    messages, _, reader = read(frame(Opcode.BINARY, b"ok") + whole[:20])
    assert [(False, b"ok"), (False, None)] == messages
    assert 0 == reader.num_unread
    close = frame(Opcode.CLOSE, b"\x03\xf1")
    rest = whole[20:] + frame(Opcode.BINARY, b"behind") + close
    for start in range(0, len(rest), 999):
        reader.feed(rest[start : start + 999])
        assert [] == reader.read(1)
        assert reader.num_unread < 20
    assert [Opcode.CLOSE] == [control.opcode for control in reader.controls]
    assert reader.is_over


def test_fragments_over_the_limit_together_are_not_kept():
    """Nor any number of empty ones."""
    data = frame(Opcode.BINARY, bytes(150), fin=False) + frame(Opcode.CONT, bytes(51), fin=False)
    messages, _, reader = read(data)
    assert [(False, None)] == messages
    many = frame(Opcode.TEXT, fin=False) + frame(Opcode.CONT, fin=False) * 1000
    messages, _, reader = read(many + frame(Opcode.CONT, b"end"))
    assert [(True, b"end")] == messages
    assert not reader.is_over


def test_no_more_is_read_than_is_asked_for():
    """The rest stays as it came."""
    reader = FrameReader(server(), MAX_BYTES)
    frames = [frame(Opcode.BINARY, bytes([index])) for index in range(5)]
    reader.feed(b"".join(frames))
    assert [(False, b"\0"), (False, b"\1")] == reader.read(2)
    assert sum(map(len, frames[2:])) == reader.num_unread
    reader.feed(frame(Opcode.BINARY, b"last")[:-1])
    assert [b"\2", b"\3", b"\4"] == [payload for _, payload in reader.read(16)]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 300)), max_size=8))
def test_a_client_reads_what_is_written(kinds):
    """The library's own, several messages at once."""
    messages = [(is_text, b"m" * size) for is_text, size in kinds]
    messages.append((False, bytes(65_536)))
    client = Protocol(Side.CLIENT)
    client.receive_data(encode(messages))
    frames = [event for event in client.events_received() if isinstance(event, Frame)]
    assert messages == [(one.opcode is Opcode.TEXT, one.data) for one in frames]
    assert client.parser_exc is None


def test_a_ping_between_fragments_is_answered():
    """By the library, with its payload."""
    data = frame(Opcode.TEXT, b"a", fin=False) + frame(Opcode.PING, b"?") + frame(Opcode.CONT, b"b")
    messages, connection, reader = read(data)
    assert [(True, b"ab")] == messages
    assert [Frame(Opcode.PONG, b"?").serialize(mask=False)] == connection.data_to_send()
    assert [Opcode.PING] == [control.opcode for control in reader.controls]


@pytest.mark.parametrize("opcode", [Opcode.PING, Opcode.CONT])
def test_a_flood_of_short_frames_is_read_in_turns(opcode):
    """Each takes the library long, and others wait meanwhile."""
    connection = server()
    reader = FrameReader(connection, MAX_BYTES)
    flood = frame(opcode, fin=opcode is Opcode.PING) * 1000
    reader.feed(frame(Opcode.BINARY, b"a", fin=False) + flood + frame(Opcode.CONT, b"b"))
    num_turns, messages = 1, reader.read(16)
    while reader.has_more:
        num_turns += 1
        messages += reader.read(16)
    assert 1002 // MAX_OTHERS_AT_ONCE + 1 == num_turns
    assert [(False, b"ab")] == messages
