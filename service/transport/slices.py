"""Long sequences read and written a slice at a time, so that the event loop turns meanwhile.

The validator holds the interpreter from the first byte to the last: ten thousand time steps take it
tens of milliseconds, in which no other session gets its answer. Here generators do the same work
and yield between slices; `SliceRunner` runs them.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator
from functools import cache
from typing import Any, TypeVar

import numpy as np
from msgspec.structs import replace
from pydantic import ConfigDict, TypeAdapter, ValidationError

from service.domain import AdvanceReply, AdvanceRequest, Float32, SessionKey
from service.errors import InvalidRequestError
from service.signature import Signature
from service.transport import schema
from service.transport.documents import read
from service.transport.parse import (
    pack,
    parse_sequence,
    sequence_limit,
    sequence_request,
)
from service.transport.parse_steps import are_tokens
from service.transport.render import dump, render_advance

LARGE_BODY_BYTES = 64 * 1024
"""A body up to this is read in one piece."""
LARGE_ANSWER_VALUES = 8192
"""An answer of up to as many numbers is written in one piece."""

_READ_BYTES = 48 * 1024
_WRITE_VALUES = 4096
_HEAD_BYTES = 256 * 1024
# Members before `inputs` that hold no object and no string, so that nothing in them can look like
# `inputs`. What else may be wrong with them the validator tells.
_HEAD = re.compile(
    rb"\s*+\{\s*+"
    rb'(?:"[a-z_]++"\s*+:\s*+(?:\[[^"\[\]{}]*+\]\s*+|[^"\[\]{},]++),\s*+)*+'
    rb'"inputs"\s*+:\s*+\[\s*+(?=\[)'
)
_END = re.compile(rb"\]\s*+\]")
_COMMA = re.compile(rb"\s*+,\s*+(?=\[)")

Result = TypeVar("Result")
Slices = Generator[None, None, Result]
"""Yields between two slices of its work, and returns what it made."""


def at_once(slices: Slices[Result]) -> Result:
    """Do a work that is short in one piece, and return what it made."""
    while True:
        try:
            next(slices)
        except StopIteration as end:
            result: Result = end.value
            return result


class SliceRunner:
    """Runs slices of long work, one each time the event loop turns, however many works there are.

    A work that nobody waits for any more, because its task was cancelled, goes no further.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def run(self, slices: Slices[Result]) -> Result:
        """Do a work to its end, and return what it made."""
        while True:
            async with self._turn:
                try:
                    next(slices)
                except StopIteration as end:
                    result: Result = end.value
                    return result
                await asyncio.sleep(0)


def parse_sequence_in_slices(
    body: bytes, signature: Signature, key: SessionKey, max_steps: int
) -> Slices[AdvanceRequest]:
    """Do as `parse_sequence`, with the same result and the same errors.

    A body that is not in the plain form that can be cut, or wrong, is read in one piece, so that
    what is wrong with it is said by the one code that does.

    Raises:
        InvalidRequestError: As `parse_sequence` does.
    """
    found = yield from _read_in_slices(body, signature, sequence_limit(max_steps).most)
    if found is None:
        return parse_sequence(body, signature, key, max_steps)
    return sequence_request(*found, signature, key, max_steps)


def is_long(reply: AdvanceReply) -> bool:
    """Tell whether an answer is better written in slices."""
    return reply.outputs.size > LARGE_ANSWER_VALUES


def render_advance_in_slices(reply: AdvanceReply, signature: Signature) -> Slices[bytes]:
    """Do as `render_advance`, to the byte."""
    outputs = reply.outputs
    if outputs.ndim != 2 or outputs.size <= LARGE_ANSWER_VALUES:
        return render_advance(reply, signature)
    rest = render_advance(replace(reply, outputs=outputs[:0]), signature)
    head, empty, tail = rest.partition(b"[]")
    assert empty
    parts = []
    num_rows = max(1, _WRITE_VALUES // outputs.shape[1])
    for start in range(0, len(outputs), num_rows):
        parts.append(dump(outputs[start : start + num_rows])[1:-1])
        yield
    return b"".join((head, b"[", b",".join(parts), b"]", tail))


def _read_in_slices(
    body: bytes, signature: Signature, most_rows: int
) -> Slices[tuple[schema.SequenceBody, Float32] | None]:
    """Read a `SequenceBody` in the plain form.

    Returns:
        The document with an empty `inputs`, and these as `(time, input_size)` float32; None where
        it has another form, more than `most_rows` rows, or anything is wrong with it.
    """
    head = _HEAD.match(body, 0, _HEAD_BYTES)
    if head is None:
        return None
    matrices: list[Float32] = []
    num_rows = 0
    at = head.end()
    while True:
        cut = _end_of_slice(body, at)
        matrix = _read_rows(body[at:cut], signature)
        if matrix is None:
            return None
        matrices.append(matrix)
        num_rows += len(matrix)
        if num_rows > most_rows:
            return None
        yield
        comma = _COMMA.match(body, cut)
        if comma is None:
            break
        at = comma.end()
    # Whatever follows the rows but the end of their array is wrong in here too.
    document = _read_rest(body[: head.end()] + body[cut:], signature)
    return None if document is None else (document, np.concatenate(matrices))


def _end_of_slice(body: bytes, start: int) -> int:
    """Return where a slice of whole rows ends that begins at `start`, if they are such."""
    end = body.find(b"]", start + _READ_BYTES)
    end = len(body) if end < 0 else end + 1
    last = _END.search(body, start, end)
    return end if last is None else last.start() + 1


def _read_rows(part: bytes, signature: Signature) -> Float32 | None:
    """Return rows of JSON, without the brackets around them, as `(rows, input_size)` float32.

    None where they are not good.
    """
    size, vocabulary = signature.input_size, signature.vocabulary
    try:
        rows = _rows_adapter(is_real=vocabulary is None).validate_json(b"[" + part + b"]")
    except ValidationError:
        return None
    if set(map(len, rows)) != {size}:
        return None
    matrix = pack(rows, size)
    return matrix if are_tokens(matrix, vocabulary) else None


def _read_rest(rest: bytes, signature: Signature) -> schema.SequenceBody | None:
    is_real = signature.vocabulary is None
    try:
        document = read(schema.SequenceBody if is_real else schema.TokenSequenceBody, rest)
    except InvalidRequestError:
        return None
    return None if document.inputs else document


@cache
def _rows_adapter(*, is_real: bool) -> TypeAdapter[Any]:
    matrix: Any = schema.RealMatrix if is_real else schema.TokenMatrix
    return TypeAdapter(matrix, config=ConfigDict(strict=True))
