"""Query strings: preconditions and pages. As strict as the bodies."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl

from service.domain import MAX_POSITION
from service.errors import InvalidRequestError, Problem
from service.transport.explain import describe, shorten

MAX_PAGE = 1000
DEFAULT_PAGE = 100
_INTEGER = re.compile(r"(0|[1-9][0-9]{0,15})\Z")
_MAX_FIELDS = 16


def parse_preconditions(query: bytes) -> tuple[int | None, int | None]:
    """Return `position` and `epoch`, None where there is none.

    Raises:
        InvalidRequestError: One is no such number, or there is anything else.
    """
    values = _fields(query, ("position", "epoch"))
    return _integer(values, "position"), _integer(values, "epoch")


def parse_page(query: bytes) -> tuple[int, str | None]:
    """Return `limit` and `cursor`.

    Raises:
        InvalidRequestError: The limit is not in its range, or there is anything else.
    """
    values = _fields(query, ("limit", "cursor"))
    limit = _integer(values, "limit")
    if limit is None:
        return DEFAULT_PAGE, values.get("cursor")
    if not 1 <= limit <= MAX_PAGE:
        raise _wrong("limit", f"expected an integer from 1 to {MAX_PAGE}, got {limit}")
    return limit, values.get("cursor")


def reject_query(query: bytes) -> None:
    """Refuse a query string where none is known, such as a precondition that belongs in the body.

    Raises:
        InvalidRequestError: There is one.
    """
    if query:
        text = f"nothing is known in the query string here, got {describe(query.decode('latin-1'))}"
        raise _wrong("query", f"{text}; a body's fields go into the body")


def _fields(query: bytes, known: tuple[str, ...]) -> dict[str, str]:
    if not query:
        return {}
    try:
        pairs = parse_qsl(
            query.decode("ascii", "replace"), keep_blank_values=True, max_num_fields=_MAX_FIELDS
        )
    except ValueError:
        raise _wrong("query", f"expected at most {_MAX_FIELDS} parameters") from None
    values: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise _wrong(shorten(name), f"unknown parameter; known are: {', '.join(known)}")
        if name in values:
            raise _wrong(name, "given twice")
        values[name] = value
    return values


def _integer(values: dict[str, str], name: str) -> int | None:
    text = values.get(name)
    if text is None:
        return None
    if not _INTEGER.match(text) or int(text) > MAX_POSITION:
        expected = f"expected an integer from 0 to {MAX_POSITION}"
        raise _wrong(name, f"{expected}, got {describe(text)}")
    return int(text)


def _wrong(name: str, message: str) -> InvalidRequestError:
    return InvalidRequestError([Problem((name,), message)])
