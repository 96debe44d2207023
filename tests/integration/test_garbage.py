"""What is refused is freed at once: no error waits for the cyclic collector with a body in it."""

import asyncio
import gc
import json
import logging

import pytest

from service.domain import AdvanceRequest, LookRequest
from service.errors import ServiceError
from service.limits import EngineLimits
from tests.integration.small_service import (
    X,
    make_app,
    make_engine,
    streaming,
)

SESSION = "/v1/sessions/alice"


class FaultError(Exception):
    """A fault of ours."""


def num_alive():
    """Return how many requests and errors there are."""
    kinds = (AdvanceRequest, LookRequest, ServiceError, FaultError)
    return sum(isinstance(thing, kinds) for thing in gc.get_objects())


@pytest.fixture
def no_collector():
    """The collector is off, as good as it is in the service."""
    gc.collect()
    gc.disable()
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)
    gc.enable()


REFUSED = {
    "unknown": ("sessions/alice/sequence", {"inputs": X, "position": 5}, 404),
    "invalid": ("sessions/alice/sequence", {"inputs": [X[0], [1]]}, 422),
    "rows": ("steps", {"client_ids": ["a", "b"], "inputs": X[:2], "positions": [1, 1]}, 200),
    "bad rows": ("steps", {"client_ids": ["a", "a"], "inputs": [[1], "x"]}, 200),
    "full": ("steps", {"client_ids": list("abc"), "inputs": X, "positions": [1, 1, 1]}, 200),
    "fault": ("predict", {"inputs": [X]}, 500),
}


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(("path", "body", "status"), REFUSED.values(), ids=REFUSED)
async def test_a_request_that_is_refused_is_freed_at_once(path, body, status, serving):
    """Whatever it was refused for, by the parser, the engine or a fault."""
    engine = make_engine("net", streaming(), EngineLimits(arena_rows=6, max_pending=2))

    async def fail(*_):
        await asyncio.sleep(0)
        raise FaultError

    engine.predict = fail
    async with serving(make_app({"net": engine})) as client:
        before = num_alive()
        for _ in range(5):
            assert status == (await client.post(f"/v1/{path}", json=body)).status_code
        await asyncio.sleep(0.01)
        assert before == num_alive()


@pytest.mark.usefixtures("no_collector")
async def test_a_request_whose_caller_has_gone_is_freed_at_once(serving):
    """The engine has not started, so that the caller leaves first."""
    app = make_app()
    body = json.dumps({"inputs": X[0]}).encode()
    scope = {
        "type": "http",
        "method": "POST",
        "path": f"{SESSION}/step",
        "headers": [],
        "query_string": b"",
    }
    before = num_alive()
    messages = [{"type": "http.request", "body": body}, {"type": "http.disconnect"}]

    async def receive():
        return messages.pop(0)

    await app(scope, receive, None)
    assert [] == messages
    async with serving(app) as client:  # now the job has its turn, and is dropped
        await client.get("/healthz")
        await asyncio.sleep(0.01)
        assert before == num_alive()


STREAMS = {
    "ends": [],
    "good": [json.dumps({"inputs": X[0]}), json.dumps({"inputs": X[0]})],
    "invalid": [b"1"],
    "unknown": [json.dumps({"inputs": X[0], "position": 5})],
    "conflict": [json.dumps({"inputs": X[0]}), json.dumps({"inputs": X[0], "position": 7})],
}


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("frames", STREAMS.values(), ids=STREAMS)
async def test_a_stream_that_has_ended_is_freed_at_once(frames, serving):
    """With its look at the session, its steps and its error."""
    app = make_app()
    async with serving(app):
        before = num_alive()
        await _stream(app, frames)
        await asyncio.sleep(0.01)
        assert before == num_alive()


async def _stream(app, frames):
    scope = {"type": "websocket", "path": f"{SESSION}/stream", "headers": []}
    messages = [{"type": "websocket.connect"}]
    messages += [
        {"type": "websocket.receive", "bytes" if isinstance(frame, bytes) else "text": frame}
        for frame in frames
    ]

    async def receive():
        await asyncio.sleep(0.02)
        return messages.pop(0) if messages else {"type": "websocket.disconnect"}

    async def send(message):
        assert message["type"].startswith("websocket.")

    await app(scope, receive, send)
