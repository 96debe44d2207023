"""From the bytes of a `StepsBody` to one request a row, or what is wrong with the row.

Where every row is good, as nearly always, the checks are made for all of them at once; else each
row is looked at for itself.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import repeat
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from service.domain import DEFAULT_TENANT, AdvanceRequest, Float32, SessionKey, is_client_id
from service.errors import InvalidRequestError, Problem
from service.signature import Signature
from service.transport import schema
from service.transport.documents import (
    PartsLimit,
    check_num_parts,
    read,
    reject_duplicate_fields,
)
from service.transport.explain import describe, explain
from service.transport.parse import pack, vector

Row = AdvanceRequest | InvalidRequestError

_ID_BYTES = (string.ascii_letters + string.digits + "._:@-").encode()
_MAX_ID = 128
# An array and a client id a row.
_LIMIT = PartsLimit(2 * schema.MAX_STEPS_ROWS, f"at most {schema.MAX_STEPS_ROWS} rows")


class _LooseBody(BaseModel):
    """A `StepsBody` whose rows may be anything."""

    model_config = ConfigDict(strict=True, extra="forbid")
    client_ids: Annotated[list[Any], schema.FEW_ROWS]
    inputs: Annotated[list[Any], schema.FEW_ROWS]
    positions: Annotated[list[Any], schema.FEW_ROWS] | None = None


class _RealRow(BaseModel):
    model_config = ConfigDict(strict=True)
    client_ids: str
    inputs: schema.RealVector
    positions: schema.Position | None


class _TokenRow(BaseModel):
    model_config = ConfigDict(strict=True)
    client_ids: str
    inputs: schema.TokenVector
    positions: schema.Position | None


def parse_steps(body: bytes, signature: Signature) -> list[Row]:
    """Read a `StepsBody`. A bad row is an error in its place; the others are not touched by it.

    Raises:
        InvalidRequestError: The whole is no `StepsBody`, its lists differ in length, or it has
            more than `MAX_STEPS_ROWS`.
    """
    body_class = schema.StepsBody if signature.vocabulary is None else schema.TokenStepsBody
    check_num_parts(body, _LIMIT)
    try:
        document: schema.StepsBody | None = body_class.__pydantic_validator__.validate_json(body)
    except ValidationError:
        document = None
    if document is None:
        # Some row is bad, or all of it: only what is wrong with rows is forgiven here. Not in the
        # handler above, whose error each of the rows' would hold, with these frames.
        loose = read(_LooseBody, body, _LIMIT)
        _check_lengths(loose)
        return loose_rows(_rows_of(loose), signature)
    reject_duplicate_fields(body, document, len(document.client_ids))
    _check_lengths(document)
    if set(map(len, document.inputs)) == {signature.input_size}:
        inputs = pack(document.inputs, signature.input_size)
        if are_tokens(inputs, signature.vocabulary):
            rows = good_rows(document.client_ids, inputs, document.positions, signature)
            if rows is not None:
                return rows
    return _each_request(_rows_of(document), signature)


_RowValues = tuple[str, Sequence[float], int | None]


def good_rows(
    client_ids: Sequence[str],
    inputs: Float32,
    positions: Sequence[int | None] | None,
    signature: Signature,
) -> list[Row] | None:
    """Return one request a row, all checks made for all rows at once; None if some row is bad.

    Args:
        client_ids: `rows` of them.
        inputs: `(rows, input_size)` float32, checked already.
        positions: `rows` of them, checked already; None means anywhere.
        signature: Of the model.
    """
    num_rows = len(client_ids)
    if not (are_client_ids(client_ids) and len(set(client_ids)) == num_rows):
        return None
    model = signature.model
    # The class's own `__new__` is a function in Python, and takes twice as long.
    new_key = partial(tuple.__new__, SessionKey)
    return [
        AdvanceRequest(
            new_key((DEFAULT_TENANT, model, client_id)),
            row,
            return_sequences=False,
            position=position,
        )
        for client_id, row, position in zip(
            client_ids,
            inputs[:, None],
            repeat(None, num_rows) if positions is None else positions,
            strict=True,
        )
    ]


def loose_rows(rows: Iterable[tuple[Any, Any, Any]], signature: Signature) -> list[Row]:
    """Return one request a row, or what is wrong with it.

    Args:
        rows: Client id, inputs and position of each, which may be anything.
        signature: Of the model.
    """
    row_class: type[_RealRow | _TokenRow] = _RealRow if signature.vocabulary is None else _TokenRow
    return _each_request([_strict_row(row, row_class) for row in rows], signature)


def are_client_ids(texts: Sequence[str]) -> bool:
    """Tell whether each text can name a client, as `is_client_id` does for one."""
    try:
        # Nothing but newlines is left, one between two texts; one in a text is one too many.
        rest = "\n".join(texts).encode("ascii").translate(None, _ID_BYTES)
    except UnicodeEncodeError:
        return False
    lengths = set(map(len, texts))
    return (
        len(rest) == len(texts) - 1
        and not rest.strip(b"\n")
        and max(lengths) <= _MAX_ID
        and 0 not in lengths
        and "." not in texts
        and ".." not in texts
    )


def are_tokens(inputs: Float32, vocabulary: int | None) -> bool:
    """Tell whether all inputs are integers of a vocabulary, where the model has one."""
    if vocabulary is None:
        return True
    return bool(((inputs >= 0) & (inputs < vocabulary) & (inputs == np.trunc(inputs))).all())


def _rows_of(document: schema.StepsBody | _LooseBody) -> list[tuple[Any, Any, Any]]:
    positions = document.positions
    if positions is None:
        positions = [None] * len(document.inputs)
    return list(zip(document.client_ids, document.inputs, positions, strict=True))


def _each_request(
    rows: Iterable[_RowValues | InvalidRequestError], signature: Signature
) -> list[Row]:
    seen: dict[str, int] = {}
    return [
        row if isinstance(row, InvalidRequestError) else _request(index, row, signature, seen)
        for index, row in enumerate(rows)
    ]


def _strict_row(
    row: tuple[Any, Any, Any], row_class: type[_RealRow | _TokenRow]
) -> _RowValues | InvalidRequestError:
    client_id, inputs, position = row
    values = {"client_ids": client_id, "inputs": inputs, "positions": position}
    try:
        valid = row_class.__pydantic_validator__.validate_python(values)
    except ValidationError as error:
        return explain(error, row_class)
    return valid.client_ids, valid.inputs, valid.positions


def _request(index: int, row: _RowValues, signature: Signature, seen: dict[str, int]) -> Row:
    client_id, inputs, position = row
    if not is_client_id(client_id):
        return client_id_error(client_id, "client_ids")
    first = seen.setdefault(client_id, index)
    if first != index:
        text = f"row {first} has the same client id; a session takes one step a request"
        return InvalidRequestError([Problem(("client_ids",), text)])
    try:
        step = vector(inputs, signature, ("inputs",))
    except InvalidRequestError as error:
        error.__traceback__ = None  # it holds these frames, and they hold it: a cycle
        return error
    return AdvanceRequest(
        key=SessionKey(DEFAULT_TENANT, signature.model, client_id),
        inputs=step,
        return_sequences=False,
        position=position,
    )


def client_id_error(client_id: str, where: str = "client_id") -> InvalidRequestError:
    """Say why a text names no client."""
    if not client_id:
        got = "an empty one"
    elif len(client_id) > _MAX_ID:
        got = f"{len(client_id)} characters"
    else:
        got = describe(client_id)
    rule = f"expected 1 to {_MAX_ID} characters out of A-Z a-z 0-9 . _ : @ - and not . or .."
    return InvalidRequestError([Problem((where,), f"{rule}, got {got}")])


def _check_lengths(document: schema.StepsBody | _LooseBody) -> None:
    num_rows = len(document.client_ids)
    for name, values in (("inputs", document.inputs), ("positions", document.positions)):
        if values is not None and len(values) != num_rows:
            text = f"expected {num_rows} rows, one a client id, got {len(values)}"
            raise InvalidRequestError([Problem((name,), text)])
    if not num_rows:
        raise InvalidRequestError([Problem(("client_ids",), "expected at least one, got none")])
