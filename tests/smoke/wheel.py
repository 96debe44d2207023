"""Build the wheel, install it alone, and take one step through it from an empty directory.

    python tests/smoke/wheel.py

Needs nothing but the standard library and pip. Exits with 1 and the server's log if anything fails.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import venv
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
READY_WITHIN_S = 30.0
STOPPED_WITHIN_S = 15.0


def main() -> None:
    """Run the smoke test; raise on the first thing that is wrong."""
    with tempfile.TemporaryDirectory(prefix="lstm-service-smoke-") as scratch:
        temporary = Path(scratch)
        python = install_wheel(temporary)
        subprocess.run(
            [python, "-c", "import importlib.util as u; assert not u.find_spec('tensorflow')"],
            check=True,
        )

        empty = temporary / "empty"
        empty.mkdir()
        port = free_port()
        log_path = temporary / "server.log"
        with log_path.open("wb") as log:
            started = time.monotonic()
            server = subprocess.Popen(
                [python.with_name("lstm-service"), "serve", "--port", str(port)],
                cwd=empty,
                env=clean_environment(temporary),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            try:
                wait_until_ready(server, port)
                ready_s = time.monotonic() - started
                check_step(port)
                check_stop(server)
            except BaseException:
                print(log_path.read_text(errors="replace"), file=sys.stderr)
                raise
            finally:
                server.kill()
                server.wait()

        left_behind = sorted(path.name for path in empty.iterdir())
        assert not left_behind, f"the server left {left_behind} in its working directory"
    print(f"smoke: the wheel serves on its own; ready {ready_s:.2f} s after its start")


def install_wheel(temporary: Path) -> Path:
    """Build the wheel and install it with the pinned packages.

    Returns:
        The Python of the new virtual environment, which holds no TensorFlow.
    """
    wheels, environment = temporary / "wheels", temporary / "venv"
    pip = ["-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, *pip, "wheel", "--no-deps", "--wheel-dir", wheels, ROOT], check=True
    )
    (wheel,) = wheels.glob("lstm_service-*.whl")
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    pins = ROOT / "constraints.txt"
    subprocess.run([python, *pip, "install", "--constraint", pins, wheel], check=True)
    return python


def clean_environment(temporary: Path) -> dict[str, str]:
    """Return this environment without settings of the service, and with a home of its own."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("LSTM_") and name != "PYTHONPATH"
    }
    return kept | {"HOME": str(temporary), "XDG_STATE_HOME": str(temporary / "state")}


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def request(port: int, path: str, body: object = None) -> tuple[int, Any]:
    """Send one request, a POST if it has a body, and return its status and its JSON answer."""
    data = None if body is None else json.dumps(body).encode()
    sent = urllib.request.Request(
        f"http://127.0.0.1:{port}{path}", data=data, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(sent, timeout=10) as answer:
        return answer.status, json.loads(answer.read() or b"null")


def wait_until_ready(server: subprocess.Popen[bytes], port: int) -> None:
    """Wait until `/readyz` answers 200."""
    deadline = time.monotonic() + READY_WITHIN_S
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=1):
                return
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"not ready within {READY_WITHIN_S} s (exit code {server.returncode})")


def check_step(port: int) -> None:
    """Take one step of a new session of the bundled model `vowels`: 12 numbers in, 9 out."""
    status, answer = request(port, "/v1/models/vowels/sessions/smoke/step", {"inputs": [0.1] * 12})
    assert status == 200, answer
    assert len(answer["outputs"]) == 9, answer
    assert all(isinstance(output, float) for output in answer["outputs"]), answer
    assert answer["position"] == 1, answer
    assert answer["replayed"] is False, answer


def check_stop(server: subprocess.Popen[bytes]) -> None:
    """Ask the server to stop, and expect it to do so in time and of its own accord."""
    server.send_signal(signal.SIGTERM)
    code = server.wait(STOPPED_WITHIN_S)
    assert code in {0, -signal.SIGTERM}, f"the server ended with {code} after SIGTERM"


if __name__ == "__main__":
    main()
