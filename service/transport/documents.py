"""From bytes to one JSON document of the API, valid and with no field twice. Knows no model.

pydantic's compiled validators check types and ranges straight on the bytes. What is far over every
limit is refused before: a million small lists would hold the event loop up for a second.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError

from service.transport.explain import explain, shorten, wrong

Body = TypeVar("Body", bound=BaseModel)

_MAX_STRAY_PARTS = 10_000
"""As many more are let through to the validator, which says exactly what is wrong."""


class PartsLimit(NamedTuple):
    """What a good document holds at most.

    Attributes:
        num_parts: Arrays, objects and strings, the names of fields included.
        expected: The limit in the words of the API.
    """

    num_parts: int
    expected: str

    @property
    def most(self) -> int:
        """With more a document is refused unread; with less the validator says what is wrong."""
        return self.num_parts + _MAX_STRAY_PARTS


_FEW_PARTS = PartsLimit(1000, "a body of few arrays and strings")


def read(
    body_class: type[Body],
    body: bytes,
    limit: PartsLimit = _FEW_PARTS,
    count_strings: Callable[[Body], int] | None = None,
) -> Body:
    """Validate a JSON document.

    Args:
        body_class: What it shall be.
        body: The document.
        limit: What it may hold.
        count_strings: Tells how many values of a valid document are strings; None means none.

    Raises:
        InvalidRequestError: It is something else, or has a field twice.
    """
    check_num_parts(body, limit)
    try:
        document: Body = body_class.__pydantic_validator__.validate_json(body)
    except ValidationError as error:
        raise explain(error, body_class) from None
    reject_duplicate_fields(body, document, count_strings(document) if count_strings else 0)
    return document


def check_num_parts(body: bytes, limit: PartsLimit) -> None:
    """Look whether a body holds far more than it may; what it holds is not looked at.

    Raises:
        InvalidRequestError: It does.
    """
    most = limit.most
    if len(body) <= most:
        return
    num_parts = body.count(b"[") + body.count(b"{") + body.count(b'"') // 2
    if num_parts > most:
        text = f"expected {limit.expected}, got {num_parts} arrays, objects and strings"
        raise wrong((), text)


def reject_duplicate_fields(body: bytes, document: BaseModel, num_strings: int = 0) -> None:
    """Look whether an object in a valid document has a field twice.

    Args:
        body: The document.
        document: What the validator made of it.
        num_strings: How many of its values are strings.

    Raises:
        InvalidRequestError: It has.
    """
    # Two quotes a name and a string value: more of them mean a field given twice, or an escaped
    # quote. Which one, the slow look tells; the count spares it nearly always.
    # `model_fields_set` is a property over this, which takes five times as long.
    fields_set = document.__pydantic_fields_set__
    if body.count(b'"') == 2 * (len(fields_set) + num_strings):
        return

    def check(pairs: list[tuple[str, object]]) -> None:
        names: set[str] = set()
        for name, _ in pairs:
            if name in names:
                raise wrong((shorten(name),), "given twice")
            names.add(name)

    json.loads(body, object_pairs_hook=check)
