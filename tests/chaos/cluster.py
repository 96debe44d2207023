"""What is tested: three replicas behind HAProxy over one Redis, or one over its embedded store."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.chaos.link import Link
from tests.chaos.wire import LostError, NotSentError, Wire
from tests.contract.redis_server import RedisServer
from tests.integration.deployment import BALANCER_CONFIG, REPLICAS, find_tool, rewire
from tests.integration.live_server import free_port

ROOT = Path(__file__).parents[2]
CODE = ("service", "lstm_core")
STORE_TIMEOUT_MS = 500
"""Short, so that many requests meet it."""
_READY_TIMEOUT_S = 60.0
_SERVICE = ("-m", "service")

# Behind the shipped configuration, whose defaults hold here too. This backend sends nothing twice,
# and what it sends goes anywhere: no replica can trust what it has at hand.
_RANDOM = """
frontend random
    bind 127.0.0.1:{port}
    default_backend random
backend random
    balance random(1)
    retry-on conn-failure
"""


class Process:
    """A process of ours that is started, stopped and killed.

    Attributes:
        name: What it is called.
    """

    def __init__(self, name, command, directory):
        """Prepare to run `command`, with its output appended to a file in `directory`."""
        self.name = name
        self._command = command
        self._log = directory / f"{name}.log"
        self._code = directory / "code"
        self._process: Any = None

    def start(self):
        """Start it."""
        environment = os.environ | {"PYTHONPATH": str(self._code)}
        environment.pop("DEFAULT_MODEL", None)  # the balancer's is the shipped one's
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=environment, cwd=self._code, stdout=log, stderr=log
            )

    def send(self, how):
        """Send it a signal, unless it has ended."""
        self._process.send_signal(how)

    async def wait(self, timeout_s):
        """Wait for its end, and return its status.

        Raises:
            TimeoutError: It did not end.
        """
        async with asyncio.timeout(timeout_s):
            while self._process.poll() is None:
                await asyncio.sleep(0.01)
        return self._process.returncode

    def end(self):
        """End it at once."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


class Replica(Process):
    """A process of the service.

    Attributes:
        port: Where it listens, after each start.
    """

    def __init__(self, name, store_options, directory, program=_SERVICE):
        """Prepare to start it."""
        self.port = free_port()
        command = [sys.executable, *program, "serve", "--port", str(self.port)]
        command += ["--drain-timeout-s", "5", "--log-level", "warning", *store_options]
        super().__init__(name, command, directory)

    async def until_ready(self):
        """Wait until it serves, with its store.

        Raises:
            TimeoutError: It does not.
        """
        await until_ready(self.port)


def copy_code(directory):
    """Copy the service: all of a run is one version of it, whatever is edited meanwhile."""
    for package in CODE:
        target = directory / "code" / package
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(ROOT / package, target, ignore=shutil.ignore_patterns("__pycache__"))


async def until_ready(port, path="/readyz"):
    """Wait until a port answers with 200.

    Raises:
        TimeoutError: It does not.
    """
    wire = Wire(port, 1.0)
    async with asyncio.timeout(_READY_TIMEOUT_S):
        while True:
            with suppress(NotSentError, LostError):
                if (await wire.exchange("GET", path)).status == 200:
                    break
            await asyncio.sleep(0.05)
    wire.close()


class RedisCluster:
    """Three replicas over one Redis, behind HAProxy.

    Attributes:
        redis: The server.
        links: The replicas' ways to it.
        replicas: They.
        ports: Of the entrances: `hash` as shipped, `random` to any replica.
    """

    def __init__(self, directory, program=_SERVICE):
        """Prepare to start it; `program` is what Python is to run instead of the service."""
        options = [("appendonly", "yes"), ("appendfsync", "always")]
        self._directory = directory
        self._program = program
        self.redis = RedisServer(directory, *options)
        self.links = [Link(self.redis.port) for _ in REPLICAS]
        self.replicas = []
        self.ports = {"hash": free_port(), "random": free_port()}
        self._balancer = None

    async def start(self):
        """Start it and wait until all of it serves."""
        copy_code(self._directory)
        await self.start_redis()
        await asyncio.to_thread(self._initialise)
        for name, link in zip(REPLICAS, self.links, strict=True):
            await link.open()
            url = f"redis://127.0.0.1:{link.port}"
            store = ("--store", url, "--store-timeout-ms", str(STORE_TIMEOUT_MS))
            replica = Replica(name, store, self._directory, self._program)
            replica.start()
            self.replicas.append(replica)
        command = [find_tool("haproxy"), "-db"]
        for file in self._write_configuration():
            command += ["-f", str(file)]
        self._balancer = Process("balancer", command, self._directory)
        self._balancer.start()
        await self.until_ready()

    async def start_redis(self):
        """Start Redis and wait until it answers."""
        await asyncio.to_thread(self.redis.start)

    async def stop_redis(self, how):
        """End Redis with a signal."""
        await asyncio.to_thread(self.redis.stop, how)

    def signal_redis(self, how):
        """Send Redis a signal."""
        process: Any = self.redis.process
        process.send_signal(how)

    async def until_ready(self):
        """Wait until all replicas are ready, and the balancer knows of one."""
        await asyncio.gather(*(replica.until_ready() for replica in self.replicas))
        for port in self.ports.values():
            await until_ready(port, "/v1/models")

    def stop(self):
        """End all of it at once."""
        for process in (self._balancer, *self.replicas):
            if process is not None:
                process.end()
        for link in self.links:
            link.close()
        self.redis.stop(signal.SIGKILL)

    def _initialise(self):
        command = [sys.executable, "-m", "service", "store", "init", "--store", self.redis.url]
        code = self._directory / "code"
        subprocess.run(command, check=True, cwd=code, capture_output=True, timeout=60)

    def _write_configuration(self):
        files = [self._directory / "haproxy.cfg", self._directory / "random.cfg"]
        operators = f"127.0.0.1:{free_port()}"
        addresses = {":8000": f"127.0.0.1:{self.ports['hash']}", ":8404": operators}
        random = _RANDOM.format(port=self.ports["random"])
        for name, replica in zip(REPLICAS, self.replicas, strict=True):
            address = f"127.0.0.1:{replica.port}"
            addresses[f"{name}:8000"] = address
            random += f"    server {name} {address} track sessions/{name}\n"
        files[0].write_text(rewire(BALANCER_CONFIG.read_text(), addresses))
        files[1].write_text(random)
        return files


class EmbeddedCluster:
    """One process over its own store.

    Attributes:
        links: None.
        replicas: It.
        ports: Its own.
    """

    def __init__(self, directory, program=_SERVICE, options=()):
        """Prepare to start it; `program` is what Python is to run instead of the service."""
        store = ("--store", "embedded", "--data-dir", str(directory / "data"), *options)
        self._directory = directory
        self.links = []
        self.replicas = [Replica("alone", store, directory, program)]
        self.ports = {"direct": self.replicas[0].port}

    async def start(self):
        """Start it and wait until it serves."""
        copy_code(self._directory)
        self.replicas[0].start()
        await self.until_ready()

    async def until_ready(self):
        """Wait until it serves."""
        await self.replicas[0].until_ready()

    def stop(self):
        """End it at once."""
        self.replicas[0].end()
