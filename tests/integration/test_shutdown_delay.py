"""A server that is about to end says so, and goes on until whoever sends requests has noticed."""

import itertools
import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import grpc
import httpx
import numpy as np
from grpc_health.v1 import health_pb2
from websockets.sync.client import connect

from service.transport.grpc import messages
from service.transport.grpc.service import NAME as SERVICE
from tests.integration.deployment import wait_until
from tests.integration.grpc_service import START, raw_request
from tests.integration.live_server import free_port, live_server

X = np.full(9, 0.5, np.float32)
"""A step of the model `gait`."""
DELAY_S = 3.0
PATIENCE_S = 20.0


class Clients:
    """Callers by every protocol, each in a thread, until a balancer would send them elsewhere.

    Attributes:
        num_answers: By the name of the protocol.
        failures: What any of them met.
        has_noticed: Set when the balancer has.
    """

    def __init__(self, url, grpc_port):
        self.num_answers = dict.fromkeys(("http", "grpc", "stream"), 0)
        self.failures = []
        self.has_noticed = threading.Event()
        self._url = url
        self._target = f"127.0.0.1:{grpc_port}"
        callers = (self._call_http, self._call_grpc, self._stream)
        self._threads = [threading.Thread(target=self._run, args=[each]) for each in callers]

    def start(self):
        """Begin to call."""
        for thread in self._threads:
            thread.start()

    def join(self):
        """Wait for the last answers."""
        self.has_noticed.set()
        for thread in self._threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def _run(self, call):
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever a caller meets is what is asked for
            self.failures.append(repr(error))

    def _call_http(self):
        with httpx.Client(base_url=self._url, trust_env=False) as http:
            while not self.has_noticed.is_set():
                path = f"/v1/models/gait/sessions/h{self.num_answers['http']}/step"
                http.post(path, json={"inputs": X.tolist()}).raise_for_status()
                self.num_answers["http"] += 1

    def _call_grpc(self):
        request = raw_request([X], model_name="gait", **START)
        request.inputs[0].name = "samples"
        data = request.SerializeToString()
        while not self.has_noticed.is_set():
            # A connection of its own, as through a balancer that opens one when it likes.
            with grpc.insecure_channel(self._target) as channel:
                channel.unary_unary(f"/{SERVICE}/ModelInfer")(data, timeout=PATIENCE_S)
            self.num_answers["grpc"] += 1

    def _stream(self):
        for number in itertools.count():
            if self.has_noticed.is_set():
                return
            url = f"ws{self._url[4:]}/v1/models/gait/sessions/s{number}/stream"
            with connect(url, proxy=None) as stream:
                assert "hello" == json.loads(stream.recv(PATIENCE_S))["type"]
                for _ in range(10):
                    stream.send(X.tobytes())
                    assert 4 * len(X) == len(stream.recv(PATIENCE_S))
                    self.num_answers["stream"] += 1


def ways_to_be_told(http, channel):
    """Return the ways of asking by which the server is not ready."""
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    ask = channel.unary_unary(
        f"/{SERVICE}/ModelReady",
        messages.ModelReadyRequest.SerializeToString,
        messages.ModelReadyResponse.FromString,
    )
    health = check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_S)
    told = {
        path: http.get(path).status_code == 503
        for path in ("/readyz", "/v2/health/ready", "/v2/models/gait/ready")
    } | {
        "Check": health.status != health_pb2.HealthCheckResponse.SERVING,
        "ModelReady": not ask(messages.ModelReadyRequest(name="gait"), timeout=PATIENCE_S).ready,
    }
    return [way for way, is_told in told.items() if is_told]


def test_nobody_who_notices_in_time_loses_a_call():
    """By HTTP, gRPC and streams, over connections that were open and over new ones."""
    port = free_port()
    options = ("--grpc-port", str(port), "--shutdown-delay-s", str(DELAY_S))
    with ExitStack() as stack:
        server = stack.enter_context(live_server(*options))
        http = stack.enter_context(httpx.Client(base_url=server.url, trust_env=False))
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{port}"))
        assert not ways_to_be_told(http, channel)
        clients = Clients(server.url, port)
        clients.start()
        stack.callback(clients.join)
        wait_until(lambda: all(clients.num_answers.values()))
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: len(ways_to_be_told(http, channel)) == 5, DELAY_S)
        before = dict(clients.num_answers)
        wait_until(lambda: all(clients.num_answers[name] > before[name] for name in before))
        clients.join()
        assert [] == clients.failures
        assert 0 == server.process.wait(PATIENCE_S)


def test_an_interrupt_does_not_wait():
    """Not even where the server waits for its balancer already: it drains, and loses no answer."""
    step = "/v1/models/gait/sessions/alice/step"
    with ExitStack() as stack:
        server = stack.enter_context(
            live_server("--shutdown-delay-s", "600", "--max-wait-us", "1000000")
        )
        callers = stack.enter_context(ThreadPoolExecutor(1))
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: httpx.get(f"{server.url}/readyz").status_code == 503)
        answer = callers.submit(httpx.post, server.url + step, json={"inputs": X.tolist()})
        wait_until(lambda: pending(server.url))
        server.process.send_signal(signal.SIGINT)
        assert 200 == answer.result(PATIENCE_S).status_code
        assert 0 == server.process.wait(PATIENCE_S)


def pending(url):
    """Tell whether a request of the model waits for its turn."""
    return 'lstm_pending_requests{model="gait"} 1.0' in httpx.get(f"{url}/metrics").text
