"""Who may use the API, over every entrance: `create_app(admit=...)`."""

import asyncio

import pytest
from websockets.asyncio.client import connect

from service.errors import ForbiddenError, UnauthenticatedError
from tests.integration.small_service import X, make_app, make_engines, serving_asgi, serving_hot
from tests.integration.stream_service import SHELLS, STREAM, read_end, serving_live

KNOWN = {b"Bearer alice": True, b"Bearer eve": False}
"""Whether who is known may use the API."""
SERVINGS = {"asgi": serving_asgi, "hot": serving_hot}


def admit(headers):
    """Look the bearer up."""
    is_allowed = KNOWN.get(headers.get(b"authorization", b""))
    if is_allowed is None:
        raise UnauthenticatedError
    if not is_allowed:
        raise ForbiddenError


def bearer(name):
    """Return the headers of one who says a name."""
    return {} if name is None else {"authorization": f"Bearer {name}"}


@pytest.fixture(params=SERVINGS)
async def service(request):
    """A client and the engines, over each entrance."""
    engines = make_engines()
    async with SERVINGS[request.param](make_app(engines, admit=admit)) as client:
        yield client, engines


REQUESTS = {
    "hot": ("POST", "/v1/sessions/a/step", {"inputs": X[0]}),
    "cold": ("GET", "/v1/models", None),
}


@pytest.mark.parametrize(("method", "url", "body"), REQUESTS.values(), ids=REQUESTS)
@pytest.mark.parametrize(
    ("name", "status", "code"),
    [(None, 401, "unauthenticated"), ("bob", 401, "unauthenticated"), ("eve", 403, "forbidden")],
)
async def test_who_may_not_is_refused(service, method, url, body, name, status, code):
    """With a challenge where credentials are missing, and nothing applied."""
    client, engines = service
    for _ in range(3):  # the head is known from the second on
        answer = await client.request(method, url, json=body, headers=bearer(name))
        assert (status, code) == (answer.status_code, answer.json()["code"])
        challenge = "Bearer" if status == 401 else None
        assert challenge == answer.headers.get("www-authenticate")
    assert 0 == engines["net"].stats.num_steps


async def test_every_request_of_a_connection_is_asked(service):
    """Who was let in lets nobody else in."""
    client, engines = service
    statuses = []
    for name in ("alice", "bob", "alice", None, "eve", "alice"):
        answer = await client.post(
            "/v1/sessions/a/step", json={"inputs": X[0]}, headers=bearer(name)
        )
        statuses.append(answer.status_code)
    assert [200, 401, 200, 401, 403, 200] == statuses
    assert 3 == engines["net"].stats.num_steps


@pytest.mark.parametrize("url", ["/healthz", "/readyz", "/metrics"])
async def test_health_and_metrics_are_nobody_s(service, url):
    """They are not asked for, also from who is known and refused."""
    client, _ = service
    for name in (None, "eve"):
        assert 200 == (await client.get(url, headers=bearer(name))).status_code


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("name", "code", "status"),
    [(None, "unauthenticated", 4401), ("bob", "unauthenticated", 4401), ("eve", "forbidden", 4403)],
)
async def test_streams_are_closed(shell, name, code, status):
    """With the error as the first and only frame, in the place of the hello."""
    engines = make_engines()
    async with serving_live(make_app(engines, admit=admit), shell) as live:
        async with connect(f"ws://{live.address}{STREAM}", additional_headers=bearer(name)) as it:
            error, closed = await asyncio.wait_for(read_end(it), 5)
        assert (code, status) == (error["code"], closed)
        async with connect(
            f"ws://{live.address}{STREAM}", additional_headers=bearer("alice")
        ) as it:
            assert '"hello"' in await it.recv()
    assert 0 == engines["net"].stats.num_steps
