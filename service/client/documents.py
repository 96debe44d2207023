"""The service's JSON documents: what the client writes, and what it hands to its caller."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar
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
        outputs: `[features]`, each exactly the service's float32.
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
    """As a `StepReply`, but `outputs` is `[time][features]` unless only the last was wanted."""

    outputs: list[Any]
    position: int
    epoch: int
    replayed: bool
    states: list[list[float]] | None = None


@dataclass(frozen=True, slots=True)
class ForecastReply:
    """What a forecast gave.

    Attributes:
        outputs: `[steps][features]`.
        position: Where the session is, from which it was made.
        epoch: The life that it is in.
    """

    outputs: list[list[float]]
    position: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where a session is.

    Attributes:
        position: From where its next step starts.
        epoch: The life that it is in; None where there is none yet.
    """

    position: int
    epoch: int | None


@dataclass(frozen=True, slots=True)
class Hello:
    """A stream's first frame; `replay_window` is how many steps may be in flight."""

    position: int
    epoch: int | None
    input_size: int
    output_size: int
    replay_window: int


DocumentT = TypeVar("DocumentT", StepReply, SequenceReply, ForecastReply, Place, Hello)


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


def read(kind: type[DocumentT], document: dict[str, Any]) -> DocumentT:
    """Take a document's fields out of a JSON object, which may have more.

    Raises:
        ProtocolError: It lacks some, or its outputs are no numbers.
    """
    names = [field.name for field in fields(kind)]
    taken = {name: document[name] for name in names if name in document}
    try:
        if "outputs" in taken:
            taken["outputs"] = _as_float32(taken["outputs"])
        return kind(**taken)
    except (TypeError, struct.error, OverflowError):
        missing = [name for name in names if name not in document and name != "states"]
        problem = f"lacks {', '.join(missing)}" if missing else "has outputs that are no numbers"
        raise ProtocolError(f"the service's answer {problem}: {document!r:.100}") from None


def is_same_state(asked: Sequence[Vector] | None, actual: list[list[float]]) -> bool:
    """Tell whether a state is the one that was asked for, as float32; None means zeros."""
    if asked is None:
        return not any(map(any, actual))
    vectors = json.loads(encode(asked))
    return [struct.pack(f"{len(v)}f", *v) for v in vectors] == [
        struct.pack(f"{len(v)}f", *v) for v in actual
    ]


def _as_float32(numbers: list[Any]) -> list[Any]:
    # JSON has the fewest digits that tell a float32 from its neighbours; a binary frame has the
    # number itself. A step gives the same either way.
    if not isinstance(numbers, list):
        raise TypeError
    if numbers and isinstance(numbers[0], list):
        return [_as_float32(row) for row in numbers]
    layout = f"<{len(numbers)}f"
    return list(struct.unpack(layout, struct.pack(layout, *numbers)))


def _plain(value: object) -> object:
    # Duck typed, so that the client needs no NumPy.
    to_list = getattr(value, "tolist", None)
    if to_list is None:
        raise TypeError(f"expected numbers, lists or arrays, got {type(value).__name__}")
    return to_list()
