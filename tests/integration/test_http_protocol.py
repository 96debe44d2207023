"""HTTP itself: limits, content types, paths that lead nowhere, faults, callers who leave."""

import asyncio
import json

import pytest

from service.domain import LookRequest, SessionKey
from service.errors import SessionUnknownError
from tests.integration.small_service import X, make_app, make_engines, serving_asgi

STEP = "/v1/sessions/alice/step"
BODY = json.dumps({"inputs": X[0]}).encode()


@pytest.fixture
async def client(serving):
    """A client of a running service with a small limit."""
    async with serving(make_app(max_body_bytes=1000)) as client:
        yield client


async def assert_unknown(client):
    """Check that no session was begun."""
    assert 404 == (await client.get("/v1/sessions/alice")).status_code


async def test_a_body_over_the_limit_is_refused(client):
    """By its announced length, or as it comes in."""

    async def chunks():
        for _ in range(100):
            yield b" " * 100

    for content in (b" " * 1001, chunks()):
        answer = await client.post(STEP, content=content)
        assert (413, "body_too_large") == (answer.status_code, answer.json()["code"])
        assert "1000 bytes" in answer.json()["detail"]
    await assert_unknown(client)


async def test_a_length_of_many_digits_is_refused():
    """It is not even turned into a number."""
    # A client that speaks HTTP by itself does not send such: test_hot_http.py has the raw bytes.
    async with serving_asgi(make_app(max_body_bytes=1000)) as client:
        answer = await client.post(STEP, content=BODY, headers={"content-length": "9" * 5000})
    assert 413 == answer.status_code


async def test_a_length_with_leading_zeros_is_what_it_says():
    """HTTP has them, and so has a client that pads its numbers."""
    # A client that speaks HTTP by itself does not send such: test_hot_http.py has the raw bytes.
    length = f"{len(BODY):040}"
    async with serving_asgi(make_app(max_body_bytes=1000)) as client:
        answer = await client.post(STEP, content=BODY, headers={"content-length": length})
    assert 200 == answer.status_code


async def test_a_body_in_pieces_is_put_together(client):
    """A chunked body is a body."""

    async def chunks():
        for index in range(0, len(BODY), 7):
            yield BODY[index : index + 7]

    assert 200 == (await client.post(STEP, content=chunks())).status_code


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "application/json",
        "application/json; charset=utf-8",
        'Application/JSON;charset="UTF-8"',
        "application/vnd.lstm+json",
    ],
)
async def test_json_by_any_name_is_taken(client, content_type):
    """And so is a body without a content type."""
    headers = {} if content_type is None else {"content-type": content_type}
    assert 200 == (await client.post(STEP, content=BODY, headers=headers)).status_code


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/jsonl"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "x" * 900},
        {"content-encoding": "gzip"},
    ],
)
async def test_anything_else_is_not(client, headers):
    """Another type, another character set, compression."""
    answer = await client.post(STEP, content=BODY, headers=headers)
    assert (415, "unsupported_media_type") == (answer.status_code, answer.json()["code"])
    assert len(answer.content) < 500
    await assert_unknown(client)


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v3", "/v1/sessions/alice/forks", "/v1/sessions/a/b/step", "/v1/models//x"],
)
async def test_a_path_that_leads_nowhere_is_a_problem(client, path):
    """In the same form as every other error."""
    answer = await client.get(path)
    assert (404, "not_found") == (answer.status_code, answer.json()["code"])
    assert "application/problem+json" == answer.headers["content-type"]


@pytest.mark.parametrize("model", ["nobody", "", "x" * 5000, "%2F"])
async def test_an_unknown_model_is_told_with_those_there_are(client, model):
    """The message helps, and does not grow with the request."""
    for method, path in (("GET", ""), ("POST", "/predict"), ("POST", "/sessions/alice/step")):
        answer = await client.request(method, f"/v1/models/{model}{path}", content=BODY)
        assert (404, "model_unknown") == (answer.status_code, answer.json()["code"])
        assert "net, both, words" in answer.json()["detail"]
        assert len(answer.content) < 500


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", STEP, "POST"),
        ("POST", "/v1/sessions/alice/state", "GET, HEAD, PUT"),
        ("PUT", "/v1/sessions/alice", "DELETE, GET, HEAD"),
        ("OPTIONS", "/healthz", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_with_the_right_ones(client, method, path, allowed):
    """In the message and in the header."""
    answer = await client.request(method, path)
    assert (405, "method_not_allowed") == (answer.status_code, answer.json()["code"])
    assert allowed == answer.headers["allow"]
    assert allowed in answer.json()["detail"]


async def test_a_fault_is_a_problem_without_its_reason(caplog, serving):
    """The log has the reason and the request id, the caller a document like any other."""

    def broken():
        raise RuntimeError("secret")

    async with serving(make_app(render_metrics=broken)) as client:
        answer = await client.get("/metrics", headers={"x-request-id": "trace-7"})
    assert (500, "internal") == (answer.status_code, answer.json()["code"])
    assert "secret" not in answer.text
    assert "trace-7" in caplog.text
    assert "secret" in caplog.text


class Caller:
    """An ASGI caller who sends a request and leaves, after a while, before the answer."""

    def __init__(self, *, leaves_after_s, body=BODY):
        self.leaves_after_s = leaves_after_s
        self.body = body
        self.sent = []
        self._has_sent = False

    async def receive(self):
        """Give the body, and then the disconnection."""
        if not self._has_sent:
            self._has_sent = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await asyncio.sleep(self.leaves_after_s)
        return {"type": "http.disconnect"}

    async def send(self, message):
        """Keep what is answered."""
        self.sent.append(message)

    async def call(self, app, path):
        """Send a step."""
        scope = {
            "type": "http",
            "method": "POST",
            "path": path,
            "raw_path": path.encode(),
            "headers": [],
            "query_string": b"",
        }
        await app(scope, self.receive, self.send)


async def test_a_caller_who_leaves_cancels_what_has_not_begun(serving):
    """Nobody is answered, and the session is not begun."""
    seen = []
    engines = make_engines()
    app = make_app(engines, observe=lambda *observed: seen.append(observed[:2]))
    caller = Caller(leaves_after_s=0.001)
    # The engine has not started yet, so that the job waits.
    await caller.call(app, STEP)
    assert [] == caller.sent
    assert [("/v1/sessions/{client_id}/step", 499)] == seen
    async with serving(app):
        with pytest.raises(SessionUnknownError):
            await engines["net"].ask(LookRequest(key=SessionKey("default", "net", "alice")))


async def test_a_caller_who_leaves_cancels_a_prediction():
    """It may wait for minutes in its queue, for nobody."""
    ended = []
    engines = make_engines()

    async def predict(*_):
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    engines["net"].predict = predict
    caller = Caller(leaves_after_s=0.001, body=json.dumps({"inputs": [X]}).encode())
    async with asyncio.timeout(10):
        await caller.call(make_app(engines), "/v1/predict")
    assert (["cancelled"], []) == (ended, caller.sent)


async def test_a_server_that_repeats_the_body_holds_nothing_up(serving):
    """Watching for the caller's leaving never spins."""

    class Repeating(Caller):
        async def receive(self):
            return {"type": "http.request", "body": BODY, "more_body": False}

    engines = make_engines()
    app = make_app(engines)
    caller = Repeating(leaves_after_s=0)
    waiting = asyncio.create_task(caller.call(app, STEP))
    await asyncio.sleep(0.05)
    # The engine starts only now, long after the watching has begun.
    async with serving(app):
        await waiting
    assert 200 == caller.sent[0]["status"]


async def test_a_quick_answer_costs_no_task(client, monkeypatch):
    """A caller is watched only once the answer takes long."""
    created = []
    loop = asyncio.get_running_loop()
    create_task = loop.create_task
    await client.post(STEP, content=BODY)

    def counting(coro, **options):
        created.append(coro.__qualname__)
        return create_task(coro, **options)

    monkeypatch.setattr(loop, "create_task", counting)
    assert 200 == (await client.post(STEP, content=BODY)).status_code
    assert [] == [name for name in created if "watch" in name]
