"""A closed-loop load generator for HTTP and WebSocket: builds `load.c`, feeds it, reads figures.

It is in C because at a hundred thousand answers a second one in Python would measure itself. Its
own use of the CPU is part of each result, so that a figure which measures the generator shows.
Latencies are exact: percentiles are taken over every answer of the measured time.
"""

from __future__ import annotations

import statistics
import struct
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

_FOLDER = TemporaryDirectory(prefix="load-")
"""Where the generator is built; it goes with this process."""
_MASK = b"\x5a\xa5\x3c\xc3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a run gave.

    Attributes:
        rate: Answers a second.
        p50_ms: Median latency.
        p99_ms: The latency that one request in a hundred exceeds.
        generator_cpu: Share of one core that the generator used.
        num_failed: Answers with another status than 200, or frames of another length; warm-up too.
        num_answers: All answers, those of the warm-up and of the end too.
    """

    rate: float
    p50_ms: float
    p99_ms: float
    generator_cpu: float
    num_failed: int
    num_answers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is sent, and how.

    Attributes:
        messages: HTTP requests, or frames; client i sends the messages i, i + clients, ... again
            and again.
        num_clients: Each on a connection of its own.
        depth: Messages that each client has in flight.
        handshakes: Of WebSockets, one a client; none means HTTP.
        answer_bytes: Of the payload of a good answer's frame.
    """

    messages: Sequence[bytes]
    num_clients: int
    depth: int = 1
    handshakes: Sequence[bytes] = ()
    answer_bytes: int = 0


class Run:
    """A generator at work; it has been started when this is made."""

    def __init__(self, load: Load, port: int, warmup_s: float, duration_s: float) -> None:
        """Start it.

        Args:
            load: What is sent.
            port: On the loopback address.
            warmup_s: What comes in this time first is not counted.
            duration_s: What comes in this time then is.
        """
        numbers = (port, load.num_clients, load.depth, warmup_s, duration_s, load.answer_bytes)
        messages = self._messages = TemporaryDirectory(prefix="messages-")
        path = Path(messages.name) / "messages"
        with path.open("wb") as file:
            for message in (*load.handshakes, *load.messages):
                file.write(struct.pack("=I", len(message)))
                file.write(message)
        with path.open("rb") as file:
            self._process = subprocess.Popen(
                [_program(), *map(str, numbers)], stdin=file, stdout=subprocess.PIPE
            )

    def result(self) -> Result:
        """Wait for its end.

        Raises:
            ConnectionError: The server closed a connection, or did not answer; standard error says.
        """
        output, _ = self._process.communicate()
        self._messages.cleanup()
        head, _, tail = output.partition(b"\n")
        latencies_ns = np.frombuffer(tail, np.uint64)
        if self._process.returncode != 0 or not len(latencies_ns):
            raise ConnectionError("the load generator gave up, or had no answer in time")
        seconds, cpu_s, num_measured, num_failed, num_answers = head.split()
        p50_ns, p99_ns = np.percentile(latencies_ns, [50, 99])
        return Result(
            rate=int(num_measured) / float(seconds),
            p50_ms=float(p50_ns) / 1e6,
            p99_ms=float(p99_ns) / 1e6,
            generator_cpu=float(cpu_s) / float(seconds),
            num_failed=int(num_failed),
            num_answers=int(num_answers),
        )


def run(
    port: int, requests: Sequence[bytes], warmup_s: float, duration_s: float, num_clients: int = 0
) -> Result:
    """Keep clients busy with HTTP requests, by default one client a request."""
    load = Load(messages=requests, num_clients=num_clients or len(requests))
    return Run(load, port, warmup_s, duration_s).result()


def post(
    path: str,
    body: bytes,
    content_type: str = "application/json",
    headers: Mapping[str, object] | None = None,
) -> bytes:
    """Return a request's bytes, with headers beside those that every request has."""
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {content_type}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def handshake(path: str) -> bytes:
    """Return the bytes that open a WebSocket."""
    return (
        f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        "sec-websocket-version: 13\r\nsec-websocket-key: bG9hZCBnZW5lcmF0b3IgMQ==\r\n\r\n"
    ).encode()


def binary_frame(payload: bytes) -> bytes:
    """Return a client's frame around 126 to 65,535 bytes, masked as the protocol wants it."""
    mask = (_MASK * (len(payload) // 4 + 1))[: len(payload)]
    masked = np.frombuffer(payload, np.uint8) ^ np.frombuffer(mask, np.uint8)
    return struct.pack(">BBH", 0x82, 0x80 | 126, len(payload)) + _MASK + masked.tobytes()


def in_turns(
    repeats: int, sides: Mapping[str, Callable[[], Result]]
) -> dict[str, tuple[Result, ...]]:
    """Measure each side several times, in turns, so that a slow moment of the machine meets all."""
    results: dict[str, list[Result]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, measure in sides.items():
            results[name].append(measure())
    return {name: tuple(each) for name, each in results.items()}


def median(results: Iterable[Result]) -> Result:
    """Return the median of each figure, all failures and all answers."""
    given = tuple(results)

    def middle(field: str) -> float:
        return statistics.median(getattr(result, field) for result in given)

    return Result(
        rate=middle("rate"),
        p50_ms=middle("p50_ms"),
        p99_ms=middle("p99_ms"),
        generator_cpu=middle("generator_cpu"),
        num_failed=sum(result.num_failed for result in given),
        num_answers=sum(result.num_answers for result in given),
    )


@cache
def _program() -> str:
    """Build the generator; return its path."""
    program = str(Path(_FOLDER.name) / "load")
    source = str(Path(__file__).with_name("load.c"))
    subprocess.run(["cc", "-O2", "-Wall", "-o", program, source], check=True)
    return program
