"""Long documents of `infer` over HTTP, read a slice at a time. See `transport.slices`.

What makes a document long are the numbers of an input: the one array without arrays in it. The rest
is parsed as it is, and the numbers are cut at their commas.
"""

from __future__ import annotations

import re
from math import prod
from typing import Any

import numpy as np
import orjson

from service.domain import Float32
from service.errors import InvalidRequestError
from service.transport.slices import LARGE_BODY_BYTES, Slices
from service.transport.v2.datatypes import MAX_DIMENSIONS, from_values

_READ_BYTES = 24 * 1024
_MAX_REST_BYTES = LARGE_BODY_BYTES
_NAME = b'"data"'
_OPEN = re.compile(_NAME + rb"\s*+:\s*+\[")


def parse_in_slices(json: bytes) -> Slices[dict[str, Any] | None]:
    """Parse a document whose only input has its numbers in one flat array.

    Returns:
        The document, with these as float32 of the input's shape in the place of the list. None
        where it has another form, or anything is wrong: one piece is parsed by the code that says
        what.
    """
    opened = _OPEN.search(json, 0, _MAX_REST_BYTES)
    if opened is None:
        return None
    start, end = opened.end(), json.find(b"]", opened.end())
    if end < 0 or len(json) - end > _MAX_REST_BYTES:
        return None
    head, tail = json[:start], json[end:]
    # So that what is cut out is surely what a parser takes for the input's `data`.
    if _NAME in tail or b"\\" in head or b"\\" in tail:
        return None
    found = _find_tensor(head + tail)
    if found is None:
        return None
    document, tensor = found
    values = yield from _read_numbers(json, start, end, tensor)
    if values is None or not _is_shape_of(values, tensor.get("shape")):
        return None
    tensor["data"] = values.reshape(tensor["shape"])
    return document


def _find_tensor(rest: bytes) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Return a document without its numbers, and its input if it has one with an empty `data`."""
    try:
        match orjson.loads(rest):
            case {"inputs": [{"data": []} as tensor]} as document:
                return document, tensor
    except orjson.JSONDecodeError:
        pass
    return None


def _read_numbers(
    json: bytes, start: int, end: int, tensor: dict[str, Any]
) -> Slices[Float32 | None]:
    """Return the numbers between two places; None where they are not good."""
    name, datatype = tensor.get("name"), tensor.get("datatype")
    if not isinstance(name, str) or not isinstance(datatype, str):
        return None
    parts: list[Float32] = []
    while start <= end:
        cut = json.find(b",", min(start + _READ_BYTES, end), end)
        cut = end if cut < 0 else cut
        try:
            values = orjson.loads(b"[" + json[start:cut] + b"]")
            parts.append(from_values(name, datatype, [len(values)], values))
        except (orjson.JSONDecodeError, InvalidRequestError):
            return None
        start = cut + 1
        yield
    return np.concatenate(parts)


def _is_shape_of(values: Float32, shape: object) -> bool:
    return (
        isinstance(shape, list)
        and not set(map(type, shape)) - {int}
        and len(shape) <= MAX_DIMENSIONS
        and min(shape, default=1) >= 1
        and prod(shape) == values.size
    )
