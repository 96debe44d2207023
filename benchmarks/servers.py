"""The servers that the benchmark compares: `python servers.py NAME PORT` runs one."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import uvicorn

from lstm_core.network import Network, Recurrent
from lstm_core.pointwise import Dense
from lstm_core.runtime.cpu import CpuRuntime
from lstm_core.spec import LSTMSpec
from lstm_core.weights import initialize
from service.app import create_app
from service.engine import Engine, EngineLimits
from service.models import describe
from service.stores.memory import MemoryStore
from service.telemetry import Telemetry

INPUT_SIZE, UNITS, OUTPUT_SIZE = 32, 128, 8


def lstm_service() -> Any:
    """Return the service, as `serve` sets it up, over 32 inputs, 128 units and 8 outputs."""
    spec = LSTMSpec(input_size=INPUT_SIZE, units=UNITS)
    recurrent = Recurrent(name="lstm", spec=spec, weights=initialize(spec, 0))
    random = np.random.default_rng(1)
    kernel = random.uniform(-0.1, 0.1, (UNITS, OUTPUT_SIZE)).astype(np.float32)
    head = Dense(name="head", kernel=kernel, bias=np.zeros(OUTPUT_SIZE, np.float32))
    limits = EngineLimits()
    runtime = CpuRuntime(Network("bench", INPUT_SIZE, (recurrent, head)), limits.arena_rows)
    engines = {"bench": Engine(describe("bench", runtime), runtime, MemoryStore(1_000_000), limits)}
    telemetry = Telemetry(engines)
    return create_app(engines, render_metrics=telemetry.render, observe=telemetry.observe)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer each body with itself: what the socket, the parser and ASGI cost alone."""
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body, has_more = b"", True
    while has_more:
        message = await receive()
        body += message["body"]
        has_more = message["more_body"]
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    name, port = sys.argv[1], int(sys.argv[2])
    uvicorn.run(
        lstm_service() if name == "service" else echo,
        port=port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
