"""Where a session is, as its client knows: what its calls and its stream share.

No socket, no event loop, no request: what is sent is made elsewhere.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from service.client.documents import Place, session_path
from service.client.errors import ConflictError
from service.client.exchange import Exchange


class Numbering:
    """Where one session is, as its client knows: shared by its calls and its stream.

    A session without an epoch has not begun: its first step carries position 0, so that it fails
    where somebody else's session has come further.

    Attributes:
        client_id: The session's name.
        path: The session's, of HTTP.
        place: From where the next step starts, and in which life; no epoch before it has begun.
        exchange: Sends its requests.
        lock: Held by whoever's turn it is.
        is_streaming: Whether a stream is open, which alone may step then.
    """

    def __init__(
        self,
        client_id: str,
        model: str | None,
        place: Place,
        exchange: Exchange,
        lock: AbstractAsyncContextManager[None],
    ) -> None:
        """Begin a session, or go on with one whose position and epoch the caller has kept.

        Raises:
            ValueError: A position without its epoch could be of another life.
        """
        if place.position and place.epoch is None:
            raise ValueError(f"position {place.position} needs its epoch; or ask with resume")
        self.client_id = client_id
        self.path = session_path(model, client_id)
        self.place = place
        self.exchange = exchange
        self.lock = lock
        self.is_streaming = False

    def check_idle(self) -> None:
        """Raise an error if a stream is open, whose numbering this would disturb."""
        if self.is_streaming:
            raise RuntimeError(f"a stream of session {self.client_id!r} is open: step through it")

    def adopt(self, place: Place) -> None:
        """Take over where an answer says that the session is."""
        self.place = place  # at once: an interrupt must not come between position and epoch
        self.exchange.doubts.clear()

    def conflict(self, problem: str, place: Place) -> ConflictError:
        """Return the error for what the service itself takes for no conflict."""
        return ConflictError(
            f"{problem}: session {self.client_id!r} is at position {place.position} of epoch"
            f" {place.epoch}",
            code="position_conflict",
            position=place.position,
            epoch=place.epoch,
        )
