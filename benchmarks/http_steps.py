"""Steps a second over HTTP, beside a bare uvicorn echo of the same bodies: `make bench`.

Each server runs alone on one core, the load generator on another. Both are warmed up; each figure
is the median of several repeats, in turns so that a slow moment of the machine meets both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from bench_model import INPUT_SIZE, write_bench_model
from load import Result, post, run

HERE = Path(__file__).parent
CLIENTS = (1, 16, 64, 256)


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
    """Return the command of the service as it ships, over a model written to `folder`."""
    model = folder / "bench.keras"
    write_bench_model(model)
    return ["service", "serve", "--log-level", "warning", "--model", f"bench={model}"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()

    cores = sorted(os.sched_getaffinity(0))
    server_core = cores[0] if len(cores) > 1 else None
    if server_core is not None:
        os.sched_setaffinity(0, {cores[1]})
    values = np.random.default_rng(0).uniform(-1, 1, INPUT_SIZE).round(6).tolist()
    body = json.dumps({"inputs": values}).encode()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()},")
    print(
        f"server and generator on a core each: {server_core is not None}; body {len(body)} bytes;"
    )
    print(f"32 -> LSTM 128 -> Dense 8; median of {options.repeats} runs of {options.seconds} s\n")
    echo_command = ["uvicorn", "echo:app", "--loop", "uvloop", "--http", "httptools"]
    echo_command += ["--no-access-log", "--log-level", "warning"]
    print("| clients | server | steps/s | p50 ms | p99 ms | generator CPU | failed | of the echo |")
    print("|---|---|---|---|---|---|---|---|")
    with (
        TemporaryDirectory() as folder,
        server(echo_command, server_core) as echo_port,
        server(service_command(Path(folder)), server_core) as service_port,
    ):
        ports = {"echo": echo_port, "service": service_port}
        for num_clients in CLIENTS:
            requests = [post(f"/v1/sessions/c{i}/step", body) for i in range(num_clients)]
            results: dict[str, list[Result]] = {name: [] for name in ports}
            for _ in range(options.repeats):
                for name, port in ports.items():
                    results[name].append(run(port, requests, 1.0, options.seconds))
            echo = median(results["echo"])
            for name, repeats in results.items():
                r = median(repeats)
                print(
                    f"| {num_clients} | {name} | {r.rate:,.0f} | {r.p50_ms:.3f} | {r.p99_ms:.3f} |"
                    f" {r.generator_cpu:.0%} | {r.num_failed} | {r.rate / echo.rate:.2f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
