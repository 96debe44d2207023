"""Bodies of `/v2`, by either entrance: binary or JSON, compressed, raw, long, or too long."""

import gzip
import json
import zlib

import numpy as np
import pytest

from service.transport.slices import LARGE_BODY_BYTES
from tests.integration.small_service import make_app
from tests.integration.v2_http import (
    CLOSE,
    INFER,
    INPUTS,
    LENGTH,
    binary,
    document,
    expected,
    outputs_of,
    sequence,
)

MAX_BODY_BYTES = 4 * 1024 * 1024
"""The limit of `make_app`."""


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


async def test_a_long_document_is_read_in_slices(client):
    """And applied once, in its turn; flat or nested, plain or compressed."""
    values = np.random.default_rng(5).uniform(-1, 1, (1, 3000, 3)).astype(np.float32)
    body = document(values, parameters=sequence(start=True))
    nested = document(values, parameters=sequence(start=True))
    nested["inputs"][0]["data"] = values.tolist()
    plain, of_lists = (json.dumps(each).encode() for each in (body, nested))
    assert len(plain) > LARGE_BODY_BYTES
    for content, encoding in ((plain, "identity"), (of_lists, "identity"), (plain, "gzip")):
        sent = gzip.compress(content) if encoding == "gzip" else content
        answer = await client.post(INFER, content=sent, headers={"content-encoding": encoding})
        np.testing.assert_allclose(outputs_of(answer)[0], expected(values[0]), **CLOSE)
        assert 3000 == (await client.get("/v1/sessions/int:1")).json()["position"]


async def test_what_cannot_be_read_is_counted(client):
    """As failed requests to the model of the path, long or short; a model that is none has none."""
    bad, headers = binary()
    long = json.dumps(document(np.zeros((1, 9000, 3)))).encode()
    for content, given in (
        (b"{", {}),
        (bad + b"1", headers),
        (bad, {LENGTH: "x"}),
        (b"123", {LENGTH: "0"}),
        (b"{}", {"content-encoding": "br"}),
        (gzip.compress(b"{"), {"content-encoding": "gzip"}),
        (b"x" * 9000, {"content-encoding": "gzip"}),
        (long[:-1], {}),
        (b" " * (MAX_BODY_BYTES + 1), {}),
        (None, {}),
        (bad, headers | {"x-request-timeout-ms": "soon"}),
    ):
        for model in ("net", "nothing"):
            url = f"/v2/models/{model}/infer"
            body = _in_two_parts() if content is None else content
            assert 400 <= (await client.post(url, content=body, headers=given)).status_code < 500
    stats = (await client.get("/v2/models/net/stats")).json()["model_stats"][0]["inference_stats"]
    assert (11, 0) == (stats["fail"]["count"], stats["success"]["count"])


async def _in_two_parts():
    """Yield a body whose head does not tell that it is over the limit."""
    yield b" " * MAX_BODY_BYTES
    yield b" "
