"""The OpenAPI document: every operation with its schemas and examples, and `/docs` offline."""

import re
from http import HTTPStatus

import pytest
from pydantic import BaseModel

from service.transport import replies, schema
from service.transport.tensors import MEDIA_TYPE
from tests.integration.small_service import make_app

APP = make_app()
ROUTES = APP.routes_of_api.routes
BODIES = sorted({body for route in ROUTES for body in route.bodies}, key=str)
REPLIES = sorted({route.reply for route in ROUTES if route.reply}, key=str)


def resolve(document, node):
    """Follow a reference."""
    if "$ref" in node:
        name = node["$ref"].removeprefix("#/components/schemas/")
        return document["components"]["schemas"][name]
    return node


@pytest.fixture(scope="module")
def document():
    """The document."""
    return APP.openapi()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.template}")
def test_every_route_is_documented(document, route):
    """With parameters, request and reply schemas, examples, and the problems it may answer."""
    operation = document["paths"][route.template][route.method.lower()]
    assert operation["summary"]
    in_path = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
    assert set(re.findall(r"{(\w+)}", route.template)) == in_path
    if route.method in ("POST", "PUT"):
        content = operation["requestBody"]["content"]["application/json"]
        for node in content["schema"].get("anyOf", [content["schema"]]):
            assert "object" == resolve(document, node)["type"]
        assert content["examples"]
    if route.reply is not None:
        content = operation["responses"][str(route.reply_status)]["content"]["application/json"]
        assert "object" == resolve(document, content["schema"])["type"]
        assert content["examples"]
    problem = operation["responses"]["500"]["content"]["application/problem+json"]
    assert "code" in resolve(document, problem["schema"])["properties"]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.template}")
def test_every_problem_has_an_example_of_its_own(document, route):
    """Of its status, its title and its code, one for each code that may come."""
    responses = document["paths"][route.template][route.method.lower()]["responses"]
    problems = {status: reply for status, reply in responses.items() if int(status) >= 400}
    assert {"422", "500"} <= set(problems)
    for status, reply in problems.items():
        examples = reply["content"]["application/problem+json"]["examples"]
        assert reply["description"] == ", ".join(f"`{code}`" for code in examples)
        for code, example in examples.items():
            value = example["value"]
            replies.ProblemDocument.model_validate(value)
            expected = (int(status), code, HTTPStatus(int(status)).phrase)
            assert expected == (value["status"], value["code"], value["title"])


def test_metrics_are_documented_as_text(document):
    """That is what Prometheus reads."""
    content = document["paths"]["/metrics"]["get"]["responses"]["200"]["content"]
    assert {"text/plain"} == set(content)


@pytest.mark.parametrize("prefix", ["/v1", "/v1/models/{model}"])
def test_the_other_form_of_a_state_is_documented(document, prefix):
    """As what a caller may ask for, and as what it may send."""
    path = document["paths"][f"{prefix}/sessions/{{client_id}}/state"]
    for content in (
        path["get"]["responses"]["200"]["content"],
        path["put"]["requestBody"]["content"],
    ):
        assert ["application/json", MEDIA_TYPE] == list(content)
        assert "{layer}.h" in content[MEDIA_TYPE]["schema"]["description"]


STORE_CODES = {"store_unavailable", "store_lost"}
LIVE_CODES = {"session_unknown", "session_expired", "session_damaged", "lost_update"}


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("post", "/{client_id}/step", LIVE_CODES | {"position_conflict", "fingerprint_mismatch"}),
        ("post", "/{client_id}/sequence", LIVE_CODES | {"state_not_finite"}),
        ("post", "/{client_id}/fork", LIVE_CODES | {"session_exists", "too_many_sessions"}),
        ("get", "/{client_id}/state", LIVE_CODES | {"fingerprint_mismatch"}),
        ("put", "/{client_id}/state", {"fingerprint_mismatch", "session_damaged"}),
        ("post", "/{client_id}/reset_states", {"session_damaged", "too_many_sessions"}),
        ("get", "/{client_id}", LIVE_CODES),
        ("delete", "/{client_id}", {"session_unknown", "session_damaged"}),
        ("get", "", set()),
    ],
)
def test_what_may_happen_to_a_session_is_documented(document, method, path, expected):
    """A generated client knows every code."""
    responses = document["paths"][f"/v1/sessions{path}"][method]["responses"]
    codes = set(re.findall(r"`(\w+)`", str([reply["description"] for reply in responses.values()])))
    assert expected | STORE_CODES <= codes
    assert ("session_expired" in codes) == ("session_expired" in expected)


def test_the_most_rows_of_a_request_are_documented(document):
    """A client can cut its batches by it."""
    steps = document["components"]["schemas"]["StepsBody"]["properties"]
    assert schema.MAX_STEPS_ROWS == steps["client_ids"]["maxItems"] == steps["inputs"]["maxItems"]


def test_every_reference_leads_somewhere(document):
    """A missing schema would break generated clients."""
    names = set(re.findall(r"#/components/schemas/([\w-]+)", str(document)))
    assert names <= set(document["components"]["schemas"])


def test_every_operation_has_a_name_of_its_own(document):
    """Generated clients make functions of them."""
    names = [
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
    ]
    assert len(names) == len(set(names)) == len(ROUTES)


@pytest.mark.parametrize("model", [*BODIES, *REPLIES], ids=lambda model: model.__name__)
def test_examples_are_valid(model):
    """What the document shows works."""
    examples = model.model_json_schema()["examples"]
    assert examples
    for example in examples:
        model.model_validate(example)


@pytest.mark.parametrize("module", [schema, replies])
def test_every_body_and_reply_is_used(module):
    """A model that no route refers to would be forgotten."""
    used = {*BODIES, *REPLIES, replies.ProblemDocument}
    for model in vars(module).values():
        is_model = isinstance(model, type) and issubclass(model, BaseModel)
        if is_model and model.model_config.get("json_schema_extra"):
            assert model in used


def test_the_stream_is_described(document):
    """OpenAPI has no place for a WebSocket but the text."""
    assert "/v1/sessions/{client_id}/stream" in document["info"]["description"]


async def test_the_documentation_needs_no_internet(serving):
    """Every file of `/docs` comes from here."""
    async with serving(make_app()) as client:
        page = (await client.get("/docs")).text
        links = re.findall(r'(?:src|href)="([^"]+)"', page)
        assert len(links) == 3
        for link in links:
            assert link.startswith("/docs/")
            assert 200 == (await client.get(link)).status_code
        assert "http" not in re.sub(r"<!--.*?-->", "", page).replace("http-equiv", "")
        assert 200 == (await client.get("/openapi.json")).status_code


@pytest.mark.parametrize("prefix", ["/v1", "/v1/models/{model}"])
def test_the_binary_form_of_steps_is_documented(document, prefix):
    """What is sent, and what comes back."""
    operation = document["paths"][f"{prefix}/steps"]["post"]
    for content in (operation["requestBody"]["content"], operation["responses"]["200"]["content"]):
        assert ["application/json", "application/vnd.lstm-steps"] == list(content)
        description = content["application/vnd.lstm-steps"]["schema"]["description"]
        assert "u32 rows N" in description
