"""Servers to measure: each a process of its own, on a core of its own where there are several."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench_model import write_bench_model
from load import Result

HERE = Path(__file__).parent


def share_cores() -> int | None:
    """Take the second core for this process; return the first for the servers, if there are two."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        return None
    os.sched_setaffinity(0, {cores[1]})
    return cores[0]


@contextmanager
def server(command: Sequence[str | Path], core: int | None) -> Iterator[int]:
    """Run a server, `--port` added to its command, and give its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", *command, "--port", str(port)], cwd=HERE)
    try:
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait()


def median(results: list[Result]) -> Result:
    """Return the median of each figure, and all failures."""

    def middle(field: str) -> float:
        return statistics.median(getattr(result, field) for result in results)

    return Result(
        rate=middle("rate"),
        p50_ms=middle("p50_ms"),
        p99_ms=middle("p99_ms"),
        generator_cpu=middle("generator_cpu"),
        num_failed=sum(result.num_failed for result in results),
    )


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
