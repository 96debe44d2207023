"""What goes into a stream and comes out of it, between its rules and its shells."""

from __future__ import annotations

from typing import NamedTuple

Incoming = tuple[bool, bytes | None]
"""Whether a message is text, and what it holds; None: it is over the limit, and was not kept."""
Outgoing = tuple[bool, bytes]
"""Whether a message is text, and what it holds."""


class Limits(NamedTuple):
    """What a stream takes.

    Attributes:
        frame_bytes: A longer message is refused.
        frame_steps: Most time steps of one message.
    """

    frame_bytes: int
    frame_steps: int


class Close(NamedTuple):
    """How a stream has ended.

    Attributes:
        code: Of WebSocket.
        reason: The error's code.
    """

    code: int
    reason: str
