"""From the bytes of a `StepsBody` to one request a row, or what is wrong with the row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from service.domain import DEFAULT_TENANT, AdvanceRequest, SessionKey, Signature, is_client_id
from service.errors import InvalidRequestError, Problem
from service.transport import schema
from service.transport.documents import (
    PartsLimit,
    check_num_parts,
    read,
    reject_duplicate_fields,
)
from service.transport.explain import describe, explain
from service.transport.parse import vector

Row = AdvanceRequest | InvalidRequestError

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
    is_real = signature.vocabulary is None
    body_class = schema.StepsBody if is_real else schema.TokenStepsBody
    document: schema.StepsBody | _LooseBody
    check_num_parts(body, _LIMIT)
    try:
        strict: schema.StepsBody = body_class.__pydantic_validator__.validate_json(body)
    except ValidationError:
        # Some row is bad, or all of it: only what is wrong with rows is forgiven here.
        document = read(_LooseBody, body, _LIMIT)
    else:
        reject_duplicate_fields(body, strict, len(strict.client_ids))
        document = strict
    _check_lengths(document)
    rows = _strict_rows(document, is_real=is_real)
    seen: dict[str, int] = {}
    return [
        row if isinstance(row, InvalidRequestError) else _request(index, row, signature, seen)
        for index, row in enumerate(rows)
    ]


_RowValues = tuple[str, Sequence[float], int | None]


def _strict_rows(
    document: schema.StepsBody | _LooseBody, *, is_real: bool
) -> list[_RowValues | InvalidRequestError]:
    positions = document.positions
    if positions is None:
        positions = [None] * len(document.inputs)
    rows = zip(document.client_ids, document.inputs, positions, strict=True)
    if isinstance(document, schema.StepsBody):
        return list(rows)
    row_class: type[_RealRow | _TokenRow] = _RealRow if is_real else _TokenRow
    return [_strict_row(row, row_class) for row in rows]


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
    elif len(client_id) > 128:
        got = f"{len(client_id)} characters"
    else:
        got = describe(client_id)
    rule = "expected 1 to 128 characters out of A-Z a-z 0-9 . _ : @ - and not . or .."
    return InvalidRequestError([Problem((where,), f"{rule}, got {got}")])


def _check_lengths(document: schema.StepsBody | _LooseBody) -> None:
    num_rows = len(document.client_ids)
    for name, values in (("inputs", document.inputs), ("positions", document.positions)):
        if values is not None and len(values) != num_rows:
            text = f"expected {num_rows} rows, one a client id, got {len(values)}"
            raise InvalidRequestError([Problem((name,), text)])
    if not num_rows:
        raise InvalidRequestError([Problem(("client_ids",), "expected at least one, got none")])
