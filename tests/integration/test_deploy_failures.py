"""HAProxy with the shipped configuration in front of stand-ins: what it repeats, and what never.

The HAProxy ingress of Kubernetes is tried here too.
"""

import socket
from contextlib import contextmanager

import httpx
import pytest
import yaml

from tests.integration.deployment import (
    DEPLOY,
    PATHS,
    REPLICAS,
    balancer,
    check,
    find_tool,
    needs,
    run_haproxy,
    wait_until,
)
from tests.integration.fake_replica import FakeReplica
from tests.integration.live_server import free_port

pytestmark = needs("haproxy", "haproxy")

X = [0.1] * 12


@contextmanager
def fakes(directory, status):
    """Three stand-ins behind a balancer; see `FakeReplica` for the status."""
    replicas = [FakeReplica(status) for _ in REPLICAS]
    with balancer(directory, [replica.port for replica in replicas]) as front:
        yield front, replicas
    for replica in replicas:
        replica.end()


@pytest.fixture(scope="module")
def hanging_up(tmp_path_factory):
    """Replicas that read requests and hang up, for all the tests that only count."""
    with fakes(tmp_path_factory.mktemp("failing"), None) as parts:
        yield parts


@pytest.fixture
def failing(hanging_up):
    """Replicas that read requests and hang up, and have seen none."""
    for replica in hanging_up[1]:
        replica.paths.clear()
    return hanging_up


HARMLESS = [
    ("GET", "/v1/models", None),
    ("GET", "/v1/sessions/a/state", None),
    ("POST", "/v1/predict", {"inputs": [[X]]}),
    ("POST", "/v1/models/vowels/predict", {"inputs": [[X]]}),
    ("POST", "/v1/sessions/a/forecast", {"steps": 3}),
    ("POST", "/v1/sessions/a/step", {"inputs": X, "position": 0}),
    ("POST", "/v1/models/vowels/sessions/a/step", {"position": 17, "inputs": X}),
    ("POST", "/v1/models/vowels/sessions/a/sequence", {"inputs": [X] * 9, "position": 4}),
]
HARMFUL = [
    ("POST", "/v1/sessions/a/step", {"inputs": X}),
    ("POST", "/v1/sessions/a/step", {"inputs": X, "position": None}),
    ("POST", "/v1/sessions/a/step", {"inputs": X, "epoch": 5}),
    ("POST", "/v1/sessions/a/step", {"inputs": X, "nested": {"position": 0}}),
    ("POST", "/v1/sessions/a/step", {"inputs": X, "text": '"position": 0'}),
    ("POST", "/v1/sessions/a/sequence", {"inputs": [X]}),
    ("POST", "/v1/sessions/a/sequence", {"inputs": [X] * 900, "position": 0}),
    ("POST", "/v1/models/vowels/steps", {"client_ids": ["a"], "inputs": [X], "positions": [0]}),
    ("POST", "/v1/sessions/a/reset_states", {"position": 0}),
    ("POST", "/v1/sessions/a/fork", {"client_id": "b"}),
    ("PUT", "/v1/sessions/a/state", {"position": 0, "states": []}),
    ("DELETE", "/v1/sessions/a", None),
]


@pytest.mark.parametrize(("method", "path", "body"), HARMLESS)
def test_what_may_be_applied_twice_is_sent_again(failing, method, path, body):
    """A replica that ends before it answers is replaced by another, which gets the request too."""
    front, replicas = failing

    answer = httpx.request(method, front.url + path, json=body)

    assert (502, "bad_gateway") == (answer.status_code, answer.json()["code"])
    assert 1 < sum(len(replica.paths) for replica in replicas)
    assert 1 < sum(bool(replica.paths) for replica in replicas)


@pytest.mark.parametrize(("method", "path", "body"), HARMFUL)
def test_what_may_not_be_applied_twice_is_sent_once(failing, method, path, body):
    """Whether it was applied is for the client to find out."""
    front, replicas = failing

    answer = httpx.request(method, front.url + path, json=body)

    assert (502, "application/problem+json") == (
        answer.status_code,
        answer.headers["content-type"],
    )
    assert 1 == sum(len(replica.paths) for replica in replicas)


def test_a_503_of_a_replica_is_an_answer(tmp_path):
    """Its store may have done what was asked before it fell silent, so nobody is asked again."""
    with fakes(tmp_path, 503) as (front, replicas):
        path = f"{front.url}/v1/sessions/a/step"
        answer = httpx.post(path, json={"inputs": X, "position": 0})

    assert 503 == answer.status_code
    assert 1 == sum(len(replica.paths) for replica in replicas)


def test_a_refused_connection_is_taken_elsewhere(tmp_path):
    """Whatever was asked: a replica that could not be reached has applied nothing."""
    with fakes(tmp_path, 200) as (front, replicas):
        replicas[0].end()
        paths = [f"/v1/sessions/{number}/step" for number in range(30)]
        with httpx.Client(base_url=front.url) as http:
            answers = [http.post(path, json={"inputs": X}) for path in paths]

    assert {200} == {answer.status_code for answer in answers}
    assert sorted(paths) == sorted(replicas[1].paths + replicas[2].paths)


def test_the_balancer_says_when_nobody_is_left(tmp_path):
    """Without a replica the answer has the form of the service's own errors."""
    with fakes(tmp_path, 200) as (front, replicas):
        for replica in replicas:
            replica.end()
        answer = httpx.post(f"{front.url}/v1/sessions/a/step", json={"inputs": X})

    assert (503, "no_replica") == (answer.status_code, answer.json()["code"])
    assert "1" == answer.headers["retry-after"]


def test_a_slow_sender_never_reaches_a_replica(failing):
    """A request waits at the balancer until all of it is there."""
    front, replicas = failing
    head = b"POST /v1/sessions/a/step HTTP/1.1\r\nhost: x\r\ncontent-length: 20\r\n\r\n"

    with socket.create_connection(("127.0.0.1", httpx.URL(front.url).port)) as slow:
        slow.sendall(head + b'{"inputs": ')
        httpx.get(f"{front.url}/v1/models")
        reached = [path for replica in replicas for path in replica.paths]

    assert {"/v1/models"} == set(reached)


SEQUENCES = ("alice", "a@b:c", 2**63)
"""Ids of sequences besides small numbers."""

INGRESS = """
global
    maxconn 100
defaults
    mode http
    timeout connect 1s
    timeout client 10s
    timeout server 10s
frontend http
    bind 127.0.0.1:{port}
    default_backend service
backend service
    balance roundrobin
{snippet}
{servers}
"""


def test_the_ingress_hashes_like_the_balancer(tmp_path):
    """The snippet for the HAProxy ingress keeps a session's replica, and takes turns elsewhere."""
    ingress = yaml.safe_load((DEPLOY / "kubernetes/ingress-haproxy/ingress.yaml").read_text())
    snippet = ingress["metadata"]["annotations"]["haproxy.org/backend-config-snippet"]
    replicas = [FakeReplica(200) for _ in REPLICAS]
    servers = [f"    server s{i} 127.0.0.1:{r.port}" for i, r in enumerate(replicas)]
    port = free_port()
    config = tmp_path / "ingress.cfg"
    config.write_text(INGRESS.format(port=port, snippet=snippet, servers="\n".join(servers)))

    process = run_haproxy(config)
    try:
        base = httpx.URL(f"http://127.0.0.1:{port}")
        wait_until(lambda: httpx.get(base.join("/readyz")).status_code == 200)
        with httpx.Client() as http:
            for number in range(12):
                for path in PATHS:
                    http.post(base.copy_with(raw_path=path.format(number).encode()))
            counts = [len(replica.paths) for replica in replicas]
            for sequence_id in [*range(1, 13), *SEQUENCES]:
                body = {"inputs": [], "parameters": {"sequence_id": sequence_id}}
                for _ in PATHS:
                    http.post(base.join("/v2/models/vowels/infer"), json=body)
            sequences = [replica.paths.count("/v2/models/vowels/infer") for replica in replicas]
            for _ in range(30):
                http.get(base.join("/v1/models"))
        others = [replica.paths.count("/v1/models") for replica in replicas]
    finally:
        process.kill()
        process.wait()
        for replica in replicas:
            replica.end()

    assert 12 * len(PATHS) == sum(counts)
    assert [0] * 3 == [count % len(PATHS) for count in counts]
    assert 1 < sum(count > 0 for count in counts)
    assert (12 + len(SEQUENCES)) * len(PATHS) == sum(sequences)
    assert [0] * 3 == [count % len(PATHS) for count in sequences]
    assert 1 < sum(count > 0 for count in sequences)
    assert 1 < sum(count > 0 for count in others), others


def test_the_ingress_of_grpc_is_accepted(tmp_path):
    """What its snippet says is said as HAProxy wants it."""
    ingress = yaml.safe_load((DEPLOY / "kubernetes/ingress-haproxy/grpc-ingress.yaml").read_text())
    snippet = ingress["metadata"]["annotations"]["haproxy.org/backend-config-snippet"]
    config = tmp_path / "ingress.cfg"
    server = "    server s 127.0.0.1:1 proto h2"
    config.write_text(INGRESS.format(port=free_port(), snippet=snippet, servers=server))

    check(find_tool("haproxy"), "-c", "-q", "-f", str(config))
