"""From bytes to the engine's requests: every check of a request against the API and the model.

Pure functions, used by every entrance that speaks JSON or raw float32. pydantic's compiled
validators check types and ranges straight on the bytes; lengths are checked here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from itertools import chain
from struct import Struct
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from service.domain import (
    AdvanceRequest,
    Bool,
    Float32,
    ImportRequest,
    ResetRequest,
    SessionKey,
    Signature,
)
from service.errors import InvalidRequestError, Problem
from service.transport import schema
from service.transport.explain import describe, explain, invalid, shorten

Body = TypeVar("Body", bound=BaseModel)
Location = tuple[str | int, ...]


def parse_step(body: bytes, signature: Signature, key: SessionKey) -> AdvanceRequest:
    """Read a `StepBody`.

    Raises:
        InvalidRequestError: It is not one, or does not fit the model.
    """
    is_real = signature.vocabulary is None
    document = read(schema.StepBody if is_real else schema.TokenStepBody, body)
    return AdvanceRequest(
        key=key,
        inputs=vector(document.inputs, signature, ("inputs",)),
        return_sequences=False,
        return_state=document.return_state,
        position=document.position,
        epoch=document.epoch,
    )


def parse_sequence(
    body: bytes, signature: Signature, key: SessionKey, max_steps: int
) -> AdvanceRequest:
    """Read a `SequenceBody` of at most `max_steps` time steps.

    Raises:
        InvalidRequestError: It is not one, or does not fit the model.
    """
    is_real = signature.vocabulary is None
    document = read(schema.SequenceBody if is_real else schema.TokenSequenceBody, body)
    inputs = _sequence(document.inputs, signature, ("inputs",), max_steps)
    return AdvanceRequest(
        key=key,
        inputs=inputs,
        mask=_mask(document.mask, len(inputs), ("mask",)),
        return_sequences=document.return_sequences,
        return_state=document.return_state,
        position=document.position,
        epoch=document.epoch,
    )


def parse_predict(body: bytes, signature: Signature, max_steps: int) -> tuple[Float32, Bool | None]:
    """Read a `PredictBody` with at most `max_steps` time steps a sequence.

    Returns:
        `(batch, time, input_size)` float32, and the mask `(batch, time)` if there is one.

    Raises:
        InvalidRequestError: It is not one, or does not fit the model.
    """
    is_real = signature.vocabulary is None
    document = read(schema.PredictBody if is_real else schema.TokenPredictBody, body)
    if not document.inputs:
        raise _wrong(("inputs",), "expected at least one sequence, got an empty array")
    sequences = [
        _sequence(rows, signature, ("inputs", index), max_steps)
        for index, rows in enumerate(document.inputs)
    ]
    num_steps = len(sequences[0])
    for index, one in enumerate(sequences):
        if len(one) != num_steps:
            expected = f"expected {num_steps} time steps as in the first sequence, got {len(one)}"
            raise _wrong(("inputs", index), f"{expected}; pad it and mask the padding")
    if document.mask is None:
        return np.stack(sequences), None
    if len(document.mask) != len(sequences):
        raise _wrong(("mask",), _count("rows", len(sequences), len(document.mask)))
    masks = [_mask(row, num_steps, ("mask", i)) for i, row in enumerate(document.mask)]
    return np.stack(sequences), np.array(masks, np.bool_)


def parse_reset(body: bytes, signature: Signature, key: SessionKey) -> ResetRequest:
    """Read a `ResetBody`, or nothing at all.

    Raises:
        InvalidRequestError: It is not one, or does not fit the model.
    """
    document = read(schema.ResetBody, body) if body else schema.ResetBody()
    return ResetRequest(
        key=key,
        row=None if document.states is None else _row(document.states, signature),
        position=document.position,
        epoch=document.epoch,
    )


def parse_import(
    body: bytes,
    signature: Signature,
    key: SessionKey,
    *,
    position: int | None,
    epoch: int | None,
) -> ImportRequest:
    """Read an `ImportBody`; `position` and `epoch` are the preconditions, from the query.

    Raises:
        InvalidRequestError: It is not one, or does not fit the model.
    """
    document = read(schema.ImportBody, body, {"fingerprint"})
    flags = document.has_output
    num_flags = signature.num_recurrent
    if flags is not None and len(flags) != num_flags:
        text = f"expected {num_flags} values, one a recurrent layer, got {len(flags)}"
        raise _wrong(("has_output",), text)
    return ImportRequest(
        key=key,
        row=_row(document.states, signature),
        has_output=np.array([document.position > 0] * num_flags if flags is None else flags, bool),
        new_position=document.position,
        fingerprint=document.fingerprint,
        position=position,
        epoch=epoch,
    )


def parse_binary_step(frame: bytes, signature: Signature) -> Float32:
    """Read `input_size` little-endian float32 numbers as one time step, `(1, input_size)`.

    Raises:
        InvalidRequestError: Another length, a number that is not finite, or no token of the model.
    """
    num_bytes = 4 * signature.input_size
    if len(frame) != num_bytes:
        expected = f"expected {num_bytes} bytes ({signature.input_size} float32 numbers)"
        raise _wrong(("frame",), f"{expected}, got {len(frame)}")
    inputs = np.frombuffer(frame, "<f4").reshape(1, -1)
    is_finite = np.isfinite(inputs[0])
    if not is_finite.all():
        index = int(np.argmin(is_finite))
        text = f"expected a finite number, got {describe(float(inputs[0, index]))}"
        raise _wrong(("frame", index), text)
    if signature.vocabulary is not None:
        tokens = inputs[0].tolist()
        for index, token in enumerate(tokens):
            if token != int(token):
                raise _wrong(("frame", index), f"expected an integer, got {describe(token)}")
        _check_tokens([int(token) for token in tokens], signature.vocabulary, ("frame",))
    return inputs.astype(np.float32, copy=False)


def read(body_class: type[Body], body: bytes, strings: set[str] | None = None) -> Body:
    """Validate a JSON document.

    Args:
        body_class: What it shall be.
        body: The document.
        strings: The names of the fields whose values are strings.

    Raises:
        InvalidRequestError: It is something else, or has a field twice.
    """
    try:
        document: Body = body_class.__pydantic_validator__.validate_json(body)
    except ValidationError as error:
        raise explain(error, body_class) from None
    # Two quotes a name and a string value: more of them mean a field given twice, or an escaped
    # quote. Which one, the slow look tells; the count spares it nearly always.
    names = document.model_fields_set
    num_strings = len(names)
    if strings:
        num_strings += len(strings & names)
    if body.count(b'"') != 2 * num_strings:
        reject_duplicate_fields(body)
    return document


def reject_duplicate_fields(body: bytes) -> None:
    """Look whether an object, which is valid JSON, has a field twice.

    Raises:
        InvalidRequestError: It has.
    """

    def check(pairs: list[tuple[str, object]]) -> None:
        names: set[str] = set()
        for name, _ in pairs:
            if name in names:
                raise _wrong((shorten(name),), "given twice")
            names.add(name)

    json.loads(body, object_pairs_hook=check)


@cache
def _packer(size: int) -> Struct:
    return Struct(f"={size}f")


def vector(values: Sequence[float], signature: Signature, where: Location) -> Float32:
    """Return one time step's inputs, `(1, input_size)` float32, read-only.

    Raises:
        InvalidRequestError: Another length, or no token of the model.
    """
    size = signature.input_size
    if len(values) != size:
        kind = "numbers" if signature.vocabulary is None else "integer"
        raise _wrong(where, _count(kind, size, len(values)))
    if signature.vocabulary is not None:
        _check_tokens(values, signature.vocabulary, where)
    return np.frombuffer(_packer(size).pack(*values), np.float32).reshape(1, size)


def _sequence(
    rows: Sequence[Sequence[float]], signature: Signature, where: Location, max_steps: int
) -> Float32:
    """Return `(time, input_size)` float32."""
    if not rows:
        raise _wrong(where, "expected at least one time step, got an empty array")
    if len(rows) > max_steps:
        raise _wrong(where, f"expected at most {max_steps} time steps, got {len(rows)}")
    size = signature.input_size
    for index, row in enumerate(rows):
        if len(row) != size:
            raise _wrong((*where, index), _count("numbers", size, len(row)))
        if signature.vocabulary is not None:
            _check_tokens(row, signature.vocabulary, (*where, index))
    pack = _packer(size).pack
    packed = b"".join([pack(*row) for row in rows])
    return np.frombuffer(packed, np.float32).reshape(len(rows), size)


def _check_tokens(values: Sequence[float], vocabulary: int, where: Location) -> None:
    for index, value in enumerate(values):
        if not 0 <= value < vocabulary:
            text = f"expected an integer from 0 to {vocabulary - 1}, got {describe(value)}"
            raise _wrong((*where, index), text)


def _mask(values: list[bool] | None, num_steps: int, where: Location) -> Bool | None:
    if values is None:
        return None
    if len(values) != num_steps:
        raise _wrong(where, f"expected {num_steps} values, one a time step, got {len(values)}")
    return np.array(values, np.bool_)


def _row(states: Sequence[Sequence[float]], signature: Signature) -> Float32:
    """Return the vectors side by side, `(state_size,)` float32."""
    layout = signature.state_layout
    if len(states) != len(layout):
        expected = f"expected {len(layout)} vectors ({', '.join(_vector_names(signature))})"
        raise _wrong(("states",), f"{shorten(expected)}, got {len(states)}")
    problems = [
        Problem(("states", index), _count("numbers", part.size, len(values)))
        for index, (values, part) in enumerate(zip(states, layout, strict=True))
        if len(values) != part.size
    ]
    if problems:
        raise invalid(problems)
    return np.fromiter(chain.from_iterable(states), np.float32, signature.state_size)


def _vector_names(signature: Signature) -> list[str]:
    return [f"{part.role} of {part.layer}" for part in signature.state_layout]


def _count(noun: str, expected: int, actual: int) -> str:
    return f"expected {expected} {noun}, got {actual}"


def _wrong(where: Location, message: str) -> InvalidRequestError:
    return InvalidRequestError([Problem(where, message)])
