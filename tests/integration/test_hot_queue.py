"""What waits on a connection of the hot entrance: the queue, its bounds, its order and its end."""

import asyncio
import json
import socket
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.transport.connection_watch import MAX_QUEUED, MAX_QUEUED_BYTES
from tests.integration.raw_http import (
    BODY,
    LAST,
    STEP,
    get,
    pending,
    post,
    read_answer,
    read_positions,
    until,
)
from tests.integration.small_service import listening, make_app, make_engines

MAX_PACKET_BYTES = 256 * 1024
"""Most that an event loop reads at once."""
WEBSOCKET = get(
    b"/v1/sessions/bob/stream",
    b"GET",
    b"connection: upgrade",
    b"upgrade: websocket",
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
    b"sec-websocket-version: 13",
)


@contextmanager
def standstill(engines):
    """Let the first model's engine begin nothing."""
    turns = engines["net"]._sessions._turns  # noqa: SLF001
    take, turns.take = turns.take, lambda _: []
    try:
        yield
    finally:
        turns.take = take


def connection_of(opened):
    """Return the server's side of the only connection."""
    (connection,) = opened.state.connections
    return connection


async def open_narrow(opened):
    """Open a connection whose both ends have room for little."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, opened.address)
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    await until(lambda: opened.state.connections)
    accepted = connection_of(opened).transport.get_extra_info("socket")
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return reader, writer


@pytest.mark.parametrize("request_", [post(), get(b"/v1/sessions/nobody")], ids=["hot", "cold"])
async def test_a_queue_is_bounded(request_):
    """Behind a request that is not answered, no more is read than a packet beyond the bound."""
    engines = make_engines()
    num = 4 * MAX_PACKET_BYTES // len(request_)
    async with listening(make_app(engines)) as opened:
        with standstill(engines):
            reader, writer = await opened.open()
            writer.write(post())
            await until(lambda: pending(engines))
            writer.write(request_ * num)
            connection = connection_of(opened)
            await until(lambda: connection.flow.read_paused)
            await asyncio.sleep(0.05)
            assert connection.flow.read_paused
            most = MAX_QUEUED + MAX_PACKET_BYTES // len(request_) + 1
            assert MAX_QUEUED < len(connection.pipeline) <= most
        wanted = range(1, num + 2) if request_ == post() else [1, *[404] * num]
        async with asyncio.timeout(60):
            assert list(wanted) == await read_positions(reader, num + 1)
        assert not connection.flow.read_paused
        writer.close()


async def test_the_bytes_of_a_queue_are_bounded():
    """A long body whose request has no turn is read to its end when it has."""
    engines = make_engines()
    async with listening(make_app(engines)) as opened:
        with standstill(engines):
            reader, writer = await opened.open()
            writer.write(post())
            await until(lambda: pending(engines))
            writer.write(post(BODY + b" " * 3_000_000))
            connection = connection_of(opened)
            await until(lambda: connection.flow.read_paused)
            await asyncio.sleep(0.05)
            (queued, _), *others = connection.pipeline
            assert not others
            assert len(queued.body) <= MAX_QUEUED_BYTES + MAX_PACKET_BYTES
        assert [1, 2] == await read_positions(reader, 2)
        writer.close()


async def test_who_reads_nothing_is_not_read_and_finds_everything_in_order():
    """Hot and cold requests, each answer by its own name; the write buffer stays bounded."""
    kinds: list[Any] = [
        (post, (b"{", STEP)),
        (get, (b"/v1/sessions/nobody", b"GET")),
        (post, (BODY, STEP)),
    ]
    num = 9000
    sent = b"".join(
        make(*given, b"x-request-id: n%d" % i)
        for i, (make, given) in enumerate(kinds[i * i % 7 % 3] for i in range(num))
    )
    async with listening(make_app()) as opened:
        reader, writer = await open_narrow(opened)
        writer.write(sent)
        connection = connection_of(opened)
        await until(lambda: connection.flow.write_paused and connection.flow.read_paused)
        await asyncio.sleep(0.05)
        num_read = connection._num_messages  # noqa: SLF001
        await asyncio.sleep(0.05)
        assert connection.flow.read_paused
        assert num_read == connection._num_messages < num  # noqa: SLF001
        assert connection.transport.get_write_buffer_size() < 2 * 64 * 1024
        assert len(connection.pipeline) <= MAX_QUEUED + MAX_PACKET_BYTES // len(get()) + 1
        async with asyncio.timeout(60):
            ids = [(await read_answer(reader))[1]["x-request-id"] for _ in range(num)]
        assert [f"n{i}" for i in range(num)] == ids
        writer.close()


@pytest.mark.parametrize("num", [1, MAX_QUEUED - 1])
async def test_who_leaves_with_requests_queued_has_nothing_applied(num):
    """The leaving is noticed before any has its turn."""
    engines = make_engines()
    async with listening(make_app(engines)) as opened:
        with standstill(engines):
            _, writer = await opened.open()
            writer.write(post())
            await until(lambda: pending(engines))
            writer.write(post() * num)
            await until(lambda: len(connection_of(opened).pipeline) == num)
            writer.transport.abort()
            await until(lambda: not opened.state.connections)
        await until(lambda: not pending(engines))
        assert 0 == engines["net"].stats.num_steps


async def test_a_part_behind_a_queue_does_not_hide_the_leaving():
    """Nor does a half request at its end."""
    engines = make_engines()
    async with listening(make_app(engines)) as opened:
        with standstill(engines):
            _, writer = await opened.open()
            writer.write(post())
            await until(lambda: pending(engines))
            writer.write(post() + post()[:-3])
            await until(lambda: len(connection_of(opened).pipeline) == 2)
            writer.transport.abort()
            await until(lambda: not opened.state.connections)
        await until(lambda: not pending(engines))
        assert 0 == engines["net"].stats.num_steps


ENDS = {
    "no http": (b"\x00\x01\r\n\r\n", b"HTTP/1.1 400 "),
    "no more http": (b"POST %b HTTP/1.1\r\nho st: x\r\n\r\n" % STEP, b"HTTP/1.1 400 "),
    "an upgrade": (WEBSOCKET, b"HTTP/1.1 101 "),
    "a head without an end": (b"POST %b HTTP/1.1\r\nx: " % STEP + b"a" * 66_000, b"HTTP/1.1 431 "),
    "a long head at once": (get(b"/healthz", b"GET", b"x: a\r\n" * 14_000), b"HTTP/1.1 431 "),
}


async def _send_for_ever(writer, part):
    while True:
        writer.write(part)
        await writer.drain()
        await asyncio.sleep(0.0001)


@pytest.mark.parametrize("num_queued", [0, 1, MAX_QUEUED + 1])
@pytest.mark.parametrize(("sent", "beginning"), ENDS.values(), ids=ENDS)
async def test_what_ends_a_connection_waits_for_its_turn(sent, beginning, num_queued):
    """The answers before it come before it, and what is no request is counted."""
    engines = make_engines()
    async with listening(make_app(engines)) as opened:
        with standstill(engines):
            reader, writer = await opened.open()
            writer.write(post())
            await until(lambda: pending(engines))
            writer.write(post() * num_queued)
            await until(lambda: len(connection_of(opened).pipeline) == num_queued)
            writer.write(sent)
            await asyncio.sleep(0.05)
        num = num_queued + 1
        assert list(range(1, num + 1)) == await read_positions(reader, num)
        assert (await reader.readuntil(b"\r\n")).startswith(beginning)
        status = int(beginning.split()[1])
        assert [status] * (status >= 400) == opened.refusals
        writer.close()


async def test_a_head_without_an_end_is_refused():
    """In parts that are well beyond it together; one that is just below is served."""
    async with listening(make_app()) as opened:
        reader, writer = await opened.open()
        fitting = b"x: " + b"a" * 60_000
        writer.write(post(BODY, STEP, fitting))
        assert [1] == await read_positions(reader, 1)
        answer = asyncio.create_task(read_answer(reader))
        writer.write(b"POST %b HTTP/1.1\r\n" % STEP)
        line = b"x: " + b"a" * 995 + b"\r\n"
        # Nothing is sent behind the answer: a reset would take it away.
        for _ in range(66):
            writer.write(line)
            await asyncio.sleep(0.001)
        status, headers, body = await asyncio.wait_for(answer, 5)
        assert (431, "close") == (status, headers["connection"])
        assert "request_header_fields_too_large" == json.loads(body)["code"]
        assert b"" == await reader.read()
        writer.close()


async def test_who_sends_a_head_for_ever_is_cut_off():
    """Whether or not it reads."""
    async with listening(make_app()) as opened:
        _, writer = await opened.open()
        writer.write(b"POST %b HTTP/1.1\r\n" % STEP)
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(_send_for_ever(writer, b"x: %b\r\n" % (b"a" * 1000)), 10)
        await until(lambda: not opened.state.connections)


async def test_a_body_in_very_many_packets_is_one_body():
    """Thousands of them, most of them of a byte."""
    async with listening(make_app()) as opened:
        reader, writer = await opened.open()
        rows = [[i / 8, 0.5, -i / 4] for i in range(40)]
        body = json.dumps({"inputs": rows}).encode()
        answers = []
        for url, step in ((b"/v1/sessions/a/sequence", len(body)), (b"/v1/sessions/b/sequence", 1)):
            sent = post(body, url)
            head = len(sent) - len(body)
            writer.write(sent[:head])
            for i in range(0, len(body), step):
                writer.write(body[i : i + step])
                await asyncio.sleep(0)
            status, _, told = await asyncio.wait_for(read_answer(reader), 10)
            assert 200 == status
            answers.append(json.loads(told))
        assert answers[0]["outputs"] == answers[1]["outputs"]
        assert 40 == answers[1]["position"]
        writer.close()


@pytest.mark.parametrize("http", [None, HttpToolsProtocol], ids=["hot", "uvicorn"])
async def test_a_drain_waits_for_the_rest_of_a_body(http):
    """What has begun is answered, and the connection ends with it."""
    async with listening(make_app(), http=http) as opened:
        reader, writer = await opened.open()
        writer.write(post()[:-5])
        await until(lambda: opened.state.connections and connection_of(opened).cycle)
        opened.shut_down()
        await asyncio.sleep(0.01)
        writer.write(post()[-5:] + post())
        status, headers, body = await asyncio.wait_for(read_answer(reader), 5)
        assert (200, "close", 1) == (status, headers["connection"], json.loads(body)["position"])
        with suppress(ConnectionResetError):  # what came behind was not read
            assert b"" == await reader.read()
        writer.close()


async def test_a_reader_who_comes_late_may_go_on():
    """After a full write buffer the connection serves as before."""
    async with listening(make_app()) as opened:
        reader, writer = await open_narrow(opened)
        num = 2000
        writer.write(post(b"{") * num)
        await until(lambda: connection_of(opened).flow.write_paused)
        async with asyncio.timeout(60):
            assert [422] * num == await read_positions(reader, num)
        for wanted in (1, 2, 3):
            writer.write(post())
            assert [wanted] == await read_positions(reader, 1)
        writer.write(LAST)
        assert 200 == (await read_answer(reader))[0]
        assert b"" == await asyncio.wait_for(reader.read(), 5)
        writer.close()
