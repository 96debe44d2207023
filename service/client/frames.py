"""The frames of a stream as its client writes and reads them: time steps as JSON, or as float32.

A binary frame is the cheaper one for both sides. A text frame can say more: where its step starts,
and its answer whether it was given before, and what is wrong with the inputs.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from service.client.documents import Vector, encode
from service.client.errors import ProtocolError

_NUMBERS = {float, int}
"""Exactly these: a boolean is an int too, and no number to the service."""


def plain(inputs: Vector) -> Any:  # noqa: ANN401 - whatever JSON has
    """Return one time step's inputs as a tuple of Python's own numbers.

    What is none is returned as JSON has it, for the service to say what is wrong. Either is a copy:
    the caller's array may have changed by the time that the step is sent again.

    Raises:
        TypeError: Something in it is neither a number, a list nor an array.
    """
    to_list = getattr(inputs, "tolist", None)
    values: Any = inputs if to_list is None else to_list()
    if not _are_numbers(values):
        values = json.loads(encode(values))
    return tuple(values) if _are_numbers(values) else values


def write_binary(values: Any, input_size: int) -> bytes | None:  # noqa: ANN401 - as `plain`
    """Return a step as `input_size` little-endian float32 numbers.

    None for what is not that many numbers within float32: as JSON the service says what is wrong.
    """
    if not isinstance(values, tuple) or len(values) != input_size:
        return None
    try:
        return struct.pack(f"<{input_size}f", *values)
    except (OverflowError, struct.error):  # the latter for an integer
        return None


def write_text(values: Any, position: int, epoch: int | None) -> str:  # noqa: ANN401 - as `plain`
    """Return a step as the JSON of a request that names where it starts."""
    document = {"inputs": values, "position": position}
    if epoch is not None:
        document["epoch"] = epoch
    return encode(document).decode()


def read_binary(frame: bytes, output_size: int) -> list[float]:
    """Return the outputs that a binary frame answers a step with.

    Raises:
        ProtocolError: They are not as many as the model has.
    """
    if len(frame) != 4 * output_size:
        raise ProtocolError(f"expected {4 * output_size} bytes of outputs, got {len(frame)}")
    return list(struct.unpack(f"<{output_size}f", frame))


def _are_numbers(values: object) -> bool:
    return isinstance(values, list | tuple) and _NUMBERS.issuperset(map(type, values))
