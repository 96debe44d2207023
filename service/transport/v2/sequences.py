"""What the parameters of a request say of its sequence. Knows no tensor and no transport."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from service.domain import MAX_POSITION, is_client_id
from service.transport.explain import Location, describe, wrong
from service.transport.parse_steps import client_id_error

MAX_TIMEOUT_S = 24 * 3600.0
"""A longer deadline is this one: nothing waits as long."""

_INTEGER_PREFIX = "int:"
_OF_INTEGER = re.compile(r"int:-?[0-9]+\Z")


class SequenceUse(NamedTuple):
    """A sequence, and what a request does with it.

    Attributes:
        id: As the request names it.
        client_id: Of the session that it is.
        starts: Whether it begins, anew if need be.
        ends: Whether it ends.
        position: Where the caller expects the session to be; None means anywhere.
        epoch: The life that the caller expects; None means any.
    """

    id: int | str
    client_id: str
    starts: bool
    ends: bool
    position: int | None
    epoch: int | None


class Meaning(NamedTuple):
    """What the parameters of a request mean.

    Attributes:
        sequence: Its sequence; None where it has none.
        timeout_s: For how many seconds the caller waits; None for any time.
    """

    sequence: SequenceUse | None
    timeout_s: float | None


def read_meaning(parameters: Mapping[str, Any]) -> Meaning:
    """Return what the parameters of a request mean; others than are known here are ignored.

    Raises:
        InvalidRequestError: One makes no sense.
    """
    return Meaning(_sequence(parameters), _timeout_s(parameters))


def _sequence(parameters: Mapping[str, Any]) -> SequenceUse | None:
    sequence_id = parameters.get("sequence_id", 0)
    starts, ends = read_flag(parameters, "sequence_start"), read_flag(parameters, "sequence_end")
    position, epoch = _number(parameters, "position"), _number(parameters, "epoch")
    if type(sequence_id) in (int, str) and not sequence_id:
        _refuse_without_sequence(parameters)
        return None
    client_id = _client_id(sequence_id)
    if starts and position:
        text = f"expected 0 where a sequence starts, got {position}"
        raise wrong(("parameters", "position"), text)
    if starts and epoch is not None:
        raise wrong(("parameters", "epoch"), "a sequence that starts has a new epoch; leave it out")
    return SequenceUse(sequence_id, client_id, starts, ends, position, epoch)


def _timeout_s(parameters: Mapping[str, Any]) -> float | None:
    """Return for how long a caller waits; `timeout` is in microseconds, and 0 means any time."""
    given = parameters.get("timeout")
    if given is None:
        return None
    if type(given) is not int or given < 0:
        text = f"expected an integer of microseconds, got {describe(given)}"
        raise wrong(("parameters", "timeout"), text)
    return min(given, MAX_TIMEOUT_S * 1e6) / 1e6 if given else None


def _client_id(sequence_id: object) -> str:
    """Return the client id that a sequence's id stands for."""
    if type(sequence_id) is int:
        if not -(2**63) <= sequence_id < 2**64:
            text = f"expected an integer of 64 bits, got {describe(sequence_id)}"
            raise wrong(("parameters", "sequence_id"), text)
        return f"{_INTEGER_PREFIX}{sequence_id}"
    if not isinstance(sequence_id, str):
        text = f"expected an integer or a string, got {describe(sequence_id)}"
        raise wrong(("parameters", "sequence_id"), text)
    if not is_client_id(sequence_id):
        raise client_id_error(sequence_id, "sequence_id")
    if _OF_INTEGER.match(sequence_id):
        text = f"{describe(sequence_id)} is the session of an integer id; send the integer"
        raise wrong(("parameters", "sequence_id"), text)
    return sequence_id


def _refuse_without_sequence(parameters: Mapping[str, Any]) -> None:
    for name in ("sequence_start", "sequence_end", "position", "epoch"):
        value = parameters.get(name)
        if value is not None and value is not False:
            text = "means nothing without a sequence_id that is neither 0 nor empty"
            raise wrong(("parameters", name), text)


def read_flag(members: Mapping[str, Any], name: str, where: Location = ("parameters",)) -> bool:
    """Return a member that is true or false, false if it is left out.

    Args:
        members: Of an object.
        name: Of the member.
        where: The object's place, for what is said of it.

    Raises:
        InvalidRequestError: It is something else.
    """
    value = members.get(name, False)
    if type(value) is not bool:
        raise wrong((*where, name), f"expected true or false, got {describe(value)}")
    return value


def _number(parameters: Mapping[str, Any], name: str) -> int | None:
    value = parameters.get(name)
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MAX_POSITION:
        text = f"expected an integer from 0 to {MAX_POSITION}, got {describe(value)}"
        raise wrong(("parameters", name), text)
    return value
