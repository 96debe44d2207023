"""A closed-loop load generator for HTTP/1.1: each client sends its next request on its last answer.

Latencies are from the write of a request to the last byte of its answer. Its own use of the CPU is
part of the result, so that a figure which measures the generator shows.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import uvloop


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run gave.

    Attributes:
        rate: Answers a second.
        p50_ms: Median latency.
        p99_ms: The latency that one request in a hundred exceeds.
        generator_cpu: Share of one core that the generator used.
        num_failed: Answers with another status than 200.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    generator_cpu: float
    num_failed: int


class _Client(asyncio.Protocol):
    def __init__(self, request: bytes, seconds: list[float]) -> None:
        self._request = request
        self._seconds = seconds
        self._received = b""
        self._sent = 0.0
        self._transport: Any = None
        self.num_failed = 0
        self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self.is_lost = True

    def send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        received = self._received = self._received + data
        head = received.find(b"\r\n\r\n")
        if head < 0:
            return
        at = received.lower().find(b"content-length:", 0, head) + len(b"content-length:")
        length = int(received[at : received.find(b"\r", at)])
        if len(received) < head + 4 + length:
            return
        self._seconds.append(time.perf_counter() - self._sent)
        self.num_failed += not received.startswith(b"HTTP/1.1 200")
        self._received = b""
        self.send()


def post(path: str, body: bytes) -> bytes:
    """Return a request's bytes."""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def run(port: int, requests: list[bytes], warmup_s: float, duration_s: float) -> Result:
    """Keep one connection a request busy with it.

    Args:
        port: On the loopback address.
        requests: One for each client, sent again and again.
        warmup_s: What comes in this time first is not counted.
        duration_s: What comes in this time then is.
    """
    return uvloop.run(_run(port, requests, warmup_s, duration_s))


def _same(client: _Client) -> _Client:
    return client


async def _run(port: int, requests: list[bytes], warmup_s: float, duration_s: float) -> Result:
    loop = asyncio.get_running_loop()
    seconds: list[float] = []
    clients = []
    for request in requests:
        client = _Client(request, seconds)
        await loop.create_connection(partial(_same, client), "127.0.0.1", port)
        clients.append(client)
    for client in clients:
        client.send()
    await asyncio.sleep(warmup_s)
    first, began, cpu = len(seconds), time.perf_counter(), time.process_time()
    await asyncio.sleep(duration_s)
    counted = np.array(seconds[first:])
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    if any(client.is_lost for client in clients) or not len(counted):
        raise ConnectionError("the server closed a connection, or did not answer")
    return Result(
        rate=len(counted) / took,
        p50_ms=float(np.percentile(counted, 50)) * 1e3,
        p99_ms=float(np.percentile(counted, 99)) * 1e3,
        generator_cpu=cpu / took,
        num_failed=sum(client.num_failed for client in clients),
    )
