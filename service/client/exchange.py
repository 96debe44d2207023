"""One request until it has an answer: what is sent again, when, and what stays in doubt."""

from __future__ import annotations

from contextlib import suppress
from enum import Enum

from service.client.documents import decode
from service.client.effects import Answer, Call, Lost, Operation, Pause
from service.client.errors import (
    ClientError,
    ProtocolError,
    UnavailableError,
    error_of,
    is_retried_status,
)
from service.client.retry import Backoff, RetryPolicy, retry_after_s


class Kind(Enum):
    """What a request does to the session."""

    LOOK = "look"
    STEP = "step"
    RESET = "reset"
    LOAD = "load"
    FORK = "fork"
    DELETE = "delete"


class Exchange:
    """Sends requests, the same bytes again and again, and keeps account of what is in doubt.

    Attributes:
        doubts: The kinds of request that may have been applied although nobody knows: their answer
            was lost, or their caller interrupted.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self.doubts: set[Kind] = set()

    def request(
        self, kind: Kind, method: str, path: str, body: bytes | None = None
    ) -> Operation[Answer]:
        """Send a request until it is answered.

        Args:
            kind: What it does. It is in `doubts` afterwards if an attempt, of this call or an
                earlier one, is not known to have done nothing.
            method: Of HTTP.
            path: With the query.
            body: The same for every attempt: the service knows a retry by it.

        Returns:
            The answer, of a status below 300.

        Raises:
            UnavailableError: None came within the deadline.
            ClientError: The service refused.
        """
        backoff = Backoff(self._policy)
        is_doubted = kind in self.doubts
        while True:
            # Before the attempt: it may be interrupted, and then nobody knows either.
            self.doubts.add(kind)
            outcome = yield Call(method, path, body, backoff.timeout_s)
            assert isinstance(outcome, Answer | Lost)
            if isinstance(outcome, Answer) and outcome.status < 300:
                if not is_doubted:
                    self.doubts.discard(kind)
                return outcome
            error, is_final = _judge(outcome)
            is_harmless = is_final or (isinstance(outcome, Lost) and not outcome.is_sent)
            is_doubted = is_doubted or not is_harmless
            if not is_doubted:
                self.doubts.discard(kind)
            if is_final:
                raise error
            wait_s = retry_after_s(outcome.headers) if isinstance(outcome, Answer) else 0.0
            pause_s = backoff.pause_after(outcome.took_s, wait_s)
            if pause_s is None:
                raise unavailable(error, backoff.num_failures, is_doubted=is_doubted)
            yield Pause(pause_s)


def unavailable(last: ClientError, num_attempts: int, *, is_doubted: bool) -> UnavailableError:
    """Return the error for attempts that the deadline has ended.

    Args:
        last: What the last one met.
        num_attempts: How many there were.
        is_doubted: Whether one of them may have been applied.
    """
    consequence = (
        "whether the request was applied is not known, and the same call again is safe"
        if is_doubted
        else "nothing was applied"
    )
    return UnavailableError(
        f"no usable answer in {num_attempts} attempts, the last: {last}; {consequence}",
        code=last.code,
        status=last.status,
        request_id=last.request_id,
    )


def _judge(outcome: Answer | Lost) -> tuple[ClientError, bool]:
    """Return what an attempt without success met, and whether another one would meet it again."""
    if isinstance(outcome, Lost):
        return ClientError(outcome.reason), False
    document = {}
    with suppress(ProtocolError):  # a proxy's page: the status says it all
        document = decode(outcome.body)
    error = error_of(document, outcome.status, outcome.headers.get("x-request-id"))
    return error, not is_retried_status(outcome.status, error.code)
