"""When the client tries again, and what it says when it does not."""

import pytest

from service.client import (
    ClientError,
    ConflictError,
    FingerprintMismatchError,
    InvalidRequestError,
    LostUpdateError,
    ProtocolError,
    RequestError,
    SessionDamagedError,
    SessionExistsError,
    SessionExpiredError,
    SessionUnknownError,
    UnavailableError,
)
from service.client.exchange import Backoff, RetryPolicy, retry_after_s
from service.client.network import Answer, Lost
from tests.unit.client_script import Clock, Late, Script, answer, make_core, stepped


def step(core):
    """Return the operation of a step."""
    return core.step([1.0])


PROBLEM = ClientError("cut")


def test_pauses_grow_with_full_jitter():
    """Their ceiling doubles up to two seconds, and they are drawn from all below it."""
    drawn = []

    def uniform(low, high):
        drawn.append((low, high))
        return 0.0

    backoff = Backoff(RetryPolicy(1.0, 60.0, uniform, Clock()))
    for _ in range(8):
        backoff.start()
        assert 0.0 == backoff.fail(PROBLEM, may_be_applied=True)
    ceilings = [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert [(0.0, ceiling) for ceiling in ceilings] == drawn


def test_pauses_stay_numbers_however_often_it_fails():
    """A power of two that nobody can hold is never taken."""
    backoff = Backoff(RetryPolicy(1.0, float("inf"), lambda _low, high: high, Clock()))
    for _ in range(5000):
        backoff.start()
        assert backoff.fail(PROBLEM, may_be_applied=True) <= 2.0


def test_a_deadline_counts_attempts_and_pauses():
    """No pause begins that would end behind it, and no attempt may last longer."""
    clock = Clock()
    backoff = Backoff(RetryPolicy(3.0, 10.0, lambda _low, _high: 0.5, clock))
    assert 3.0 == backoff.start()
    clock.now = 7.5
    assert 0.5 == backoff.fail(PROBLEM, may_be_applied=True)
    clock.now = 8.0
    assert 2.0 == backoff.start()
    clock.now = 8.5
    with pytest.raises(UnavailableError):
        backoff.fail(PROBLEM, may_be_applied=True, retry_after_s=1.0)


def test_an_attempt_that_needs_all_its_time_gives_the_next_one_twice_as_much():
    """So a long sequence comes through, and a refused connection changes nothing."""
    clock = Clock()
    backoff = Backoff(RetryPolicy(1.0, 60.0, lambda _low, _high: 0.0, clock))
    for took_s, next_s in ((0.1, 1.0), (1.0, 2.0)):
        backoff.start()
        clock.now += took_s
        backoff.fail(PROBLEM, may_be_applied=True)
        assert next_s == backoff.start()


def test_the_log_tells_once_what_a_call_waits_for(caplog):
    """Soon, and not only when its deadline is over."""
    script = Script(*[Lost("refused", is_sent=False)] * 8, answer(**stepped(1)))
    script.run(step(make_core()))
    assert 1 == len(caplog.messages)
    assert caplog.messages[0].startswith("no usable answer yet: refused; trying for")


@pytest.mark.parametrize(
    ("header", "expected"), [("3", 3.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0), ("-1", 0.0)]
)
def test_retry_after_is_read_in_seconds(header, expected):
    """Anything else counts as none."""
    assert expected == retry_after_s({"retry-after": header})


@pytest.mark.parametrize(("timeout_s", "deadline_s"), [(0.0, 1.0), (1.0, -1.0)])
def test_times_must_be_positive(timeout_s, deadline_s):
    """And are named where they are not."""
    with pytest.raises(ValueError, match="must be positive"):
        RetryPolicy(timeout_s, deadline_s, lambda low, _high: low)


@pytest.mark.parametrize(
    "failure",
    [Lost("cut"), *(answer(status) for status in (408, 429, 500, 502, 503, 504))],
)
def test_the_same_bytes_are_sent_until_they_are_answered(failure):
    """Whatever the failure was."""
    script = Script(failure, failure, answer(**stepped(1)))
    assert [0.5] == script.run(step(make_core())).outputs
    first, second, third = script.calls
    assert first == second == third
    assert [0.05, 0.1] == script.pauses


def test_a_time_to_wait_is_added_to_the_pause():
    """The service knows best when it is ready."""
    script = Script(answer(503, headers={"retry-after": "2"}), answer(**stepped(1)))
    script.run(step(make_core()))
    assert [2.05] == script.pauses


def test_a_deadline_ends_with_the_last_reason():
    """And with whether the step may have been applied."""
    core = make_core()
    refused = Late(6.0, answer(503, code="draining", detail="going down", request_id="r1"))
    with pytest.raises(UnavailableError, match="2 attempts, the last: going down; whether") as end:
        Script(refused, refused).run(step(core))
    assert ("draining", 503, "r1") == (end.value.code, end.value.status, end.value.request_id)
    assert (0, None) == (core.position, core.epoch)


def test_a_request_that_was_never_sent_is_not_in_doubt():
    """The error says that nothing was applied."""
    with pytest.raises(UnavailableError, match="nothing was applied"):
        Script(Late(11.0, Lost("refused", is_sent=False))).run(step(make_core()))


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "session_unknown", SessionUnknownError),
        (404, "model_unknown", RequestError),
        (409, "fingerprint_mismatch", FingerprintMismatchError),
        (409, "lost_update", LostUpdateError),
        (409, "position_conflict", ConflictError),
        (409, "session_exists", SessionExistsError),
        (410, "session_expired", SessionExpiredError),
        (413, "body_too_large", RequestError),
        (422, "invalid_request", InvalidRequestError),
        (422, "state_not_finite", RequestError),
        (500, "session_damaged", SessionDamagedError),
        (503, "session_damaged", SessionDamagedError),
    ],
)
def test_every_refusal_has_its_type_and_is_not_sent_again(status, code, kind):
    """With everything that the service told."""
    document = {"detail": "said so", "position": 3, "epoch": 4, "request_id": "r1"}
    with pytest.raises(ClientError, match="said so") as refused:
        Script(answer(status, code=code, **document)).run(step(make_core()))
    error = refused.value
    assert kind is type(error)
    assert (code, status, 3, 4) == (error.code, error.status, error.position, error.epoch)
    assert "r1" == error.request_id


def test_a_page_of_something_in_between_is_told_by_its_status():
    """A load balancer's answer is no problem document."""
    page = Answer(404, {"x-request-id": "r2"}, b"<html>")
    with pytest.raises(RequestError, match="status 404") as refused:
        Script(page).run(step(make_core()))
    assert (None, "r2") == (refused.value.code, refused.value.request_id)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b"\xff"])
def test_an_answer_that_is_none_is_told(body):
    """The position stays, so that the step can come again."""
    core = make_core()
    with pytest.raises(ProtocolError):
        Script(Answer(200, {}, body)).run(step(core))
    assert 0 == core.position
