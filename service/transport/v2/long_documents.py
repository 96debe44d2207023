"""Long documents of `infer` over HTTP, read a slice at a time. See `transport.slices`.

What makes a document long are the numbers of its inputs, flat or nested. The rest is parsed as it
is, and the numbers are cut at their commas.
"""

from __future__ import annotations

import re
from math import prod
from typing import Any, TypeGuard

import numpy as np
import orjson

from service.domain import Float32
from service.errors import InvalidRequestError
from service.transport.slices import LARGE_BODY_BYTES, Slices
from service.transport.v2.datatypes import MAX_DIMENSIONS, from_values

_READ_BYTES = 24 * 1024
_SEARCHED_BYTES = 256 * 1024
_MAX_REST_BYTES = LARGE_BODY_BYTES
_MAX_END_BYTES = 256
"""The brackets at the end of an array stand within these; with more between them it is not cut."""
_KEY = re.compile(rb'"data"\s*+:')
_OPEN = re.compile(_KEY.pattern + rb"\s*+\[")
_INNER = re.compile(rb"[\[ \t\r\n]*+")
_WHITE = b" \t\r\n"
_BRACKETS = b"[]"
_VALUE = re.compile(rb"[^\[\],]++")


def parse_in_slices(json: bytes) -> Slices[dict[str, Any] | None]:
    """Parse a document whose inputs have their numbers in arrays, flat or nested as their shapes.

    Returns:
        The document, with these as float32 of the inputs' shapes in the place of the lists. None
        where it has another form, or anything is wrong: one piece is parsed by the code that says
        what.
    """
    arrays = yield from _find_arrays(json)
    starts = [0, *(end for _, end in arrays)]
    ends = [*(start for start, _ in arrays), len(json)]
    rest = b"".join([json[start:end] for start, end in zip(starts, ends, strict=True)])
    # Else what is cut out might not be what a parser takes for the inputs' `data`.
    if len(rest) > _MAX_REST_BYTES or b"\\" in rest or len(_KEY.findall(rest)) != len(arrays):
        return None
    document = _parse_rest(rest, len(arrays))
    if document is None:
        return None
    for tensor, (start, end) in zip(document["inputs"], arrays, strict=True):
        values = yield from _read_numbers(json, start, end, tensor)
        if values is None:
            return None
        tensor["data"] = values
    return document


def _find_arrays(json: bytes) -> Slices[list[tuple[int, int]]]:
    """Return where the arrays called `data` begin and end, without their own brackets.

    An array of something else than numbers may be cut too early; reading its parts then fails.
    """
    arrays: list[tuple[int, int]] = []
    at = 0
    while opened := _OPEN.search(json, at, at + _MAX_REST_BYTES):
        start = opened.end()
        end = yield from _end_of_array(json, start)
        if end is None:
            break
        arrays.append((start, end))
        at = end
    return arrays


def _num_inner(json: bytes, start: int) -> int:
    """Return how many arrays open within an array before its first number."""
    inner = _INNER.match(json, start)
    return 0 if inner is None else inner[0].count(b"[")


def _end_of_array(json: bytes, start: int) -> Slices[int | None]:
    """Return where an array's bracket closes: with it those that are open at its first number."""
    num_inner = _num_inner(json, start)
    if num_inner > MAX_DIMENSIONS:
        return None
    # What begins with a bracket is searched for by leaps to the next one, 26 times as fast.
    closed = re.compile(rb"\](?:[ \t\r\n]*+\]){%d}" % num_inner)
    while start < len(json):
        found = closed.search(json, start, start + _SEARCHED_BYTES)
        if found is not None:
            return found.end() - 1
        start += _SEARCHED_BYTES - _MAX_END_BYTES
        yield
    return None


def _parse_rest(rest: bytes, num_inputs: int) -> dict[str, Any] | None:
    """Return a document without its numbers, if it has so many inputs with an empty `data`."""
    try:
        document = orjson.loads(rest)
    except orjson.JSONDecodeError:
        return None
    inputs = document.get("inputs") if isinstance(document, dict) else None
    if not isinstance(inputs, list) or len(inputs) != num_inputs:
        return None
    are_empty = all(isinstance(each, dict) and each.get("data") == [] for each in inputs)
    return document if are_empty else None


def _read_numbers(
    json: bytes, start: int, end: int, tensor: dict[str, Any]
) -> Slices[Float32 | None]:
    """Return the numbers between two places, in their shape; None where they are not good."""
    name, datatype, shape = tensor.get("name"), tensor.get("datatype"), tensor.get("shape")
    if not isinstance(name, str) or not isinstance(datatype, str):
        return None
    if not _is_shape(shape) or prod(shape) > end - start:
        return None
    form = _form_of(shape) if _num_inner(json, start) else None
    at = 0  # in the form
    parts: list[Float32] = []
    while start <= end:
        cut = json.find(b",", min(start + _READ_BYTES, end), end)
        cut = end if cut < 0 else cut
        part = json[start:cut]
        if form is not None:
            own = _VALUE.sub(b"0", part.translate(None, _WHITE)) + (b"," if cut < end else b"")
            if not form.startswith(own, at):
                return None
            at += len(own)
            part = part.translate(None, _BRACKETS)
        try:
            values = orjson.loads(b"[" + part + b"]")
            parts.append(from_values(name, datatype, [len(values)], values))
        except (orjson.JSONDecodeError, InvalidRequestError):
            return None
        start = cut + 1
        yield
    numbers = np.concatenate(parts)
    is_whole = numbers.size == prod(shape) and (form is None or at == len(form))
    return numbers.reshape(shape) if is_whole else None


def _is_shape(shape: object) -> TypeGuard[list[int]]:
    return (
        isinstance(shape, list)
        and not set(map(type, shape)) - {int}
        and len(shape) <= MAX_DIMENSIONS
        and min(shape, default=1) >= 1
    )


def _form_of(shape: list[int]) -> bytes:
    """Return what nested lists of a shape are without their values, and without the outer ones.

    `[0,0],[0,0]` for the shape `[2, 2]`.
    """
    form = b"0"
    for size in reversed(shape):
        form = b"[" + b",".join([form] * size) + b"]"
    return form[1:-1]
