"""When to try again, for how long, and how long to wait for one attempt. No clock, no input."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

FIRST_CEILING_S = 0.05
LAST_CEILING_S = 2.0

Uniform = Callable[[float, float], float]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How patient a session is.

    Attributes:
        timeout_s: How long one attempt may take; each attempt that needs all of it doubles the
            next one's, so that a long sequence comes through.
        deadline_s: How long a call may take in all, attempts and pauses.
        uniform: Draws the jitter: a number between the two given.
    """

    timeout_s: float
    deadline_s: float
    uniform: Uniform

    def __post_init__(self) -> None:
        if not (self.timeout_s > 0 and self.deadline_s > 0):
            raise ValueError(
                f"timeout_s and deadline_s must be positive, not {self.timeout_s} and"
                f" {self.deadline_s}"
            )


class Backoff:
    """The attempts of one call: exponential pauses with full jitter, up to the deadline."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self._timeout_s = policy.timeout_s
        self._spent_s = 0.0
        self.num_failures = 0

    @property
    def timeout_s(self) -> float:
        """How long the next attempt may take."""
        return min(self._timeout_s, self._policy.deadline_s - self._spent_s)

    def pause_after(self, took_s: float, retry_after_s: float = 0.0) -> float | None:
        """Note a failure, and return how long to wait, or None where the deadline comes first.

        Full jitter keeps the clients of a replica that died from coming back all at once.

        Args:
            took_s: How long the attempt took.
            retry_after_s: What the service asked for; the pause is no shorter.
        """
        if took_s >= self._timeout_s:
            self._timeout_s *= 2
        ceiling_s = min(LAST_CEILING_S, FIRST_CEILING_S * 2 ** min(self.num_failures, 10))
        self.num_failures += 1
        pause_s = retry_after_s + self._policy.uniform(0.0, ceiling_s)
        self._spent_s += took_s + pause_s
        return pause_s if self._spent_s < self._policy.deadline_s else None


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Read a `retry-after` in seconds; its form as a date counts as none."""
    text = headers.get("retry-after", "").strip()
    return float(text) if text.isascii() and text.isdigit() else 0.0
