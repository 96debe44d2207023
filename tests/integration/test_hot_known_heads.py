"""Heads that a connection has seen before are answered as when they were parsed."""

import asyncio
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.transport.http_protocol import MAX_KNOWN_HEADS
from tests.integration.raw_http import (
    BODY,
    STEP,
    get,
    pending,
    post,
    read_answer,
    read_positions,
    told_by,
    until,
)
from tests.integration.small_service import X, listening, make_app, make_engines
from tests.integration.test_hot_queue import standstill

LONG = json.dumps({"inputs": X[0]}).encode()
BODIES = [
    LONG,
    LONG.replace(b"0.1", b"0.9"),
    LONG.replace(b"0.3", b"0.7"),
    b"{" * len(LONG),
    b"POST /v1/se\r\n\r\n".ljust(len(LONG)),
]
"""All of one length; one looks like the end of a head."""
PATHS = [
    b"/v1/sessions/bob/step",
    b"/v1/sessions/b%6Fb/step",
    b"/v1/sessions//step",
    b"/v1/sessions/a%2Fb/step",
    b"/v1/sessions/bob/step?x=1",
    b"/v1/sessions/bob/step#x",
    b"/v1/sessions/bob/sequence",
    b"/v1/models/none/steps",
    b"/v1/nothing",
]
OTHERS = [get(), get(STEP), post(b"{}"), post(b""), *(post(LONG, path) for path in PATHS)]
ONES = st.one_of(
    st.sampled_from(BODIES).map(post),
    st.sampled_from(BODIES).map(post),
    st.sampled_from(OTHERS),
    st.builds(
        lambda body, i: post(body, STEP, b"x: %d" % i), st.sampled_from(BODIES), st.integers(0, 20)
    ),
)
PLACES = st.sampled_from([None, None, None, -1, -5, 20, len(post()) - len(BODY), 1])
"""Where a packet ends: behind the request, or so far from an end of it."""


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(
            st.lists(ONES, min_size=1, max_size=3),
            st.sampled_from([b"", b"", b"", b"\r\n", b"\r\n\r\n"]),
            PLACES,
            st.booleans(),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_any_packets_are_answered_as_single_requests(packets):
    """Of more or less than a request, with lines before it, with or without waiting for answers."""
    asyncio.run(_compare(packets))


async def _compare(packets):
    told: list[tuple[int, bytes]] = []
    wanted: list[bytes] = []
    async with listening(make_app()) as opened:
        reader, writer = await opened.open()
        for requests, lines, place, waits in packets:
            sent = lines + b"".join(requests)
            writer.write(sent[:place])
            if place is not None:
                await asyncio.sleep(0.001)
                writer.write(sent[place:])
            wanted += requests
            if waits:
                told += [told_by(*await _read(reader)) for _ in wanted[len(told) :]]
            else:
                await asyncio.sleep(0.001)
        told += [told_by(*await _read(reader)) for _ in wanted[len(told) :]]
        writer.close()
    async with listening(make_app(), http=HttpToolsProtocol) as opened:
        reader, writer = await opened.open()
        for request, answer in zip(wanted, told, strict=True):
            writer.write(request)
            assert told_by(*await _read(reader)) == answer
        writer.close()


async def _read(reader):
    async with asyncio.timeout(10):
        return await read_answer(reader)


async def test_more_heads_than_a_connection_remembers():
    """Each is answered as at first, and what is remembered stays bounded."""
    async with listening(make_app()) as opened:
        reader, writer = await opened.open()
        all_heads = range(MAX_KNOWN_HEADS + 1)
        for position, i in enumerate([*all_heads, 0, MAX_KNOWN_HEADS, *all_heads], 1):
            writer.write(post(LONG, STEP, b"x-request-id: n%d" % i))
            status, headers, body = await _read(reader)
            assert (200, f"n{i}") == (status, headers["x-request-id"])
            assert position == json.loads(body)["position"]
            (connection,) = opened.state.connections
            assert len(connection._known_heads) <= MAX_KNOWN_HEADS  # noqa: SLF001
        writer.close()


async def test_a_head_of_another_session_is_known_by_its_headers():
    """It is not parsed, if its path and its headers are plain; what is odd is, each time."""
    async with listening(make_app()) as opened:
        reader, writer = await opened.open()
        await until(lambda: opened.state.connections)
        (connection,) = opened.state.connections
        for url, headers, wanted, is_parsed in [
            (STEP, (), 1, True),
            (b"/v1/sessions/bob/step", (), 1, False),
            (b"/v1/sessions/c%61rol/step", (), 1, False),
            (STEP, (), 2, False),
            (b"/v1/sessions/carol/step", (), 2, False),
            (b"/v1/sessions/bob/step", (b"x: 1",), 2, True),
            (b"/v1/sessions//step", (), None, True),
        ]:
            num_parsed = connection._num_messages  # noqa: SLF001
            writer.write(post(LONG, url, *headers))
            _, _, body = await _read(reader)
            assert wanted == json.loads(body).get("position")
            assert num_parsed + is_parsed == connection._num_messages  # noqa: SLF001
        writer.close()


async def test_a_line_before_a_head_is_no_header():
    """What is remembered of a head behind empty lines is not taken for another's headers."""
    async with listening(make_app()) as opened:
        reader, writer = await opened.open()
        writer.write(b"\r\n" + post(LONG))
        assert 200 == (await _read(reader))[0]
        writer.write(b"POST /v1/sessions/bob/step HTTP/1.1\r\n" + post(LONG))
        assert 400 == (await _read(reader))[0]
        writer.close()


async def test_a_known_head_inside_a_request_or_behind_an_unanswered_request():
    """It is a part of the request; it waits for its turn."""
    engines = make_engines()
    async with listening(make_app(engines)) as opened:
        reader, writer = await opened.open()
        for body, wanted in ((LONG, 200), (b"{" * len(LONG), 422)):
            writer.write(post(body))
            assert wanted == (await _read(reader))[0]
        inner = post(LONG)
        outer = post(inner)
        writer.write(outer[: -len(inner)])
        await asyncio.sleep(0.01)
        writer.write(inner)
        assert 422 == (await _read(reader))[0]
        writer.write(b"POST /v1/models/none/steps HTTP/1.1\r\nx: ")
        await asyncio.sleep(0.01)
        writer.write(post(LONG))
        assert 404 == (await _read(reader))[0]
        with standstill(engines):
            writer.write(post(LONG))
            await until(lambda: pending(engines))
            writer.write(post(b"{" * len(LONG)))
            await asyncio.sleep(0.01)
        assert [2, 422] == await read_positions(reader, 2)
        writer.close()
