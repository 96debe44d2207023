"""The models of `/v2`, by either entrance: health, versions, the repository, and paths of none."""

import json

import httpx
import numpy as np

from service.models import ModelLoader
from service.opening import Lifetimes
from service.repository import ModelRepository
from service.served import ServedModels
from service.stores.memory import MemoryStore
from tests.integration.small_service import (
    LIMITS,
    make_app,
    make_engine,
    streaming,
    words,
)
from tests.integration.v2_http import INFER, document, sequence
from tests.unit.engines import network
from tests.unit.model_directory import write


async def test_health_and_ready(client):
    """An empty 200."""
    for path in ("health/live", "health/ready", "models/net/ready", "models/net/versions/1/ready"):
        answer = await client.get(f"/v2/{path}")
        assert (200, b"") == (answer.status_code, answer.content)


async def test_the_current_version_is_known_by_its_number(client):
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


async def test_an_answer_names_the_version_that_ran(serving):
    """A session's own, to its end; the current one for what begins."""
    store = MemoryStore(50)
    before = make_engine("net", streaming(), store=store)
    async with serving(make_app({"net": before})) as client:
        body = document(parameters=sequence(start=True))
        assert "1" == (await client.post(INFER, json=body)).json()["model_version"]
    earlier = make_engine("net", streaming(), store=store, is_alone=False)
    current = make_engine("net", network(seed=5), version="2", store=store, earlier=[earlier])
    async with serving(make_app({"net": current})) as client:

        async def version_of(**parameters):
            answer = await client.post(INFER, json=document(parameters=sequence(**parameters)))
            return answer.json()["model_version"]

        assert ["1", "1", "1"] == [
            await version_of(position=1),
            await version_of(position=1),  # replayed
            await version_of(end=True),
        ]
        assert ["2", "2"] == [await version_of(start=True), await version_of()]
        batch = await client.post(INFER, json=document(np.zeros((1, 3, 3))))
        assert "2" == batch.json()["model_version"]


async def test_a_kept_answer_of_a_version_that_is_gone_names_none(serving):
    """It is that version's and not the current one's."""
    store = MemoryStore(50)
    async with serving(make_app({"net": make_engine("net", streaming(), store=store)})) as client:
        await client.post(INFER, json=document(parameters=sequence(start=True)))
        first = await client.post(INFER, json=document(parameters=sequence(position=1)))
    current = make_engine("net", network(seed=5), version="2", store=store)
    async with serving(make_app({"net": current})) as client:
        again = await client.post(INFER, json=document(parameters=sequence(position=1)))
        told = first.json() | {"model_version": ""}
        told["parameters"] |= {"replayed": True}
        assert told == again.json()
        assert 409 == (await client.post(INFER, json=document(parameters=sequence()))).status_code


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
