"""Bodies and headers that lie, to the Open Inference Protocol over HTTP: no fault, no hang.

And no trace: sessions stay as they are, and what was refused is freed at once.
"""

import asyncio
import gzip
import json
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.limits import EngineLimits
from tests.integration.raw_http import get, post, read_answer
from tests.integration.small_service import (
    listening,
    make_app,
    make_engine,
    serving_asgi,
    streaming,
)
from tests.integration.test_garbage import FaultError, no_collector, num_alive
from tests.integration.v2_http import INFER, INPUTS, LENGTH, binary, document, sequence

__all__ = ["no_collector"]

STARTED = sequence(1, start=True)
NEXT = sequence(1)
GOOD, HEADERS = binary(parameters=NEXT)
NUM_JSON = int(HEADERS[LENGTH])
TENSOR = document()["inputs"][0]
LIMIT = 64 * 1024


def tensor(**changes):
    """Return a request of which the tensor has other members."""
    return json.dumps({"inputs": [TENSOR | changes], "parameters": NEXT})


def whole(**members):
    """Return a request with other members."""
    return json.dumps(document(parameters=NEXT) | members)


def sized(size, blob=b"\0" * 12):
    """Return a request whose tensor is said to have so many bytes."""
    parameters = {"binary_data_size": size}
    given_tensor = {key: value for key, value in TENSOR.items() if key != "data"}
    text = json.dumps({"inputs": [given_tensor | {"parameters": parameters}], "parameters": NEXT})
    return text.encode() + blob, {LENGTH: str(len(text))}


NAN = b"\0\0\xc0\x7f"
BODIES = [
    *(
        (body, {})
        for body in (
            "",
            "{",
            "[]",
            "null",
            "1",
            "{}",
            b"\xff\xfe",
            b'{"id": "\xff"}',
            '{"id": "\\ud800"}',
            "[" * 20_000,
            '{"a":' * 10_000,
            '{"inputs": [' + "{}," * 5000 + "{}]}",
            json.dumps({"inputs": [TENSOR] * 2, "parameters": NEXT}),
            json.dumps({"inputs": [TENSOR] * 100, "parameters": NEXT}),
            json.dumps({"inputs": [], "parameters": NEXT}),
            whole(inputs={}),
            whole(inputs=[1]),
            whole(inputs=None),
            whole(id=1),
            whole(parameters=[]),
            whole(outputs={}),
            whole(outputs=[{}]),
            whole(outputs=[{"name": "other"}]),
            whole(outputs=[{"name": "outputs"}] * 2),
            whole(outputs=[{"name": "outputs", "parameters": {"classification": 2}}]),
            whole(outputs=[{"name": "outputs", "parameters": {"binary_data": 1}}]),
            whole(outputs=[{"name": "outputs", "parameters": {"shared_memory_region": "x"}}]),
            tensor(name="other"),
            tensor(name=1),
            tensor(datatype="BYTES"),
            tensor(datatype=None),
            tensor(datatype="FP32" * 1000),
            tensor(shape=[]),
            tensor(shape=[1]),
            tensor(shape=[-1, 3]),
            tensor(shape=[-1, -3]),
            tensor(shape=[0, 3]),
            tensor(shape=[1, 0, 3], data=[]),
            tensor(shape=[0, 2**62], data=[]),
            tensor(shape=[0, 10**18, 10**18], data=[]),
            tensor(shape=[2**62, 3]),
            tensor(shape=[2**62, 2**62]),
            tensor(shape=[10**30, 3]),
            tensor(shape=[1.0, 3.0]),
            tensor(shape=[True, 3]),
            tensor(shape=["1", 3]),
            tensor(shape=[1] * 5000 + [3]),
            tensor(shape="1,3"),
            tensor(shape=None),
            tensor(shape=[3, 1]),
            tensor(shape=[1, 1, 1, 3]),
            tensor(shape=[3, 3], data=[0.0] * 9),
            tensor(shape=[2, 1, 3], data=[0.0] * 6),
            tensor(data=[1, 2]),
            tensor(data=[1, 2, 3, 4]),
            tensor(data=[1, 2, "3"]),
            tensor(data=[1, 2, True]),
            tensor(data=[1, 2, None]),
            tensor(data=[1, 2, 1e39]),
            tensor(data=[[1, 2, [3]]]),
            tensor(data="abc"),
            tensor(data={}),
            tensor(data=None),
            tensor(parameters={"binary_data_size": 12}),
            tensor(parameters={"shared_memory_region": "x"}),
            tensor(parameters=1),
            whole().replace("0.1", "NaN"),
            whole().replace("0.1", "1e999"),
        )
    ),
    *(sized(size) for size in (0, 11, 13, -1, -12, 2**63, 10**30, 12.0, True, "12")),
    sized(12, b"\0" * 11),
    sized(12, b"\0" * 13),
    sized(12, b""),
    sized(12, b"\0" * 8 + NAN),
    *(
        (GOOD, {LENGTH: length})
        for length in ("", "-1", "+1", "1e3", "0x10", "1 2", "00", "9" * 18, "9" * 40, "\u0661")
    ),
    (GOOD, {LENGTH: str(NUM_JSON - 1)}),
    (GOOD, {LENGTH: str(NUM_JSON + 1)}),
    (GOOD, {LENGTH: str(len(GOOD) + 1)}),
    (GOOD, {}),
    (GOOD[:-1], {LENGTH: "0"}),
    (b"", {LENGTH: "0"}),
    (NAN * 3, {LENGTH: "0"}),
    (GOOD, HEADERS | {"content-encoding": "gzip"}),
    (GOOD, HEADERS | {"content-encoding": "deflate"}),
    (gzip.compress(GOOD)[:-9], HEADERS | {"content-encoding": "gzip"}),
    (gzip.compress(GOOD) + b"more", HEADERS | {"content-encoding": "gzip"}),
    (gzip.compress(GOOD), HEADERS | {"content-encoding": "deflate"}),
    (b"", HEADERS | {"content-encoding": "gzip"}),
    (gzip.compress(b""), {"content-encoding": "gzip"}),
]
OTHERS = [
    (gzip.compress(b" " * (LIMIT + 1)), {"content-encoding": "gzip"}, 413),
    (gzip.compress(b" " * 30_000_000, 9), {"content-encoding": "gzip"}, 413),
    (zlib.compress(b"[" * 30_000_000, 9), {"content-encoding": "deflate"}, 413),
    (GOOD + b"\0" * LIMIT, HEADERS, 413),
    (GOOD, HEADERS | {"content-encoding": "br"}, 415),
    (GOOD, HEADERS | {"content-encoding": "gzip, gzip"}, 415),
]


async def begin(client):
    """Begin the sequence that must not change; return what it is."""
    body = json.dumps(document(parameters=STARTED))
    assert 200 == (await client.post(INFER, content=body)).status_code
    return await state(client)


async def state(client):
    """Return the state of the sequence."""
    return (await client.get("/v1/sessions/int:1/state")).json()


async def test_what_is_wrong_is_said_and_nothing_changes(serving):
    """Each of these, by either entrance; then the sequence goes on."""
    cases = [*((*case, 400) for case in BODIES), *OTHERS]
    async with serving(make_app(max_body_bytes=LIMIT)) as client:
        before = await begin(client)
        for body, headers, status in cases:
            encoded = {name: value.encode() for name, value in headers.items()}
            async with asyncio.timeout(10):
                answer = await client.post(INFER, content=body, headers=encoded)
            case = f"{body[:200]!r} {headers}: {answer.text}"
            assert status == answer.status_code, case
            assert {"error"} == answer.json().keys(), case
            assert 0 < len(answer.json()["error"]) < 2000, case
        assert before == await state(client)
        assert ["int:1"] == [
            each["client_id"] for each in (await client.get("/v1/sessions")).json()["sessions"]
        ]
        good = await client.post(INFER, content=GOOD, headers=HEADERS)
        assert 200 == good.status_code


NUMBERS = st.integers(-5, 300) | st.integers(-(2**65), 2**65)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.just("inputs") | JSON,
        "shape": st.lists(NUMBERS, max_size=4) | st.just([1, 3]) | JSON,
        "datatype": st.sampled_from(["FP32", "FP64", "INT64", "BOOL", "BYTES"]) | JSON,
        "data": st.lists(st.floats(-1, 1), min_size=3, max_size=3) | JSON,
        "parameters": st.fixed_dictionaries({"binary_data_size": NUMBERS}) | JSON,
    },
)
REQUESTS = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=2) | JSON},
    optional={"id": JSON, "parameters": st.just(NEXT) | JSON, "outputs": JSON},
)


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(
    requests=st.lists(REQUESTS, min_size=1, max_size=4),
    blob=st.binary(max_size=24),
    cut=st.integers(0, 40),
    shift=st.integers(-3, 3),
)
def test_any_request_is_answered_or_refused(requests, blob, cut, shift):
    """Whatever it holds, says of its lengths and lacks; only what is answered is applied."""

    async def run():
        async with serving_asgi(make_app()) as client:
            before = await begin(client)
            num_applied = 0
            for request in requests:
                text = json.dumps(request).encode()
                body = (text + blob)[: len(text) + len(blob) - cut]
                headers = {LENGTH: str(max(0, len(text) + shift))}
                async with asyncio.timeout(10):
                    answer = await client.post(INFER, content=body, headers=headers)
                assert answer.status_code in (200, 400), answer.text
                if answer.status_code == 200 and headers[LENGTH] != "0":
                    num_applied += request.get("parameters") == NEXT
            after = await state(client)
            assert before["position"] + num_applied == after["position"]
            assert num_applied or before == after

    asyncio.run(run())


def lying(length, body=GOOD):
    """Return a request with a content length that it has not."""
    head = f"POST {INFER} HTTP/1.1\r\nhost: x\r\n{LENGTH}: {NUM_JSON}\r\n"
    return f"{head}content-length: {length}\r\n\r\n".encode() + body


async def test_content_lengths_that_lie():
    """A body that ends too early is not applied; one that is too long spoils what follows only."""
    async with listening(make_app()) as opened:
        reader, writer = await opened.open()
        headers = f"{LENGTH}: {NUM_JSON}".encode()
        started, started_headers = binary(parameters=STARTED)
        length = f"{LENGTH}: {started_headers[LENGTH]}".encode()
        writer.write(post(started, INFER.encode(), length))
        assert 200 == (await read_answer(reader))[0]

        for bad in (len(GOOD) + 1, 10**12, -1, "x", 0, NUM_JSON):
            other_reader, other = await opened.open()
            other.write(lying(bad))
            other.write_eof()
            async with asyncio.timeout(10):
                told = await other_reader.read()
            assert b"HTTP/1.1 200" not in told
            assert b"HTTP/1.1 500" not in told
            other.close()

        writer.write(get(b"/v1/sessions/int:1"))
        assert 1 == json.loads((await read_answer(reader, "GET"))[2])["position"]
        writer.write(post(GOOD, INFER.encode(), headers))
        assert 200 == (await read_answer(reader))[0]
        writer.close()


REFUSED = {
    "unknown": (document(parameters=sequence(9)), 400),
    "conflict": (document(parameters=NEXT | {"position": 7}), 409),
    "invalid": (document(parameters=NEXT) | {"inputs": [1]}, 400),
    "fault": (document(INPUTS[None]), 500),
}


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize(("body", "status"), REFUSED.values(), ids=REFUSED)
async def test_a_request_that_is_refused_is_freed_at_once(body, status, serving):
    """Whatever it was refused for."""
    engine = make_engine("net", streaming(), EngineLimits(arena_rows=6, max_pending=2))

    async def fail(*_):
        await asyncio.sleep(0)
        raise FaultError

    engine.predict = fail
    async with serving(make_app({"net": engine})) as client:
        await begin(client)
        before = num_alive()
        for _ in range(5):
            assert status == (await client.post(INFER, json=body)).status_code
        await asyncio.sleep(0.01)
        assert before == num_alive()


@pytest.mark.usefixtures("no_collector")
async def test_a_request_whose_caller_has_gone_is_freed_at_once(serving):
    """The engine has not started, so that the caller leaves first; nothing is applied."""
    app = make_app()
    body = json.dumps(document(parameters=STARTED)).encode()
    scope = {"type": "http", "method": "POST", "path": INFER, "headers": [], "query_string": b""}
    before = num_alive()
    messages = [{"type": "http.request", "body": body}, {"type": "http.disconnect"}]

    async def receive():
        return messages.pop(0)

    await app(scope, receive, None)
    assert [] == messages
    async with serving(app) as client:  # now the job has its turn, and is dropped
        assert 404 == (await client.get("/v1/sessions/int:1")).status_code
        await asyncio.sleep(0.01)
        assert before == num_alive()
