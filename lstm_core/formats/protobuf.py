"""The wire format of protocol buffers, read without their definitions.

Owns bytes and numbers. Does not know what any field means.

References:
    The documentation of the encoding of protocol buffers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

Value = int | memoryview
Message = Mapping[int, Sequence[Value]]
"""The values of each field, by its number, in the order of the file."""

_MAX_SHIFT = 63


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the number that begins at a place, and the place behind it.

    Raises:
        ValueError: The data end in it, or it is longer than 64 bits.
    """
    number = shift = 0
    while True:
        if at >= len(data) or shift > _MAX_SHIFT:
            raise ValueError("is cut off or damaged: a number has no end")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


def parse(data: memoryview) -> Message:
    """Return a message's fields. Nothing is copied.

    Raises:
        ValueError: The data are no message.
    """
    fields: defaultdict[int, list[Value]] = defaultdict(list)
    for number, value in _fields(data):
        fields[number].append(value)
    return fields


def _fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    at = 0
    while at < len(data):
        tag, at = varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = varint(data, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            size, at = varint(data, at)
        elif kind in {1, 5}:
            size = 8 if kind == 1 else 4
        else:
            raise ValueError("is damaged: a field of an unknown kind")
        if size > len(data) - at:
            raise ValueError("is cut off or damaged: a field is longer than the rest")
        yield tag >> 3, data[at : at + size]
        at += size


def integer(message: Message, field: int, default: int = 0) -> int:
    """Return a field's last number; ValueError if it is something else."""
    values = message.get(field)
    value = values[-1] if values else default
    if not isinstance(value, int):
        raise ValueError("is damaged: a number is something else")  # noqa: TRY004 - the file's fault
    return value


def signed(number: int) -> int:
    """Return a number of 64 bits with its sign."""
    return number - (1 << 64) if number >> 63 else number


def chunks(message: Message, field: int) -> Sequence[memoryview]:
    """Return a field's byte strings or messages; ValueError if one is something else."""
    values = [value for value in message.get(field, ()) if isinstance(value, memoryview)]
    if len(values) != len(message.get(field, ())):
        raise ValueError("is damaged: a message is something else")
    return values


def text(message: Message, field: int) -> str:
    """Return a field's last text, empty where there is none; ValueError if it is none."""
    values = chunks(message, field)
    return bytes(values[-1]).decode("utf-8") if values else ""
