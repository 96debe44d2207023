"""A session as its client sees it: what it sends, and what it makes of the answers.

Pure: every operation is a generator of effects (`effects`), and the faces (`blocking`,
`asynchronous`) carry them out. No socket, no clock, no event loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from service.client.documents import (
    Mask,
    Matrix,
    Place,
    SequenceReply,
    StepReply,
    Vector,
    decode,
    encode,
    read_place,
    read_sequence,
    read_step,
    session_path,
)
from service.client.effects import Operation
from service.client.errors import (
    ConflictError,
    SessionExistsError,
    SessionExpiredError,
    SessionUnknownError,
)
from service.client.exchange import Exchange, Kind
from service.client.retry import RetryPolicy


class SessionCore:
    """The numbering of one session's steps.

    A session without an epoch has not begun: its first step carries position 0, so that it fails
    where somebody else's session has come further.

    Attributes:
        client_id: The session's name.
        model: The model's; None for the default one.
        policy: How patient it is.
        path: The session's, of HTTP.
        position: From where the next step starts.
        epoch: The life that it is in; None before it has begun.
        exchange: Sends its requests.
        is_streaming: Whether a stream is open, which alone may step then.
    """

    def __init__(
        self,
        client_id: str,
        model: str | None,
        policy: RetryPolicy,
        *,
        position: int = 0,
        epoch: int | None = None,
    ) -> None:
        """Begin a session, or go on with one whose position and epoch the caller has kept.

        Raises:
            ValueError: A position without its epoch could be of another life.
        """
        if position and epoch is None:
            raise ValueError(f"position {position} needs its epoch; or ask for it with resume")
        self.client_id = client_id
        self.model = model
        self.policy = policy
        self.path = session_path(model, client_id)
        self.position = position
        self.epoch = epoch
        self.exchange = Exchange(policy)
        self.is_streaming = False
        self._is_lost = False

    def step(self, inputs: Vector, *, return_state: bool) -> Operation[StepReply]:
        """Take one time step."""
        document: dict[str, Any] = {"inputs": inputs}
        if return_state:
            document["return_state"] = True
        reply = read_step((yield from self._advance("step", document)))
        yield from self._accept(reply)
        return reply

    def sequence(
        self,
        inputs: Matrix,
        mask: Mask | None,
        *,
        return_sequences: bool,
        return_state: bool,
    ) -> Operation[SequenceReply]:
        """Take many time steps."""
        document: dict[str, Any] = {"inputs": inputs, "return_sequences": return_sequences}
        if mask is not None:
            document["mask"] = mask
        if return_state:
            document["return_state"] = True
        reply = read_sequence((yield from self._advance("sequence", document)))
        yield from self._accept(reply)
        return reply

    def reset_states(self, states: Sequence[Vector] | None, ttl_s: float | None) -> Operation[None]:
        """Begin a new life at position 0."""
        document: dict[str, Any] = yield from self._preconditions()
        if states is not None:
            document["states"] = states
        if ttl_s is not None:
            document["ttl_s"] = ttl_s
        path = f"{self.path}/reset_states"
        yield from self._begin_life(Kind.RESET, "POST", path, encode(document), 0)

    def load_state(self, document: Mapping[str, Any]) -> Operation[None]:
        """Begin a new life from an exported state."""
        path = f"{self.path}/state{_query((yield from self._preconditions()))}"
        yield from self._begin_life(Kind.LOAD, "PUT", path, encode(document), document["position"])

    def state(self) -> Operation[dict[str, Any]]:
        """Export the session."""
        return decode((yield from self._request(Kind.LOOK, "GET", f"{self.path}/state")))

    def resume(self, *, missing_ok: bool) -> Operation[int]:
        """Go on from where the session is, whoever brought it there."""
        try:
            place = yield from self._look()
        except SessionUnknownError:
            if not missing_ok:
                raise
            self._adopt(0, None)
        else:
            self._adopt(place.position, place.epoch)
        return self.position

    def fork(self, client_id: str) -> Operation[Place]:
        """Begin a second session from the state of this one, and return where it is."""
        self._check_idle()
        body = encode({"client_id": client_id})
        try:
            answer = yield from self._request(Kind.FORK, "POST", f"{self.path}/fork", body)
            document = decode(answer)
        except SessionExistsError:
            if Kind.FORK not in self.exchange.doubts:
                raise
            # An earlier attempt may have made it: then it has what this one has.
            mine = yield from self.state()
            path = f"{session_path(self.model, client_id)}/state"
            document = decode((yield from self.exchange.request(Kind.LOOK, "GET", path)).body)
            if any(mine[name] != document[name] for name in ("position", "fingerprint", "states")):
                raise
        self.exchange.doubts.discard(Kind.FORK)
        return read_place(document)

    def delete(self) -> Operation[None]:
        """End the session; the next step begins another."""
        self._check_idle()
        path = f"{self.path}{_query((yield from self._preconditions(must_exist=True)))}"
        try:
            yield from self._request(Kind.DELETE, "DELETE", path)
        except SessionUnknownError:
            if Kind.DELETE not in self.exchange.doubts:
                raise
        self._adopt(0, None)

    def begin_stream(self) -> None:
        """Leave the stepping to a stream, until `is_streaming` is taken back."""
        self._check_idle()
        self.is_streaming = True

    def acknowledge(self, reply: StepReply | SequenceReply) -> None:
        """Take over where an answer says that the session is."""
        self._adopt(reply.position, reply.epoch)

    def _check_idle(self) -> None:
        if self.is_streaming:
            raise RuntimeError(f"a stream of session {self.client_id!r} is open: step through it")

    def _advance(self, name: str, document: dict[str, Any]) -> Operation[dict[str, Any]]:
        self._check_idle()
        document["position"] = self.position
        if self.epoch is not None:
            document["epoch"] = self.epoch
        path = f"{self.path}/{name}"
        return decode((yield from self._request(Kind.STEP, "POST", path, encode(document))))

    def _accept(self, reply: StepReply | SequenceReply) -> Operation[None]:
        """Take over an answer, unless the step that began the session was somebody else's.

        Without an epoch the service knows a retry only by its content, and an earlier session of
        this name may have begun with the same one.
        """
        if self.epoch is None and reply.replayed:
            place = yield from self._look()
            is_retry = Kind.STEP in self.exchange.doubts
            if not is_retry or place != Place(reply.position, reply.epoch):
                raise self._conflict("somebody else's session has begun with the same step", place)
        self.acknowledge(reply)

    def _begin_life(
        self, kind: Kind, method: str, path: str, body: bytes, position: int
    ) -> Operation[None]:
        """Send a reset or an import, and take over the epoch that it gave.

        A retry of one that was applied meets the epoch that it made itself: a session at its first
        position in a life that this client has not seen is what was asked for.
        """
        try:
            place = read_place(decode((yield from self._request(kind, method, path, body))))
        except ConflictError as error:
            is_new = error.epoch not in (None, self.epoch) and error.position == position
            if kind not in self.exchange.doubts or not is_new:
                raise
            self._adopt(position, error.epoch)
        else:
            self._adopt(place.position, place.epoch)

    def _preconditions(self, *, must_exist: bool = False) -> Operation[dict[str, int]]:
        """Return what a change of life expects, so that one that arrives late changes nothing.

        Raises:
            SessionUnknownError: There is no session, and there must be one.
            ConflictError: The session was lost, and somebody else has begun another.
        """
        self._check_idle()
        if self.epoch is not None and not self._is_lost:
            return {"position": self.position, "epoch": self.epoch}
        try:
            place = yield from self._look()
        except SessionUnknownError:
            if must_exist and Kind.DELETE not in self.exchange.doubts:
                raise
            return {"position": 0}
        except SessionExpiredError:
            return {}
        if self._is_lost:
            raise self._conflict("the session was lost and somebody else has begun it anew", place)
        return {"position": place.position, "epoch": place.epoch}

    def _look(self) -> Operation[Place]:
        return read_place(decode((yield from self._request(Kind.LOOK, "GET", self.path))))

    def _request(
        self, kind: Kind, method: str, path: str, body: bytes | None = None
    ) -> Operation[bytes]:
        try:
            answer = yield from self.exchange.request(kind, method, path, body)
        except SessionUnknownError:
            self._is_lost = self.epoch is not None
            raise
        return answer.body

    def _adopt(self, position: int, epoch: int | None) -> None:
        self.position = position
        self.epoch = epoch
        self._is_lost = False
        self.exchange.doubts.clear()

    def _conflict(self, problem: str, place: Place) -> ConflictError:
        return ConflictError(
            f"{problem}: session {self.client_id!r} is at position {place.position} of epoch"
            f" {place.epoch}",
            code="position_conflict",
            position=place.position,
            epoch=place.epoch,
        )


def _query(preconditions: dict[str, int]) -> str:
    return f"?{urlencode(preconditions)}" if preconditions else ""
