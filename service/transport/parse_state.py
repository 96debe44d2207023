"""From JSON to the requests that set states: reset, import, fork. As strict as `parse`."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np

from service.domain import (
    Float32,
    ForkRequest,
    ImportRequest,
    ResetRequest,
    SessionKey,
    is_client_id,
)
from service.errors import Problem
from service.signature import Signature
from service.transport import schema
from service.transport.documents import read
from service.transport.explain import invalid, shorten, wrong
from service.transport.parse import count
from service.transport.parse_steps import client_id_error


def parse_reset(body: bytes, signature: Signature, key: SessionKey) -> ResetRequest:
    """Read a `ResetBody`, or nothing at all.

    Raises:
        InvalidRequestError: It is not one, or does not fit the model.
    """
    document = read(schema.ResetBody, body) if body else schema.ResetBody()
    return ResetRequest(
        key=key,
        row=None if document.states is None else _row(document.states, signature),
        ttl_s=document.ttl_s,
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
    document = read(schema.ImportBody, body, count_strings=_num_strings_of_import)
    row = _row(document.states, signature)
    return import_request(document, row, signature, key, position=position, epoch=epoch)


def import_request(
    metadata: schema.StateMetadata,
    row: Float32,
    signature: Signature,
    key: SessionKey,
    *,
    position: int | None,
    epoch: int | None,
) -> ImportRequest:
    """Return the request that a state and its metadata make, in whatever form they came.

    Args:
        metadata: All but the numbers.
        row: `(state_size,)` float32, finite.
        signature: The model's.
        key: The session.
        position: Where the session is expected to be.
        epoch: The life that is expected.

    Raises:
        InvalidRequestError: There is not one flag a recurrent layer.
    """
    flags = metadata.has_output
    num_flags = signature.num_recurrent
    if flags is not None and len(flags) != num_flags:
        text = f"expected {num_flags} values, one a recurrent layer, got {len(flags)}"
        raise wrong(("has_output",), text)
    return ImportRequest(
        key=key,
        row=row,
        has_output=np.array([metadata.position > 0] * num_flags if flags is None else flags, bool),
        new_position=metadata.position,
        fingerprint=metadata.fingerprint,
        position=position,
        epoch=epoch,
    )


def parse_fork(body: bytes, key: SessionKey) -> ForkRequest:
    """Read a `ForkBody`.

    Raises:
        InvalidRequestError: It is not one, or names no client.
    """
    document = read(schema.ForkBody, body, count_strings=lambda _: 1)
    if not is_client_id(document.client_id):
        raise client_id_error(document.client_id)
    return ForkRequest(key=key, target=document.client_id)


def _num_strings_of_import(document: schema.ImportBody) -> int:
    return int(document.fingerprint is not None)


def _row(states: Sequence[Sequence[float]], signature: Signature) -> Float32:
    """Return the vectors side by side, `(state_size,)` float32."""
    layout = signature.state_layout
    if len(states) != len(layout):
        expected = f"expected {len(layout)} vectors ({', '.join(_vector_names(signature))})"
        raise wrong(("states",), f"{shorten(expected)}, got {len(states)}")
    problems = [
        Problem(("states", index), count("numbers", part.size, len(values)))
        for index, (values, part) in enumerate(zip(states, layout, strict=True))
        if len(values) != part.size
    ]
    if problems:
        raise invalid(problems)
    return np.fromiter(chain.from_iterable(states), np.float32, signature.state_size)


def _vector_names(signature: Signature) -> list[str]:
    return [f"{part.role} of {part.layer}" for part in signature.state_layout]
