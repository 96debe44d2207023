"""A service behind a real socket in the test's event loop, for the tests of streams."""

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from service.jobs import Job
from service.transport.websocket_protocol import protocol_class

STREAM = "/v1/sessions/alice/stream"
PATIENCE_S = 20
"""Longer than anything here takes; what hangs fails."""
SHELLS = {"asgi": lambda _streams: "websockets-sansio", "uvicorn": protocol_class}
"""Both entrances of streams: what uvicorn's `ws` is, from what opens them."""


class Live:
    """A service behind a real socket."""

    def __init__(self, app, server, port):
        self.app = app
        self.server = server
        self.address = f"127.0.0.1:{port}"
        self.http = httpx.AsyncClient(base_url=f"http://{self.address}")

    def stream(self, path=STREAM, **options):
        """Open a stream."""
        return connect(f"ws://{self.address}{path}", **options)

    async def step(self, inputs, client_id="alice", **fields):
        """Take a step over HTTP."""
        body = {"inputs": inputs} | fields
        return (await self.http.post(f"/v1/sessions/{client_id}/step", json=body)).json()

    async def position(self):
        """Return where the session is."""
        return (await self.http.get("/v1/sessions/alice")).json()["position"]


@asynccontextmanager
async def serving_live(app, shell="asgi", send_buffer=None, **options):
    """Run an application under uvicorn, in this event loop, its streams in one of `SHELLS`."""
    ws: Any = SHELLS[shell](app.streams)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        if send_buffer is not None:  # of the sockets that it accepts
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        server = uvicorn.Server(uvicorn.Config(app, ws=ws, log_level="warning", **options))
        task = asyncio.create_task(server.serve([listening]))
        live = Live(app, server, listening.getsockname()[1])
        await until(lambda: server.started or task.done())
        try:
            async with live.http:
                yield live
        finally:
            server.should_exit = True
            async with asyncio.timeout(PATIENCE_S):
                await task


class Pause:
    """Keeps an engine from taking anything, until it is told to go on."""

    def __init__(self, engine):
        self._submit = engine.submit
        self._waiting = []
        self._engine = engine
        engine.submit = self._hold

    def _hold(self, request, complete):
        job = Job(request.key, request, complete)
        self._waiting.append(job)
        return job

    @property
    def num_waiting(self):
        """How many time steps wait."""
        return sum(len(job.request.inputs) for job in self._waiting)

    def end(self):
        """Let the engine have them."""
        self._engine.submit = self._submit
        for job in self._waiting:
            if not job.is_cancelled:
                self._submit(job.request, job.complete)


class RawClient:
    """A client that sends what bytes it likes, and reads when it likes."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, live, path=STREAM, receive_buffer=None, headers=""):
        """Connect, and shake hands with these headers too."""
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        host, port = live.address.split(":")
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        client = cls(*await asyncio.open_connection(sock=sock))
        client.writer.write(
            f"GET {path} HTTP/1.1\r\nHost: {live.address}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n{headers}\r\n".encode("latin-1")
        )
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        return client

    def send(self, opcode, payload=b"", **bits):
        """Send a frame."""
        self.writer.write(Frame(opcode, payload, **bits).serialize(mask=True))

    async def receive(self):
        """Return the next frame's opcode and payload."""
        first, length = await self.reader.readexactly(2)
        if length > 125:
            num_bytes = 2 if length == 126 else 8
            length = int.from_bytes(await self.reader.readexactly(num_bytes))
        return Opcode(first & 15), await self.reader.readexactly(length)

    async def close_code(self):
        """Read to the close frame, and return its code."""
        async with asyncio.timeout(PATIENCE_S):
            while (frame := await self.receive())[0] is not Opcode.CLOSE:
                pass
        return int.from_bytes(frame[1][:2])


async def until(condition):
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


def frame(inputs):
    """Return a binary frame."""
    return np.array(inputs, "<f4").tobytes()


async def read_end(stream):
    """Read the error frame and the close code."""
    async with asyncio.timeout(PATIENCE_S):
        error = json.loads(await stream.recv())
        with pytest.raises(ConnectionClosed) as closed:
            await stream.recv()
    close = closed.value.rcvd
    assert close is not None
    assert ("error", error["code"]) == (error["type"], close.reason)
    return error, close.code
