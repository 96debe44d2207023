"""The Open Inference Protocol over HTTP, by either entrance: what each operation answers."""

import asyncio
import gzip
import json
import zlib
from typing import Any

import httpx
import numpy as np
import pytest

from lstm_core import equations
from service.errors import UnauthenticatedError
from service.limits import EngineLimits
from service.models import ModelLoader
from service.opening import Lifetimes
from service.repository import ModelRepository
from service.served import ServedModels
from service.stores.memory import MemoryStore
from tests.integration.small_service import (
    LIMITS,
    X,
    both_ways,
    make_app,
    make_engine,
    streaming,
    words,
)
from tests.integration.v2_http import (
    INFER,
    INPUTS,
    LENGTH,
    binary,
    document,
    expected,
    outputs_of,
    sequence,
)
from tests.unit.model_directory import write

CLOSE: dict[str, Any] = {"rtol": 0, "atol": 1e-6}
UNKNOWN = (
    "inference request for sequence {} to model 'net' must specify the START flag on the first"
    " request of the sequence"
)


@pytest.fixture
async def client(serving):
    """A client of a running service, which asks for nothing to be compressed."""
    async with serving(make_app()) as client:
        client.headers["accept-encoding"] = "identity"
        yield client


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


@pytest.mark.parametrize("encoding", [None, "gzip", "deflate"])
@pytest.mark.parametrize("is_binary", [True, False])
async def test_bodies_in_every_form(client, is_binary, encoding):
    """Binary tensors or JSON, compressed or not, and likewise back."""
    parameters = sequence(start=True, end=True, binary_data_output=is_binary)
    body, headers = binary(parameters=parameters)
    if not is_binary:
        body, headers = json.dumps(document(parameters=parameters)).encode(), {}
    if encoding is not None:
        body = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
        headers |= {"content-encoding": encoding, "accept-encoding": encoding}
    answer = await client.post(INFER, content=body, headers=headers)

    assert encoding == answer.headers.get("content-encoding")
    assert is_binary == (LENGTH in answer.headers)
    kind = "application/octet-stream" if is_binary else "application/json"
    assert kind == answer.headers["content-type"]
    np.testing.assert_allclose(outputs_of(answer), expected()[:1], **CLOSE)


async def test_an_answer_is_compressed_as_is_asked(client):
    """With what is most welcome, and never where nothing is asked."""
    body = document(parameters=sequence(start=True))
    for accepted, encoding in (
        ("gzip, deflate, br", "gzip"),
        ("deflate, gzip", "gzip"),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("gzip;q=0", None),
        ("br, zstd;q=x, *", None),
        ("", None),
    ):
        answer = await client.post(INFER, json=body, headers={"accept-encoding": accepted})
        assert encoding == answer.headers.get("content-encoding")
    answer = await client.post(INFER, content=b"", headers={"content-encoding": "br"})
    assert (415, True) == (answer.status_code, "gzip or deflate" in answer.json()["error"])


async def test_an_output_says_for_itself_if_it_is_binary(client):
    """Whatever is said of all."""
    for of_all, of_one in ((True, False), (False, True)):
        parameters = sequence(start=True, binary_data_output=of_all)
        outputs = [{"name": "outputs", "parameters": {"binary_data": of_one}}]
        body = document(parameters=parameters, outputs=outputs)
        answer = await client.post(INFER, json=body)
        assert of_one == (LENGTH in answer.headers)


async def test_a_raw_body_is_one_sequence_without_a_state(client):
    """A header length of 0: nothing but the numbers of the model's only input."""
    headers = {LENGTH: "0"}
    answer = await client.post(INFER, content=INPUTS.tobytes(), headers=headers)
    assert 200 == answer.status_code
    np.testing.assert_allclose(outputs_of(answer), expected()[None], **CLOSE)
    assert 400 == (await client.post(INFER, content=b"123", headers=headers)).status_code
    assert 400 == (await client.post(INFER, content=b"", headers=headers)).status_code
    sessions = (await client.get("/v1/sessions")).json()["sessions"]
    assert [] == sessions


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


async def test_what_is_remembered_is_nobody_elses(client):
    """Requests that differ in little are read anew: a path's last one spares only its equals."""
    good = document(parameters=sequence(start=True))
    for _ in range(2):
        assert 200 == (await client.post(INFER, json=good)).status_code
    for odd in ({"sequence_id": True}, {"sequence_id": 1.0}, {"sequence_start": 1}):
        body = document(parameters=good["parameters"] | odd)
        assert 400 == (await client.post(INFER, json=body)).status_code
    outputs = [{"name": "other"}]
    assert 400 == (await client.post(INFER, json=good | {"outputs": outputs})).status_code
    for name in ("a", "b"):
        assert name == (await client.post(INFER, json=good | {"id": name})).json()["id"]
    for number in (5, 6):
        for values in (INPUTS[:1], INPUTS[1:2]):
            body, headers = binary(values, parameters=sequence(number, start=True))
            answer = await client.post(INFER, content=body, headers=headers)
            np.testing.assert_allclose(outputs_of(answer), expected(values), **CLOSE)
    sessions = (await client.get("/v1/sessions")).json()["sessions"]
    assert {"int:1", "int:5", "int:6"} == {each["client_id"] for each in sessions}


async def test_parameters_that_mean_nothing_here(client):
    """Clients send what other servers understand."""
    extra = {"priority": 3, "headers": "x", "triton_enable_empty_final_response": True, "own": 1.5}
    body = document(parameters=sequence(start=True) | extra) | {"unknown": [1]}
    assert 200 == (await client.post(INFER, json=body)).status_code


async def test_a_deadline(serving):
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


async def test_health_and_ready(client):
    """An empty 200."""
    for path in ("health/live", "health/ready", "models/net/ready", "models/net/versions/1/ready"):
        answer = await client.get(f"/v2/{path}")
        assert (200, b"") == (answer.status_code, answer.content)


async def test_versions(client):
    """The current one is known by its number."""
    told = (await client.get("/v2/models/net")).json()
    assert told == (await client.get("/v2/models/net/versions/1")).json()
    url = "/v2/models/net/versions/{}/infer"
    body = document(parameters=sequence(start=True))
    assert "1" == (await client.post(url.format(1), json=body)).json()["model_version"]
    for version in ("2", "0", "x", "01"):
        answer = await client.post(url.format(version), json=body)
        assert 404 == answer.status_code
        assert f"net/{version}" in answer.json()["error"]


async def test_an_earlier_version_is_in_the_index_only():
    """Its sessions go on; requests name the current one."""
    earlier = make_engine("net", streaming(), is_alone=False)
    app = make_app({"net": make_engine("net", words(), version="2", earlier=[earlier])})
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert ["2"] == (await client.get("/v2/models/net")).json()["versions"]
        index = (await client.post("/v2/repository/index")).json()
        assert ["1", "2"] == [line["version"] for line in index]


async def test_models_of_a_repository_come_and_go(tmp_path, serving):
    """By load and unload; a version that is broken is told, and takes no working one down."""
    write(tmp_path, 1)
    loader = ModelLoader(store=MemoryStore(50), limits=LIMITS, lifetimes=Lifetimes())
    repository = ModelRepository(tmp_path, loader)
    served = {"net": make_engine("net", streaming()), **repository.read_all()}
    async with serving(make_app(served, repository=repository)) as client:

        async def control(verb, model="vowels"):
            answer = await client.post(f"/v2/repository/models/{model}/{verb}")
            return answer.status_code

        async def versions():
            index = (await client.post("/v2/repository/index")).json()
            return {line["version"]: line["state"] for line in index if line["name"] == "vowels"}

        assert 200 == await control("unload")
        assert 404 == (await client.get("/v2/models/vowels/ready")).status_code
        assert {"1": "UNAVAILABLE"} == await versions()
        write(tmp_path, 2, shift=1.0)
        (write(tmp_path, 3, shift=2.0) / "model.keras").write_bytes(b"no model")
        assert 400 == await control("load")
        assert ["2"] == (await client.get("/v2/models/vowels")).json()["versions"]
        assert {"1": "READY", "2": "READY", "3": "UNAVAILABLE"} == await versions()
        assert [400, 404] == [await control("unload", name) for name in ("net", "nothing")]
        assert 200 == (await client.get("/v2/models/net/ready")).status_code


async def test_a_model_that_goes_while_a_store_is_asked_is_no_fault(serving):
    """Ready is what is served then."""

    class SlowStore(MemoryStore):
        async def check(self):
            if "net" in served:
                await served.drop("net").drain()

    store = SlowStore(50)
    served = ServedModels({n: make_engine(n, streaming(), store=store) for n in ("first", "net")})
    async with serving(make_app(served)) as client:
        for path in ("/readyz", "/v2/health/ready"):
            assert 200 == (await client.get(path)).status_code


async def test_the_repository(client):
    """Lists what is served; what was given at the start stays."""
    index = (await client.post("/v2/repository/index")).json()
    ready = {"version": "1", "state": "READY", "reason": ""}
    assert [{"name": name, **ready} for name in ("net", "both", "words")] == index
    assert index == (await client.post("/v2/repository/index", json={"ready": True})).json()
    for verb in ("load", "unload"):
        answer = await client.post(f"/v2/repository/models/net/{verb}", json={"parameters": {}})
        assert 400 == answer.status_code
        assert "none of a model repository" in answer.json()["error"]
    for parameters, said in (({"config": "{}"}, "without parameters; got config"), (1, "object")):
        body = {"parameters": parameters}
        answer = await client.post("/v2/repository/models/net/load", json=body)
        assert 400 == answer.status_code
        assert said in answer.json()["error"]
    assert 200 == (await client.get("/v2/models/net/ready")).status_code


async def test_not_ready_before_the_start():
    """503, and the index says so."""
    transport = httpx.ASGITransport(make_app())
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        for path in ("health/ready", "models/net/ready"):
            answer = await client.get(f"/v2/{path}")
            assert 503 == answer.status_code
            assert {"error"} == answer.json().keys()
            assert "1" == answer.headers["retry-after"]
        index = (await client.post("/v2/repository/index")).json()
        assert {"UNAVAILABLE"} == {entry["state"] for entry in index}
        assert [] == (await client.post("/v2/repository/index", json={"ready": True})).json()


async def test_errors_have_one_member(client):
    """Those of HTTP too, on every path of the protocol."""
    for method, path, status in (
        ("GET", "/v2/nowhere", 404),
        ("GET", "/v2/models/net/nowhere", 404),
        ("GET", "/v2/models/other", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", "/v2/models/net/infer", 405),
        ("DELETE", "/v2", 405),
        ("POST", "/v2/models/net/ready", 405),
        ("PUT", "/v2/repository/index", 405),
    ):
        body = json.dumps(document(parameters=sequence())) if method == "POST" else None
        answer = await client.request(method, path, content=body)
        assert status == answer.status_code
        assert "application/json" == answer.headers["content-type"]
        assert {"error"} == answer.json().keys()
        assert answer.json()["error"]


async def test_other_paths_keep_their_form_of_errors(client):
    """What only begins like one of the protocol is none."""
    for path in ("/v2x", "/v20/models", "/v1/nowhere"):
        answer = await client.get(path)
        assert "application/problem+json" == answer.headers["content-type"]


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


async def test_bodies_over_the_limit(serving):
    """Also where they were compressed to less."""
    async with serving(make_app(max_body_bytes=2000)) as client:
        body, headers = binary(np.zeros((1, 400, 3), np.float32), parameters=sequence(start=True))
        for encoding, content in (("identity", body), ("gzip", gzip.compress(body))):
            given = headers | {"content-encoding": encoding}
            answer = await client.post(INFER, content=content, headers=given)
            assert 413 == answer.status_code
            assert {"error"} == answer.json().keys()


async def test_long_answers_are_the_same_in_slices(client):
    """As JSON and in binary, compressed or not."""
    values = np.random.default_rng(3).uniform(-1, 1, (3, 1500, 3)).astype(np.float32)
    first = expected(values[0])
    for is_binary in (True, False):
        for encoding in ("identity", "gzip"):
            outputs = [{"name": "outputs", "parameters": {"binary_data": is_binary}}]
            body, headers = binary(values, outputs=outputs, id='"data":[]')
            headers["accept-encoding"] = encoding
            got = outputs_of(await client.post(INFER, content=body, headers=headers))
            assert (3, 1500, 2) == got.shape
            np.testing.assert_allclose(got[0], first, **CLOSE)


async def test_a_long_body_that_is_compressed_is_read_in_slices(client):
    """And applied once, in its turn."""
    values = np.random.default_rng(4).uniform(-1, 1, (1, 3000, 3)).astype(np.float32)
    body, headers = binary(values, parameters=sequence(start=True))
    headers["content-encoding"] = "deflate"
    answer = await client.post(INFER, content=zlib.compress(body), headers=headers)
    np.testing.assert_allclose(outputs_of(answer)[0], expected(values[0]), **CLOSE)
    assert 3000 == (await client.get("/v1/sessions/int:1")).json()["position"]
