"""Servers to measure: each a process of its own, on a core of its own where there are several."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench_model import write_bench_model

HERE = Path(__file__).parent
START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that runs.

    Attributes:
        port: On the loopback address.
        pid: Of its process.
    """

    port: int
    pid: int

    def resident_bytes(self) -> int:
        """Return how much memory its process has in use."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB", status, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024


def share_cores() -> int | None:
    """Take the second core for this process; return the first for the servers, if there are two."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return None
    os.sched_setaffinity(0, {cores[1]})
    return cores[0]


@contextmanager
def on_core(core: int | None) -> Iterator[None]:
    """Be on another core for a while, and have what is started there be born on it."""
    own = os.sched_getaffinity(0)
    if core is not None:
        os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, own)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def server(
    command: Sequence[str | Path], core: int | None, environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Run a server until the end of the block, `--port` added to its command, once it listens."""
    port = free_port()
    with on_core(core):
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--port", str(port)],
            cwd=HERE,
            env=os.environ | (environment or {}),
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield Server(port=port, pid=process.pid)
    finally:
        process.terminate()
        process.wait()


def service_command(folder: Path) -> list[str | Path]:
    """Return the command of the service over a model written to `folder`, its sessions in memory.

    An option that is added behind it goes before these.
    """
    model = folder / "bench.keras"
    write_bench_model(model)
    model_option = f"bench={model}"
    return [
        "service",
        "serve",
        "--log-level",
        "warning",
        "--store",
        "memory",
        "--model",
        model_option,
    ]


def uvicorn_command(application: str) -> list[str | Path]:
    """Return the command of an ASGI application beside this file, under uvicorn at its fastest."""
    options = ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    return ["uvicorn", application, *options, "--log-level", "warning"]
