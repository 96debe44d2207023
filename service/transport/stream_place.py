"""Where a stream is in its session's life, and which of its steps may be retries.

Pure. Knows no messages, no engine, and nothing of what is in flight.
"""

from __future__ import annotations

from service.domain import REPLAY_WINDOW, AdvanceReply, SessionReply
from service.errors import PositionConflictError, ServiceError, SessionUnknownError


class Place:
    """Where one stream is.

    Attributes:
        position: From where its next step starts.
        epoch: The session's life; None before it has begun.
        head: How far the session is known to have come.
    """

    __slots__ = ("_num_doubted", "epoch", "head", "position")

    def __init__(self, session: SessionReply | None, position: int | None) -> None:
        """Begin where the client goes on.

        Args:
            session: Where its session is; None where there is none.
            position: From where the client's next step starts; None: where the session is.
        """
        self.head = 0 if session is None else session.position
        self.epoch = None if session is None else session.epoch
        self.position = self.head if position is None else position
        # As many of its messages may have been applied, unknown to the client.
        self._num_doubted = 0 if position is None else REPLAY_WINDOW

    def problem(self, client_id: str, epoch: int | None) -> ServiceError | None:
        """Return what is wrong with where the client would go on, with the life that it expects.

        Whether a position before the session's can be replayed, its first step will show.
        """
        if self.epoch is None:
            is_new = not self.position and epoch is None
            return None if is_new else SessionUnknownError(client_id)
        if epoch not in (None, self.epoch):
            problem = f"the stream is for epoch {epoch}"
        elif self.position > self.head:
            problem = f"the stream starts from position {self.position}"
        else:
            return None
        return PositionConflictError(self.head, self.epoch, problem)

    def may_be_retry(self, named: int | None) -> bool:
        """Tell whether the next step may be one that comes again; it may name its position."""
        return named is not None or self.position < self.head or self._num_doubted > 0

    def go_on(self, position: int, num_steps: int) -> None:
        """Go on behind a message that was submitted from a position."""
        self.position = position + num_steps
        if self._num_doubted:
            self._num_doubted -= 1

    def learn(self, reply: AdvanceReply) -> None:
        """Take over what an answer tells of the session."""
        self.head = max(self.head, reply.position)
        self.epoch = reply.epoch
