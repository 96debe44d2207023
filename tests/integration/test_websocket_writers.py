"""Who may write by a stream: no second writer goes unnoticed, and no page of another origin."""

import json

import numpy as np
import pytest
from websockets.exceptions import InvalidStatus

from tests.integration.small_service import X, make_app
from tests.integration.stream_service import SHELLS, frame, read_end, serving_live


@pytest.fixture(params=SHELLS)
def shell(request):
    """Each entrance."""
    return request.param


@pytest.fixture
async def live(shell):
    """A running service."""
    async with serving_live(make_app(), shell) as live:
        yield live


async def test_a_second_writer_of_the_same_bytes_is_noticed(live):
    """A stream that did not name the position does not take another writer's answer for its own."""
    await live.step(X[2])
    async with live.stream() as first, live.stream() as second:
        await first.recv()
        await second.recv()
        await first.send(frame(X[0]))
        await first.recv()
        await second.send(frame(X[0]))
        await second.send(frame(X[1]))
        error, code = await read_end(second)
        assert (4409, "position_conflict", 2) == (code, error["code"], error["position"])
        assert 2 == await live.position()
        await first.send(frame(X[1]))
        assert 8 == len(await first.recv())


async def test_a_stream_that_goes_back_by_name_is_replayed_up_to_its_head(live):
    """Behind a step that names an old position, the next ones need no names."""
    async with live.stream() as stream:
        await stream.recv()
        answers = []
        for row in X:
            await stream.send(frame(row))
            answers.append(np.frombuffer(await stream.recv(), "<f4"))
        named = {"inputs": np.asarray(X[0], np.float32).tolist(), "position": 0}
        await stream.send(json.dumps(named))
        assert json.loads(await stream.recv())["replayed"]
        for row, expected in zip(X[1:], answers[1:], strict=True):
            await stream.send(frame(row))
            assert expected.tolist() == np.frombuffer(await stream.recv(), "<f4").tolist()
        assert 3 == await live.position()


@pytest.mark.parametrize("num_steps", [0, 1])
async def test_a_stream_without_a_session_does_not_go_on_with_anothers(live, num_steps):
    """Where the hello told of none, its steps never apply to the life that somebody else began."""
    async with live.stream() as stream:
        assert json.loads(await stream.recv())["epoch"] is None
        reset = await live.http.post(
            "/v1/sessions/alice/reset_states", json={"states": [[0.5] * 5] * 2}
        )
        for _ in range(num_steps):
            await live.step(X[0])
        for row in X:
            await stream.send(frame(row))
        error, code = await read_end(stream)
    assert (4409, reset.json()["epoch"]) == (code, error["epoch"])
    assert num_steps == await live.position()


async def test_steps_in_flight_behind_the_first_are_of_the_life_that_it_began(live):
    """Many frames at once begin one session and go on with it."""
    async with live.stream() as stream:
        await stream.recv()
        for row in X * 5:
            await stream.send(frame(row))
        for _ in X * 5:
            assert 8 == len(await stream.recv())
    assert 15 == await live.position()


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "http://127.0.0.1:1", "http://127.0.0.1", "null", ""]
)
async def test_a_page_of_another_origin_opens_no_stream(live, origin):
    """A browser lets any page knock at localhost, and says whose page it is."""
    with pytest.raises(InvalidStatus) as refused:
        async with live.stream(additional_headers={"Origin": origin}):
            pass
    assert 403 == refused.value.response.status_code


async def test_a_page_of_the_service_itself_opens_a_stream(live):
    """And so does a client that is no browser, which has no origin."""
    for options in (
        {"origin": f"http://{live.address}"},
        {"origin": f"HTTPS://{live.address}"},
        {},
    ):
        async with live.stream(**options) as stream:
            assert "hello" == json.loads(await stream.recv())["type"]
