"""Long sequences over the REST API, whose bodies and answers are read and written in slices."""

import asyncio
import json

import numpy as np
import pytest

from service.transport.slices import LARGE_ANSWER_VALUES, LARGE_BODY_BYTES
from tests.integration.small_service import make_app, make_engines

NUM_STEPS = 6000
URL = "/v1/sessions/{}/sequence"


@pytest.fixture(scope="module")
def inputs():
    """Many time steps, `(time, 3)` float32."""
    return np.random.default_rng(0).uniform(-1, 1, (NUM_STEPS, 3)).astype(np.float32)


async def test_a_long_sequence_gives_what_its_pieces_give(client, inputs):
    """Through the slices and past them, and its retry gets its answer."""
    document = {"inputs": inputs.tolist(), "position": 0, "return_state": True}
    assert len(json.dumps(document)) > LARGE_BODY_BYTES
    assert NUM_STEPS * 2 > LARGE_ANSWER_VALUES
    whole = await client.post(URL.format("a"), json=document)
    pieces = []
    for start in range(0, NUM_STEPS, 500):
        body = {"inputs": inputs[start : start + 500].tolist(), "return_state": True}
        assert len(json.dumps(body)) < LARGE_BODY_BYTES
        pieces.append((await client.post(URL.format("b"), json=body)).json())
    outputs = [row for piece in pieces for row in piece["outputs"]]
    np.testing.assert_allclose(whole.json()["outputs"], outputs, rtol=1e-5, atol=1e-6)
    assert whole.json()["position"] == pieces[-1]["position"] == NUM_STEPS
    np.testing.assert_allclose(whole.json()["states"], pieces[-1]["states"], rtol=1e-5, atol=1e-6)
    again = await client.post(URL.format("a"), json=document)
    assert whole.json() | {"replayed": True} == again.json()


async def test_what_is_wrong_at_the_end_of_a_long_body_is_told_there(client, inputs):
    """With its place in the whole, and nothing is applied."""
    rows = [*inputs.tolist(), [1, 2, "x"]]
    answer = await client.post(URL.format("a"), json={"inputs": rows})
    assert 422 == answer.status_code
    assert f"inputs.{NUM_STEPS}.2: expected a number" in answer.json()["detail"]
    assert 404 == (await client.get("/v1/sessions/a")).status_code


async def test_long_sequences_at_once_do_not_mix(client, inputs):
    """Their slices take turns."""
    bodies = [{"inputs": (inputs * scale).tolist()} for scale in (1, 0.5, 0.25)]
    alone = [(await client.post(URL.format(f"x{i}"), json=b)).json() for i, b in enumerate(bodies)]
    together = await asyncio.gather(
        *(client.post(URL.format(f"y{i}"), json=body) for i, body in enumerate(bodies))
    )
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one["outputs"], other.json()["outputs"], rtol=1e-5, atol=1e-6)


async def test_a_caller_who_leaves_a_long_sequence_ends_it_wherever_it_is(inputs, serving):
    """While its body is read, and while it is in the engine: nothing is applied."""
    engines = make_engines()
    engine = engines["net"]
    async with serving(make_app(engines)) as client:
        body = json.dumps({"inputs": inputs.tolist()}).encode()
        for wait_until in (lambda: True, lambda: engine.num_pending):
            task = asyncio.create_task(client.post(URL.format("a"), content=body))
            await asyncio.sleep(0)
            while not wait_until():
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            while engine.num_pending:
                await asyncio.sleep(0)
            assert 404 == (await client.get("/v1/sessions/a")).status_code
