"""Streams of binary frames with many steps, and what is sent again after a reconnect."""

import json
import random
from itertools import pairwise

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from service.domain import REPLAY_WINDOW
from tests.integration.small_service import X, make_app
from tests.integration.stream_service import SHELLS, STREAM, frame, read_end, serving_live


@pytest.fixture(params=SHELLS)
async def live(request):
    """A running service, behind each entrance."""
    app = make_app(max_sequence_steps=50)
    async with serving_live(app, request.param) as live:
        yield live


def rows(num, seed=3):
    """Return `(num, 3)` inputs."""
    return np.random.default_rng(seed).uniform(-1, 1, (num, 3)).astype(np.float32)


async def whole(live, inputs):
    """Return what the steps give as sequences of another session, over HTTP."""
    outputs = []
    for start in range(0, len(inputs), 50):
        body = {"inputs": inputs[start : start + 50].tolist()}
        answer = await live.http.post("/v1/sessions/bob/sequence", json=body)
        outputs += answer.json()["outputs"]
    return outputs


def outputs_of(data):
    """Return a binary answer's outputs, one row a step."""
    return np.frombuffer(data, "<f4").reshape(-1, 2)


async def test_frames_of_one_and_of_many_steps_and_text_may_mix(live):
    """Each is answered as a whole, in its own kind; together they are one sequence."""
    inputs = rows(70)
    expected = await whole(live, inputs)
    cuts = [0, 1, 4, 5, 55, 56, 58, 70]
    async with live.stream() as stream:
        await stream.recv()
        for index, (start, end) in enumerate(pairwise(cuts)):
            part = inputs[start:end]
            if index == 2:
                await stream.send(json.dumps({"inputs": part[0].tolist()}))
            else:
                await stream.send(frame(part))
        got = []
        for start, end in pairwise(cuts):
            answer = await stream.recv()
            if isinstance(answer, str):
                document = json.loads(answer)
                assert end == document["position"]
                got.append(document["outputs"])
            else:
                assert end - start == len(outputs_of(answer))
                got += outputs_of(answer).tolist()
    np.testing.assert_allclose(got, expected, atol=1e-6)
    assert 70 == await live.position()


@pytest.mark.parametrize(
    ("num_steps", "bad", "message"),
    [
        (51, None, "frame: expected at most 50 time steps, got 51"),
        (5, 2, "frame.6: expected a finite number, got NaN"),
    ],
)
async def test_a_bad_frame_of_many_steps_applies_none_of_them(live, num_steps, bad, message):
    """The stream ends with 4422."""
    inputs = rows(num_steps)
    if bad is not None:
        inputs[bad] = np.nan
    async with live.stream() as stream:
        await stream.recv()
        await stream.send(frame(X[0]))
        await stream.send(frame(inputs))
        assert 8 == len(await stream.recv())
        error, code = await read_end(stream)
    assert (4422, message) == (code, error["message"])
    assert 1 == await live.position()


@pytest.mark.parametrize("seed", range(4))
async def test_every_step_is_applied_once_over_connections_that_break(live, seed):
    """A client who sends what was not answered again from its position gets the rest, in order."""
    generator = random.Random(seed)
    inputs = rows(150, seed)
    cuts = [0]
    while cuts[-1] < len(inputs):
        cuts.append(min(len(inputs), cuts[-1] + generator.choice([1, 1, 1, 2, 7, 30])))
    parts = [inputs[start:end] for start, end in pairwise(cuts)]
    answers: list[np.ndarray] = []
    epoch = None
    num_connections = 0
    while len(answers) < len(parts):
        num_connections += 1
        place = f"?position={cuts[len(answers)]}" + (f"&epoch={epoch}" if epoch else "")
        stream = await live.stream(STREAM + place)
        hello = json.loads(await stream.recv())
        epoch = hello["epoch"] or epoch
        assert cuts[len(answers)] <= hello["position"]
        ahead = parts[len(answers) :][: generator.randint(1, REPLAY_WINDOW)]
        for part in ahead:
            await stream.send(frame(part))
        num_read = generator.randint(0, len(ahead))
        answers += [outputs_of(await stream.recv()) for _ in range(num_read)]
        if generator.random() < 0.8:
            stream.transport.abort()
        else:
            await stream.close()
    assert num_connections > 3
    assert len(inputs) == await live.position()
    np.testing.assert_allclose(np.concatenate(answers), await whole(live, inputs), atol=1e-6)


async def test_answers_that_were_lost_are_given_again_to_the_bit(live):
    """And a resumed stream goes on behind them, with what it has not sent before."""
    async with live.stream() as stream:
        await stream.recv()
        sent = [frame(X[0]), frame(X), frame(X[1])]
        for data in sent:
            await stream.send(data)
        answers = [await stream.recv() for _ in sent]
    epoch = (await live.http.get("/v1/sessions/alice")).json()["epoch"]
    async with live.stream(f"{STREAM}?position=0&epoch={epoch}") as stream:
        hello = json.loads(await stream.recv())
        assert (5, epoch) == (hello["position"], hello["epoch"])
        for data in [*sent, frame(X[2])]:
            await stream.send(data)
        assert answers == [await stream.recv() for _ in sent]
        assert 8 == len(await stream.recv())
    assert 6 == await live.position()


async def test_another_step_from_an_old_position_is_a_conflict(live):
    """So is one that the session has passed by more than its replays."""
    async with live.stream() as stream:
        await stream.recv()
        for _ in range(REPLAY_WINDOW + 1):
            await stream.send(frame(X[0]))
            await stream.recv()
    for position, row in ((5, X[1]), (0, X[0])):
        async with live.stream(f"{STREAM}?position={position}") as stream:
            await stream.recv()
            await stream.send(frame(row))
            error, code = await read_end(stream)
        assert (4409, "position_conflict") == (code, error["code"])
        assert REPLAY_WINDOW + 1 == error["position"]
    assert REPLAY_WINDOW + 1 == await live.position()


@pytest.mark.parametrize("place", ["position=2&epoch={0}", "position=1&epoch=1", "epoch=1"])
async def test_a_place_that_cannot_be_is_told_behind_the_hello(live, place):
    """A position beyond the session's, or another life."""
    session = await live.step(X[0])
    async with live.stream(f"{STREAM}?{place.format(session['epoch'])}") as stream:
        assert 1 == json.loads(await stream.recv())["position"]
        error, code = await read_end(stream)
    assert (4409, 1, session["epoch"]) == (code, error["position"], error["epoch"])


@pytest.mark.parametrize("place", ["position=1", "position=0&epoch=7", "epoch=7"])
async def test_a_session_that_is_not_there_cannot_be_gone_on_with(live, place):
    """No new one is begun in its place."""
    async with live.stream(f"{STREAM}?{place}") as stream:
        assert json.loads(await stream.recv())["epoch"] is None
        error, code = await read_end(stream)
    assert (4404, "session_unknown") == (code, error["code"])


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("position=-1", "position: expected an integer from 0"),
        ("position=01", "position: expected an integer from 0"),
        ("position=1.0", "position: expected an integer from 0"),
        ("position=", "position: expected an integer from 0"),
        (f"position={2**53}", "position: expected an integer from 0"),
        ("position=1&position=1", "position: given twice"),
        ("epoch=x", "epoch: expected an integer from 0"),
        ("start=1", "start: unknown parameter; known are: position, epoch"),
    ],
)
async def test_a_query_is_as_strict_as_elsewhere(live, query, message):
    """It is told in a frame, as what is wrong with the path."""
    async with live.stream(f"{STREAM}?{query}") as stream:
        error, code = await read_end(stream)
    assert (4422, "invalid_request") == (code, error["code"])
    assert error["message"].startswith(message)


async def test_a_resumed_stream_gives_way_to_another_writer(live):
    """It is no way around the session's turns."""
    async with live.stream(f"{STREAM}?position=0") as stream:
        await stream.recv()
        await live.step(X[1])
        await stream.send(frame(X[0]))
        error, code = await read_end(stream)
        with pytest.raises(ConnectionClosed):
            await stream.send(frame(X[0]))
    assert (4409, 1) == (code, error["position"])
