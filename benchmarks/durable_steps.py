"""What durability costs: steps a second over HTTP by store and mode, beside sessions in memory.

Part of `make bench`. Each server runs alone on one core, the load generator and Redis share
another. All are warmed up; each figure is the median of several repeats, in turns. Then, with one
client: what a step in Redis adds to a step in memory, beside the time of a trip to that Redis.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import shutil
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import redis.asyncio
import uvloop
from bench_model import INPUT_SIZE
from load import Result, median, post, run
from servers import START_TIMEOUT_S, free_port, on_core, server, service_command, share_cores

from service.domain import TOMBSTONE_S
from service.errors import UnavailableError
from service.stores.redis import RedisStore

NUM_PINGS = 5000


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """Run a Redis with an append-only file, ready for sessions, on this process's core."""
    program = shutil.which("redis-server")
    assert program is not None
    port = free_port()
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    command += ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    url = f"redis://127.0.0.1:{port}"
    try:
        for database in range(2):
            asyncio.run(_initialise(f"{url}/{database}"))
        yield url
    finally:
        process.terminate()
        process.wait()


async def _initialise(url: str) -> None:
    """Set a database up, once its server has started.

    Raises:
        UnavailableError: It does not start.
    """
    store = RedisStore(url, timeout_s=1.0, tombstone_s=TOMBSTONE_S)
    deadline = time.monotonic() + START_TIMEOUT_S
    try:
        while True:
            try:
                await store.initialise()
            except UnavailableError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)
            else:
                return
    finally:
        await store.close()


class _Pinger(asyncio.Protocol):
    """Sends a PING on each PONG, as many as are wanted."""

    def __init__(self, done: asyncio.Future[list[float]]) -> None:
        self._done = done
        self._seconds: list[float] = []
        self._sent = 0.0
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._ping()

    def _ping(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(b"PING\r\n")

    def data_received(self, data: bytes) -> None:  # noqa: ARG002 - a PONG
        self._seconds.append(time.perf_counter() - self._sent)
        if len(self._seconds) < NUM_PINGS:
            self._ping()
        else:
            self._done.set_result(self._seconds)


async def _ping(port: int) -> list[float]:
    loop = asyncio.get_running_loop()
    done: asyncio.Future[list[float]] = loop.create_future()
    await loop.create_connection(lambda: _Pinger(done), "127.0.0.1", port)
    return await done


async def _ping_by_library(port: int) -> list[float]:
    seconds = []
    async with redis.asyncio.Redis(port=port) as client:
        for _ in range(NUM_PINGS):
            began = time.perf_counter()
            await client.ping()
            seconds.append(time.perf_counter() - began)
    return seconds


def trips_us(url: str, core: int | None) -> tuple[float, float]:
    """Return the median time of a PING from an event loop on the servers' core, in microseconds.

    First as bare as can be, then by the library's own client.
    """
    port = urlsplit(url).port or 6379
    with on_core(core):
        bare, by_library = (uvloop.run(ping(port)) for ping in (_ping, _ping_by_library))
    return statistics.median(bare) * 1e6, statistics.median(by_library) * 1e6


def read_metric(port: int, name: str) -> float:
    """Return a metric of a service."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        text = answer.read().decode()
    found = re.search(rf"^{re.escape(name)} (\S+)", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def trips_a_tick(port: int, requests: list[bytes], seconds: float) -> float:
    """Return how often a service asks its store in a tick, under load."""
    names = ("lstm_store_trip_seconds_count", 'lstm_ticks_total{model="bench"}')
    before = [read_metric(port, name) for name in names]
    run(port, requests, 0.5, seconds)
    trips, ticks = (read_metric(port, name) - b for name, b in zip(names, before, strict=True))
    return trips / ticks


def store_options(folder: Path, url: str | None) -> dict[str, list[str]]:
    """Return the options of each store and mode by what it is called, Redis where there is one."""
    kinds = {"memory": ["--store", "memory"]}
    for mode in ("sync", "async"):
        store = ["--store", "embedded", "--data-dir", str(folder / mode), "--durability", mode]
        kinds[f"embedded, {mode}"] = store
    store = ["--store", "embedded", "--data-dir", str(folder / "fsync"), "--fsync"]
    kinds["embedded, sync, --fsync"] = store
    if url is not None:
        for database, mode in enumerate(("sync", "async")):
            kinds[f"Redis, {mode}"] = ["--store", f"{url}/{database}", "--durability", mode]
    return kinds


def print_results(num_clients: int, results: dict[str, Result]) -> None:
    """Print a table of what each store gave."""
    print(f"\n| {num_clients} clients | steps/s | p50 ms | p99 ms | failed | of memory |")
    print("|---|---|---|---|---|---|")
    for name, r in results.items():
        print(
            f"| {name} | {r.rate:,.0f} | {r.p50_ms:.3f} | {r.p99_ms:.3f} | {r.num_failed}"
            f" | {r.rate / results['memory'].rate:.2f} |",
            flush=True,
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--clients", type=int, default=64)
    options = parser.parse_args()

    core = share_cores()
    values = np.random.default_rng(0).uniform(-1, 1, INPUT_SIZE).round(6).tolist()
    body = json.dumps({"inputs": values}).encode()
    requests = [post(f"/v1/sessions/c{i}/step", body) for i in range(options.clients)]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        command = service_command(folder)
        url = None
        if shutil.which("redis-server") is None:
            print("no redis-server here: Redis is left out")
        else:
            url = stack.enter_context(redis_server(folder))
        ports = {
            name: stack.enter_context(server([*command, *store], core)).port
            for name, store in store_options(folder, url).items()
        }

        def measure(num_clients: int) -> dict[str, Result]:
            results: dict[str, list[Result]] = {name: [] for name in ports}
            for _ in range(options.repeats):
                for name, port in ports.items():
                    results[name].append(run(port, requests[:num_clients], 1.0, options.seconds))
            return {name: median(each) for name, each in results.items()}

        print_results(options.clients, measure(options.clients))
        alone = measure(1)
        print_results(1, alone)
        if url is not None:
            bare, by_library = trips_us(url, core)
            added = 1000 * (alone["Redis, sync"].p50_ms - alone["memory"].p50_ms)
            print(f"\na warm step in Redis adds {added:.0f} us at the median: {added / bare:.2f}")
            print(f"times a bare PING ({bare:.0f} us), {added / by_library:.2f} times one by")
            print(f"redis-py ({by_library:.0f} us)")
            trips = trips_a_tick(ports["Redis, sync"], requests, options.seconds)
            print(f"{trips:.3f} trips to Redis a tick at {options.clients} clients")


if __name__ == "__main__":
    main()
