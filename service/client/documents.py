"""The service's JSON documents: what the client writes, and what it hands to its caller."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote

from service.client.errors import ProtocolError


class Array(Protocol):
    """An array of NumPy or the like, of any dtype."""

    def tolist(self) -> Any:  # noqa: ANN401 - nested lists, as deep as the array
        """Return the numbers as lists."""
        ...


Vector = Sequence[float] | Array
"""`[features]`."""
Matrix = Sequence[Vector] | Array
"""`[time][features]`."""
Mask = Sequence[bool] | Array
"""`[time]`."""


@dataclass(frozen=True, slots=True)
class StepReply:
    """What a time step gave.

    Attributes:
        outputs: `[features]`.
        position: Where the session is behind it.
        epoch: The life that it is in.
        replayed: Whether this is the stored answer of an earlier attempt.
        states: h and c of every layer, in Keras's order, if they were asked for.
    """

    outputs: list[float]
    position: int
    epoch: int
    replayed: bool
    states: list[list[float]] | None = None


@dataclass(frozen=True, slots=True)
class SequenceReply:
    """What many time steps gave.

    Attributes:
        outputs: `[time][features]`, or `[features]` without `return_sequences`.
        position: Where the session is behind them.
        epoch: The life that it is in.
        replayed: Whether this is the stored answer of an earlier attempt.
        states: h and c of every layer, in Keras's order, if they were asked for.
    """

    outputs: list[Any]
    position: int
    epoch: int
    replayed: bool
    states: list[list[float]] | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a session is."""

    position: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Hello:
    """A stream's first frame.

    Attributes:
        position: Where the session is.
        epoch: The life that it is in; None where there is no session.
        output_size: Numbers in an answer.
        replay_window: Most steps in flight.
    """

    position: int
    epoch: int | None
    output_size: int
    replay_window: int


def session_path(model: str | None, client_id: str) -> str:
    """Return a session's path; without a model it is the default model's."""
    sessions = "/v1/sessions" if model is None else f"/v1/models/{quote(model, safe='')}/sessions"
    return f"{sessions}/{quote(client_id, safe='')}"


def encode(document: object) -> bytes:
    """Write JSON; arrays and scalars of NumPy are taken as lists and numbers.

    Raises:
        TypeError: Something in it is neither.
    """
    return json.dumps(document, default=_plain, separators=(",", ":")).encode()


def decode(text: str | bytes) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ProtocolError: It is none.
    """
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise ProtocolError(f"expected a JSON object from the service, got {text[:100]!r}")
    return document


def read_step(document: dict[str, Any]) -> StepReply:
    """Read the answer to a step.

    Raises:
        ProtocolError: It is none.
    """
    return StepReply(**_fields(document, ("outputs", "position", "epoch", "replayed"), "states"))


def read_sequence(document: dict[str, Any]) -> SequenceReply:
    """Read the answer to a sequence.

    Raises:
        ProtocolError: It is none.
    """
    fields = _fields(document, ("outputs", "position", "epoch", "replayed"), "states")
    return SequenceReply(**fields)


def read_place(document: dict[str, Any]) -> Place:
    """Read where a session is from any document that tells it.

    Raises:
        ProtocolError: It does not.
    """
    return Place(**_fields(document, ("position", "epoch")))


def read_hello(document: dict[str, Any]) -> Hello:
    """Read a stream's first frame.

    Raises:
        ProtocolError: It is none.
    """
    names = ("position", "epoch", "output_size", "replay_window")
    return Hello(**_fields(document, names))


def _fields(
    document: dict[str, Any], names: tuple[str, ...], optional: str | None = None
) -> dict[str, Any]:
    missing = [name for name in names if name not in document]
    if missing:
        raise ProtocolError(f"the service's answer lacks {', '.join(missing)}: {document!r:.100}")
    fields = {name: document[name] for name in names}
    if optional is not None and optional in document:
        fields[optional] = document[optional]
    return fields


def _plain(value: object) -> object:
    # Duck typed, so that the client needs no NumPy.
    to_list = getattr(value, "tolist", None)
    if to_list is None:
        raise TypeError(f"expected numbers, lists or arrays, got {type(value).__name__}")
    return to_list()
