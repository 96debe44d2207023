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

from service.transport.websocket_protocol import protocol_class

STREAM = "/v1/sessions/alice/stream"
SHELLS = {"asgi": lambda _streams: "websockets-sansio", "uvicorn": protocol_class}
"""The entrances of streams: what uvicorn's `ws` is, from what opens them."""


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
async def serving_live(app, shell="asgi", **options):
    """Run an application under uvicorn, in this event loop, its streams in one of `SHELLS`."""
    ws: Any = SHELLS[shell](app.streams)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, ws=ws, log_level="warning", **options))
        task = asyncio.create_task(server.serve([listening]))
        live = Live(app, server, listening.getsockname()[1])
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            async with live.http:
                yield live
        finally:
            server.should_exit = True
            await task


def frame(inputs):
    """Return a binary frame."""
    return np.array(inputs, "<f4").tobytes()


async def read_end(stream):
    """Read the error frame and the close code."""
    error = json.loads(await stream.recv())
    with pytest.raises(ConnectionClosed) as closed:
        await stream.recv()
    close = closed.value.rcvd
    assert close is not None
    assert ("error", error["code"]) == (error["type"], close.reason)
    return error, close.code
