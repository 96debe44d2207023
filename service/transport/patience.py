"""How long a client may keep a connection waiting. Pure: takes the time, closes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """What a connection is granted, in seconds.

    Attributes:
        idle_s: For its next request to begin.
        transfer_s: For a request that has begun to be there as a whole, and for an answer that is
            under way to be read.
    """

    idle_s: float
    transfer_s: float

    @property
    def shortest_s(self) -> float:
        """How often it is worth a look."""
        return min(self.idle_s, self.transfer_s)


class Phase(Enum):
    """What a connection waits for."""

    IDLE = auto()
    """For the client to begin a request."""
    RECEIVING = auto()
    """For the rest of a request."""
    WORKING = auto()
    """For this service, so that nothing runs against the client."""
    SENDING = auto()
    """For the client to read."""


class Clock:
    """Runs against a client while a connection waits for it.

    Attributes:
        phase: What the connection waits for.
    """

    def __init__(self, patience: Patience, now: float) -> None:
        """Begin idle.

        Args:
            patience: What is granted.
            now: Seconds of any clock that never goes back.
        """
        self.phase = Phase.IDLE
        self._patience = patience
        self._since = now

    def begin(self, phase: Phase, now: float) -> None:
        """Begin a phase, anew if it is the same."""
        self.phase = phase
        self._since = now

    def enter(self, phase: Phase, now: float) -> None:
        """Begin a phase if it is another one."""
        if phase is not self.phase:
            self.begin(phase, now)

    def left_s(self, now: float) -> float:
        """Return how long to wait before the next look; nothing is left where it is 0 or less."""
        if self.phase is Phase.WORKING:
            return self._patience.shortest_s
        granted_s = self._patience.idle_s if self.phase is Phase.IDLE else self._patience.transfer_s
        return self._since + granted_s - now
