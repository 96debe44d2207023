"""Real Redis servers, alone and as a cluster, as long as a test or a whole run needs them."""

import atexit
import functools
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

from tests.integration.live_server import free_port

START_TIMEOUT_S = 20.0
SLOTS = 16384


class RedisServer:
    """A process of redis-server, on a free port of this machine.

    Attributes:
        port: Where it listens.
        admin: A client to set it up and look into it with.
        process: It.
    """

    def __init__(self, directory, *options, scheme="redis", user="", **admin):
        """Prepare a server.

        Args:
            directory: Where it keeps its files, the log among them.
            options: Those of its command line, without `--`: `("maxmemory", "1mb")`.
            scheme: `rediss` for TLS only, with the files of `certificate(directory)`.
            user: `name:password@`, for the URL.
            admin: How the admin's client connects.
        """
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not installed: apt-get install redis-server")
        self.port = free_port()
        self.directory = Path(directory)
        self._options = options
        self._scheme = scheme
        self._user = user
        self.admin = redis.Redis("127.0.0.1", self.port, **admin)
        self.process = None

    @property
    def url(self):
        """Where a store finds it."""
        return f"{self._scheme}://{self._user}127.0.0.1:{self.port}"

    def start(self):
        """Start it and wait until it answers."""
        command = ["redis-server", "--bind", "127.0.0.1", "--dir", str(self.directory)]
        port = ["--tls-port", str(self.port), "--port", "0"]
        command += port if self._scheme == "rediss" else ["--port", str(self.port)]
        for name, *values in self._options:
            command += [f"--{name}", *values]
        if not any(name == "save" for name, *_ in self._options):
            command += ["--save", ""]
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            wait_for(self._answers, "redis-server did not start")
        except BaseException:
            self.stop()
            raise

    def _answers(self):
        is_running = self.process is not None and self.process.poll() is None
        assert is_running, (self.directory / "log").read_text()
        with suppress(redis.ConnectionError):
            return self.admin.ping()
        return False

    def stop(self, how=signal.SIGKILL):
        """End it, by default as a crash does."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.send_signal(signal.SIGCONT)
            self.process.wait()
            self.process = None
        self.admin.connection_pool.disconnect()

    def num_calls(self, command):
        """Return how many times a command was run."""
        return self.admin.info("commandstats").get(f"cmdstat_{command}", {}).get("calls", 0)


def wait_for(condition, problem):
    """Wait until a condition holds."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(problem)
        time.sleep(0.01)


@contextmanager
def redis_server(directory, *options, **settings):
    """Run a server for as long as the block lasts."""
    server = RedisServer(directory, *options, **settings)
    server.start()
    try:
        yield server
    finally:
        server.stop()


class RedisCluster:
    """Three masters with a third of the slots each, the first of which may have a replica.

    Attributes:
        servers: The masters.
        replica: The first one's, or None.
    """

    def __init__(self, directory, *options, has_replica=False):
        """Start and join them, with the options of `RedisServer`."""
        everyone = []
        self._bus_ports = [free_port() for _ in range(3 + has_replica)]
        for number, port in enumerate(self._bus_ports):
            own = Path(directory) / str(number)
            own.mkdir()
            cluster = [("cluster-enabled", "yes"), ("cluster-port", str(port))]
            everyone.append(RedisServer(own, *cluster, *options))
        self.servers = everyone[:3]
        self.replica = everyone[3] if has_replica else None
        self._everyone = everyone
        try:
            self._join()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self):
        """Where a store finds it: any of its servers."""
        return self.servers[0].url

    def _join(self):
        for server in self._everyone:
            server.start()
        bounds = [number * SLOTS // 3 for number in range(4)]
        for number, server in enumerate(self.servers):
            ask = server.admin.execute_command
            ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            ask("CLUSTER", "ADDSLOTSRANGE", bounds[number], bounds[number + 1] - 1)
        for server, port in zip(self._everyone[1:], self._bus_ports[1:], strict=True):
            meet = ("CLUSTER", "MEET", "127.0.0.1", server.port, port)
            self.servers[0].admin.execute_command(*meet)
        wait_for(self._is_whole, "the cluster did not come up")
        if self.replica is not None:
            first = self.servers[0].admin
            first.config_set("repl-diskless-sync-delay", "0")
            myself = first.execute_command("CLUSTER", "MYID")
            self.replica.admin.execute_command("CLUSTER", "REPLICATE", myself)
            wait_for(lambda: is_followed(self.servers[0]), "the replica did not join")

    def _is_whole(self):
        states = [server.admin.execute_command("CLUSTER", "INFO") for server in self._everyone]
        count = b"cluster_known_nodes:%d" % len(self._everyone)
        return all(b"cluster_state:ok" in state and count in state for state in states)

    def stop(self):
        """End them."""
        for server in self._everyone:
            server.stop()


def is_followed(master):
    """Tell whether a master has a replica that has all that it has."""
    known = master.admin.info("replication")
    replica = known.get("slave0", {})
    return replica.get("state") == "online" and replica["offset"] == known["master_repl_offset"]


@functools.cache
def shared_server():
    """Return a server that lives as long as the tests: they empty it and leave it running."""
    server = RedisServer(_directory())
    server.start()
    atexit.register(server.stop)
    return server


@functools.cache
def shared_cluster():
    """Return a cluster that lives as long as the tests: they empty it and leave it running."""
    cluster = RedisCluster(_directory())
    atexit.register(cluster.stop)
    return cluster


def _directory():
    directory = tempfile.mkdtemp(prefix="lstm-redis-")
    # Handlers run in the reverse order, so this one after the server's.
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def certificate(directory):
    """Make a certificate for 127.0.0.1, and return its file and the key's."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    files = (str(directory / "certificate.pem"), str(directory / "key.pem"))
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2"]
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    out = ["-out", files[0], "-keyout", files[1]]
    subprocess.run([*command, *name, *out], check=True, capture_output=True)
    return files
