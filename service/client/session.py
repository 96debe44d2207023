"""A session as its client sees it: what it sends, and what it makes of the answers.

Both faces are made of it: `AsyncSession` is one whose network awaits, `Session` drives one whose
network blocks. No socket, no event loop.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import urlencode

from service.client.documents import (
    ForecastReply,
    Mask,
    Matrix,
    Place,
    SequenceReply,
    StepReply,
    Vector,
    is_same_state,
    read,
    session_path,
)
from service.client.errors import (
    ConflictError,
    SessionExistsError,
    SessionExpiredError,
    SessionUnknownError,
)
from service.client.numbering import Numbering

# The kinds of request that may be in doubt; a fork's is with its target's name.
LOOK = "look"
STEP = "step"
BEGIN = "begin a life"
DELETE = "delete"
FORK = "fork to "

P = ParamSpec("P")
T = TypeVar("T")
ReplyT = TypeVar("ReplyT", StepReply, SequenceReply)


def _in_turn(
    method: Callable[Concatenate[SessionCore, P], Awaitable[T]],
) -> Callable[Concatenate[SessionCore, P], Coroutine[Any, Any, T]]:
    """Let calls of several tasks take turns, and refuse them beside a stream."""

    @wraps(method)
    async def call(self: SessionCore, /, *args: P.args, **kwargs: P.kwargs) -> T:
        async with self._numbering.lock:
            self._numbering.check_idle()
            return await method(self, *args, **kwargs)

    return call


class SessionCore:
    """The calls of a session: what they send, and what they make of the answers."""

    def __init__(self, model: str | None, numbering: Numbering) -> None:
        self._model = model
        self._numbering = numbering
        self._exchange = numbering.exchange

    @property
    def client_id(self) -> str:
        """The session's name."""
        return self._numbering.client_id

    @property
    def position(self) -> int:
        """From where the next step starts: the time steps acknowledged in this life."""
        return self._numbering.place.position

    @property
    def epoch(self) -> int | None:
        """The life that the session is in; None before its first answer."""
        return self._numbering.place.epoch

    @_in_turn
    async def step(self, inputs: Vector, *, return_state: bool = False) -> StepReply:
        """Take one time step.

        Args:
            inputs: `[features]`, a list or an array.
            return_state: Whether the reply has the state after the step.
        """
        document: dict[str, Any] = {"inputs": inputs}
        if return_state:
            document["return_state"] = True
        return await self._accept(read(StepReply, await self._advance("step", document)))

    @_in_turn
    async def sequence(
        self,
        inputs: Matrix,
        mask: Mask | None = None,
        *,
        return_sequences: bool = True,
        return_state: bool = False,
    ) -> SequenceReply:
        """Take many time steps at once.

        Args:
            inputs: `[time][features]`, lists or an array.
            mask: `[time]`, false where a step keeps the state and repeats the output.
            return_sequences: Whether the reply has every step's output, or the last one's only.
            return_state: Whether the reply has the state after the last step.
        """
        document: dict[str, Any] = {"inputs": inputs, "return_sequences": return_sequences}
        if mask is not None:
            document["mask"] = mask
        if return_state:
            document["return_state"] = True
        return await self._accept(read(SequenceReply, await self._advance("sequence", document)))

    @_in_turn
    async def forecast(
        self,
        steps: int,
        inputs: Vector | None = None,
        feedback: Sequence[int | None] | None = None,
    ) -> ForecastReply:
        """Run on from where the session is, outputs fed back as inputs; the session stays there.

        Args:
            steps: How many time steps.
            inputs: `[features]`, of the first step; None means what the last output feeds.
            feedback: `[features]`, for each input the index of the output that feeds it in the next
                step, or None where it keeps its value of `inputs`. Where it is left out, output i
                feeds input i.
        """
        options = {"inputs": inputs, "feedback": feedback, "epoch": self.epoch}
        document: dict[str, Any] = {"steps": steps, "position": self.position}
        document |= {name: value for name, value in options.items() if value is not None}
        path = f"{self._numbering.path}/forecast"
        return read(ForecastReply, await self._exchange.request(LOOK, "POST", path, document))

    @_in_turn
    async def reset_states(
        self, states: Sequence[Vector] | None = None, ttl_s: float | None = None
    ) -> None:
        """Begin a new life at position 0; where no call was answered yet, whosever session it is.

        Args:
            states: h and c of every layer, in Keras's order; None means zeros.
            ttl_s: How long after its last request the session ends; None means the service's own.
        """
        options = {"states": states, "ttl_s": ttl_s}
        document = {name: value for name, value in options.items() if value is not None}
        path = f"{self._numbering.path}/reset_states"
        await self._begin(0, states, lambda expected: ("POST", path, document | expected))

    @_in_turn
    async def load_state(self, document: Mapping[str, Any]) -> None:
        """Put an exported state back, position included: into this session it is a rollback."""
        path = f"{self._numbering.path}/state"
        exported = dict(document)
        await self._begin(
            exported.get("position"),
            exported.get("states"),
            lambda expected: ("PUT", path + _query(expected), exported),
        )

    @_in_turn
    async def state(self) -> dict[str, Any]:
        """Export the session's state: a JSON document, to keep and to give to `load_state`."""
        return await self._exchange.request(LOOK, "GET", f"{self._numbering.path}/state")

    @_in_turn
    async def resume(self, *, missing_ok: bool = False) -> int:
        """Go on from where the session is, whoever brought it there, and return the position.

        Args:
            missing_ok: Whether to begin the session where there is none.
        """
        try:
            self._numbering.adopt(await self._look())
        except SessionUnknownError:
            if not missing_ok:
                raise
            self._numbering.adopt(Place(0, None))
        return self.position

    @_in_turn
    async def delete(self) -> None:
        """End the session; the next step begins another."""
        try:
            await self._exchange.request(
                DELETE, "DELETE", self._numbering.path + _query(await self._expected())
            )
        except SessionUnknownError:
            if DELETE not in self._exchange.doubts:
                raise
        self._numbering.adopt(Place(0, None))

    @_in_turn
    async def _fork_place(self, client_id: str) -> Place:
        """Begin a second session from the state of this one, and return where it is."""
        doubt = FORK + client_id
        try:
            document = {"client_id": client_id}
            answer = await self._exchange.request(
                doubt, "POST", f"{self._numbering.path}/fork", document
            )
        except SessionExistsError:
            if doubt not in self._exchange.doubts:
                raise
            # An earlier attempt may have made it: then it has what this one has.
            mine = await self._exchange.request(LOOK, "GET", f"{self._numbering.path}/state")
            path = f"{session_path(self._model, client_id)}/state"
            answer = await self._exchange.request(LOOK, "GET", path)
            if any(mine[name] != answer[name] for name in ("position", "fingerprint", "states")):
                raise
        self._exchange.doubts.discard(doubt)
        return read(Place, answer)

    async def _advance(self, name: str, document: dict[str, Any]) -> dict[str, Any]:
        document["position"] = self.position
        if self.epoch is not None:
            document["epoch"] = self.epoch
        return await self._exchange.request(
            STEP, "POST", f"{self._numbering.path}/{name}", document
        )

    async def _accept(self, reply: ReplyT) -> ReplyT:
        """Take over an answer, unless the step that began the session was somebody else's.

        Without an epoch the service knows a retry only by its content, and an earlier session of
        this name may have begun with the same one.
        """
        place = Place(reply.position, reply.epoch)
        if self.epoch is None and reply.replayed:
            is_retry = STEP in self._exchange.doubts
            actual = await self._look()
            if not is_retry or actual != place:
                raise self._numbering.conflict(
                    "somebody else's session has begun with the same step", actual
                )
        self._numbering.adopt(place)
        return reply

    async def _begin(
        self,
        position: int | None,
        states: Sequence[Vector] | None,
        request: Callable[[dict[str, int | None]], tuple[str, str, dict[str, Any]]],
    ) -> None:
        """Begin a life, by a reset or an import, and take it over.

        Args:
            position: At which it begins.
            states: With which it begins; None means zeros.
            request: Makes method, path and body of where the session is expected to be.
        """
        expected = await self._expected()
        while True:
            try:
                answer = await self._exchange.request(BEGIN, *request(expected))
            except SessionUnknownError:
                if "epoch" not in expected:
                    raise
                expected = {"position": 0}  # it was lost, and nobody has begun another
            except ConflictError as error:
                is_other_life = error.epoch not in (None, expected.get("epoch"))
                is_doubted = BEGIN in self._exchange.doubts
                if not (is_doubted and is_other_life and error.position == position):
                    raise
                # Perhaps the life that an earlier attempt began, and perhaps somebody else's: then
                # with another state, or it makes no difference.
                actual = await self._exchange.request(LOOK, "GET", f"{self._numbering.path}/state")
                if not is_same_state(states, actual["states"]):
                    raise
                self._numbering.adopt(read(Place, actual))
                return
            else:
                self._numbering.adopt(read(Place, answer))
                return

    async def _expected(self) -> dict[str, int | None]:
        """Return what a change of life expects, so that one that arrives late changes nothing."""
        place = self._numbering.place
        try:
            if place.epoch is None:
                place = await self._look()
        except SessionUnknownError:
            return {"position": 0}
        except SessionExpiredError:
            return {}
        return {"position": place.position, "epoch": place.epoch}

    async def _look(self) -> Place:
        return read(Place, await self._exchange.request(LOOK, "GET", self._numbering.path))


def _query(expected: dict[str, int | None]) -> str:
    return f"?{urlencode(expected)}" if expected else ""
