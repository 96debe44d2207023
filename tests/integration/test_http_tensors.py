"""States as safetensors files over HTTP: who gets them, and what they hold."""

import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from lstm_core.network import Network
from service.stores.memory import MemoryStore
from service.transport.tensors import MEDIA_TYPE, MEDIA_TYPES
from tests.integration.small_service import (
    X,
    lstm,
    make_app,
    make_engine,
    streaming,
    words,
)

STEP = "/v1/sessions/alice/step"
STATE = "/v1/sessions/alice/state"
ASKING = {"accept": MEDIA_TYPE}
SENDING = {"content-type": MEDIA_TYPE}


@pytest.fixture
async def client(serving):
    """A client of a running service with one session."""
    async with serving(make_app(max_body_bytes=2000)) as client:
        await client.post(STEP, json={"inputs": X[0]})
        yield client


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "",
        "*/*",
        "application/*",
        "application/json",
        "text/html, */*;q=0.1",
        f"application/json, {MEDIA_TYPE};q=0.5",
        f"application/json, {MEDIA_TYPE}",
        f"{MEDIA_TYPE};q=0",
        f"{MEDIA_TYPE};q=x",
        ";;,,;q",
    ],
)
async def test_a_state_is_json_unless_the_other_form_is_wanted(client, accept):
    """What takes anything gets JSON."""
    headers = {} if accept is None else {"accept": accept}
    answer = await client.get(STATE, headers=headers)
    assert (200, "application/json") == (answer.status_code, answer.headers["content-type"])
    assert "accept" == answer.headers["vary"]


@pytest.mark.parametrize("name", MEDIA_TYPES)
@pytest.mark.parametrize("form", ["{}", "{}, */*", "application/json;q=0.5, {};q=0.9", "{};v=1"])
async def test_a_state_is_a_safetensors_file_by_any_of_its_names(client, name, form):
    """It is called what it was asked for as."""
    answer = await client.get(STATE, headers={"accept": form.format(name)})
    assert (200, name) == (answer.status_code, answer.headers["content-type"])
    assert {"lstm.h", "lstm.c"} == set(load(answer.content))


async def test_both_forms_say_the_same(client):
    """The same numbers, bit by bit, and the same metadata."""
    document = (await client.get(STATE)).json()
    body = (await client.get(STATE, headers=ASKING)).content
    tensors = load(body)
    for name, values in zip(("lstm.h", "lstm.c"), document["states"], strict=True):
        assert (5,) == tensors[name].shape
        assert np.float32 == tensors[name].dtype
        assert np.array(values, np.float32).tobytes() == tensors[name].tobytes()
    header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])
    metadata = header["__metadata__"]
    assert document["fingerprint"] == metadata.pop("fingerprint")
    rest = {name: json.loads(text) for name, text in metadata.items()}
    assert rest == {name: document[name] for name in ("position", "epoch", "has_output")}


@pytest.mark.parametrize("name", [*MEDIA_TYPES, "Application/Vnd.SafeTensors; v=1"])
async def test_a_safetensors_file_can_be_put_back(client, name):
    """A rollback, with its preconditions."""
    export = (await client.get(STATE, headers=ASKING)).content
    first = (await client.post(STEP, json={"inputs": X[1]})).json()
    headers = {"content-type": name}
    refused = await client.put(f"{STATE}?position=7", content=export, headers=headers)
    assert 409 == refused.status_code
    put = await client.put(f"{STATE}?position=2", content=export, headers=headers)
    assert (200, 1) == (put.status_code, put.json()["position"])
    again = (await client.post(STEP, json={"inputs": X[1]})).json()
    assert first["outputs"] == again["outputs"]


async def test_a_file_of_another_framework_is_taken(client):
    """Its numbers and a position are enough; what frameworks add is not looked at."""
    state = {"lstm.h": np.full(5, 0.5, np.float32), "lstm.c": np.full(5, 2, np.float32)}
    body = save(state, {"position": "7", "format": "pt"})
    put = await client.put("/v1/sessions/bob/state", content=body, headers=SENDING)
    assert (200, 7) == (put.status_code, put.json()["position"])
    document = (await client.get("/v1/sessions/bob/state")).json()
    assert ([[0.5] * 5, [2.0] * 5], [True]) == (document["states"], document["has_output"])


async def test_the_limits_and_the_fingerprint_hold(client):
    """As for JSON."""
    before = (await client.get(STATE)).content
    export = (await client.get(STATE, headers=ASKING)).content
    state = load(export)
    foreign = save(state, {"position": "1", "fingerprint": "0" * 64})
    answers = [
        await client.put(STATE, content=export + b" " * 2000, headers=SENDING),
        await client.put(STATE, content=export, headers=SENDING | {"content-encoding": "gzip"}),
        await client.put(STATE, content=foreign, headers=SENDING),
        await client.put(STATE, content=export),
        await client.put(STATE, content=export, headers={"content-type": "text/plain"}),
        await client.post(STEP, content=export, headers=SENDING),
    ]
    assert [413, 415, 409, 422, 415, 415] == [answer.status_code for answer in answers]
    assert before == (await client.get(STATE)).content


async def test_a_state_of_another_size_is_not_cut_wrong(serving):
    """The model was replaced by one of other sizes: a conflict, in both forms."""
    store = MemoryStore(50)
    async with serving(make_app({"m": make_engine("m", streaming(), store=store)})) as client:
        await client.post(STEP, json={"inputs": X[0]})
    replaced = make_engine("m", Network("m", 3, (lstm(units=3),)), store=store)
    async with serving(make_app({"m": replaced})) as client:
        for headers in ({}, ASKING):
            answer = await client.get(STATE, headers=headers)
            assert (409, "fingerprint_mismatch") == (answer.status_code, answer.json()["code"])
            assert "its 10 numbers do not fit the 6 of this model" in answer.json()["detail"]
        assert 1 == (await client.get("/v1/sessions/alice")).json()["position"]


async def test_a_state_of_the_same_size_is_the_way_to_new_weights(serving):
    """It is shown with the fingerprint that it belongs to, and may be put without it."""
    store = MemoryStore(50)
    async with serving(make_app({"m": make_engine("m", streaming(), store=store)})) as client:
        await client.post(STEP, json={"inputs": X[0]})
    replaced = make_engine("m", words(), store=store)
    async with serving(make_app({"m": replaced})) as client:
        document = (await client.get(STATE)).json()
        assert replaced.signature.fingerprint != document["fingerprint"]
        state = load((await client.get(STATE, headers=ASKING)).content)
        taken = save(state, {"position": str(document["position"])})
        put = await client.put(STATE, content=taken, headers=SENDING)
        assert replaced.signature.fingerprint == put.json()["fingerprint"]
