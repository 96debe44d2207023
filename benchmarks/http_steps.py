"""Steps a second over HTTP, beside a bare uvicorn echo of the same bodies: `make bench`.

Each server runs alone on one core, the load generator on another. Both are warmed up; each figure
is the median of several repeats, in turns so that a slow moment of the machine meets both.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from bench_model import INPUT_SIZE
from load import Result, post, run
from servers import median, server, service_command, share_cores

CLIENTS = (1, 16, 64, 256)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()

    server_core = share_cores()
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
