"""Many sessions in one request beside everybody else: its limit, its slices, its end."""

import pytest

from service.engine import EngineLimits
from service.transport.operations import MAX_ROWS_IN_FLIGHT
from service.transport.schema import MAX_STEPS_ROWS
from tests.integration.small_service import X, make_app, make_engine, streaming


def make_large_engine():
    """Return an engine whose queue is larger than any request."""
    limits = EngineLimits(arena_rows=5000, max_pending=1500)
    return make_engine("net", streaming(), limits, max_sessions=2000)


def body_of(num_rows):
    """Return a body of as many sessions."""
    names = [f"client-{index}" for index in range(num_rows)]
    return {"client_ids": names, "inputs": [X[index % 3] for index in range(num_rows)]}


@pytest.fixture
def engine():
    """An engine for 2000 sessions."""
    return make_large_engine()


async def test_the_largest_request_leaves_room_in_the_queue(engine, serving):
    """No more than a slice of it waits at a time, and every row is answered in its place."""
    most = 0
    submit = engine.submit

    def counting(request, complete, timeout_s=None):
        nonlocal most
        job = submit(request, complete, timeout_s)
        most = max(most, engine.num_pending)
        return job

    engine.submit = counting
    body = body_of(MAX_STEPS_ROWS)
    body["inputs"][5] = [1]
    async with serving(make_app({"net": engine})) as client:
        alone = [
            (await client.post(f"/v1/sessions/{index}/step", json={"inputs": row})).json()
            for index, row in enumerate(X)
        ]
        most = 0
        answer = (await client.post("/v1/steps", json=body)).json()
    assert MAX_ROWS_IN_FLIGHT == most
    assert [5] == [index for index, error in enumerate(answer["errors"]) if error]
    for index in (0, 1, 2, 300, 1023):
        assert answer["outputs"][index] == pytest.approx(alone[index % 3]["outputs"], abs=1e-6)


async def test_a_request_of_too_many_rows_is_refused_whole(engine, serving):
    """With the limit, what came, and nothing applied."""
    async with serving(make_app({"net": engine})) as client:
        answer = await client.post("/v1/steps", json=body_of(MAX_STEPS_ROWS + 1))
        assert (422, "invalid_request") == (answer.status_code, answer.json()["code"])
        assert "expected at most 1024 values, got 1025" in answer.json()["detail"]
        assert [] == (await client.get("/v1/sessions")).json()["sessions"]


async def test_a_replica_that_begins_to_drain_answers_the_rows_that_it_took(engine, serving):
    """The rows of the later slices fail alone: the caller must know which ones were applied."""
    submit = engine.submit
    num_submitted = 0

    def counting(request, complete, timeout_s=None):
        nonlocal num_submitted
        num_submitted += 1
        job = submit(request, complete, timeout_s)
        if num_submitted == MAX_ROWS_IN_FLIGHT:
            engine.refuse()
        return job

    engine.submit = counting
    async with serving(make_app({"net": engine})) as client:
        answer = await client.post("/v1/steps", json=body_of(300))
        again = await client.post("/v1/steps", json=body_of(300))
    codes = [error and error["code"] for error in answer.json()["errors"]]
    assert [None] * 256 + ["draining"] * 44 == codes
    assert (503, "draining") == (again.status_code, again.json()["code"])
