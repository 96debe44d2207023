"""One step of many sessions without JSON, both ways: the body and the answer of `steps` as arrays.

Everything is little-endian and side by side; the client ids and the errors, which are text, stand
at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from typing import Any

import numpy as np
import numpy.typing as npt

from service.domain import MAX_POSITION, AdvanceReply
from service.errors import ServiceError
from service.signature import Signature
from service.transport import schema
from service.transport.explain import wrong
from service.transport.headers import Headers
from service.transport.parse_steps import Row, are_tokens, good_rows, loose_rows
from service.transport.render import dump, error_document
from service.transport.status import status_of

MEDIA_TYPE = "application/vnd.lstm-steps"
BODY = (
    "Little-endian, without gaps: u32 rows N; u32 flags (bit 0: positions follow; the other bits"
    " are 0); with bit 0 N x i64 positions (-1: anywhere); N x `input_size` float32 inputs; the N"
    " client ids as ASCII, a newline between two, up to the end of the body."
)
REPLY = (
    "For a body of this type. Little-endian: u32 rows N; u32 `output_size`; N x i64 position (-1"
    " where the row failed); N x u64 epoch (0 where it failed); N x u16 status (200, or the"
    " error's); N x u8 replayed; zeros up to a multiple of 4 bytes; N x `output_size` float32"
    " outputs (NaN where the row failed); then nothing, or where rows failed a JSON array in UTF-8"
    " of `row`, `code`, `message`, and on a conflict `position` and `epoch`."
)

_HEADER = Struct("<II")
_HAS_POSITIONS = 1
_ANYWHERE = -1


def is_binary_steps(headers: Headers) -> bool:
    """Tell whether a body is said to be of this type."""
    content_type = headers.get(b"content-type")
    if content_type is None or content_type == b"application/json":
        return False
    return content_type.partition(b";")[0].strip().lower() == MEDIA_TYPE.encode()


def parse_binary_steps(body: bytes, signature: Signature) -> list[Row]:
    """Read a body. A bad row is an error in its place; the others are not touched by it.

    Raises:
        InvalidRequestError: The whole does not fit together, or has more than `MAX_STEPS_ROWS`.
    """
    num_rows, flags = _read_header(body)
    start = _HEADER.size
    positions = None
    if flags & _HAS_POSITIONS:
        positions = _read(body, "<i8", num_rows, start, "positions")
        start += positions.nbytes
    size = signature.input_size
    inputs = _read(body, "<f4", num_rows * size, start, "inputs").reshape(num_rows, size)
    start += inputs.nbytes
    # Not ASCII: what is no id is told as such.
    client_ids = body[start:].decode("latin-1").split("\n")
    if len(client_ids) != num_rows:
        text = f"expected {num_rows} with newlines between them, got {len(client_ids)}"
        raise wrong(("client_ids",), text)
    expected = None if positions is None else _plain_positions(positions)
    if _are_positions(positions) and _are_inputs(inputs, signature):
        values = inputs.astype(np.float32, copy=False)
        if signature.vocabulary is not None:
            values = values + np.float32(0)  # no integer is minus zero
        rows = good_rows(client_ids, values, expected, signature)
        if rows is not None:
            return rows
    numbers: list[list[float]] = inputs.tolist()
    if signature.vocabulary is not None:
        numbers = [list(map(_as_json, row)) for row in numbers]
    places = expected or [None] * num_rows
    return loose_rows(zip(client_ids, numbers, places, strict=True), signature)


def render_binary_steps(results: Sequence[AdvanceReply | ServiceError], output_size: int) -> bytes:
    """Write the answer to a body of this type."""
    num_rows = len(results)
    failed = [index for index, result in enumerate(results) if isinstance(result, ServiceError)]
    good = [result for result in results if not isinstance(result, ServiceError)]
    positions = np.full(num_rows, _ANYWHERE, "<i8")
    epochs = np.zeros(num_rows, "<u8")
    statuses = np.full(num_rows, 200, "<u2")
    replayed = np.zeros(num_rows, np.uint8)
    outputs = np.full((num_rows, output_size), np.nan, "<f4")
    if good:
        where: slice | list[int] = slice(None)
        if failed:
            where = [i for i, result in enumerate(results) if not isinstance(result, ServiceError)]
        positions[where] = [reply.position for reply in good]
        epochs[where] = [reply.epoch for reply in good]
        replayed[where] = [reply.replayed for reply in good]
        joined = b"".join([reply.outputs.tobytes() for reply in good])
        outputs[where] = np.frombuffer(joined, np.float32).reshape(len(good), output_size)
    errors = []
    for index in failed:
        error = results[index]
        assert isinstance(error, ServiceError)
        statuses[index] = status_of(error).http
        errors.append({"row": index} | error_document(error))
    narrow = statuses.tobytes() + replayed.tobytes()
    return b"".join(
        (
            _HEADER.pack(num_rows, output_size),
            positions.tobytes(),
            epochs.tobytes(),
            narrow,
            bytes(-len(narrow) % 4),
            outputs.tobytes(),
            dump(errors) if errors else b"",
        )
    )


def _read_header(body: bytes) -> tuple[int, int]:
    """Return the number of rows and the flags.

    Raises:
        InvalidRequestError: There are none, or they are out of their range.
    """
    if len(body) < _HEADER.size:
        raise wrong((), f"expected a header of {_HEADER.size} bytes, got {len(body)} in all")
    num_rows, flags = _HEADER.unpack_from(body)
    if not num_rows:
        raise wrong(("client_ids",), "expected at least one, got none")
    if num_rows > schema.MAX_STEPS_ROWS:
        raise wrong(("rows",), f"expected at most {schema.MAX_STEPS_ROWS} rows, got {num_rows}")
    if flags & ~_HAS_POSITIONS:
        raise wrong(("flags",), f"expected 0, or 1 where positions follow, got {flags}")
    return num_rows, flags


def _read(body: bytes, kind: str, count: int, start: int, name: str) -> npt.NDArray[Any]:
    """Return `(count,)` numbers, in place.

    Raises:
        InvalidRequestError: The body ends before.
    """
    num_bytes = count * np.dtype(kind).itemsize
    if len(body) - start < num_bytes:
        text = f"expected {num_bytes} bytes from byte {start} on, got {max(0, len(body) - start)}"
        raise wrong((name,), text)
    return np.frombuffer(body, kind, count, start)


def _plain_positions(positions: npt.NDArray[Any]) -> list[int | None]:
    return [None if value == _ANYWHERE else value for value in positions.tolist()]


def _are_positions(positions: npt.NDArray[Any] | None) -> bool:
    return positions is None or bool(((positions >= _ANYWHERE) & (positions <= MAX_POSITION)).all())


def _are_inputs(inputs: npt.NDArray[Any], signature: Signature) -> bool:
    return bool(np.isfinite(inputs).all()) and are_tokens(inputs, signature.vocabulary)


def _as_json(value: float) -> float:
    """Return a token as JSON has it: an integer, if it is one."""
    return int(value) if value.is_integer() else value
