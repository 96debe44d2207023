"""The process that users start: what it loads, what neighbours do to each other, and its end."""

import asyncio
import contextlib
import json
import random
import signal
import threading
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.integration.live_server import live_server

NUM_CLIENTS, NUM_STEPS = 64, 12


@pytest.fixture(scope="module")
def server():
    """A server of the bundled models."""
    with live_server() as server:
        yield server


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


def test_sigterm_ends_what_is_in_flight():
    """A long sequence that was under way is answered before the process ends."""
    with live_server() as server:
        answers = []

        def ask():
            inputs = np.zeros((15_000, 12)).tolist()
            with contextlib.suppress(httpx.TransportError):
                path = f"{server.url}/v1/sessions/a/sequence"
                answers.append(httpx.post(path, json={"inputs": inputs}, timeout=60))

        thread = threading.Thread(target=ask)
        thread.start()
        while "lstm_pending_requests" in (metrics := httpx.get(f"{server.url}/metrics").text):
            if 'lstm_pending_requests{model="vowels"} 1.0' in metrics:
                break

        server.end(signal.SIGTERM)
        thread.join()

    assert [200] == [answer.status_code for answer in answers]
    assert 15_000 == json.loads(answers[0].content)["position"]
