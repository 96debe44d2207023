"""How long a replica takes to be ready, and its memory before the first request."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import time

from report import Figure, at_most
from servers import HERE, START_TIMEOUT_S, Server, free_port, on_core
from setting import Setting

IDLE_S = 1.0
"""After it is ready, before its memory is read."""
READY = b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"


def measure(setting: Setting) -> Figure:
    """Start several replicas, one after another; the first, which fills caches, does not count."""
    starts = [_start(setting) for _ in range(setting.repeats + 1)][1:]
    seconds = statistics.median(seconds for seconds, _ in starts)
    resident = statistics.median(resident for _, resident in starts) / 1e6
    return Figure(
        title="Start",
        targets=[
            at_most("start to ready", seconds, 1, "{:,.2f} s"),
            at_most("resident memory idle", resident, 120, "{:,.0f} MB"),
        ],
        text=f"Median of {len(starts)} starts, from the creation of the process to `/readyz` with"
        f" status 200; the slowest {max(seconds for seconds, _ in starts):.2f} s.",
        data={"start_s": seconds, "resident_mb": resident},
    )


def _start(setting: Setting) -> tuple[float, int]:
    """Return the seconds from the start to ready, and the memory in use idle, in bytes."""
    port = free_port()
    command = [sys.executable, "-m", *map(str, setting.service()), "--port", str(port)]
    with on_core(setting.core):
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=HERE, env=os.environ)
    try:
        while not _is_ready(port):
            if process.poll() is not None or time.perf_counter() - began > START_TIMEOUT_S:
                raise RuntimeError("the service did not start")
            time.sleep(0.002)
        took_s = time.perf_counter() - began
        time.sleep(IDLE_S)
        return took_s, Server(port=port, pid=process.pid).resident_bytes()
    finally:
        process.terminate()
        process.wait()


def _is_ready(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(READY)
            return connection.recv(1 << 12).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
