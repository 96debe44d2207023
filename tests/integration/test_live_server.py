"""The process that users start: what it loads, what neighbours do to each other, and its end."""

import asyncio
import json
import random
import re
import signal
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.integration.live_server import live_server
from tests.unit.model_directory import write

NUM_CLIENTS, NUM_STEPS = 64, 12


@pytest.fixture(scope="module")
def server():
    """A server of the bundled models."""
    with live_server() as server:
        yield server


def test_a_broken_default_model_leaves_its_sessions_to_no_other(tmp_path):
    """The first of a repository is the default model, also where it cannot be served."""
    write(tmp_path, 1, name="a", config="labels: [one]")
    write(tmp_path, 1, name="b")
    with live_server("--model-repository", str(tmp_path)) as server:
        for model, status in (("", 404), ("models/a/", 404), ("models/b/", 200)):
            body = {"inputs": [0.0] * 12}
            answer = httpx.post(f"{server.url}/v1/{model}sessions/x/step", json=body)
            assert status == answer.status_code


def test_a_live_process_holds_no_tensorflow_and_stays_small(server):
    """No library of TensorFlow is mapped into the process, which fits in 150 MB."""
    process = Path(f"/proc/{server.process.pid}")

    maps = (process / "maps").read_text().lower()
    status = (process / "status").read_text()

    assert "numpy" in maps
    assert "tensorflow" not in maps
    resident_kb = int(status.split("VmRSS:")[1].split()[0])
    assert resident_kb < 150_000


def test_the_bundled_models_are_served(server):
    """Both examples are there, and the first is the default."""
    listed = httpx.get(f"{server.url}/v1/models").json()

    assert ["vowels", "gait"] == [model["name"] for model in listed["models"]]
    short = httpx.post(f"{server.url}/v1/sessions/a/step", json={"inputs": [0.1] * 12})
    assert 9 == len(short.json()["outputs"])


HANDSHAKE = (
    b"GET /v1/sessions/deaf/stream HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\n"
    b"connection: upgrade\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
BAD_BODIES = [
    b'{"inputs": [1, 2]}',
    b'{"inputs": ["1.5"]}',
    b'{"inputs": [' + b"NaN," * 11 + b"NaN]}",
    b'{"inputs": [' + b"1e999," * 11 + b"1]}",
    b'{"inputs": [' + b"1e39," * 11 + b"1]}",
    b"{",
    b"\xff\xfe",
]


async def pester(url, stop):
    """Send steps of the wrong shape and without finite numbers, as fast as can be."""
    statuses = set()
    async with httpx.AsyncClient() as http:
        for count in range(1_000_000):
            if stop.is_set():
                break
            path = f"{url}/v1/models/vowels/sessions/client-{count % NUM_CLIENTS}/step"
            statuses.add((await http.post(path, content=BAD_BODIES[count % 7])).status_code)
    return statuses


async def test_a_hostile_neighbour_disturbs_nobody(server):
    """64 interleaved clients get what each gets alone while another sends only nonsense."""
    values = np.random.default_rng(0).normal(0, 1, (NUM_CLIENTS, NUM_STEPS, 12)).round(4)
    stop = threading.Event()

    def pester_from_a_thread():
        return asyncio.run(pester(server.url, stop))

    async def client(http, index):
        outputs = []
        for t in range(NUM_STEPS):
            await asyncio.sleep(random.random() / 100)
            body = {"inputs": values[index, t].tolist(), "position": t}
            path = f"{server.url}/v1/models/vowels/sessions/client-{index}/step"
            answer = await http.post(path, json=body)
            assert 200 == answer.status_code, answer.text
            outputs.append(answer.json()["outputs"])
        return outputs

    pestering = asyncio.create_task(asyncio.to_thread(pester_from_a_thread))
    limits = httpx.Limits(max_connections=NUM_CLIENTS)
    async with httpx.AsyncClient(timeout=60, limits=limits) as http:
        together = await asyncio.gather(*(client(http, index) for index in range(NUM_CLIENTS)))
        stop.set()
        assert {422} == await pestering
        for index in range(NUM_CLIENTS):
            path = f"{server.url}/v1/models/vowels/sessions/alone-{index}/sequence"
            alone = await http.post(path, json={"inputs": values[index].tolist()})
            np.testing.assert_allclose(
                together[index], alone.json()["outputs"], rtol=1e-6, atol=1e-6
            )


def begin_sequence(server, pool, num_steps):
    """Return the answer to come of a sequence that is under way at this moment."""
    inputs = np.zeros((num_steps, 12)).tolist()
    pending = re.compile(r'^lstm_pending_requests\{model="vowels"\} 1\.0$', re.MULTILINE)
    with httpx.Client() as watcher:
        # A fast kernel may be done before anybody looks: then another session's.
        for client_id in range(50):
            url = f"{server.url}/v1/sessions/{client_id}/sequence"
            answer = pool.submit(httpx.post, url, json={"inputs": inputs}, timeout=60)
            while not answer.done():
                if pending.search(watcher.get(f"{server.url}/metrics").text):
                    return answer
    raise AssertionError("no sequence was seen under way")


def test_sigterm_ends_what_is_in_flight():
    """A long sequence that was under way is answered before the process ends."""
    with live_server() as server, ThreadPoolExecutor(1) as pool:
        answer = begin_sequence(server, pool, 15_000)

        assert 0 == server.end(signal.SIGTERM)
        answered = answer.result(timeout=60)

    assert 200 == answered.status_code
    assert 15_000 == answered.json()["position"]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_an_end_closes_streams_with_1012(how):
    """A stream is told that the replica goes, and the process ends with status 0."""
    with live_server() as server:
        url = server.url.replace("http", "ws") + "/v1/sessions/a/stream"
        with connect(url) as stream:
            stream.recv()
            stream.send(np.zeros(12, "<f4").tobytes())
            assert 4 * 9 == len(stream.recv())

            server.process.send_signal(how)

            assert "draining" == json.loads(stream.recv())["code"]
            with pytest.raises(ConnectionClosed) as closed:
                stream.recv()
            assert closed.value.rcvd is not None
            assert 1012 == closed.value.rcvd.code
        assert 0 == server.process.wait(timeout=60)


def send_for_ever(connection, frame):
    """Send a frame again and again."""
    while True:
        connection.sendall(frame)


def test_a_client_who_does_not_read_does_not_keep_the_process():
    """The end waits for such a stream no longer than it was told to."""
    with live_server("--drain-timeout-s", "1") as server:
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        with socket.create_connection(address) as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.sendall(HANDSHAKE)
            deaf.settimeout(0.5)
            frame = b"\x82\xb0" + bytes(4) + np.zeros(12, "<f4").tobytes()
            with pytest.raises(TimeoutError):  # it is not read from any more
                send_for_ever(deaf, frame)

            assert 0 == server.end()


def test_a_taken_port_is_told_with_status_1(server):
    """A server that cannot listen says so and ends."""
    port = server.url.rpartition(":")[2]
    command = [sys.executable, "-m", "service", "serve", "--port", port]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert 1 == ended.returncode
    assert "address already in use" in ended.stderr
