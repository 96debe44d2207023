"""What the core asks the world to do, and what comes of it. The faces of the client do it.

An operation is a generator: it yields effects, is sent their outcomes, and returns its result.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """Make an HTTP request; the outcome is an `Answer` or `Lost`.

    Attributes:
        method: Of HTTP.
        path: From the service's root, with the query.
        body: JSON, or None for none.
        timeout_s: Wait no longer for anything.
    """

    method: str
    path: str
    body: bytes | None
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait; there is no outcome."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Open:
    """Open the stream's connection, an earlier one being closed; the outcome is None or `Lost`."""

    timeout_s: float


@dataclass(frozen=True, slots=True)
class Send:
    """Send a text frame. No outcome: what becomes of it is told by what is received."""

    text: str


@dataclass(frozen=True, slots=True)
class Receive:
    """Wait for a frame; the outcome is a `Frame`, or `Lost` behind the last one."""

    timeout_s: float


Effect = Call | Pause | Open | Send | Receive


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer of any status.

    Attributes:
        status: Of HTTP.
        headers: Their names in lower case.
        body: All of it.
        took_s: How long it took.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    took_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Frame:
    """A text frame."""

    text: str


@dataclass(frozen=True, slots=True)
class Lost:
    """No answer, or the end of a stream's connection.

    Attributes:
        reason: In words.
        took_s: How long that took.
        is_sent: Whether the request may have arrived.
        status: With what a handshake was refused, if it was.
        close_code: With what the other side closed the stream, if it did.
    """

    reason: str
    took_s: float = 0.0
    is_sent: bool = True
    status: int | None = None
    close_code: int | None = None


Outcome = Answer | Frame | Lost | None
Operation = Generator[Effect, Outcome, T]
