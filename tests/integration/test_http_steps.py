"""Many sessions in one request beside everybody else: its limit, its slices, its end."""

import json
import struct

import numpy as np
import pytest

from service.limits import EngineLimits
from service.transport.binary_steps import MEDIA_TYPE
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
    submit_many = engine.submit_many

    def counting(requests, complete, timeout_s=None):
        nonlocal most
        jobs = submit_many(requests, complete, timeout_s)
        most = max(most, engine.num_pending)
        return jobs

    engine.submit_many = counting
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
    submit_many = engine.submit_many

    def refusing(requests, complete, timeout_s=None):
        jobs = submit_many(requests, complete, timeout_s)
        engine.refuse()
        return jobs

    engine.submit_many = refusing
    async with serving(make_app({"net": engine})) as client:
        answer = await client.post("/v1/steps", json=body_of(300))
        again = await client.post("/v1/steps", json=body_of(300))
    codes = [error and error["code"] for error in answer.json()["errors"]]
    assert [None] * 256 + ["draining"] * 44 == codes
    assert (503, "draining") == (again.status_code, again.json()["code"])


async def test_the_slices_of_a_request_have_one_deadline(engine, serving):
    """The caller waits once, not once more for each slice."""
    submit_many = engine.submit_many
    left = []

    def noting(requests, complete, timeout_s=None):
        left.append(timeout_s)
        return submit_many(requests, complete, timeout_s)

    engine.submit_many = noting
    async with serving(make_app({"net": engine})) as client:
        headers = {"x-request-timeout-ms": "60000"}
        answer = await client.post("/v1/steps", json=body_of(MAX_STEPS_ROWS), headers=headers)
    assert [None] * MAX_STEPS_ROWS == answer.json()["errors"]
    assert MAX_STEPS_ROWS // MAX_ROWS_IN_FLIGHT == len(left)
    assert sorted(set(left), reverse=True) == left
    assert 60 >= left[0]


def binary_of(names, inputs, positions):
    """Return a binary body."""
    header = struct.pack("<II", len(names), 1) + struct.pack(f"<{len(names)}q", *positions)
    return header + np.array(inputs, "<f4").tobytes() + "\n".join(names).encode()


async def test_both_forms_answer_the_same(engine, serving):
    """Outputs, positions, replays and errors; and each answers in the form that it was asked in."""
    names = ["a", "b", "a", "c", "b b"]
    inputs = [X[0], X[1], X[2], [np.nan, 0, 0], X[0]]
    body = binary_of(names, inputs, [-1, 3, -1, -1, 0])
    headers = {"content-type": f"{MEDIA_TYPE}; v=1", "accept": "application/json"}
    document = {
        "client_ids": names,
        "inputs": [*inputs[:3], "NaN", inputs[4]],
        "positions": [None, 3, None, None, 0],
    }
    text = json.dumps(document).replace('"NaN"', "[NaN, 0, 0]")
    async with serving(make_app({"net": engine})) as client:
        binary = await client.post("/v1/models/net/steps", content=body, headers=headers)
        await client.post("/v1/sessions/a/reset_states")
        answer = (await client.post("/v1/steps", content=text)).json()
    assert (200, MEDIA_TYPE) == (binary.status_code, binary.headers["content-type"])
    n, size, *rest = struct.unpack_from("<II5q5Q5H5B1x10f", binary.content)
    assert (5, 2) == (n, size)
    assert [1, -1, -1, -1, -1] == rest[:5]
    assert answer["positions"] == [value if value >= 0 else None for value in rest[:5]]
    assert [200, 404, 422, 422, 422] == rest[10:15]
    assert pytest.approx(answer["outputs"][0]) == rest[20:22]
    errors = json.loads(binary.content[struct.calcsize("<II5q5Q5H5B1x10f") :])
    told = [error and {"row": row} | error for row, error in enumerate(answer["errors"])]
    assert [error for error in told if error] == errors


async def test_a_binary_body_may_be_replayed_and_may_not_be_compressed(engine, serving):
    """A retry by position gets the first answer; what does not fit is a problem document."""
    headers = {"content-type": MEDIA_TYPE}
    body = binary_of(["a", "b"], X[:2], [0, 0])
    async with serving(make_app({"net": engine})) as client:
        first, again = [
            (await client.post("/v1/steps", content=body, headers=headers)).content for _ in "12"
        ]
        short = await client.post("/v1/steps", content=body[:30], headers=headers)
        packed = headers | {"content-encoding": "gzip"}
        compressed = await client.post("/v1/steps", content=body, headers=packed)
    replayed = 8 + 2 * 8 + 2 * 8 + 2 * 2
    assert first[:replayed] + b"\1\1" + first[replayed + 2 :] == again
    assert (422, "invalid_request") == (short.status_code, short.json()["code"])
    assert "application/problem+json" == short.headers["content-type"]
    assert 415 == compressed.status_code
