"""The REST API over a real engine with a small network: what each operation does."""

import asyncio

import httpx
import numpy as np

from service.transport import replies
from tests.integration.small_service import X, make_app

STEP = "/v1/sessions/alice/step"
STATE = "/v1/sessions/alice/state"


async def test_steps_and_a_sequence_give_the_same(client):
    """However a sequence is cut, the outputs are those of the whole."""
    stepped = [(await client.post(STEP, json={"inputs": row})).json() for row in X]
    whole = (await client.post("/v1/sessions/bob/sequence", json={"inputs": X})).json()
    assert [1, 2, 3] == [reply["position"] for reply in stepped]
    assert 3 == whole["position"]
    np.testing.assert_allclose(whole["outputs"], [r["outputs"] for r in stepped], atol=1e-6)


async def test_a_sequence_may_answer_with_its_last_output(client):
    """Then `outputs` has no time axis, and the states come if asked for."""
    url = "/v1/sessions/{}/sequence"
    whole = (await client.post(url.format("a"), json={"inputs": X})).json()
    body = {"inputs": X, "return_sequences": False, "return_state": True}
    last = (await client.post(url.format("b"), json=body)).json()
    np.testing.assert_allclose(last["outputs"], whole["outputs"][-1], atol=1e-6)
    assert [5, 5] == [len(vector) for vector in last["states"]]


async def test_the_short_form_is_the_first_model(client):
    """Both forms lead to one session."""
    await client.post(STEP, json={"inputs": X[0]})
    session = await client.get("/v1/models/net/sessions/alice")
    assert 1 == session.json()["position"]


async def test_a_retry_gets_the_first_answer(client):
    """The same step from the same position is applied once."""
    body = {"inputs": X[0], "position": 0}
    first = (await client.post(STEP, json=body)).json()
    again = (await client.post(STEP, json=body)).json()
    assert first | {"replayed": True} == again


async def test_a_gap_is_a_conflict_that_tells_the_position(client):
    """Nothing is applied, and the client learns where the session is."""
    epoch = (await client.post(STEP, json={"inputs": X[0]})).json()["epoch"]
    answer = await client.post(STEP, json={"inputs": X[0], "position": 5})
    assert 409 == answer.status_code
    assert "position_conflict" == answer.json()["code"]
    assert (1, epoch) == (answer.json()["position"], answer.json()["epoch"])


async def test_reset_begins_a_new_life(client):
    """With another epoch, at position 0, from zeros or from given states."""
    first = (await client.post(STEP, json={"inputs": X[0]})).json()
    reset = await client.post("/v1/sessions/alice/reset_states")
    assert replies.ResetReply.model_validate_json(reset.content).position == 0
    assert first["epoch"] != reset.json()["epoch"]
    again = (await client.post(STEP, json={"inputs": X[0]})).json()
    assert first["outputs"] == again["outputs"]
    states = [[0.5] * 5, [0.25] * 5]
    await client.post("/v1/sessions/alice/reset_states", json={"states": states})
    assert states == (await client.get(STATE)).json()["states"]


async def test_an_export_can_be_put_back(client):
    """A rollback: the steps behind the export give the same again."""
    await client.post(STEP, json={"inputs": X[0]})
    export = await client.get(STATE)
    first = (await client.post(STEP, json={"inputs": X[1]})).json()
    put = await client.put(STATE + "?position=2", content=export.content)
    assert 200 == put.status_code
    assert 1 == put.json()["position"]
    again = (await client.post(STEP, json={"inputs": X[1]})).json()
    assert first["outputs"] == again["outputs"]
    assert first["position"] == again["position"]


async def test_an_import_has_preconditions_and_a_fingerprint(client):
    """Another position, another life or other weights are a conflict."""
    await client.post(STEP, json={"inputs": X[0]})
    export = (await client.get(STATE)).json()
    elsewhere = await client.put(STATE + "?position=7", json=export)
    other_life = await client.put(STATE + "?epoch=7", json=export)
    foreign = await client.put(STATE, json=export | {"fingerprint": "0" * 64})
    assert [409] * 3 == [a.status_code for a in (elsewhere, other_life, foreign)]
    assert "fingerprint_mismatch" == foreign.json()["code"]
    assert export == (await client.get(STATE)).json()


async def test_sessions_are_looked_at_listed_and_ended(client):
    """Pages cover every session once; an ended one is unknown."""
    names = [f"client-{index}" for index in range(5)]
    for name in names:
        await client.post(f"/v1/sessions/{name}/step", json={"inputs": X[0]})
    found, cursor = [], None
    while True:
        query = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/v1/sessions", params=query)).json()
        replies.SessionList.model_validate(page)
        found += [line["client_id"] for line in page["sessions"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert names == sorted(found)
    assert 409 == (await client.delete("/v1/sessions/client-0?position=3")).status_code
    ended = await client.delete("/v1/sessions/client-0?position=1")
    assert (204, b"") == (ended.status_code, ended.content)
    for answer in (
        await client.delete("/v1/sessions/client-0"),
        await client.get("/v1/sessions/client-0"),
        await client.get("/v1/sessions/client-0/state"),
    ):
        assert (404, "session_unknown") == (answer.status_code, answer.json()["code"])


async def test_one_request_steps_many_sessions(client):
    """Bad rows fail alone, and the good ones are as if each came alone."""
    alone = (await client.post(STEP, json={"inputs": X[0]})).json()
    body = {
        "client_ids": ["a", "b", "a", "c"],
        "inputs": [X[0], X[0][:2], X[0], X[0]],
        "positions": [0, 0, 0, 9],
    }
    for path in ("/v1/models/net/steps", "/v1/steps"):
        answer = (await client.post(path, json=body)).json()
        replies.StepsReply.model_validate(answer)
        codes = [error and error["code"] for error in answer["errors"]]
        expected = [None, "invalid_request", "invalid_request", "session_unknown"]
        assert expected == codes
        np.testing.assert_allclose(answer["outputs"][0], alone["outputs"], atol=1e-6)
        assert [1, None, None, None] == answer["positions"]
    again = (await client.post("/v1/steps", json=body)).json()
    assert [True, False, False, False] == again["replayed"]


async def test_predict_has_no_session(client):
    """A batch from zero states, for models that cannot be stepped too."""
    sequence = (await client.post("/v1/sessions/a/sequence", json={"inputs": X})).json()
    for path in ("/v1/models/net/predict", "/v1/predict"):
        answer = (await client.post(path, json={"inputs": [X, X]})).json()
        np.testing.assert_allclose(answer["outputs"], [sequence["outputs"]] * 2, atol=1e-6)
    answer = await client.post("/v1/models/both/predict", json={"inputs": [X]})
    assert (1, 3, 10) == np.shape(answer.json()["outputs"])


async def test_a_model_that_cannot_be_stepped_says_why(client):
    """Step, sequence and steps are refused with the layer's name."""
    base = "/v1/models/both"
    for path, body in (
        (f"{base}/sessions/a/step", {"inputs": X[0]}),
        (f"{base}/sessions/a/sequence", {"inputs": X}),
        (f"{base}/steps", {"client_ids": ["a"], "inputs": [X[0]]}),
    ):
        answer = await client.post(path, json=body)
        assert (422, "not_streamable") == (answer.status_code, answer.json()["code"])
        assert "both runs in both directions" in answer.json()["detail"]


async def test_models_tell_what_they_take(client):
    """Sizes, layout, layers and kernels, one by one and in a list."""
    listed = (await client.get("/v1/models")).json()
    replies.ModelList.model_validate(listed)
    assert "net" == listed["default"]
    one = (await client.get("/v1/models/net")).json()
    assert one == listed["models"][0]
    assert (3, 2, True) == (one["input_size"], one["output_size"], one["is_streamable"])
    assert {"layer": "lstm", "role": "h", "size": 5} == one["state_layout"][0]
    assert not listed["models"][1]["is_streamable"]


async def test_health_readiness_and_metrics(client):
    """What load balancers and Prometheus ask for."""
    assert {"status": "ok"} == (await client.get("/healthz")).json()
    assert {"status": "ready"} == (await client.get("/readyz")).json()
    metrics = await client.get("/metrics")
    assert b"up 1\n" == metrics.content
    assert "text/plain; version=1.0.0" == metrics.headers["content-type"]
    assert 200 == (await client.head("/healthz")).status_code


async def test_a_draining_replica_says_so(serving):
    """Not ready, and new steps are refused with a time to come again."""
    app = make_app()
    async with serving(app) as client:
        await client.post(STEP, json={"inputs": X[0]})
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        ready, step = await client.get("/readyz"), await client.post(STEP, json={"inputs": X[0]})
    assert (503, "not_ready") == (ready.status_code, ready.json()["code"])
    assert "net, both, words" in ready.json()["detail"]
    assert (503, "draining", "1") == (
        step.status_code,
        step.json()["code"],
        step.headers["retry-after"],
    )


async def test_a_request_id_is_taken_over_or_made(client):
    """It is in every answer, and in every problem document."""
    given = {"X-Request-Id": "trace-1"}
    assert "trace-1" == (await client.get("/healthz", headers=given)).headers["x-request-id"]
    problem = await client.get("/nowhere", headers=given)
    assert "trace-1" == problem.headers["x-request-id"] == problem.json()["request_id"]
    for bad in ("", "a b", "x" * 200, "ü"):
        headers = [(b"x-request-id", bad.encode())]
        made = (await client.get("/healthz", headers=headers)).headers["x-request-id"]
        assert bad != made
        assert made


async def test_every_request_is_observed(serving):
    """By the route's template, so that client ids make no series of their own."""
    seen = []
    app = make_app(observe=lambda *observed: seen.append(observed[:2]))
    async with serving(app) as client:
        await client.post(STEP, json={"inputs": X[0]})
        await client.post(STEP, json={"inputs": []})
        await client.get("/nowhere")
        await client.patch("/v1/models")
    step = "/v1/sessions/{client_id}/step"
    assert [(step, 200), (step, 422), ("unmatched", 404), ("/v1/models", 405)] == seen


async def test_many_clients_at_once_are_alone(client):
    """Interleaved sessions give what each gives by itself."""
    alone = (await client.post("/v1/sessions/alone/sequence", json={"inputs": X})).json()

    async def run(name):
        return [
            (await client.post(f"/v1/sessions/{name}/step", json={"inputs": row})).json()["outputs"]
            for row in X
        ]

    for outputs in await asyncio.gather(*[run(f"c{index}") for index in range(30)]):
        np.testing.assert_allclose(outputs, alone["outputs"], atol=1e-6)
