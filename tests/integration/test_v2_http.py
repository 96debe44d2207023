"""Inference over `/v2`, by either entrance: steps, sequences, and the parameters of requests."""

import asyncio

import numpy as np
import pytest

from lstm_core import equations
from service.errors import UnauthenticatedError
from service.limits import EngineLimits
from tests.integration.small_service import (
    X,
    both_ways,
    make_app,
    make_engine,
    streaming,
    words,
)
from tests.integration.v2_http import (
    CLOSE,
    INFER,
    INPUTS,
    binary,
    document,
    expected,
    outputs_of,
    sequence,
)

UNKNOWN = (
    "inference request for sequence {} to model 'net' must specify the START flag on the first"
    " request of the sequence"
)


async def infer(client, values=INPUTS[:1], **parameters):
    """Ask for a step of a sequence."""
    body = document(values, parameters=sequence(**parameters))
    return await client.post(INFER, json=body)


async def test_steps_of_a_sequence(client):
    """Each answer has the members that the protocol names, and no other."""
    outputs = []
    for t in range(3):
        parameters = sequence(7, start=t == 0, end=t == 2)
        body = document(INPUTS[t : t + 1], parameters=parameters, id=f"step {t}")
        answer = await client.post(INFER, json=body)
        assert 200 == answer.status_code
        assert "application/json" == answer.headers["content-type"]
        told = answer.json()
        assert {"id", "model_name", "model_version", "outputs"} == told.keys()
        assert (f"step {t}", "net", "1") == (told["id"], told["model_name"], told["model_version"])
        [output] = told["outputs"]
        assert {"name", "datatype", "shape", "data"} == output.keys()
        assert ("outputs", "FP32", [1, 2]) == (output["name"], output["datatype"], output["shape"])
        outputs += output["data"]
    np.testing.assert_allclose(np.reshape(outputs, (3, 2)), expected(), **CLOSE)


async def test_without_an_id_the_answer_has_none(client):
    """As its request."""
    answer = await infer(client, start=True)
    assert {"model_name", "model_version", "outputs"} == answer.json().keys()


@pytest.mark.parametrize(
    ("values", "shape"),
    [(INPUTS[0], [2]), (INPUTS[:1], [1, 2]), (INPUTS[None], [1, 3, 2])],
    ids=["features", "batch, features", "batch, time, features"],
)
async def test_the_shapes_of_a_sequence(client, values, shape):
    """The output has the input's shape but for the features."""
    answer = await infer(client, values, start=True)
    assert shape == answer.json()["outputs"][0]["shape"]
    num_steps = values.size // 3
    np.testing.assert_allclose(outputs_of(answer).reshape(-1, 2), expected()[:num_steps], **CLOSE)


async def test_a_batch_without_a_sequence_keeps_no_state(client):
    """Each row from zeros; 0 and the empty text are no sequence."""
    batch = np.stack([INPUTS, INPUTS[::-1]])
    for none in ({}, {"sequence_id": 0}, {"sequence_id": ""}, sequence(0)):
        answer = await client.post(INFER, json=document(batch, parameters=none))
        assert 200 == answer.status_code
        for row, values in zip(outputs_of(answer), batch, strict=True):
            np.testing.assert_allclose(row, expected(values), **CLOSE)
    refused = await client.post(INFER, json=document(INPUTS[:1]))
    assert 400 == refused.status_code
    assert "keeps no state" in refused.json()["error"]


async def test_a_model_without_sequences(client):
    """Takes whole sequences, and says why it takes no others."""
    url = "/v2/models/both"
    told = (await client.get(url)).json()
    assert [-1, -1, 3] == told["inputs"][0]["shape"]
    assert [-1, -1, 10] == told["outputs"][0]["shape"]
    config = (await client.get(f"{url}/config")).json()
    assert config["max_batch_size"] > 1
    assert "sequence_batching" not in config
    answer = await client.post(f"{url}/infer", json=document(INPUTS[None]))
    layer = both_ways().layers[0]
    forward = equations.sequence(layer.forward.spec, layer.forward.weights, INPUTS[None])
    np.testing.assert_allclose(outputs_of(answer)[0, :, :5], forward.outputs[0], **CLOSE)
    body = document(INPUTS[:1], parameters=sequence(start=True))
    refused = await client.post(f"{url}/infer", json=body)
    assert 400 == refused.status_code
    assert "both directions" in refused.json()["error"]


@pytest.mark.parametrize("datatype", ["INT32", "INT64", "UINT8", "FP32", "BOOL"])
async def test_a_model_of_words_takes_integers(client, datatype):
    """Of any datatype that holds them, and only those that it knows."""
    url = "/v2/models/words"
    told = (await client.get(url)).json()
    assert {"name": "inputs", "datatype": "INT32", "shape": [-1, 1]} == told["inputs"][0]
    kinds = {"INT32": "<i4", "INT64": "<i8", "UINT8": "u1", "FP32": "<f4", "BOOL": "?"}
    values = np.array([[1]], kinds[datatype])
    body, headers = binary(values, datatype=datatype, parameters=sequence(start=True))
    answer = await client.post(f"{url}/infer", content=body, headers=headers)
    table, lstm = words().layers
    zeros = np.zeros((1, 5))
    h, _ = equations.step(lstm.spec, lstm.weights, table.table[1][None], h=zeros, c=zeros)
    np.testing.assert_allclose(outputs_of(answer), h, **CLOSE)
    for bad in (7, -1, 0.5):
        body = document([[bad]], parameters=sequence(start=True))
        refused = await client.post(f"{url}/infer", json=body)
        assert 400 == refused.status_code
        assert "integers from 0 to 6" in refused.json()["error"]


async def test_a_sequence_must_begin(client):
    """The words are those that clients look for."""
    for number, told in ((3, "3"), (-3, "-3"), ("three", "three")):
        answer = await infer(client, number=number)
        assert 400 == answer.status_code
        assert {"error": UNKNOWN.format(told)} == answer.json()
        with_position = await infer(client, number=number, position=4)
        assert {"error": UNKNOWN.format(told)} == with_position.json()


async def test_a_start_begins_anew(client):
    """Whatever the sequence has come to."""
    first = outputs_of(await infer(client, start=True))
    await infer(client, INPUTS[1:2])
    np.testing.assert_array_equal(first, outputs_of(await infer(client, start=True)))
    body = await client.get("/v1/sessions/int:1")
    assert 1 == body.json()["position"]


async def test_an_end_is_the_end(client):
    """The next step finds no sequence."""
    await infer(client, start=True)
    assert 200 == (await infer(client, end=True)).status_code
    assert 400 == (await infer(client)).status_code
    assert 404 == (await client.get("/v1/sessions/int:1")).status_code
    for _ in range(2):
        assert 200 == (await infer(client, INPUTS[None], start=True, end=True)).status_code
        assert 404 == (await client.get("/v1/sessions/int:1")).status_code


async def test_integers_and_texts_are_different_names(client):
    """Both are sessions of the other API too, under names of their own."""
    await infer(client, number=42, start=True)
    await infer(client, INPUTS[1:2], number="42", start=True)
    await infer(client, INPUTS[1:2], number="42")
    assert 1 == (await client.get("/v1/sessions/int:42")).json()["position"]
    assert 2 == (await client.get("/v1/sessions/42")).json()["position"]
    step = await client.post("/v1/sessions/int:42/step", json={"inputs": X[1], "position": 1})
    np.testing.assert_allclose(step.json()["outputs"], expected()[1], **CLOSE)
    np.testing.assert_allclose(
        outputs_of(await infer(client, INPUTS[2:], number=42)), expected()[2:], **CLOSE
    )
    assert 400 == (await infer(client, number="int:42")).status_code
    assert 400 == (await infer(client, number="a/b")).status_code


async def test_a_session_of_the_other_api_is_a_sequence(client):
    """It has begun, so it needs no start."""
    await client.post("/v1/sessions/alice/sequence", json={"inputs": X[:2]})
    answer = await infer(client, INPUTS[2:], number="alice")
    np.testing.assert_allclose(outputs_of(answer), expected()[2:], **CLOSE)


async def test_exactly_once_by_position(client):
    """Answers say where the sequence is, only to those who ask; a gap is a conflict."""
    told = []
    for position in range(3):
        for _ in range(2):
            answer = await infer(
                client,
                INPUTS[position : position + 1],
                start=position == 0,
                end=position == 2,
                position=position,
            )
            assert 200 == answer.status_code
            parameters = answer.json()["parameters"]
            assert {"position", "epoch", "replayed"} == parameters.keys()
            told.append((parameters["position"], parameters["replayed"], parameters["epoch"]))
    assert [1, 1, 2, 2, 3, 3] == [position for position, _, _ in told]
    assert [False, True] * 3 == [replayed for _, replayed, _ in told]
    assert 1 == len({epoch for *_, epoch in told})

    epoch = (await infer(client, start=True, position=0)).json()["parameters"]["epoch"]
    for conflict in ({"position": 3}, {"epoch": epoch + 1}, {"position": 0}):
        answer = await infer(client, INPUTS[1:2], **conflict)
        assert 409 == answer.status_code
        assert f"position 1 of epoch {epoch}" in answer.json()["error"]
    assert 200 == (await infer(client, INPUTS[1:2], epoch=epoch)).status_code
    assert "parameters" not in (await infer(client, INPUTS[2:])).json()


async def test_steps_in_flight_keep_their_order(client):
    """Several of one sequence at once, by connections of their own."""
    await infer(client, start=True)
    values = np.repeat(INPUTS, 4, axis=0)
    answers = await asyncio.gather(*(infer(client, value[None]) for value in values))
    assert {200} == {answer.status_code for answer in answers}
    assert 13 == (await client.get("/v1/sessions/int:1")).json()["position"]


async def test_parameters_that_make_no_sense(client):
    """Nothing is begun, and the parameter is named."""
    for bad in (
        {"sequence_id": True},
        {"sequence_id": 1.5},
        {"sequence_id": 2**64},
        {"sequence_id": None},
        {"sequence_start": 1},
        {"sequence_end": "yes"},
        {"timeout": -1},
        {"timeout": 1.0},
        {"position": -1},
        {"position": 2**53},
        {"position": True},
        {"position": 3, "sequence_start": True},
        {"epoch": 3, "sequence_start": True},
        {"binary_data_output": 1},
    ):
        answer = await client.post(INFER, json=document(parameters=sequence() | bad))
        assert 400 == answer.status_code
        assert next(iter(bad)) in answer.json()["error"]
    assert [] == (await client.get("/v1/sessions")).json()["sessions"]


async def test_what_belongs_to_a_sequence_needs_one(client):
    """A step meant for a sequence is not taken for one without a state."""
    for name, value in (
        ("sequence_start", True),
        ("sequence_end", True),
        ("position", 0),
        ("epoch", 5),
    ):
        body = document(INPUTS[None], parameters={name: value})
        answer = await client.post(INFER, json=body)
        assert 400 == answer.status_code
        assert name in answer.json()["error"]


async def test_parameters_that_mean_nothing_here(client):
    """Clients send what other servers understand."""
    extra = {"priority": 3, "headers": "x", "triton_enable_empty_final_response": True, "own": 1.5}
    body = document(parameters=sequence(start=True) | extra) | {"unknown": [1]}
    assert 200 == (await client.post(INFER, json=body)).status_code


async def test_a_step_past_its_deadline_is_not_applied(serving):
    """In microseconds; what had no turn by then is not applied."""
    limits = EngineLimits(arena_rows=300, max_pending=100, max_wait_us=50_000)
    engine = make_engine("net", streaming(), limits)
    async with serving(make_app({"net": engine})) as client:
        answer = await infer(client, start=True, timeout=1000)
        assert 504 == answer.status_code
        assert {"error"} == answer.json().keys()
        assert 400 == (await infer(client)).status_code
        assert 200 == (await infer(client, start=True, timeout=5_000_000)).status_code
        assert 200 == (await infer(client, start=True, timeout=2**62)).status_code
        stats = (await client.get("/v2/models/net/stats")).json()["model_stats"][0]
        assert 2 == stats["inference_stats"]["fail"]["count"]


async def test_who_is_let_in(serving):
    """Not asked for health; else as on every other path."""

    def admit(headers):
        if headers.get(b"authorization") != b"Bearer good":
            raise UnauthenticatedError

    async with serving(make_app(admit=admit)) as client:
        assert 200 == (await client.get("/v2/health/ready")).status_code
        for answer in (await client.get("/v2"), await infer(client, start=True)):
            assert 401 == answer.status_code
            assert {"error"} == answer.json().keys()
            assert "Bearer" == answer.headers["www-authenticate"]
        client.headers["authorization"] = "Bearer good"
        assert 200 == (await infer(client, start=True)).status_code
