"""HAProxy with the shipped configuration in front of real replicas.

They keep their sessions in memory here, so a session that is found where it was left proves that
its requests went to one replica.
"""

import json
import signal
import ssl
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from websockets.sync.client import connect

from service.model_files import bundled_models
from service.transport.grpc import messages
from tests.contract.redis_server import certificate
from tests.integration.deployment import PATHS, REPLICAS, balancer, needs, wait_until
from tests.integration.live_server import free_port, live_server
from tests.integration.triton_visit import NUM_SEQUENCES, NUM_STEPS, TOLERANCE, visit

pytestmark = needs("haproxy", "haproxy")

X = [0.1] * 12
"""A step of the model `vowels`, which is the default model."""


@contextmanager
def cluster(directory, *options, grpc_ports=None):
    """Three replicas behind a balancer, with options of `serve`, and gRPC where it has ports."""
    with ExitStack() as stack:
        own = [[f"--grpc-port={port}"] for port in grpc_ports] if grpc_ports else [[], [], []]
        replicas = [stack.enter_context(live_server(*options, *each)) for each in own]
        front = balancer(directory, ports_of(replicas), grpc_ports=grpc_ports)
        yield stack.enter_context(front), replicas


def ports_of(replicas):
    """Return where they serve."""
    return [httpx.URL(replica.url).port for replica in replicas]


@pytest.fixture(scope="module")
def grpc_ports():
    """Where the replicas of `running` serve gRPC."""
    return [free_port() for _ in REPLICAS]


@pytest.fixture(scope="module")
def running(tmp_path_factory, bench_model, grpc_ports):
    """A cluster whose replicas live as long as the tests; `vowels` is its default model."""
    models = (bundled_models() | {"bench": bench_model}).items()
    options = [f"--model={name}={path}" for name, path in models]
    with cluster(tmp_path_factory.mktemp("cluster"), *options, grpc_ports=grpc_ports) as parts:
        yield parts


def sessions_of(replica, model):
    """Return the positions of a replica's own sessions by client id."""
    listed = httpx.get(f"{replica.url}/v1/models/{model}/sessions?limit=1000").json()
    return {session["client_id"]: session["position"] for session in listed["sessions"]}


def test_a_session_stays_on_one_replica(running):
    """Every step of a session reaches the replica of its first, and each replica has its share."""
    front, replicas = running
    ids = [f"client-{number}" for number in range(60)]

    with httpx.Client(base_url=front.url) as http:
        for position in range(3):
            for client_id in ids:
                body = {"inputs": X, "position": position}
                answer = http.post(f"/v1/models/vowels/sessions/{client_id}/step", json=body)
                assert 200 == answer.status_code, answer.text

    found = [sessions_of(replica, "vowels") for replica in replicas]
    positions = {client_id: [of[client_id] for of in found if client_id in of] for client_id in ids}
    assert {client_id: [3] for client_id in ids} == positions
    assert all(len(of) >= 6 for of in found)


def test_the_model_is_part_of_the_key(running):
    """The sessions that one client has with two models are spread like any others."""
    front, _ = running
    homes = set()

    with httpx.Client(base_url=front.url) as http:
        for number in range(20):
            replicas = []
            for model, size in (("vowels", 12), ("gait", 9)):
                path = f"/v1/models/{model}/sessions/both-{number}/step"
                answer = http.post(path, json={"inputs": [0.1] * size}).raise_for_status()
                replicas.append(answer.headers["x-replica"])
            homes.add(tuple(replicas))

    assert {False, True} == {vowels == gait for vowels, gait in homes}


def test_every_way_to_write_an_id_leads_to_one_replica(running):
    """Percent-encoded or not, by the default model's name or without it."""
    front, _ = running

    with httpx.Client() as http:
        for number in range(10):
            answers = []
            for position, path in enumerate(PATHS):
                # As it stands: a string would be written anew.
                target = httpx.URL(front.url).copy_with(raw_path=path.format(number).encode())
                answers.append(http.post(target, json={"inputs": X, "position": position}))
            assert [200] * len(PATHS) == [answer.status_code for answer in answers]
            assert 1 == len({answer.headers["x-replica"] for answer in answers})
            assert len(PATHS) == answers[-1].json()["position"]


def test_what_has_no_session_goes_anywhere(running):
    """Lists, predictions and ids that are none are answered, by more than one replica."""
    front, _ = running
    seen = set()

    with httpx.Client(base_url=front.url) as http:
        for _ in range(40):
            answers = [
                http.get("/v1/models"),
                http.get("/v1/sessions"),
                http.post("/v1/predict", json={"inputs": [[X]]}),
                http.post("/v1/models/vowels/steps", json={"client_ids": ["z"], "inputs": [X]}),
            ]
            assert [200] * 4 == [answer.status_code for answer in answers]
            seen |= {answer.headers["x-replica"] for answer in answers}
        bad = http.post("/v1/sessions/%zz/step", json={"inputs": X})

    assert len(seen) > 1
    assert (422, "invalid_request") == (bad.status_code, bad.json()["code"])


def test_a_sequence_stays_on_one_replica(running):
    """Of the Open Inference Protocol, whose ids are in the body; and with its steps over `/v1`."""
    front, _ = running
    homes = {}

    with httpx.Client(base_url=front.url) as http:
        [name] = [part["name"] for part in http.get("/v2/models/vowels").json()["inputs"]]
        tensor = {"name": name, "datatype": "FP32", "shape": [1, 12], "data": X}
        for sequence_id in [*range(1, 13), "alice", "a@b:c"]:
            client_id = f"int:{sequence_id}" if isinstance(sequence_id, int) else sequence_id
            replicas = set()
            for number in range(4):
                parameters = {"sequence_id": sequence_id, "sequence_start": number == 0}
                path = f"/v2/models/vowels{'/versions/1' * (number % 2)}/infer"
                answer = http.post(path, json={"inputs": [tensor], "parameters": parameters})
                assert 200 == answer.status_code, answer.text
                replicas.add(answer.headers["x-replica"])
            answer = http.post(f"/v1/sessions/{client_id}/step", json={"inputs": X, "position": 4})
            assert 5 == answer.json()["position"]
            [homes[sequence_id]] = {*replicas, answer.headers["x-replica"]}
        apart = {
            http.post(
                "/v2/models/vowels/infer",
                json={"inputs": [tensor], "parameters": {"sequence_id": none}},
            ).headers["x-replica"]
            for none in [0, ""] * 15
        }

    assert set(REPLICAS) == set(homes.values())
    assert 1 < len(apart)


@pytest.mark.parametrize("path", ["vowels/load", "vowels/unload", "vowels/%75nload"])
def test_models_are_not_changed_through_the_balancer(running, path):
    """One replica's would be, and whose is chance."""
    front, _ = running

    answer = httpx.post(f"{front.url}/v2/repository/models/{path}")

    assert 403 == answer.status_code
    assert "ask each replica" in answer.json()["error"]


@pytest.mark.parametrize("call", ["RepositoryModelLoad", "RepositoryModelUnload"])
def test_models_are_not_changed_through_grpc(running, call):
    """As over HTTP; what is only read passes."""
    front, _ = running

    with grpc.insecure_channel(front.grpc_address) as channel:
        with pytest.raises(grpc.RpcError) as refused:
            ask(channel, call)
        index = messages.RepositoryIndexResponse.FromString(ask(channel, "RepositoryIndex"))

    assert "PERMISSION_DENIED" == refused.value.code().name
    assert "ask each replica" in str(refused.value.details())
    assert {"vowels", "gait", "bench"} == {model.name for model in index.models}


def test_metrics_are_for_operators(running):
    """The balancer does not hand on the metrics of whichever replica it would ask."""
    front, _ = running

    answer = httpx.get(f"{front.url}/metrics")

    assert (404, "application/problem+json") == (
        answer.status_code,
        answer.headers["content-type"],
    )
    assert "not_found" == answer.json()["code"]


def test_a_stream_goes_to_its_session(running):
    """A WebSocket passes, both ways and binary, and reaches the replica of its session's steps."""
    front, _ = running
    step = f"{front.url}/v1/models/vowels/sessions/streaming/step"
    httpx.post(step, json={"inputs": X, "position": 0}).raise_for_status()

    with connect(f"ws{front.url[4:]}/v1/sessions/streaming/stream") as stream:
        hello = json.loads(stream.recv())
        outputs = []
        for _ in range(10):
            stream.send(np.full(12, 0.1, "<f4").tobytes())
            outputs.append(np.frombuffer(stream.recv(decode=False), "<f4"))

    assert 1 == hello["position"]
    assert {9} == {len(output) for output in outputs}
    after = httpx.post(step, json={"inputs": X, "position": 11})
    assert 12 == after.json()["position"]


def test_grpc_passes(running, bench_outputs):
    """An unmodified tritonclient sees what it sees of one server; its sessions are together."""
    front, replicas = running

    told = visit("triton_grpc_script", front.grpc_address)

    for kind in ("integer", "string", "gzip", "deflate"):
        np.testing.assert_allclose(told[kind], bench_outputs[0], **TOLERANCE)
    answers = [outputs for name, outputs in told["streamed"] if name is not None]
    in_turn = bench_outputs.transpose(1, 0, 2).reshape(NUM_SEQUENCES * NUM_STEPS, -1)
    np.testing.assert_allclose(answers, in_turn, **TOLERANCE)
    np.testing.assert_allclose(told["interleaved"]["unary"], bench_outputs, **TOLERANCE)
    # Those that the program leaves open.
    left = {"int:70": 1, "int:900": NUM_STEPS}
    assert [{}, {}, left] == sorted((sessions_of(each, "bench") for each in replicas), key=len)


def ask(channel, method):
    """Call the inference service with an empty message; return the answer's bytes."""
    call: Any = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
    return call(b"", timeout=10)


def test_tls_at_the_balancer(running, grpc_ports, tmp_path):
    """Requests, streams and gRPC, for who believes in the certificate; none without TLS."""
    cert, key = certificate(tmp_path)
    pem = tmp_path / "tls.pem"
    pem.write_text(Path(cert).read_text() + Path(key).read_text())
    trust = ssl.create_default_context(cafile=cert)
    path = "/v1/sessions/tls"

    ports = ports_of(running[1])
    with balancer(tmp_path, ports, grpc_ports=grpc_ports, tls_pem=pem) as front:
        answer = httpx.post(f"{front.url}{path}/step", json={"inputs": X}, verify=trust)
        with connect(f"wss{front.url[5:]}{path}/stream", ssl=trust) as stream:
            hello = json.loads(stream.recv())
        credentials = grpc.ssl_channel_credentials(Path(cert).read_bytes())
        with grpc.secure_channel(front.grpc_address, credentials) as channel:
            told = messages.ServerLiveResponse.FromString(ask(channel, "ServerLive"))
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http{front.url[5:]}{path}")
        with (
            grpc.insecure_channel(front.grpc_address) as channel,
            pytest.raises(grpc.RpcError, match="UNAVAILABLE"),
        ):
            ask(channel, "ServerLive")

    assert (200, 1, 1) == (answer.status_code, answer.json()["position"], hello["position"])
    assert told.live


def test_a_killed_replica_is_replaced_by_another(tmp_path):
    """Its clients are answered elsewhere, at once; the others keep their replica and state."""
    with cluster(tmp_path) as (front, replicas), httpx.Client(base_url=front.url) as http:
        ids = [f"client-{number}" for number in range(30)]
        for client_id in ids:
            http.post(f"/v1/sessions/{client_id}/step", json={"inputs": X}).raise_for_status()
        lost = set(sessions_of(replicas[0], "vowels"))

        replicas[0].end(signal.SIGKILL)
        for client_id in ids:
            # What the replica knew is gone with it: in memory, every session of its begins anew.
            body = {"inputs": X, "position": 0 if client_id in lost else 1}
            answer = http.post(f"/v1/sessions/{client_id}/step", json=body)
            assert 200 == answer.status_code, answer.text
            assert "lstm-1" != answer.headers["x-replica"]
        wait_until(lambda: front.count_up() == 2)

        assert lost
        assert {200} == {http.get(f"/v1/sessions/{client_id}").status_code for client_id in ids}


def test_a_drain_loses_nothing(tmp_path):
    """While a replica ends, clients are answered by the others, and see nothing of it."""
    answers, stop = [], threading.Event()

    def step(url, name):
        number = 0
        with httpx.Client(base_url=url) as http:
            while not stop.is_set():
                path = f"/v1/sessions/{name}-{number}/step"
                try:
                    answer = http.post(path, json={"inputs": X, "position": 0})
                except httpx.TransportError:
                    continue
                answers.append((answer.status_code, answer.headers.get("x-replica")))
                number += 1

    with cluster(tmp_path) as (front, replicas):
        threads = [threading.Thread(target=step, args=(front.url, f"c{n}")) for n in range(6)]
        for thread in threads:
            thread.start()
        wait_until(lambda: len(answers) > 300)
        status = replicas[1].end(signal.SIGTERM)
        end = len(answers)
        wait_until(lambda: len(answers) > end + 300)
        stop.set()
        for thread in threads:
            thread.join()

    assert 0 == status
    assert {200} == {status for status, _ in answers}
    assert set(REPLICAS) == {replica for _, replica in answers[:300]}
    assert {"lstm-1", "lstm-3"} == {replica for _, replica in answers[end + 50 :]}
