"""The stream over a real socket: hello, order, errors, back-pressure, ends."""

import asyncio
import json

import numpy as np
import pytest
from websockets.exceptions import ConnectionClosed

from service.domain import REPLAY_WINDOW
from tests.integration.small_service import X, make_app, make_engines
from tests.integration.stream_service import SHELLS, STREAM, frame, read_end, serving_live


@pytest.fixture(params=SHELLS)
def shell(request):
    """Each entrance."""
    return request.param


@pytest.fixture
async def live(shell):
    """A running service."""
    async with serving_live(make_app(), shell) as live:
        yield live


@pytest.mark.parametrize("path", [STREAM, "/v1/models/net/sessions/alice/stream"])
async def test_a_hello_and_both_kinds_of_frames(live, path):
    """They give what the same steps give over HTTP, and share one session."""
    expected = [(await live.step(row, "bob"))["outputs"] for row in X]
    async with live.stream(path) as stream:
        assert {
            "type": "hello",
            "position": 0,
            "epoch": None,
            "input_size": 3,
            "output_size": 2,
            "replay_window": REPLAY_WINDOW,
        } == json.loads(await stream.recv())
        await stream.send(json.dumps({"inputs": X[0], "return_state": True}))
        first = json.loads(await stream.recv())
        assert (1, False) == (first["position"], first["replayed"])
        assert [5, 5] == [len(vector) for vector in first["states"]]
        np.testing.assert_allclose(first["outputs"], expected[0], atol=1e-6)
        await stream.send(frame(X[1]))
        outputs = np.frombuffer(await stream.recv(), "<f4")
        np.testing.assert_allclose(outputs, expected[1], atol=1e-6)
    over_http = await live.step(X[2])
    assert 3 == over_http["position"]
    np.testing.assert_allclose(over_http["outputs"], expected[2], atol=1e-6)


async def test_a_stream_continues_a_session(live):
    """The hello tells where it is."""
    session = await live.step(X[0])
    async with live.stream() as stream:
        hello = json.loads(await stream.recv())
    assert (1, session["epoch"]) == (hello["position"], hello["epoch"])


async def test_answers_keep_the_order_with_many_in_flight(live):
    """A client may send far more than the window without reading; nothing is lost."""
    rows = np.random.default_rng(3).uniform(-1, 1, (500, 3)).astype(np.float32)
    body = {"inputs": rows.tolist()}
    whole = (await live.http.post("/v1/sessions/bob/sequence", json=body)).json()["outputs"]
    async with live.stream() as stream:
        await stream.recv()

        async def send():
            for row in rows:
                await stream.send(frame(row))

        sender = asyncio.create_task(send())
        answers = [np.frombuffer(await stream.recv(), "<f4") for _ in rows]
        await sender
    np.testing.assert_allclose(answers, whole, atol=1e-6)


async def test_no_more_than_the_window_is_in_flight(shell):
    """Beyond it the stream is not read: the engine never holds more of one stream."""
    engines = make_engines()
    app = make_app(engines)
    most = 0
    engine = engines["net"]
    submit = engine.submit

    def counting(request, complete):
        nonlocal most
        job = submit(request, complete)
        most = max(most, engine.num_pending)
        return job

    engine.submit = counting
    async with serving_live(app, shell) as live, live.stream() as stream:
        await stream.recv()
        for _ in range(200):
            await stream.send(frame(X[0]))
        for _ in range(200):
            await stream.recv()
    assert 1 < most <= REPLAY_WINDOW


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ('{"inputs": [1, 2]}', "inputs: expected 3 numbers, got 2"),
        ('{"inputs": [1, 2, NaN]}', "inputs.2: expected a finite number"),
        ("nonsense", "not valid JSON"),
        ("", "not valid JSON"),
        (b"", "frame: expected 12 bytes"),
        (b"12345678901", "frame: expected 12 bytes (3 float32 numbers) for each time step, got 11"),
        (frame([1, np.nan, 3]), "frame.1: expected a finite number, got NaN"),
    ],
)
async def test_a_bad_frame_ends_the_stream(live, bad, message):
    """After the answers before it; what is behind it is not applied."""
    async with live.stream() as stream:
        await stream.recv()
        await stream.send(frame(X[0]))
        await stream.send(bad)
        await stream.send(frame(X[1]))
        assert 8 == len(await stream.recv())
        error, code = await read_end(stream)
    assert (4422, "invalid_request") == (code, error["code"])
    assert message in error["message"]
    assert 1 == await live.position()


async def test_another_writer_is_noticed(live):
    """The stream ends with 4409 and says where the session is."""
    async with live.stream() as stream:
        await stream.recv()
        await stream.send(frame(X[0]))
        await stream.recv()
        other = await live.step(X[1])
        await stream.send(frame(X[2]))
        await stream.send(frame(X[2]))
        error, code = await read_end(stream)
    assert (4409, "position_conflict") == (code, error["code"])
    assert (2, other["epoch"]) == (error["position"], error["epoch"])
    assert 2 == await live.position()


async def test_another_life_is_noticed(live):
    """A reset by somebody else is no less than a step."""
    async with live.stream() as stream:
        await stream.recv()
        await stream.send(frame(X[0]))
        await stream.recv()
        reset = (await live.http.post("/v1/sessions/alice/reset_states")).json()
        await live.step(X[0])
        await stream.send(frame(X[2]))
        error, code = await read_end(stream)
    assert (4409, reset["epoch"]) == (code, error["epoch"])


async def test_steps_can_be_sent_again_after_a_reconnect(live):
    """With their positions they are replayed, and the stream goes on behind them."""
    async with live.stream() as stream:
        await stream.recv()
        answers = []
        for row in X[:2]:
            await stream.send(json.dumps({"inputs": row}))
            answers.append(json.loads(await stream.recv()))
    async with live.stream() as stream:
        assert 2 == json.loads(await stream.recv())["position"]
        for position, row in enumerate(X):
            await stream.send(json.dumps({"inputs": row, "position": position}))
        again = [json.loads(await stream.recv()) for _ in X]
    assert [answer | {"replayed": True} for answer in answers] == again[:2]
    assert (3, False) == (again[2]["position"], again[2]["replayed"])


async def test_nothing_behind_an_error_applies_even_where_it_would_fit(live):
    """A frame behind a conflict is not applied though its own position is right."""
    async with live.stream() as stream:
        await stream.recv()
        await stream.send(json.dumps({"inputs": X[0], "position": 5}))
        await stream.send(json.dumps({"inputs": X[0], "position": 0}))
        error, code = await read_end(stream)
    assert (4404, "session_unknown") == (code, error["code"])
    assert 404 == (await live.http.get("/v1/sessions/alice")).status_code


@pytest.mark.parametrize(
    ("path", "code", "name"),
    [
        ("/v1/models/nobody/sessions/alice/stream", 4404, "model_unknown"),
        ("/v1/sessions//stream", 4422, "invalid_request"),
        ("/v1/sessions/a%2Fb/stream", 4422, "invalid_request"),
        ("/v1/models/both/sessions/alice/stream", 4422, "not_streamable"),
    ],
)
async def test_a_stream_that_cannot_be_is_told_in_a_frame(live, path, code, name):
    """A browser can read it there, and not in a refused handshake."""
    async with live.stream(path) as stream:
        error, closed = await read_end(stream)
    assert (code, name) == (closed, error["code"])


async def test_a_frame_over_the_limit_ends_the_stream(shell):
    """With the protocol's own code for it."""
    async with serving_live(make_app(max_body_bytes=100), shell) as live, live.stream() as stream:
        await stream.recv()
        await stream.send(" " * 101)
        error, code = await read_end(stream)
    assert (1009, "body_too_large") == (code, error["code"])


async def test_an_ending_service_closes_with_1012(live):
    """What is in flight is answered first."""
    async with live.stream() as stream:
        await stream.recv()
        await stream.send(frame(X[0]))
        assert 8 == len(await stream.recv())
        await live.app.streams.close()
        error, code = await read_end(stream)
    assert (1012, "draining") == (code, error["code"])


async def test_a_server_that_is_told_to_end_closes_with_1012(live):
    """A client that waits learns that it should come back."""
    async with live.stream() as stream:
        await stream.recv()
        live.server.should_exit = True
        with pytest.raises(ConnectionClosed) as closed:
            await stream.recv()
    assert closed.value.rcvd is not None
    assert 1012 == closed.value.rcvd.code


async def test_a_path_of_no_stream_is_refused(live):
    """There is nothing to say hello."""
    with pytest.raises(Exception, match="403"):
        async with live.stream("/v1/nowhere"):
            pass


async def test_a_client_who_vanishes_leaves_nothing_behind(live):
    """The next one finds the session whole and continues."""
    stream = await live.stream()
    await stream.recv()
    await stream.send(frame(X[0]))
    await stream.recv()
    for _ in range(50):
        await stream.send(frame(X[0]))
    stream.transport.abort()
    await asyncio.sleep(0.1)
    position = await live.position()
    assert {} == live.app.streams._open  # noqa: SLF001 - nothing else tells that it has ended
    async with live.stream() as again:
        assert position == json.loads(await again.recv())["position"]
        await again.send(frame(X[1]))
        assert 8 == len(await again.recv())
    assert position + 1 == await live.position()
