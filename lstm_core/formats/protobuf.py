"""The wire format of Protocol Buffers, read with bounds: numbered fields of numbers and bytes.

Knows no message: whoever reads one says what its numbers mean. Read here, since the few messages
that are needed are less than the package that knows them all.

References:
    https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

MAX_FIELDS = 1_000_000
"""Of one file, and integers that are packed into one: seconds of work, and 200 MB. An array of
floating numbers is one field."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_VARINT_BYTES = 10


class FieldCount:
    """How many fields of a file have been read."""

    def __init__(self) -> None:
        self._left = MAX_FIELDS

    def take(self) -> None:
        """Count one; ValueError if there are too many."""
        self._left -= 1
        if self._left < 0:
            raise ValueError(f"has more than {MAX_FIELDS} fields")


class Message:
    """One message: the values of each field, in the order in which they came."""

    def __init__(self, data: memoryview, count: FieldCount | None = None) -> None:
        """Read its fields; those of messages inside are read when asked for.

        Raises:
            ValueError: It is damaged, or has too many fields.
        """
        self._count = FieldCount() if count is None else count
        self._fields: dict[int, list[int | memoryview]] = {}
        for number, value in _fields(data):
            self._count.take()
            self._fields.setdefault(number, []).append(value)

    def numbers(self) -> set[int]:
        """Return the numbers of the fields that it has."""
        return set(self._fields)

    def blobs(self, number: int) -> list[memoryview]:
        """Return a field's values as bytes."""
        values = self._fields.get(number, [])
        if not all(isinstance(value, memoryview) for value in values):
            raise ValueError(f"has numbers in field {number}")
        return [value for value in values if isinstance(value, memoryview)]

    def texts(self, number: int) -> list[str]:
        """Return a field's values as texts."""
        return [str(value, "utf-8") for value in self.blobs(number)]

    def text(self, number: int) -> str:
        """Return a field's last value as a text, empty where there is none."""
        return (self.texts(number) or [""])[-1]

    def messages(self, number: int) -> list[Message]:
        """Return a field's values as messages."""
        return [Message(value, self._count) for value in self.blobs(number)]

    def message(self, number: int) -> Message | None:
        """Return a field's last value as a message, or None."""
        values = self.blobs(number)
        return Message(values[-1], self._count) if values else None

    def integers(self, number: int) -> list[int]:
        """Return a field's values as signed integers, packed ones too."""
        found: list[int] = []
        for value in self._fields.get(number, []):
            found += [value] if isinstance(value, int) else self._packed(value)
        return [value - (1 << 64) if value >> 63 else value for value in found]

    def _packed(self, data: memoryview) -> list[int]:
        values = []
        at = 0
        while at < len(data):
            value, at = varint(data, at)
            self._count.take()
            values.append(value)
        return values

    def integer(self, number: int) -> int:
        """Return a field's last value as a signed integer, 0 where there is none."""
        return (self.integers(number) or [0])[-1]

    def floats(
        self, number: int, dtype: str = "<f4"
    ) -> np.ndarray[tuple[int], np.dtype[np.floating]]:
        """Return a field's values as floating numbers of `dtype`, packed ones too."""
        return np.frombuffer(b"".join(self.blobs(number)), dtype)


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        kind = key & 7
        if kind == _VARINT:
            value, at = varint(data, at)
            yield key >> 3, value
            continue
        if kind == _BYTES:
            size, at = varint(data, at)
        elif kind in (_FIXED32, _FIXED64):
            size = 4 if kind == _FIXED32 else 8
        else:
            raise ValueError(f"has a field of the unknown kind {kind}")
        if size > len(data) - at:
            raise ValueError("ends in the middle of a field")
        yield key >> 3, data[at : at + size]
        at += size


def varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return an unsigned integer of at most 64 bits, and where the next value begins."""
    value = 0
    for index, byte in enumerate(data[at : at + _MAX_VARINT_BYTES]):
        value |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            return value & ((1 << 64) - 1), at + index + 1
    raise ValueError("ends in the middle of a number")
