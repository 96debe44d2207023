"""`X-Request-Timeout-Ms`, over both entrances: what has not begun by then is not applied."""

import asyncio
import threading

import pytest

from service.limits import EngineLimits
from tests.integration.small_service import X, make_app, make_engine, serving_asgi, streaming

ALICE = "/v1/sessions/alice"
SOON = {"x-request-timeout-ms": "20"}
LATER = {"x-request-timeout-ms": "3600000"}
ROUTES = [
    ("POST", f"{ALICE}/step", {"inputs": X[0]}),
    ("POST", f"{ALICE}/sequence", {"inputs": X}),
    ("POST", f"{ALICE}/reset_states", {}),
    ("POST", f"{ALICE}/fork", {"client_id": "bob"}),
    ("GET", ALICE, None),
    ("GET", f"{ALICE}/state", None),
    ("DELETE", ALICE, None),
]


def slow_app():
    """Return an application whose turns come 200 ms late."""
    limits = EngineLimits(arena_rows=300, max_pending=100, max_wait_us=200_000)
    return make_app({"net": make_engine("net", streaming(), limits)})


@pytest.mark.parametrize("given", ["", "0", "-1", "1.5", "soon", "1e3", "3600001", "9" * 50, "01"])
async def test_what_is_no_time_is_refused(serving, given):
    """On each route, with what was expected."""
    async with serving(make_app()) as client:
        for method, path, body in ROUTES:
            headers = {"x-request-timeout-ms": given}
            answer = await client.request(method, path, json=body, headers=headers)
            assert (422, "invalid_request") == (answer.status_code, answer.json()["code"])
            assert "x-request-timeout-ms: expected an integer from 1" in answer.json()["detail"]
        assert 404 == (await client.get(ALICE)).status_code


@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
async def test_what_has_no_turn_in_time_is_not_applied(serving, method, path, body):
    """It is a 504, and the session goes on from where it was."""
    async with serving(slow_app()) as client:
        await client.post(f"{ALICE}/step", json={"inputs": X[0]})
        await asyncio.sleep(0.01)  # what comes in the same turn of the loop joins it
        answer = await client.request(method, path, json=body, headers=SOON)
        assert (504, "deadline_exceeded") == (answer.status_code, answer.json()["code"])
        step = await client.post(f"{ALICE}/step", json={"inputs": X[0], "position": 1})
        assert (200, 2) == (step.status_code, step.json()["position"])
        assert 404 == (await client.get("/v1/sessions/bob")).status_code


async def test_each_row_of_steps_has_its_error(serving):
    """And no session is begun."""
    async with serving(slow_app()) as client:
        body = {"client_ids": ["alice", "bob"], "inputs": X[:2]}
        answer = (await client.post("/v1/steps", json=body, headers=SOON)).json()
        assert ["deadline_exceeded"] * 2 == [error["code"] for error in answer["errors"]]
        assert 404 == (await client.get(ALICE)).status_code


async def test_time_enough_changes_nothing(serving):
    """The answer is that of any request."""
    async with serving(make_app()) as client:
        for position in (1, 2):
            answer = await client.post(f"{ALICE}/step", json={"inputs": X[0]}, headers=LATER)
            assert position == answer.json()["position"]


async def test_what_has_begun_in_time_is_answered(serving):
    """However late, since it may be applied."""
    engine = make_engine("net", streaming())
    advance = engine._compute.advance  # noqa: SLF001

    async def slow(*arguments):
        await asyncio.sleep(0.1)
        return await advance(*arguments)

    engine._compute.advance = slow  # noqa: SLF001
    async with serving(make_app({"net": engine})) as client:
        answer = await client.post(f"{ALICE}/step", json={"inputs": X[0]}, headers=SOON)
        assert (200, 1) == (answer.status_code, answer.json()["position"])


async def test_a_prediction_that_waits_too_long_does_not_run(serving):
    """The one before it, which has begun, is answered whatever its own time was."""
    engine = make_engine("net", streaming())
    runtime = engine._compute._runtime  # noqa: SLF001
    predict, may_go, ran = runtime.predict, threading.Event(), []

    def slow(*arguments):
        ran.append(1)
        may_go.wait(10)
        return predict(*arguments)

    runtime.predict = slow
    body = {"inputs": [X]}
    async with serving(make_app({"net": engine})) as client:
        first = asyncio.create_task(client.post("/v1/predict", json=body, headers=SOON))
        while not ran:
            await asyncio.sleep(0.001)
        answer = await client.post("/v1/predict", json=body, headers=SOON)
        assert (504, "deadline_exceeded") == (answer.status_code, answer.json()["code"])
        may_go.set()
        assert 200 == (await first).status_code
        assert [1] == ran
        assert 0 == engine.num_pending


async def test_the_document_tells_it():
    """As a parameter, and as an error, of what waits for a turn."""
    async with serving_asgi(make_app()) as client:
        paths = (await client.get("/openapi.json")).json()["paths"]
    told = {
        (method, path)
        for path, operations in paths.items()
        for method, operation in operations.items()
        if "X-Request-Timeout-Ms" in [p["name"] for p in operation["parameters"]]
        and "504" in operation["responses"]
    }
    wanted = {(method.lower(), path.replace("alice", "{client_id}")) for method, path, _ in ROUTES}
    wanted |= {("post", "/v1/steps"), ("post", "/v1/predict"), ("put", f"{ALICE}/state")}
    wanted = {(method, path.replace("alice", "{client_id}")) for method, path in wanted}
    assert wanted == {(m, path) for m, path in told if "/models/" not in path}
