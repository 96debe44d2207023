"""Raw bytes to the hot entrance, and the same to uvicorn's own as the oracle of HTTP."""

import asyncio
import json
import re
from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from websockets.asyncio.client import connect

from service.limits import EngineLimits
from service.transport.patience import Patience
from tests.integration.raw_http import (
    BODY,
    CHUNKED,
    LAST,
    STEP,
    get,
    pending,
    position_of,
    post,
    read_answer,
    read_positions,
    send_all,
    told_by,
    until,
)
from tests.integration.small_service import (
    X,
    listening,
    make_app,
    make_engine,
    make_engines,
    streaming,
)

SHORT = Patience(idle_s=0.1, transfer_s=0.1)


async def exchange(opened, parts):
    """Do as `send_all`, and leave out what differs each time."""
    told = await send_all(opened, parts)
    told = re.sub(rb'(?i)(x-request-id: |"request_id":")[^\r"]*', rb"\1?", told)
    # Its number of digits is in the length too.
    told = re.sub(rb"content-length: \d+", b"content-length: ?", told)
    return re.sub(rb'"epoch":\d+', b'"epoch":0', told)


SAME = {
    "step": post() + LAST,
    "pipelined": post() + get() + post() + post(b"{") + get(b"/nowhere") + post() + LAST,
    "close": post(BODY, STEP, b"connection: close"),
    "http 1.0": post(version=b"1.0"),
    "get": get(STEP) + LAST,
    "put": get(STEP, b"PUT", b"content-length: 0") + LAST,
    "head": get(STEP, b"HEAD") + get(method=b"HEAD") + LAST,
    "options": get(STEP, b"OPTIONS") + LAST,
    "no length": get(STEP, b"POST") + LAST,
    "chunked": CHUNKED + LAST,
    "chunked between": post() + CHUNKED + post() + LAST,
    "expect": post(BODY, STEP, b"expect: 100-continue") + LAST,
    "upgrade": post(BODY, STEP, b"connection: upgrade, close", b"upgrade: h2c"),
    "absolute": post(BODY, b"http://x" + STEP) + LAST,
    "query": post(BODY, STEP + b"?a=1") + LAST,
    "empty query": post(BODY, STEP + b"?") + LAST,
    "query in the middle": post(BODY, b"/v1/sessions/al?ice/step") + LAST,
    "fragment": post(BODY, STEP + b"#a") + LAST,
    "slash": post(BODY, STEP + b"/") + LAST,
    "percent": post(BODY, b"/v1/sessions/al%69ce/step") + LAST,
    "bad id": post(BODY, b"/v1/sessions/a%20b/step") + LAST,
    "no model": post(BODY, b"/v1/models/none/steps") + LAST,
    "not streamable": post(BODY, b"/v1/models/both/sessions/a/step") + LAST,
    "type": post(BODY, STEP, b"content-type: text/plain") + LAST,
    "type twice": post(BODY, STEP, b"content-type: text/plain", b"content-type: application/json")
    + LAST,
    "gzip": post(BODY, STEP, b"content-encoding: gzip") + LAST,
    "id twice": post(BODY, STEP, b"x-request-id: a", b"x-request-id: b") + LAST,
    "capitals": post(BODY, STEP, b"X-Request-ID: a", b"CONTENT-TYPE: application/json") + LAST,
    "length twice": post(BODY, STEP, b"content-length: 3") + LAST,
    "length and chunked": post(BODY, STEP, b"transfer-encoding: chunked") + LAST,
    "length of zeros": post(BODY).replace(b"length: ", b"length: 00000") + LAST,
    "length of many digits": post(BODY).replace(b"length: ", b"length: " + b"9" * 40) + LAST,
    "too long": post(b" " * 1001) + LAST,
    "just not too long": post(BODY + b" " * (1000 - len(BODY))) + LAST,
    "empty": post(b"") + LAST,
    "garbage": b"\x00\x01\x02\r\n\r\n",
    "no http": b"hello\r\n\r\n",
    "bad header": b"POST %b HTTP/1.1\r\nho st: x\r\n\r\n" % STEP,
    "bad version": post(version=b"3.7"),
    "timeout": post(BODY, STEP, b"x-request-timeout-ms: soon") + LAST,
    "lines before": b"\r\n\r\n" + post() + LAST,
}


@pytest.mark.parametrize("sent", SAME.values(), ids=SAME)
async def test_the_answers_are_those_of_uvicorn(sent):
    """The same bytes to both, the same bytes from both, but for ids."""
    answers = []
    for http in (None, HttpToolsProtocol):
        async with listening(make_app(max_body_bytes=1000), http=http) as opened:
            answers.append(await exchange(opened, [sent]))
    hot, oracle = (sorted_heads(each) for each in answers)
    assert oracle == hot


def sorted_heads(told):
    """Return answers as lines, since the order of header lines says nothing."""
    return [sorted(head.split(b"\r\n")) for head in told.split(b"\r\n\r\n")]


async def test_a_request_may_be_cut_anywhere():
    """At every byte, and into single bytes."""
    sent = post() + get(STEP) + post(b"[]") + LAST
    async with listening(make_app()) as opened:
        whole = await exchange(opened, [sent])
        first = len(post())
        wanted = re.sub(rb'"position":\d+|"outputs":\[[^]]*\]', b"", whole)
        for cut in range(1, first + 40):
            told = await exchange(opened, [sent[:cut], sent[cut:]])
            assert wanted == re.sub(rb'"position":\d+|"outputs":\[[^]]*\]', b"", told)
        told = await exchange(opened, [sent[i : i + 1] for i in range(len(sent))])
        assert wanted == re.sub(rb'"position":\d+|"outputs":\[[^]]*\]', b"", told)


KINDS = [
    post(),
    post(b"{"),
    post(json.dumps({"inputs": X}).encode(), b"/v1/sessions/bob/sequence"),
    post(json.dumps({"client_ids": ["c", "d"], "inputs": X[:2]}).encode(), b"/v1/steps"),
    get(),
    get(b"/nowhere"),
    get(STEP),
    CHUNKED,
    post(BODY, b"/v1/sessions/%C3%BC/step"),
]


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(KINDS), min_size=1, max_size=12), st.data())
def test_any_requests_cut_anywhere_are_answered_as_single_ones(requests, data):
    """Pipelined in parts over one connection, against one at a time, each over its own."""
    sent = b"".join(requests) + LAST
    places = st.lists(st.integers(1, len(sent) - 1), max_size=8, unique=True)
    cuts = [0, *sorted(data.draw(places)), len(sent)]
    parts = [sent[a:b] for a, b in pairwise(cuts)]

    async def run():
        async with listening(make_app()) as opened:
            together = await send_all(opened, parts)
        alone = []
        async with listening(make_app(), http=HttpToolsProtocol) as opened:
            reader, writer = await opened.open()
            for request in requests:
                writer.write(request)
                alone.append(told_by(*await read_answer(reader)))
            writer.close()
        reader = asyncio.StreamReader()
        reader.feed_data(together)
        for wanted in alone:
            assert wanted == told_by(*await read_answer(reader))

    asyncio.run(run())


async def test_many_in_one_packet_are_answered_in_order():
    """Hundreds of steps, all in flight or queued."""
    async with listening(make_app()) as opened:
        reader, writer = await opened.open()
        writer.write(post() * 500)
        assert list(range(1, 501)) == await read_positions(reader, 500)
        writer.close()


async def test_thousands_that_are_answered_at_once_need_no_deep_stack():
    """Bad ones, queued behind one that takes a moment."""
    async with listening(make_app()) as opened:
        reader, writer = await opened.open()
        writer.write(post() + post(b"{") * 2500 + post())
        async with asyncio.timeout(20):
            assert [1, *[422] * 2500, 2] == await read_positions(reader, 2502)
        writer.close()


async def test_a_websocket_behind_a_step_applies_nothing_twice():
    """The upgrade comes on the connection of a step that was answered."""
    engines = make_engines()
    async with listening(make_app(engines)) as opened:
        reader, writer = await opened.open()
        writer.write(post())
        assert [1] == await read_positions(reader, 1)
        key = b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="
        headers = (b"connection: upgrade", b"upgrade: websocket", key, b"sec-websocket-version: 13")
        writer.write(get(b"/v1/sessions/alice/stream", b"GET", *headers))
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        await asyncio.sleep(0.01)
        assert 1 == await position_of(engines)
        writer.close()
        host, port = opened.address
        async with connect(f"ws://{host}:{port}/v1/sessions/alice/stream"):
            pass


@pytest.mark.parametrize("is_half", [False, True], ids=["abort", "half-close"])
async def test_a_client_who_leaves_before_the_turn_has_nothing_applied(is_half):
    """It is observed as 499, also where only the end of what it sends has come, and no answer."""
    seen = []
    engines = make_engines()
    engine = engines["net"]
    app = make_app(engines, observe=lambda *observed: seen.append(observed[:2]))
    async with listening(app) as opened:
        turns = engine._sessions._turns  # noqa: SLF001
        turns.take, take = (lambda _: []), turns.take
        reader, writer = await opened.open()
        writer.write(post())
        await until(lambda: pending(engines))
        if is_half:
            writer.write_eof()
        else:
            writer.transport.abort()
        async with asyncio.timeout(5):
            assert b"" == await reader.read()
        await until(lambda: not opened.state.connections)
        turns.take = take
        await until(lambda: not pending(engines))
        assert [("/v1/sessions/{client_id}/step", 499)] == seen
        assert engine.stats.num_cancelled == 1
        assert 0 == engine.stats.num_steps


@pytest.mark.parametrize("http", [None, HttpToolsProtocol], ids=["hot", "uvicorn"])
async def test_a_client_who_half_closes_is_let_go(http):
    """As by uvicorn: behind its answer comes the end, though the connection could be kept."""
    async with listening(make_app(), http=http) as opened:
        reader, writer = await opened.open()
        writer.write(post())
        async with asyncio.timeout(5):
            status, headers, _ = await read_answer(reader)
            assert (200, None) == (status, headers.get("connection"))
            assert 1 == len(opened.state.connections)
            writer.write_eof()
            assert b"" == await reader.read()
        await until(lambda: not opened.state.connections)


async def test_a_client_who_leaves_in_the_middle_of_a_body_asks_for_nothing():
    """The service goes on, and the leaving is observed, as over ASGI."""
    for http in (None, HttpToolsProtocol):
        seen: list[int] = []
        engines = make_engines()
        app = make_app(engines, observe=lambda *told, seen=seen: seen.append(told[1]))
        async with listening(app, http=http) as opened:
            _, writer = await opened.open()
            writer.write(post()[:-3])
            await until(lambda opened=opened: opened.state.connections)
            await asyncio.sleep(0.01)
            writer.transport.abort()
            await until(lambda opened=opened: not opened.state.connections)
            await asyncio.sleep(0.01)
            assert ([499], 0) == (seen, engines["net"].stats.num_steps)


async def test_a_drain_answers_everything_that_was_taken():
    """Each of the pipelined ones, the last with the connection's end."""
    async with listening(make_app()) as opened:
        reader, writer = await opened.open()
        writer.write(post() * 20 + get() + post() * 5)
        await until(lambda: any(c.pipeline for c in opened.state.connections))
        opened.shut_down()
        async with asyncio.timeout(5):
            told = await reader.read()
        assert 26 == told.count(b"HTTP/1.1 200 OK")
        assert 1 == told.lower().count(b"connection: close")
        writer.close()


async def test_a_drain_closes_who_waits():
    """An idle connection ends without a word."""
    async with listening(make_app()) as opened:
        reader, writer = await opened.open()
        writer.write(post())
        await read_answer(reader)
        opened.shut_down()
        assert b"" == await asyncio.wait_for(reader.read(), 5)
        writer.close()


async def _send(writer, packet, num):
    for _ in range(num):
        writer.write(packet)
        await writer.drain()


SLOW = {
    "nothing": (b"", b""),
    "part of a head": (post()[:20], b"HTTP/1.1 408 "),
    "part of a body": (post()[:-5], b"HTTP/1.1 408 "),
    "part of a cold body": (CHUNKED[:-20], b"HTTP/1.1 408 "),
    "too long, and not whole": (post(b" " * 9000)[:-5], b"HTTP/1.1 413 "),
}


@pytest.mark.parametrize(("sent", "beginning"), SLOW.values(), ids=SLOW)
async def test_slow_senders_are_cut_off(sent, beginning):
    """With one answer, or none where nothing was asked."""
    async with listening(make_app(max_body_bytes=1000), patience=SHORT) as opened:
        reader, writer = await opened.open()
        writer.write(sent)
        told = await asyncio.wait_for(reader.read(), 5)
        assert told.startswith(beginning)
        assert min(1, len(beginning)) == told.count(b"HTTP/1.1 ")
        writer.close()


async def test_the_time_to_send_is_not_that_to_be_idle():
    """Whoever begins late in the idle time has no longer than others."""
    patience = Patience(idle_s=60, transfer_s=0.1)
    async with listening(make_app(), patience=patience) as opened:
        reader, writer = await opened.open()
        await asyncio.sleep(0.15)
        writer.write(post()[:20])
        told = await asyncio.wait_for(reader.read(), 5)
        assert told.startswith(b"HTTP/1.1 408 ")
        writer.close()


async def test_what_came_before_a_head_is_not_counted_to_it():
    """A packet full of requests, and the beginning of one more."""
    async with listening(make_app()) as opened:
        reader, writer = await opened.open()
        (num, more) = (1200, post())
        writer.write(post(b"{") * num + more[:30])
        assert [422] * num == await read_positions(reader, num)
        writer.write(more[30:])
        assert [1] == await read_positions(reader, 1)
        writer.close()


async def test_slow_readers_are_cut_off():
    """The answer stands in the buffer, and its reader never comes."""
    async with listening(make_app(), patience=Patience(idle_s=60, transfer_s=0.1)) as opened:
        _, writer = await opened.open()
        sending = asyncio.create_task(_send(writer, post(b"{") * 50, 5000))
        with pytest.raises(ConnectionError):
            await asyncio.wait_for(sending, 10)
        await until(lambda: not opened.state.connections)


async def test_a_slow_sender_behind_an_unanswered_request_keeps_the_order():
    """Its 408 comes behind the answer."""
    engine = make_engine(
        "net", streaming(), EngineLimits(arena_rows=300, max_pending=100, max_wait_us=150_000)
    )
    async with listening(make_app({"net": engine}), patience=SHORT) as opened:
        reader, writer = await opened.open()
        writer.write(post() + post()[:-4])
        assert [1, 408] == await read_positions(reader, 2)
        assert b"" == await asyncio.wait_for(reader.read(), 5)
        writer.close()
