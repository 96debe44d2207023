"""kill -9 at each point of a step's way: the session is before the step or after it, never between.

And its client can tell which, and goes on.
"""

import asyncio
import json
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.stores.redis import RedisStore
from tests.contract.redis_server import redis_server
from tests.integration.live_server import LiveServer, live_server

CRASHING = str(Path(__file__).with_name("crash_service.py"))
STEP = "/v1/models/vowels/sessions/alice/step"
NUM_STEPS, CRASH_AT = 6, 3

BEFORE, AFTER = {CRASH_AT}, {CRASH_AT + 1}
OUTCOMES = {
    "received": BEFORE,
    "computed": BEFORE,
    "committing": BEFORE | AFTER,
    "committed": AFTER,
    "answered": AFTER,
}
"""Where the session may be when the process has died at each point of step `CRASH_AT`."""


@pytest.fixture(params=["embedded", "redis"])
def store_options(request, tmp_path):
    """Options that name a durable store."""
    if request.param == "embedded":
        yield ("--store", "embedded", "--data-dir", str(tmp_path / "data"))
        return
    with redis_server(tmp_path) as redis:
        asyncio.run(initialise(redis.url))
        yield ("--store", redis.url)


async def initialise(url):
    """Set a Redis up for sessions."""
    store = RedisStore(url)
    await store.initialise()
    await store.close()


@pytest.mark.parametrize("point", OUTCOMES)
def test_a_step_is_applied_once_wherever_the_process_dies(point, store_options):
    """After the restart the session is on one side, and the retry gives the step once."""
    values = np.random.default_rng(0).uniform(-1, 1, (NUM_STEPS, 12)).tolist()
    outputs = []

    def step(server, position):
        body = {"inputs": values[position], "position": position}
        answer = httpx.post(server.url + STEP, json=body, timeout=30)
        assert 200 == answer.status_code, answer.text
        return answer.json()

    doomed = LiveServer(*store_options, program=(CRASHING, point, str(CRASH_AT + 1)))
    try:
        outputs += [step(doomed, t)["outputs"] for t in range(CRASH_AT)]
        try:
            answered = step(doomed, CRASH_AT)["outputs"]
        except httpx.TransportError:
            answered = None
        doomed.process.wait(timeout=30)
    finally:
        doomed.process.kill()
    assert point == "answered" or answered is None

    with live_server(*store_options) as server:
        session = httpx.get(server.url + STEP.removesuffix("/step")).json()
        assert session["position"] in OUTCOMES[point]
        retried = step(server, CRASH_AT)
        assert (session["position"] > CRASH_AT) == retried["replayed"]
        assert answered in (None, retried["outputs"])
        outputs.append(retried["outputs"])
        outputs += [step(server, t)["outputs"] for t in range(CRASH_AT + 1, NUM_STEPS)]
        whole = httpx.post(
            server.url + STEP.replace("alice/step", "bob/sequence"), json={"inputs": values}
        )

    np.testing.assert_allclose(json.loads(whole.text)["outputs"], outputs, rtol=1e-6, atol=1e-6)
