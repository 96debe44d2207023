"""The client library where a session begins, ends, goes back or is copied."""

import itertools
import time

import numpy as np
import pytest

from service.client import (
    Session,
    SessionExistsError,
    SessionExpiredError,
    SessionUnknownError,
)
from tests.integration.fault_proxy import Fault, fault_proxy
from tests.integration.live_server import live_server

STEPS = np.random.default_rng(0).normal(0, 1, (9, 12))


@pytest.fixture(scope="module")
def server():
    """A server of the bundled models, which forgets its sessions when it ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LSTM_STORE", "memory")
        with live_server() as server:
            yield server


@pytest.fixture(scope="module")
def expected(server):
    """What the steps give when nothing disturbs them, `(steps, 9)`."""
    with Session(server.url, "undisturbed") as session:
        return np.array(session.sequence(STEPS).outputs)


@pytest.fixture
def proxy(server):
    """A proxy before the server, with no faults yet."""
    with fault_proxy(server.url) as proxy:
        yield proxy


@pytest.mark.parametrize("fault", list(Fault))
def test_lives_are_changed_over_cuts(proxy, expected, fault):
    """Resets, rollbacks and ends that are sent again do what they do once."""
    turns = itertools.cycle([Fault.NONE, fault, fault])
    with Session(proxy.url, f"alice-{fault.name}") as session:
        proxy.choose = lambda: next(turns)
        for _ in range(3):
            np.testing.assert_allclose(session.sequence(STEPS[:5]).outputs, expected[:5], atol=1e-6)
            kept = session.state()
            session.sequence(STEPS[5:9])
            session.load_state(kept)
            assert 5 == session.position
            np.testing.assert_allclose(session.step(STEPS[5]).outputs, expected[5], atol=1e-6)
            session.reset_states()
            assert 0 == session.position
        session.delete()
        session.reset_states([[0.5] * 48, [0.5] * 48])
        assert 0.4 < np.mean(session.state()["states"])
        session.delete()
        with pytest.raises(SessionUnknownError):
            session.resume()
        assert 0 == session.resume(missing_ok=True)


def test_a_fork_that_is_sent_again_is_made_once(proxy, expected):
    """It goes on as its origin does, and another one of its name is refused."""
    faults = itertools.chain([Fault.CUT_AFTER], itertools.repeat(Fault.NONE))
    with Session(proxy.url, "origin") as origin:
        origin.step(STEPS[0])
        proxy.choose = lambda: next(faults)
        with origin.fork("copy") as copy:
            assert 1 == proxy.counts[Fault.CUT_AFTER]
            assert 1 == copy.position
            assert origin.epoch != copy.epoch
            for session in (copy, origin):
                outputs = session.step(STEPS[1]).outputs
                np.testing.assert_allclose(outputs, expected[1], atol=1e-6)
        with pytest.raises(SessionExistsError):
            origin.fork("copy")


def test_an_expired_session_does_not_go_on_until_it_is_reset(server):
    """Whether it was this client's own, or is met by another one."""
    with Session(server.url, "brief") as own, Session(server.url, "brief") as other:
        own.reset_states(ttl_s=0.2)
        own.step(STEPS[0])
        time.sleep(0.4)
        for session in (own, other):
            with pytest.raises(SessionExpiredError):
                session.step(STEPS[1])
            with pytest.raises(SessionExpiredError), session.stream():
                pass
        other.reset_states()
        assert 1 == other.step(STEPS[0]).position
