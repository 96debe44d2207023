"""The client library against a server process, through connections that break."""

import asyncio
import itertools
import random
import signal
import socket
import threading
import time
from contextlib import ExitStack, suppress

import numpy as np
import pytest

from service.client import (
    AsyncSession,
    ConflictError,
    InvalidRequestError,
    Session,
    SessionUnknownError,
    UnavailableError,
)
from tests.integration.fault_proxy import Fault, at_random, fault_proxy
from tests.integration.live_server import live_server

NUM_STEPS = 100
STEPS = np.random.default_rng(0).normal(0, 1, (NUM_STEPS, 12)).astype(np.float32)
CUTS = [Fault.CUT_BEFORE, Fault.CUT_WITHIN, Fault.CUT_AFTER, Fault.CUT_AFTER]
ANY = [*CUTS, Fault.DELAY, Fault.BUSY]

numbers = itertools.count()


@pytest.fixture(scope="module", autouse=True)
def _memory():
    """Every server of this module forgets its sessions when it ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_STORE", "memory")
        yield


@pytest.fixture(scope="module")
def server(_memory):
    """A server of the bundled models."""
    with live_server() as server:
        yield server


@pytest.fixture(scope="module")
def expected(server):
    """What the steps give when nothing disturbs them, `(steps, 9)`."""
    with Session(server.url, "undisturbed") as session:
        return np.array(session.sequence(STEPS).outputs)


@pytest.fixture
def client_id():
    """The name of a session that nobody has used."""
    return f"client-{next(numbers)}"


@pytest.fixture
def proxy(server):
    """A proxy before the server, with no faults yet."""
    with fault_proxy(server.url) as proxy:
        yield proxy


def assert_close(expected, actual):
    """Compare outputs."""
    np.testing.assert_allclose(actual, expected, rtol=1e-6, atol=1e-6)


def parts(seed):
    """Cut the steps into single ones and short sequences."""
    generator = random.Random(seed)
    start = 0
    while start < NUM_STEPS:
        end = min(NUM_STEPS, start + generator.choice([1, 1, 1, 1, 3]))
        yield start, end
        start = end


@pytest.mark.parametrize("seed", range(3))
def test_every_step_is_applied_once_over_many_cuts(proxy, client_id, expected, seed):
    """Steps and sequences give what they give undisturbed, and the position never jumps."""
    proxy.choose = at_random(seed, 0.45, ANY)
    outputs: list[list[float]] = []
    num_replayed = 0
    with Session(proxy.url, client_id) as session:
        for start, end in parts(seed):
            assert start == session.position
            if end - start == 1:
                one = session.step(STEPS[start])
                outputs.append(one.outputs)
                num_replayed += one.replayed
            else:
                many = session.sequence(STEPS[start:end])
                outputs += many.outputs
                num_replayed += many.replayed
        assert NUM_STEPS == session.position
        assert NUM_STEPS == session.resume()
    assert_close(expected, outputs)
    assert proxy.num_faults >= 20
    assert num_replayed


async def test_every_awaited_step_is_applied_once_over_many_cuts(proxy, expected):
    """Four sessions at once, over the connections of one client."""
    proxy.choose = at_random(7, 0.3, ANY)

    async def client(name):
        async with AsyncSession(proxy.url, name) as session:
            return [(await session.step(step)).outputs for step in STEPS[:40]]

    for outputs in await asyncio.gather(*(client(f"awaited-{index}") for index in range(4))):
        assert_close(expected[:40], outputs)
    assert proxy.num_faults >= 24


@pytest.mark.parametrize("seed", [1, 11])
def test_a_stream_goes_on_over_cuts(proxy, client_id, expected, seed):
    """Nothing in flight is lost or applied twice."""
    proxy.choose, proxy.read_bytes = at_random(seed, 0.15, CUTS), 1024
    with Session(proxy.url, client_id) as session:
        outputs = list(session.stream_steps(STEPS))
        assert NUM_STEPS == session.position
        assert NUM_STEPS == session.resume()
    assert_close(expected, outputs)
    assert proxy.num_faults >= 3


async def test_an_awaited_stream_goes_on_over_cuts(proxy, client_id, expected):
    """As the blocking one."""
    proxy.choose, proxy.read_bytes = at_random(11, 0.15, CUTS), 1024
    async with AsyncSession(proxy.url, client_id) as session:
        outputs = [one async for one in session.stream_steps(STEPS)]
        assert NUM_STEPS == session.position
    assert_close(expected, outputs)
    assert proxy.num_faults >= 3


def test_a_stream_and_steps_follow_one_another(proxy, client_id, expected):
    """What a stream leaves in flight is awaited at its end, and steps go on behind it."""
    proxy.choose, proxy.read_bytes = at_random(3, 0.15, CUTS), 1024
    with Session(proxy.url, client_id) as session:
        outputs = [session.step(STEPS[0]).outputs]
        with session.stream() as stream:
            for step in STEPS[1:60]:
                stream.send(step)
            outputs += [stream.receive().outputs for _ in range(10)]
            with pytest.raises(RuntimeError, match="a stream of session"):
                session.step(STEPS[60])
        assert 60 == session.position
        last = session.step(STEPS[60])
    assert_close(expected[:11], outputs)
    assert_close(expected[60], last.outputs)


def test_a_stream_that_is_left_early_leaves_a_session_that_goes_on(proxy, client_id, expected):
    """What was sent is applied, and the position tells how much."""
    with Session(proxy.url, client_id) as session:
        for outputs in session.stream_steps(STEPS, max_in_flight=4):
            assert_close(expected[0], outputs)
            break
        assert 4 == session.position
        assert_close(expected[4], session.step(STEPS[4]).outputs)


def test_a_time_to_wait_is_waited(proxy, client_id):
    """As the service asks in `retry-after`."""
    proxy.retry_after_s = 1
    turns = iter([Fault.BUSY])
    proxy.choose = lambda: next(turns, Fault.NONE)
    with Session(proxy.url, client_id) as session:
        started = time.monotonic()
        session.step(STEPS[0])
        assert time.monotonic() - started >= 1


def test_an_answer_that_does_not_come_in_time_is_asked_for_again(proxy, client_id, expected):
    """The second attempt is answered with what the first has done."""
    proxy.delay_s = 1.0
    turns = iter([Fault.NONE, Fault.DELAY])
    proxy.choose = lambda: next(turns, Fault.NONE)
    with Session(proxy.url, client_id, timeout_s=0.3) as session:
        outputs = [session.step(step).outputs for step in STEPS[:4]]
    assert_close(expected[:4], outputs)


@pytest.fixture
def trickle():
    """The URL of something that answers with a byte now and then, and never all."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with suppress(OSError), connection:
                    connection.recv(65536)
                    connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
                    for _ in range(1000):
                        connection.sendall(b" ")
                        time.sleep(0.02)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


async def test_a_deadline_ends_an_answer_that_never_ends(trickle):
    """A byte in time is no answer in time."""
    started = time.monotonic()
    blocking = Session(trickle, "alice", timeout_s=0.2, deadline_s=0.5)
    with blocking, pytest.raises(UnavailableError, match="no whole answer in time"):
        blocking.step(STEPS[0])
    async with AsyncSession(trickle, "alice", timeout_s=0.2, deadline_s=0.5) as session:
        with pytest.raises(UnavailableError, match="no whole answer in time"):
            await session.step(STEPS[0])
    assert time.monotonic() - started < 3


async def test_a_step_that_is_cancelled_may_come_again(proxy, client_id, expected):
    """Wherever it was: it is applied once, and answered with what it gave."""
    generator = random.Random(3)
    async with AsyncSession(proxy.url, client_id) as session:
        outputs: list[list[float]] = []
        while len(outputs) < 40:
            with suppress(TimeoutError):
                async with asyncio.timeout(generator.choice([0.001, 0.002, 0.003, 1])):
                    outputs.append((await session.step(STEPS[len(outputs)])).outputs)
        assert 40 == session.position
    assert_close(expected[:40], outputs)


def test_a_deadline_ends_the_attempts_and_the_same_step_may_come_again(proxy, client_id, expected):
    """What was applied meanwhile is answered then, and not applied again."""
    with Session(proxy.url, client_id, deadline_s=0.5) as session:
        proxy.choose = lambda: Fault.CUT_AFTER
        with pytest.raises(UnavailableError, match="not known"):
            session.step(STEPS[0])
        assert 0 == session.position
        proxy.choose = lambda: Fault.NONE
        assert session.step(STEPS[0]).replayed
        assert_close(expected[1], session.step(STEPS[1]).outputs)


def test_another_writer_is_a_conflict_until_the_session_is_resumed(server, client_id, expected):
    """Nothing goes on silently."""
    with Session(server.url, client_id) as one, Session(server.url, client_id) as other:
        one.step(STEPS[0])
        assert 1 == other.resume()
        other.step(STEPS[1])
        for _ in range(2):
            with pytest.raises(ConflictError) as conflict:
                one.step(STEPS[2])
            assert (409, "position_conflict") == (conflict.value.status, conflict.value.code)
            assert (2, other.epoch) == (conflict.value.position, conflict.value.epoch)
            assert conflict.value.request_id
        with pytest.raises(ConflictError):
            one.reset_states()
        assert 1 == one.position
        assert 2 == one.resume()
        assert_close(expected[2], one.step(STEPS[2]).outputs)


@pytest.mark.parametrize("first", [0, 1])
def test_a_session_of_this_name_is_not_gone_on_with(server, client_id, first):
    """Neither where its steps were others nor where they began with the very same one."""
    with Session(server.url, client_id) as earlier, Session(server.url, client_id) as session:
        earlier.sequence(STEPS[:1])
        earlier.sequence(STEPS[1:7])
        with pytest.raises(ConflictError) as conflict:
            session.step(STEPS[first])
        assert (7, earlier.epoch) == (conflict.value.position, conflict.value.epoch)
        with pytest.raises(ConflictError), session.stream():
            pass
        session.reset_states()
        assert 1 == session.step(STEPS[first]).position


def test_a_stream_meets_another_writer(server, client_id):
    """It ends, and what came before is received."""
    with Session(server.url, client_id) as one, Session(server.url, client_id) as other:
        with one.stream() as stream:
            stream.send(STEPS[0])
            stream.receive()
            other.resume()
            other.step(STEPS[1])
            stream.send(STEPS[2])
            with pytest.raises(ConflictError) as conflict:
                stream.receive()
            with pytest.raises(ConflictError):
                stream.send(STEPS[2])
        assert (4409, 2) == (conflict.value.status, conflict.value.position)
        assert 1 == one.position


def test_a_bad_step_ends_a_stream_and_not_the_session(server, client_id, expected):
    """The replies before it come first, and the session goes on where it is."""
    with Session(server.url, client_id) as session:
        with session.stream() as stream:
            stream.send(STEPS[0])
            stream.send([1.0])
            stream.send(STEPS[1])
            assert_close(expected[0], stream.receive().outputs)
            with pytest.raises(InvalidRequestError, match="expected 12 numbers, got 1"):
                stream.receive()
        with pytest.raises(InvalidRequestError, match="got NaN"):
            session.step([float("nan")] * 12)
        assert_close(expected[1], session.step(STEPS[1]).outputs)


@pytest.fixture
def restarted():
    """A proxy before a server, and what kills that server and puts a new one there."""
    with ExitStack() as stack:
        first = stack.enter_context(live_server())
        proxy = stack.enter_context(fault_proxy(first.url))

        def restart():
            first.end(signal.SIGKILL)
            proxy.target = stack.enter_context(live_server()).url

        yield proxy, restart


def test_steps_do_not_go_on_from_zeros_where_the_server_has_lost_the_session(restarted, expected):
    """The session is unknown until it is reset."""
    proxy, restart = restarted
    with Session(proxy.url, "alice") as session:
        session.step(STEPS[0])
        restart()
        for _ in range(2):
            with pytest.raises(SessionUnknownError):
                session.step(STEPS[1])
        assert 1 == session.position
        session.reset_states()
        assert_close(expected[0], session.step(STEPS[0]).outputs)


def test_a_stream_does_not_go_on_from_zeros_where_the_server_has_lost_the_session(restarted):
    """The session is unknown."""
    proxy, restart = restarted
    with Session(proxy.url, "alice") as session, session.stream() as stream:
        stream.send(STEPS[0])
        stream.receive()
        restart()
        stream.send(STEPS[1])
        with pytest.raises(SessionUnknownError):
            stream.receive()
        assert 1 == session.position


def test_a_forecast_leaves_the_session_where_it_is(server, client_id):
    """It gives what its outputs give as the next inputs; the next step is the same as without."""
    feedback = [*range(9), None, None, None]
    with Session(server.url, client_id) as session, Session(server.url, f"{client_id}-2") as other:
        for each in (session, other):
            each.sequence(STEPS[:5])
        reply = session.forecast(3, STEPS[5], feedback)
        assert (5, session.epoch, 5) == (reply.position, reply.epoch, session.position)
        x, outputs = STEPS[5].tolist(), []
        for _ in range(3):
            outputs.append(other.step(x).outputs)
            x = [*outputs[-1], *x[9:]]
        assert_close(outputs, reply.outputs)
        other.delete()
        with pytest.raises(SessionUnknownError):
            Session(server.url, f"{client_id}-2").forecast(1, STEPS[0], feedback)


async def test_an_awaited_forecast_is_refused_behind_another_writer(server, client_id):
    """It is of the state that its caller knows, or of none."""
    feedback = [*range(9), None, None, None]
    async with AsyncSession(server.url, client_id) as session:
        await session.step(STEPS[0])
        reply = await session.forecast(2, STEPS[1], feedback)
        assert (2, 9) == np.array(reply.outputs).shape
        async with AsyncSession(server.url, client_id) as other:
            await other.resume()
            await other.step(STEPS[1])
        with pytest.raises(ConflictError):
            await session.forecast(2, STEPS[1], feedback)
