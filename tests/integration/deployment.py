"""What is under `deploy`, the tools that check it, and HAProxy with the shipped configuration."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import yaml

from tests.integration.live_server import START_TIMEOUT_S, free_port

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BALANCER_CONFIG = DEPLOY / "haproxy.cfg"
GRPC_CONFIG = DEPLOY / "haproxy-grpc.cfg"
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
REPLICAS = ("lstm-1", "lstm-2", "lstm-3")
OF_THE_SERVICE = (*REPLICAS, "store-init")
"""The compose services that run the image of this repository."""
KUSTOMIZATIONS = sorted(path.parent for path in DEPLOY.glob("kubernetes/*/kustomization.yaml"))

PATHS = [
    "/v1/models/vowels/sessions/a@b:c-{}/step",
    "/v1/models/vowels/sessions/a%40b%3Ac-{}/step",
    "/v1/models/vowels/sessions/a%40b%3ac-{}/step",
    "/v1/models/vowels/sessions/%61@b:c%2d{}/step",
    "/v1/models/%76owels/sessions/a@b:c-{}/step",
    "/v1/sessions/a@b:c-{}/step",
    "/v1/sessions/%61%40b:c-{}/step",
]
"""Ways to write the path of a step of one session of the default model, `{}` for a number."""


def find_tool(name: str) -> str | None:
    """Return the path of a program, or None; Debian keeps daemons where users do not look."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")


def needs(name, package):
    """Return the mark of a test that a program is needed for."""
    return pytest.mark.skipif(
        find_tool(name) is None, reason=f"{name} is not installed (Debian: {package})"
    )


def check(*command):
    """Run a checker; a test fails with what it says."""
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=120, check=False
    )
    assert 0 == done.returncode, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def render(directory):
    """Return the documents of a kustomization, as kustomize sees them where it is installed.

    Without it, the documents are those of the files that the kustomization names: generators and
    changed names are then not seen.
    """
    for tool, arguments in (("kustomize", ["build"]), ("kubectl", ["kustomize"])):
        if path := shutil.which(tool):
            return list(yaml.safe_load_all(check(path, *arguments, str(directory))))
    return list(_read_resources(directory))


def _read_resources(directory):
    for name in yaml.safe_load((directory / "kustomization.yaml").read_text())["resources"]:
        path = directory / name
        if path.is_dir():
            yield from _read_resources(path)
        else:
            yield from yaml.safe_load_all(path.read_text())


def containers_of(document):
    """Return the containers of a document, if it runs any."""
    if document["kind"] not in {"Deployment", "Job"}:
        return []
    return document["spec"]["template"]["spec"]["containers"]


def rewire(text, addresses):
    """Put addresses of this machine into a configuration of HAProxy's.

    This is all that distinguishes what is tested from what is shipped.

    Args:
        text: The shipped configuration.
        addresses: By what stands there, behind `bind` or behind `server NAME`.
    """
    for shipped, here in addresses.items():
        pattern = rf"(?m)^( +(?:bind|server \S+)) {re.escape(shipped)}(?=\s|$)"
        text, num_found = re.subn(pattern, rf"\1 {here}", text)
        assert num_found, f"{shipped} does not stand in the configuration"
    return text


class Balancer:
    """A HAProxy process in front of replicas.

    Attributes:
        url: Where it serves.
        grpc_address: Where it takes gRPC, if it does.
    """

    def __init__(self, directory, ports, *, grpc_ports=None, tls_pem=None):
        """Start it.

        Args:
            directory: For the configuration.
            ports: Of the replicas.
            grpc_ports: Of the replicas, for gRPC.
            tls_pem: A file of a certificate and its key; None: without TLS.
        """
        port, operators_port, grpc_port = free_port(), free_port(), free_port()
        self.url = f"http{'s' if tls_pem else ''}://127.0.0.1:{port}"
        self.grpc_address = f"127.0.0.1:{grpc_port}"
        self._operators_url = f"http://127.0.0.1:{operators_port}"
        files = [directory / BALANCER_CONFIG.name]
        addresses = {":8000": f"127.0.0.1:{port}", ":8404": f"127.0.0.1:{operators_port}"}
        addresses |= {
            f"{name}:8000": f"127.0.0.1:{replica}"
            for name, replica in zip(REPLICAS, ports, strict=True)
        }
        files[0].write_text(rewire(BALANCER_CONFIG.read_text(), addresses))
        if grpc_ports is not None:
            files.append(directory / GRPC_CONFIG.name)
            addresses = {":8001": self.grpc_address} | {
                f"{name}:8001": f"127.0.0.1:{replica}"
                for name, replica in zip(REPLICAS, grpc_ports, strict=True)
            }
            files[1].write_text(rewire(GRPC_CONFIG.read_text(), addresses))
        self._process = run_haproxy(*files, tls_pem=tls_pem)
        wait_until(lambda: self.count_up() == len(REPLICAS))

    def count_up(self):
        """Return how many replicas pass their health checks."""
        metrics = httpx.get(f"{self._operators_url}/metrics").text
        pattern = r'haproxy_server_check_status\{proxy="sessions",[^}]*state="L7OK"\} 1'
        return len(re.findall(pattern, metrics))

    def end(self):
        """Stop it at once."""
        self._process.kill()
        self._process.wait()


@contextmanager
def balancer(directory, ports, **options):
    """Run the balancer for as long as the block lasts; see `Balancer` for the options."""
    running = Balancer(directory, ports, **options)
    try:
        yield running
    finally:
        running.end()


def run_haproxy(*files, tls_pem=None):
    """Start HAProxy on configuration files, in the foreground, with TLS where a file is given."""
    program = find_tool("haproxy")
    assert program is not None, "the tests that need it are skipped"
    command = [program, "-db"]
    for file in files:
        command += ["-f", str(file)]
    # Whatever this shell has set.
    own = ("DEFAULT_MODEL", "TLS_PEM")
    environment = {name: value for name, value in os.environ.items() if name not in own}
    if tls_pem is not None:
        environment["TLS_PEM"] = str(tls_pem)
    return subprocess.Popen(command, env=environment)


def wait_until(is_so: Callable[[], bool], timeout_s: float = START_TIMEOUT_S) -> None:
    """Ask until the answer is yes; a server that is not there yet is a no."""
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            if is_so():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
