"""How a stream's steps are numbered, and sent again."""

import asyncio
import random
from contextlib import suppress
from threading import Lock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.client import (
    ConflictError,
    InvalidRequestError,
    ProtocolError,
    RequestError,
    SessionDamagedError,
    SessionUnknownError,
    StepReply,
    UnavailableError,
)
from service.client.blocking import Stream
from service.client.network import Lost
from tests.unit.client_frames import BINARY, CUT, frame, hello, opened, reply, send
from tests.unit.client_script import (
    EPOCH,
    INTERRUPT,
    RELAY,
    Late,
    Script,
    Service,
    answer,
    fork,
    make_core,
    make_stream,
    stepped,
)


def again(run):
    """Call until the service can be reached."""
    for _ in range(1000):
        with suppress(UnavailableError):
            return run()
    raise AssertionError("never reached")


@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_every_step_of_a_stream_is_applied_once_whatever_is_lost(seed, num_steps):
    """In order, each with its reply."""
    core = make_core()
    generator = random.Random(seed)
    service = Service(lambda: generator.choice([0, 0, 0, 1, 2, 3]))
    stream = make_stream(core)
    again(lambda: service.run(stream.__aenter__()))
    pending = []
    for index in range(num_steps):
        pending.append([float(index // 2)])
        sent = stream.num_pending

        def push(sent=sent):
            # Given up while it waits for room, a step was not taken.
            if stream.num_pending == sent:
                service.run(stream.send(pending[-1]))

        again(push)
    replies = [again(lambda: service.run(stream.receive())) for _ in range(num_steps)]
    assert pending == service.applied
    assert list(range(1, num_steps + 1)) == [one.position for one in replies]
    assert num_steps == core.position


def test_steps_name_their_positions_until_the_epoch_is_known():
    """In text frames; then they are binary ones, and their replies are counted."""
    core = make_core()
    stream = opened(core)
    assert [
        {"inputs": [1.0], "position": 0},
        {"inputs": [2.0], "position": 1},
    ] == send(stream, 1.0, 2.0)
    script = Script(reply(1), reply(2))
    assert [1, 2] == [script.run(stream.receive()).position for _ in range(2)]
    assert [[3.0]] == send(stream, 3.0)
    assert StepReply([0.25], 3, EPOCH, replayed=False) == Script(BINARY).run(stream.receive())
    assert 3 == core.position


def test_exactly_what_is_not_acknowledged_is_sent_again():
    """With the positions that it had."""
    core = make_core()
    stream = opened(core)
    send(stream, 1.0, 2.0, 3.0)
    Script(reply(1)).run(stream.receive())
    script = Script(CUT, None, hello(2, EPOCH), reply(2, replayed=True))
    assert script.run(stream.receive()).replayed
    assert [
        {"inputs": [2.0], "position": 1, "epoch": EPOCH},
        {"inputs": [3.0], "position": 2, "epoch": EPOCH},
    ] == script.sent
    assert 2 == core.position


def test_no_more_than_the_window_is_in_flight():
    """Beyond it a reply is read first, and kept until it is received."""
    stream = opened(make_core(), window=2)
    send(stream, 1.0, 2.0)
    script = Script(reply(1))
    script.run(stream.send([3.0]))
    assert [("receive", 1.0)] == script.waits
    assert 3 == stream.num_pending
    assert 1 == Script().run(stream.receive()).position


def test_answers_that_are_not_stored_go_one_by_one():
    """Only the last request's is computed again."""
    assert 1 == opened(make_core(), output_size=4097).window
    assert 4 == opened(make_core(), output_size=4096).window


@pytest.mark.parametrize("code", [None, 1000, 1001, 1006, 1011, 1012, 1013])
def test_ends_that_pass_are_connected_again(code):
    """With a pause that grows until a step is acknowledged."""
    stream = opened(make_core())
    send(stream, 1.0)
    end = Lost("closed", status=code)
    script = Script(end, Lost("refused"), None, end, None, hello(), reply(1))
    script.run(stream.receive())
    assert [0.05, 0.1, 0.2] == script.pauses
    send(stream, 2.0)
    script = Script(CUT, None, hello(1, EPOCH), reply(2))
    script.run(stream.receive())
    assert [0.05] == script.pauses


@pytest.mark.parametrize(
    ("code", "name", "kind"),
    [
        (4409, "position_conflict", ConflictError),
        (4404, "session_unknown", SessionUnknownError),
        (4422, "invalid_request", InvalidRequestError),
        (1009, "body_too_large", RequestError),
    ],
)
def test_ends_that_do_not_pass_are_raised_behind_the_replies(code, name, kind):
    """And again by whatever is called next; the session stays where it is acknowledged."""
    core = make_core()
    stream = opened(core, window=2)
    send(stream, 1.0, 2.0)
    Script(reply(1)).run(stream.send([3.0]))
    error = frame(type="error", code=name, message="said so", position=1, epoch=EPOCH)
    assert 1 == Script().run(stream.receive()).position
    script = Script(error, Lost("closed", status=code))
    for run in (lambda: script.run(stream.receive()), lambda: Script().run(stream.send([4.0]))):
        with pytest.raises(kind, match="said so") as ended:
            run()
        assert (name, code, 1) == (ended.value.code, ended.value.status, ended.value.position)
    with pytest.raises(kind):
        Script().run(stream.receive())
    Script().run(stream.__aexit__(None))
    assert 1 == core.position


@pytest.mark.parametrize(("status", "is_final"), [(403, True), (404, True), (502, False)])
def test_a_handshake_that_is_refused_for_good_is_told(status, is_final):
    """And tried again where something in between is not ready."""
    stream = make_stream(make_core())
    refused = Lost("refused", status=status)
    if is_final:
        with pytest.raises(RequestError) as ended:
            Script(refused).run(stream.__aenter__())
        assert status == ended.value.status
    else:
        Script(refused, None, hello()).run(stream.__aenter__())


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (hello(3, 8), ConflictError),
        (hello(4, EPOCH), ConflictError),
        (hello(2, EPOCH), ConflictError),
        (hello(0, None), SessionUnknownError),
    ],
)
def test_a_session_that_is_elsewhere_is_not_gone_on_with(first, kind):
    """Before anything is sent."""
    with pytest.raises(kind):
        Script(None, first).run(make_stream(make_core(position=3, epoch=EPOCH)).__aenter__())


def test_a_session_that_somebody_has_begun_is_not_gone_on_with():
    """A stream without one begins it."""
    with pytest.raises(ConflictError):
        Script(None, hello(1, 8)).run(make_stream(make_core()).__aenter__())


def test_a_session_that_has_come_further_than_what_was_sent_is_anothers():
    """Also where the first step was not acknowledged, so that the epoch is not known."""
    stream = opened(make_core())
    send(stream, 1.0, 2.0)
    with pytest.raises(ConflictError):
        Script(CUT, None, hello(3, 8)).run(stream.receive())


def test_a_replay_of_what_was_sent_once_is_another_writers():
    """Nothing between could have sent it before."""
    stream = opened(make_core())
    send(stream, 1.0)
    with pytest.raises(ConflictError, match="another writer has sent the same step"):
        Script(reply(1, replayed=True)).run(stream.receive())


def test_a_reply_to_another_step_ends_the_stream():
    """Nothing of this service's."""
    stream = opened(make_core())
    send(stream, 1.0)
    with pytest.raises(ProtocolError):
        Script(reply(2)).run(stream.receive())


def test_nothing_in_flight_has_no_reply():
    """A mistake of the caller's."""
    with pytest.raises(RuntimeError, match="no step is in flight"):
        Script().run(opened(make_core()).receive())


def test_a_deadline_ends_the_attempts_and_the_next_call_tries_again():
    """What is in flight stays in flight."""
    stream = opened(make_core())
    send(stream, 1.0)
    with pytest.raises(UnavailableError, match="not known"):
        Script(Late(11.0, Lost("no answer in time"))).run(stream.receive())
    script = Script(None, hello(), reply(1))
    assert 1 == script.run(stream.receive()).position
    assert 1 == len(script.sent)


def test_a_connection_that_was_left_half_made_is_made_anew():
    """Its first frame is not taken for a reply."""
    stream = opened(make_core())
    send(stream, 1.0)
    interrupted = stream.receive()
    with pytest.raises(AssertionError, match="suspended"):
        Script(CUT, None, INTERRUPT).run(interrupted)
    interrupted.close()
    script = Script(None, hello(), reply(1))
    assert 1 == script.run(stream.receive()).position


class Interrupted(Script):
    """A network whose user interrupts every call."""

    async def send(self, _frames):
        """Write nothing, or half of it."""
        raise KeyboardInterrupt

    async def receive(self, _timeout_s):
        """Lose a frame."""
        raise KeyboardInterrupt


@pytest.mark.parametrize("is_sending", [False, True])
def test_what_was_interrupted_goes_on_over_another_connection(is_sending):
    """Half a frame may have gone, or a reply be lost that nothing but its place tells."""
    core = make_core(position=3, epoch=EPOCH)
    stream = Stream(opened(core), Lock())
    RELAY.network = Script()
    stream.send([1.0])
    RELAY.network = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        stream.send([2.0]) if is_sending else stream.receive()
    RELAY.network = script = Script(None, hello(3, EPOCH), reply(4), reply(5))
    assert 4 == stream.receive().position
    texts = [{"inputs": [1.0], "position": 3, "epoch": EPOCH}]
    texts += [{"inputs": [2.0], "position": 4, "epoch": EPOCH}] * is_sending
    assert texts == script.sent


def test_what_is_no_json_ends_the_stream():
    """The next binary reply could be taken for another step's."""
    stream = opened(make_core(position=3, epoch=EPOCH))
    send(stream, 1.0, 2.0)
    with pytest.raises(ProtocolError):
        Script("<html>").run(stream.receive())
    with pytest.raises(ProtocolError):
        Script(BINARY).run(stream.receive())


def test_a_session_does_not_step_beside_its_stream():
    """Its position is the stream's."""
    core = make_core()
    opened(core)
    for operation in (
        core.step([1.0]),
        core.reset_states(),
        core.load_state({"position": 0}),
        core.resume(),
        core.state(),
        fork(core, "copy"),
        core.delete(),
    ):
        with pytest.raises(RuntimeError, match="a stream of session 'alice' is open"):
            Script().run(operation)


def test_what_an_earlier_stream_left_in_doubt_may_be_sent_again():
    """By another stream: it is replayed, and no other writer's."""
    core = make_core(position=3, epoch=EPOCH)
    stream = opened(core)
    send(stream, 1.0, 2.0)
    with pytest.raises(UnavailableError):
        Script(Late(11.0, CUT)).run(stream.receive())
    Script().run(stream.__aexit__(UnavailableError))
    other = make_stream(core)
    script = Script(None, hello(5, EPOCH), reply(4, replayed=True), reply(5, replayed=True))
    script.run(other.__aenter__())
    send(other, 1.0, 2.0)
    assert [4, 5] == [script.run(other.receive()).position for _ in range(2)]


def test_no_more_than_the_window_is_in_doubt():
    """Further than its own steps can have come it is another writer's."""
    core = make_core(position=3, epoch=EPOCH)
    stream = opened(core)
    send(stream, 1.0)
    Script().run(stream.__aexit__(KeyboardInterrupt))
    with pytest.raises(ConflictError):
        Script(None, hello(3 + 5, EPOCH)).run(make_stream(core).__aenter__())


def test_a_damaged_session_is_told_at_once():
    """Its close code is one that passes, and its error does not."""
    stream = opened(make_core())
    send(stream, 1.0)
    damaged = frame(type="error", code="session_damaged", message="said so")
    with pytest.raises(SessionDamagedError, match="said so"):
        Script(damaged, Lost("closed", status=1011)).run(stream.receive())


@pytest.mark.parametrize("is_left", [True, False])
def test_a_stream_is_used_inside_of_its_block(is_left):
    """Neither before, nor behind: it would number the steps of others."""
    core = make_core()
    stream = opened(core) if is_left else make_stream(core)
    if is_left:
        Script().run(stream.__aexit__(None))
    for operation in (stream.send([1.0]), stream.receive()):
        with pytest.raises(RuntimeError, match="not open"):
            Script().run(operation)


def test_a_deadline_counts_connections_that_are_made_and_break():
    """Also what their openings and first frames took."""
    stream = opened(make_core())
    send(stream, 1.0)
    rounds = [CUT, Late(3.0, None), Late(3.0, hello()), CUT, Late(3.0, None), Late(3.0, hello())]
    with pytest.raises(UnavailableError):
        Script(*rounds, CUT, None, hello(), CUT).run(stream.receive())


async def test_a_block_whose_end_is_cancelled_leaves_the_session_to_others():
    """Also while it waits for its turn."""
    lock = asyncio.Lock()
    core = make_core(lock=lock)
    stream = opened(core)
    async with lock:
        end = asyncio.create_task(stream.__aexit__(None))
        await asyncio.sleep(0)
        end.cancel()
        with suppress(asyncio.CancelledError):
            await end
    assert 1 == Script(answer(**stepped(1))).run(core.step([1.0])).position
