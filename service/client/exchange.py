"""One request until it has an answer: what is sent again, when, and what stays in doubt."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from random import SystemRandom
from typing import Any

from service.client.documents import decode, encode
from service.client.errors import (
    ClientError,
    ProtocolError,
    UnavailableError,
    error_of,
    is_passing,
)
from service.client.network import Answer, Lost, Network

FIRST_CEILING_S = 0.05
LAST_CEILING_S = 2.0
NUM_SILENT_FAILURES = 5
"""After these, about a second, the log tells that a call is not getting through."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient a session is.

    Attributes:
        timeout_s: How long one attempt may take; each attempt that needs all of it doubles the
            next one's, so that a long sequence comes through.
        deadline_s: How long a call may take in all, attempts and pauses.
        uniform: Draws the jitter: a number between the two given.
        clock: Seconds since whenever.
    """

    timeout_s: float
    deadline_s: float
    uniform: Callable[[float, float], float] = SystemRandom().uniform
    clock: Callable[[], float] = time.monotonic

    def __post_init__(self) -> None:
        if not (self.timeout_s > 0 and self.deadline_s > 0):
            raise ValueError(
                f"timeout_s and deadline_s must be positive, not {self.timeout_s} and"
                f" {self.deadline_s}"
            )


class Backoff:
    """The attempts of one call: exponential pauses with full jitter, up to the deadline."""

    def __init__(self, policy: RetryPolicy) -> None:
        """Begin the call: its deadline counts from now."""
        self._policy = policy
        self._timeout_s = policy.timeout_s
        self._ends_at = policy.clock() + policy.deadline_s
        self._started_at = 0.0
        self._num_failures = 0

    def start(self) -> float:
        """Begin an attempt, and return how many seconds it may take."""
        self._started_at = self._policy.clock()
        return max(0.01, min(self._timeout_s, self._ends_at - self._started_at))

    def fail(
        self, error: ClientError, *, may_be_applied: bool, retry_after_s: float = 0.0
    ) -> float:
        """Note that the attempt failed, and return how many seconds to wait before the next one.

        Full jitter keeps the clients of a replica that died from coming back all at once.

        Args:
            error: What the attempt met.
            may_be_applied: Whether this one or an earlier one may have been applied.
            retry_after_s: What the service asked for; the pause is no shorter.

        Raises:
            UnavailableError: The deadline would come first.
        """
        now = self._policy.clock()
        if now - self._started_at >= self._timeout_s:
            self._timeout_s *= 2
        ceiling_s = min(LAST_CEILING_S, FIRST_CEILING_S * 2 ** min(self._num_failures, 10))
        self._num_failures += 1
        pause_s = retry_after_s + self._policy.uniform(0.0, ceiling_s)
        left_s = self._ends_at - now
        if pause_s >= left_s:
            consequence = (
                "whether it was applied is not known, and the same call again is safe"
                if may_be_applied
                else "nothing was applied"
            )
            raise UnavailableError(
                f"no usable answer in {self._num_failures} attempts, the last: {error};"
                f" {consequence}",
                code=error.code,
                status=error.status,
                request_id=error.request_id,
            )
        if self._num_failures == NUM_SILENT_FAILURES:
            log.warning("no usable answer yet: %s; trying for %.0f s more", error, left_s)
        return pause_s


class Exchange:
    """Sends requests, the same bytes again and again, and keeps account of what is in doubt.

    Attributes:
        policy: How patient it is.
        network: What carries the requests.
        doubts: What may have been applied although nobody knows, because an answer was lost, or
            its caller interrupted.
    """

    def __init__(self, policy: RetryPolicy, network: Network) -> None:
        self.policy = policy
        self.network = network
        self.doubts: set[str] = set()

    async def request(
        self, doubt: str, method: str, path: str, document: object = None
    ) -> dict[str, Any]:
        """Send a request until it is answered.

        Args:
            doubt: What it does. It is in `doubts` afterwards if an attempt, of this call or an
                earlier one, is not known to have done nothing.
            method: Of HTTP.
            path: With the query.
            document: The same bytes for every attempt: the service knows a retry by them.

        Returns:
            What a good answer holds.

        Raises:
            UnavailableError: None came within the deadline.
            ClientError: The service refused.
        """
        body = None if document is None else encode(document)
        backoff = Backoff(self.policy)
        is_doubted = doubt in self.doubts
        while True:
            # Before the attempt: it may be interrupted, and then nobody knows either.
            self.doubts.add(doubt)
            outcome = await self.network.request(method, path, body, backoff.start())
            if isinstance(outcome, Answer) and outcome.status < 300:
                answer = decode(outcome.body) if outcome.body else {}
                if not is_doubted:
                    self.doubts.discard(doubt)
                return answer
            error, wait_s = _failure(outcome)
            is_doubted |= is_passing(error) and not (
                isinstance(outcome, Lost) and not outcome.is_sent
            )
            if not is_doubted:
                self.doubts.discard(doubt)
            if not is_passing(error):
                raise error
            pause_s = backoff.fail(error, may_be_applied=is_doubted, retry_after_s=wait_s)
            await self.network.pause(pause_s)


def _failure(outcome: Answer | Lost) -> tuple[ClientError, float]:
    """Return what an attempt without success met, and how long the other side wants us to wait."""
    if isinstance(outcome, Lost):
        return error_of({"detail": outcome.reason}, None), 0.0
    document = {}
    with suppress(ProtocolError):  # a proxy's page: the status says it all
        document = decode(outcome.body)
    error = error_of(document, outcome.status, outcome.headers.get("x-request-id"))
    return error, retry_after_s(outcome.headers)


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Read a `retry-after` in seconds; its form as a date counts as none."""
    text = headers.get("retry-after", "").strip()
    return float(text) if text.isascii() and text.isdigit() else 0.0
