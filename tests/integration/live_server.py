"""A real server process, as `lstm-service serve` starts it."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx

START_TIMEOUT_S = 60.0


def free_port():
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class LiveServer:
    """A process that serves.

    Attributes:
        url: Where.
        process: It.
    """

    def __init__(
        self, *options: str, program: Sequence[str] = ("-m", "service"), port: int | None = None
    ) -> None:
        """Start the process, and wait until it is ready.

        Args:
            options: Of `serve`.
            program: What Python is to run.
            port: Where; None: anywhere.
        """
        port = port or free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, *program, "serve", "--port", str(port)]
        # A store of its own, unless the test names one.
        command += options if "--store" in options else ("--store", "memory", *options)
        root = Path(__file__).parents[2]
        environment = os.environ | {"PYTHONPATH": str(root)}
        self.process = subprocess.Popen(command, env=environment, cwd=root)
        self._wait()

    def _wait(self):
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                if httpx.get(f"{self.url}/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                pass
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.process.kill()
                raise RuntimeError("the server did not become ready")
            time.sleep(0.05)

    def end(self, how=signal.SIGTERM):
        """Send a signal and wait for the process's end."""
        self.process.send_signal(how)
        return self.process.wait(timeout=60)


@contextmanager
def live_server(*options):
    """Run a server for as long as the block lasts."""
    server = LiveServer(*options)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.end()
