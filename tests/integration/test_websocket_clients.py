"""Clients of streams who do not read, read slowly, answer no ping, or break the protocol."""

import asyncio
import json
import signal

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from service.domain import REPLAY_WINDOW
from service.transport.http_protocol import hot_protocol
from service.transport.patience import Patience
from tests.integration.live_server import live_server
from tests.integration.small_service import X, make_app, make_engines
from tests.integration.stream_service import (
    SHELLS,
    STREAM,
    Pause,
    RawClient,
    frame,
    read_end,
    serving_live,
    until,
)

MANY = np.tile(np.array(X, np.float32), (700, 1))  # 2100 steps: 25 KB, and 17 KB of answer


@pytest.fixture(params=SHELLS)
def shell(request):
    """Each entrance."""
    return request.param


def open_streams(live):
    """Return the streams that are open."""
    return live.app.streams._open  # noqa: SLF001 - nothing else tells that one has ended


async def test_a_deaf_client_is_not_read_from_and_is_cut_off(shell):
    """Its steps are applied as far as there is room for their answers, and no further."""
    app = make_app()
    app.streams.patience_s = 1.0
    async with serving_live(app, shell, send_buffer=4096, ws_ping_interval=None) as live:
        client = await RawClient.open(live, receive_buffer=4096)
        num_sent = 200
        for _ in range(num_sent):
            client.send(Opcode.BINARY, frame(MANY))
        await until(lambda: open_streams(live))
        await until(lambda: not open_streams(live))
        # The window, what stands in buffers on its way, and the window behind that.
        assert 0 < await live.position() <= (2 * REPLAY_WINDOW + 16) * len(MANY)
        client.writer.transport.abort()
        position = await live.position()
        async with live.stream() as stream:
            assert position == json.loads(await stream.recv())["position"]
            await stream.send(frame(X[0]))
            assert 8 == len(await stream.recv())


async def test_a_slow_client_gets_everything(shell):
    """However long it takes in all: it reads."""
    app = make_app()
    app.streams.patience_s = 1.0
    async with serving_live(app, shell, send_buffer=4096, ws_ping_interval=None) as live:
        client = await RawClient.open(live, receive_buffer=4096)
        num_frames = 25
        for _ in range(num_frames):
            client.send(Opcode.BINARY, frame(MANY))
        assert "hello" == json.loads((await client.receive())[1])["type"]
        for _ in range(num_frames):
            await asyncio.sleep(0.1)
            opcode, answer = await client.receive()
            assert (Opcode.BINARY, 8 * len(MANY)) == (opcode, len(answer))
        assert num_frames * len(MANY) == await live.position()
        client.writer.transport.abort()


async def test_pings_are_answered_and_sent(shell):
    """A client who answers them stays."""
    options = {"ws_ping_interval": 0.1, "ws_ping_timeout": 0.3}
    async with (
        serving_live(make_app(), shell, **options) as live,
        live.stream(ping_interval=None) as stream,
    ):
        await stream.recv()
        await (await stream.ping(b"are you there"))
        await asyncio.sleep(1)
        await stream.send(frame(X[0]))
        assert 8 == len(await stream.recv())


async def test_a_dead_client_is_cut_off(shell):
    """One who answers no ping: with 1011, should it hear it."""
    options = {"ws_ping_interval": 0.1, "ws_ping_timeout": 0.2}
    async with serving_live(make_app(), shell, **options) as live:
        client = await RawClient.open(live)
        async with asyncio.timeout(5):
            assert 1011 == await client.close_code()
        client.writer.close()
        await until(lambda: not open_streams(live))


async def test_a_client_who_waits_for_the_engine_is_not_taken_for_dead():
    """Its answers to pings lie unread behind its steps."""
    engines = make_engines()
    options = {"ws_ping_interval": 0.1, "ws_ping_timeout": 0.2}
    async with (
        serving_live(make_app(engines), "uvicorn", **options) as live,
        live.stream(ping_interval=None) as stream,
    ):
        await stream.recv()
        pause = Pause(engines["net"])
        for _ in range(3 * REPLAY_WINDOW):
            await stream.send(frame(X[0]))
        await asyncio.sleep(1)
        pause.end()
        for _ in range(3 * REPLAY_WINDOW):
            assert 8 == len(await stream.recv())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x82\x0c" + frame(X[0]), 1002),  # not masked
        (b"\xc2\x8c\0\0\0\0" + frame(X[0]), 1002),  # said to be compressed
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\x80\x80\0\0\0\0", 1002),
        (b"\x89\xfe\x00\x7e\0\0\0\0" + bytes(126), 1002),
        (b"\x81\x81\0\0\0\0\xff", 1007),
    ],
)
async def test_a_breach_of_the_protocol_ends_the_stream(shell, data, code):
    """With the code that says how; the session is as the answers say."""
    async with serving_live(make_app(), shell, ws_per_message_deflate=False) as live:
        client = await RawClient.open(live)
        await client.receive()
        client.send(Opcode.BINARY, frame(X[0]))
        assert Opcode.BINARY is (await client.receive())[0]
        client.writer.write(data)
        client.send(Opcode.BINARY, frame(X[1]))
        async with asyncio.timeout(5):
            assert code == await client.close_code()
        client.writer.close()
        await until(lambda: not open_streams(live))
        assert 1 == await live.position()


async def test_messages_may_come_in_fragments_with_pings_between(shell):
    """Text and binary alike, cut anywhere."""
    async with serving_live(make_app(), shell) as live:
        expected = [(await live.step(row, "bob"))["outputs"] for row in X]
        client = await RawClient.open(live)
        await client.receive()
        whole = frame(X[:2])
        client.send(Opcode.BINARY, whole[:5], fin=False)
        client.send(Opcode.PING, b"?")
        client.send(Opcode.CONT, whole[5:6], fin=False)
        client.send(Opcode.CONT, b"", fin=False)
        client.send(Opcode.CONT, whole[6:])
        text = json.dumps({"inputs": X[2]}).encode()
        client.send(Opcode.TEXT, text[:3], fin=False)
        client.send(Opcode.CONT, text[3:])
        assert (Opcode.PONG, b"?") == await client.receive()
        opcode, data = await client.receive()
        assert Opcode.BINARY is opcode
        np.testing.assert_allclose(
            np.frombuffer(data, "<f4").reshape(2, 2), expected[:2], atol=1e-6
        )
        opcode, data = await client.receive()
        assert Opcode.TEXT is opcode
        np.testing.assert_allclose(json.loads(data)["outputs"], expected[2], atol=1e-6)
        client.writer.close()


async def test_a_client_who_closes_is_let_go(shell):
    """With its own code; it finds the session whole when it comes back."""
    async with serving_live(make_app(), shell) as live:
        client = await RawClient.open(live)
        await client.receive()
        client.send(Opcode.BINARY, frame(X[0]))
        assert Opcode.BINARY is (await client.receive())[0]
        client.send(Opcode.CLOSE, b"\x0f\xa0")
        assert 4000 == await client.close_code()
        assert b"" == await client.reader.read()
        client.writer.close()
        await until(lambda: not open_streams(live))
        assert 1 == await live.position()


async def test_a_frame_of_megabytes_over_the_limit_is_refused_in_words(shell):
    """The client can read why though it goes on to send."""
    async with (
        serving_live(make_app(), shell) as live,
        live.stream(max_size=None, compression=None) as stream,
    ):
        await stream.recv()
        sender = asyncio.create_task(stream.send(bytes(4 * 1024 * 1024 + 4)))
        error, code = await read_end(stream)
        await asyncio.wait([sender])
        assert sender.exception() is None or isinstance(sender.exception(), ConnectionClosed)
    assert (1009, "body_too_large") == (code, error["code"])


async def test_a_handshake_that_is_none_is_refused(shell):
    """By the library, with its status."""
    async with serving_live(make_app(), shell) as live:
        reader, writer = await asyncio.open_connection(*live.address.split(":"))
        writer.write(
            f"GET {STREAM} HTTP/1.1\r\nHost: {live.address}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        assert b" 400 " in await reader.readline()
        writer.close()


async def test_a_frame_that_does_not_wait_for_the_handshake_is_read():
    """Also where it comes with the handshake's last bytes."""
    app = make_app()
    http = hot_protocol(app.http, Patience(idle_s=60.0, transfer_s=60.0), lambda _: None)
    async with serving_live(app, "uvicorn", http=http) as live:
        reader, writer = await asyncio.open_connection(*live.address.split(":"))
        client = RawClient(reader, writer)
        head = (
            f"GET {STREAM} HTTP/1.1\r\nHost: {live.address}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        writer.write(head.encode() + Frame(Opcode.BINARY, frame(X[0])).serialize(mask=True))
        async with asyncio.timeout(10):
            await reader.readuntil(b"\r\n\r\n")
            assert [Opcode.TEXT, Opcode.BINARY] == [(await client.receive())[0] for _ in "12"]
        writer.close()


async def test_a_flood_of_short_frames_holds_nobody_up(shell):
    """It is read, and every ping answered, while others have their turns."""
    async with serving_live(make_app(), shell) as live:
        client = await RawClient.open(live)
        await client.receive()
        for _ in range(5000):
            client.send(Opcode.PING)
        client.send(Opcode.BINARY, frame(X[0]))
        pongs = 0
        async with asyncio.timeout(20):
            while (got := await client.receive())[0] is Opcode.PONG:
                pongs += 1
        assert (5000, Opcode.BINARY) == (pongs, got[0])
        client.writer.close()


async def test_headers_may_come_twice_and_hold_anything(shell):
    """As proxies send them."""
    headers = "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\nX-Name: J\xf6rg\r\n"
    async with serving_live(make_app(), shell) as live:
        client = await RawClient.open(live, headers=headers)
        assert "hello" == json.loads((await client.receive())[1])["type"]
        client.writer.close()


async def test_uvicorns_sockets_are_not_compressed():
    """Numbers hardly compress; a client who offers it is not refused."""
    async with (
        serving_live(make_app(), "uvicorn") as live,
        live.stream(compression="deflate") as stream,
    ):
        assert [] == stream.protocol.extensions
        assert "hello" == json.loads(await stream.recv())["type"]


async def test_a_drain_waits_for_what_is_in_flight(shell):
    """Its answers come before the close; what is behind them is not applied."""
    engines = make_engines()
    async with serving_live(make_app(engines), shell) as live, live.stream() as stream:
        await stream.recv()
        await stream.send(frame(X[0]))
        await stream.recv()
        pause = Pause(engines["net"])
        for _ in range(REPLAY_WINDOW + 5):
            await stream.send(frame(X[0]))
        await until(lambda: pause.num_waiting == REPLAY_WINDOW)
        closing = asyncio.create_task(live.app.streams.close())
        await asyncio.sleep(0.1)
        assert not closing.done()
        pause.end()
        for _ in range(REPLAY_WINDOW):
            assert 8 == len(await stream.recv())
        error, code = await read_end(stream)
        await closing
        assert (1012, "draining") == (code, error["code"])
        assert 1 + REPLAY_WINDOW == await live.position()


async def test_a_process_that_is_told_to_end_drains_its_streams():
    """Whoever has steps in flight gets the answers of those that were applied, and 1012."""
    with live_server() as server:
        url = f"ws{server.url[4:]}/v1/models/gait/sessions/alice/stream"
        async with connect(url) as stream:
            hello = json.loads(await stream.recv())
            step = np.zeros(hello["input_size"], "<f4").tobytes()
            await stream.send(step)
            await stream.recv()
            for _ in range(REPLAY_WINDOW):
                await stream.send(step)
            server.process.send_signal(signal.SIGTERM)
            answer = await stream.recv()
            while isinstance(answer, bytes):
                assert 4 * hello["output_size"] == len(answer)
                answer = await stream.recv()
            assert "draining" == json.loads(answer)["code"]
            with pytest.raises(ConnectionClosed) as closed:
                await stream.recv()
        assert closed.value.rcvd is not None
        assert 1012 == closed.value.rcvd.code
        assert 0 == server.process.wait(30)
