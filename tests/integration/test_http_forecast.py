"""Forecasts over the REST API: what they give, what they refuse, and that the session stays."""

import asyncio
import json

import numpy as np
import pytest

from lstm_core.network import Network
from lstm_core.pointwise import Dense
from service.domain import SessionKey
from service.limits import EngineLimits
from service.stores import codec
from service.transport import replies
from tests.contract.test_stores import STORES, Clock
from tests.integration.small_service import X, lstm, make_app, make_engine, make_engines

SEQUENCE = "/v1/sessions/alice/sequence"
FORECAST = "/v1/sessions/alice/forecast"


def square(scale=1.0, seed=0):
    """Return a network of three inputs and three outputs."""
    kernel = np.random.default_rng(3).standard_normal((5, 3)).astype(np.float32) * np.float32(scale)
    return Network("square", 3, (lstm(seed=seed), Dense(name="head", kernel=kernel, bias=None)))


@pytest.fixture
async def client(serving):
    """A client of a service of a square model, and of the others."""
    engines = {"square": make_engine("square", square())} | make_engines()
    async with serving(make_app(engines, max_sequence_steps=100)) as client:
        yield client


async def fed_by_hand(client, first, num_steps, pick):
    """Return the outputs of steps of another session in the same state, each fed by the last."""
    await client.post("/v1/sessions/bob/reset_states")
    await client.post("/v1/sessions/bob/sequence", json={"inputs": X})
    x, outputs = first, []
    for _ in range(num_steps):
        answer = await client.post("/v1/sessions/bob/step", json={"inputs": x})
        outputs.append(answer.json()["outputs"])
        x = pick(outputs[-1], x)
    return outputs


async def test_a_forecast_feeds_outputs_back(client):
    """From the session's last output on, or from an input that is given."""
    last = (await client.post(SEQUENCE, json={"inputs": X})).json()
    answer = await client.post(FORECAST, json={"steps": 5})
    replies.ForecastReply.model_validate_json(answer.content)
    assert (3, last["epoch"]) == (answer.json()["position"], answer.json()["epoch"])
    hand = await fed_by_hand(client, last["outputs"][-1], 5, lambda outputs, _: outputs)
    np.testing.assert_allclose(answer.json()["outputs"], hand, atol=1e-6)

    given = await client.post("/v1/models/square" + FORECAST[3:], json={"steps": 4, "inputs": X[1]})
    hand = await fed_by_hand(client, X[1], 4, lambda outputs, _: outputs)
    np.testing.assert_allclose(given.json()["outputs"], hand, atol=1e-6)


async def test_a_mapping_says_which_output_feeds_which_input(client):
    """An input that nothing feeds keeps its value."""
    await client.post(SEQUENCE, json={"inputs": X})
    body = {"steps": 4, "inputs": X[0], "feedback": [2, None, 0]}
    answer = await client.post(FORECAST, json=body)
    hand = await fed_by_hand(client, X[0], 4, lambda y, x: [y[2], x[1], y[0]])
    np.testing.assert_allclose(answer.json()["outputs"], hand, atol=1e-6)


REFUSED = {
    "no steps": ({"steps": 0}, "steps: expected an integer from 1, got 0"),
    "too many": ({"steps": 101}, "steps: expected at most 100 time steps, got 101"),
    "no integer": ({"steps": 1.5}, "steps: expected an integer, got 1.5"),
    "nothing": ({}, "steps: missing"),
    "short": ({"steps": 1, "inputs": [1, 2]}, "inputs: expected 3 numbers, got 2"),
    "held": (
        {"steps": 1, "feedback": [0, None, 1]},
        "inputs: missing: feedback.1 is null, so input 1 needs one",
    ),
    "mapping": (
        {"steps": 1, "feedback": [0, 1, 3]},
        "feedback.2: expected an output's index, 0 to 2, or null, got 3",
    ),
    "negative": ({"steps": 1, "feedback": [0, -1, 1]}, "expected an integer from 0, got -1"),
    "lengths": ({"steps": 1, "feedback": [0]}, "feedback: expected 3 values, got 1"),
    "field": ({"steps": 1, "mask": []}, "mask: unknown field"),
}


@pytest.mark.parametrize(("body", "message"), REFUSED.values(), ids=REFUSED)
async def test_what_is_no_forecast_is_refused(client, body, message):
    """With what was expected, and where."""
    await client.post(SEQUENCE, json={"inputs": X})
    answer = await client.post(FORECAST, json=body)
    assert (422, "invalid_request") == (answer.status_code, answer.json()["code"])
    assert message in answer.json()["detail"]


@pytest.mark.parametrize(
    ("model", "code", "message"),
    [
        ("net", "invalid_request", "feedback: missing: the model has 3 inputs and 2 outputs"),
        ("words", "invalid_request", "the model takes integers below 7 and gives real numbers"),
    ],
)
async def test_a_model_whose_outputs_are_no_inputs_says_so(client, model, code, message):
    """One needs a mapping, the other has no forecast."""
    answer = await client.post(f"/v1/models/{model}/sessions/a/forecast", json={"steps": 1})
    assert (422, code) == (answer.status_code, answer.json()["code"])
    assert message in answer.json()["detail"]


async def test_a_model_that_cannot_be_stepped_has_no_forecast(client):
    """It needs the whole sequence at once."""
    body = {"steps": 1, "inputs": X[0], "feedback": [0, 1, 2]}
    answer = await client.post("/v1/models/both/sessions/a/forecast", json=body)
    assert (422, "not_streamable") == (answer.status_code, answer.json()["code"])


async def test_a_session_without_an_output_needs_an_input(client):
    """After a reset there is a state, but nothing that it gave."""
    unknown = await client.post(FORECAST, json={"steps": 1})
    assert (404, "session_unknown") == (unknown.status_code, unknown.json()["code"])
    await client.post("/v1/sessions/alice/reset_states")
    answer = await client.post(FORECAST, json={"steps": 1})
    expected = "inputs: missing: the session has had no output that could be fed back"
    assert (422, expected) == (answer.status_code, answer.json()["detail"])
    assert 200 == (await client.post(FORECAST, json={"steps": 1, "inputs": X[0]})).status_code


async def test_position_and_epoch_are_preconditions(client):
    """Elsewhere it is a conflict that tells where the session is."""
    epoch = (await client.post(SEQUENCE, json={"inputs": X})).json()["epoch"]
    for wrong in ({"position": 2}, {"epoch": epoch - 1}):
        answer = await client.post(FORECAST, json={"steps": 1} | wrong)
        assert (409, "position_conflict") == (answer.status_code, answer.json()["code"])
        assert (3, epoch) == (answer.json()["position"], answer.json()["epoch"])
    right = {"steps": 1, "position": 3, "epoch": epoch}
    assert 200 == (await client.post(FORECAST, json=right)).status_code


async def test_outputs_that_grow_beyond_float32_are_told(serving):
    """Nothing infinite is ever answered."""
    engines = {"square": make_engine("square", square(scale=1e38))}
    async with serving(make_app(engines)) as client:
        await client.post("/v1/sessions/alice/reset_states")
        body = {"steps": 50, "inputs": [1e3, 1e3, 1e3], "feedback": [0, 1, 2]}
        answer = await client.post(FORECAST, json=body)
        assert (422, "state_not_finite") == (answer.status_code, answer.json()["code"])


@pytest.mark.parametrize("name", STORES)
async def test_the_session_is_byte_for_byte_the_same(name, tmp_path, serving):
    """On every store: record, replays, time stamps, nonce, and what comes next."""
    key = SessionKey("default", "square", "alice")
    async with STORES[name](tmp_path, Clock()) as store:

        async def record():
            (found,) = await store.load_many([key])
            return found.epoch, codec.encode(key, found)

        engines = {"square": make_engine("square", square(), store=store)}
        async with serving(make_app(engines)) as client:
            first = await client.post(SEQUENCE, json={"inputs": X, "position": 0})
            before = await record()
            for body in ({"steps": 20}, {"steps": 3, "inputs": X[0]}, {"steps": 1, "position": 9}):
                await client.post(FORECAST, json=body)
            assert before == await record()
            again = await client.post(SEQUENCE, json={"inputs": X, "position": 0})
            assert first.json() | {"replayed": True} == again.json()


async def test_with_a_shared_store_the_store_is_asked(tmp_path, serving):
    """A replica that has an old row at hand forecasts from what another one has written."""
    async with STORES["redis"](tmp_path, Clock()) as store:
        apps = [make_app({"square": make_engine("square", square(), store=store)}) for _ in "ab"]
        async with serving(apps[0]) as one, serving(apps[1]) as other:
            await one.post(SEQUENCE, json={"inputs": X[:1]})
            await other.post(SEQUENCE, json={"inputs": X[1:]})
            answers = [(await c.post(FORECAST, json={"steps": 3})).json() for c in (one, other)]
    assert [3, 3] == [answer["position"] for answer in answers]
    np.testing.assert_allclose(answers[0]["outputs"], answers[1]["outputs"], atol=1e-6)


async def test_an_earlier_version_forecasts_with_its_own_weights(tmp_path, serving):
    """Where it runs; else the session's fingerprint is told."""
    async with STORES["memory"](tmp_path, Clock()) as store:
        old = make_app({"m": make_engine("m", square(), store=store)})
        earlier = make_engine("m", square(), store=store, is_alone=False)
        new = make_engine("m", square(seed=9), store=store, earlier=[earlier])
        without = make_engine("m", square(seed=9), store=store, is_alone=False)
        async with (
            serving(old) as before,
            serving(make_app({"m": new})) as both,
            serving(make_app({"m": without})) as current,
        ):
            await before.post(SEQUENCE, json={"inputs": X})
            expected, actual, refused = [
                await c.post(FORECAST, json={"steps": 3}) for c in (before, both, current)
            ]
    assert expected.json() == actual.json()
    assert (409, "fingerprint_mismatch") == (refused.status_code, refused.json()["code"])


async def test_a_caller_who_leaves_ends_a_forecast_and_a_full_queue_refuses_one(serving):
    """Long before its last step, and its place in the queue is free again."""
    limits = EngineLimits(arena_rows=12, max_pending=4)
    engine = make_engine("square", square(), limits)
    app = make_app({"square": engine}, max_sequence_steps=600_000)
    async with serving(app) as client:
        await client.post(SEQUENCE, json={"inputs": X})
        running = [
            asyncio.create_task(client.post(FORECAST, json={"steps": 600_000})) for _ in range(3)
        ]
        while engine.num_pending < 3:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        step = await client.post("/v1/sessions/bob/step", json={"inputs": X[0]})
        running.append(asyncio.create_task(client.post(FORECAST, json={"steps": 600_000})))
        await asyncio.sleep(0.02)
        full = await client.post(FORECAST, json={"steps": 1})
        assert (503, 200) == (full.status_code, step.status_code)
        assert "queue_full" == full.json()["code"]
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        while engine.num_pending:
            await asyncio.sleep(0.001)
        assert 200 == (await client.post(FORECAST, json={"steps": 1})).status_code


async def test_a_body_that_is_far_too_long_is_refused_before_it_is_read(client):
    """As everywhere."""
    body = json.dumps({"steps": 1, "feedback": [[]] * 20_000})
    answer = await client.post(FORECAST, content=body)
    assert 422 == answer.status_code
    assert "a body of few arrays and strings" in answer.json()["detail"]
