"""What the headers of a request say, for every entrance that speaks HTTP."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

from service.errors import InvalidRequestError, Problem, UnsupportedMediaTypeError
from service.transport.explain import describe

Headers = dict[bytes, bytes]
"""By lower-case name; the last one where a name comes twice."""

Admit = Callable[[Mapping[bytes, bytes]], None]
"""Looks at the headers of a request or of a stream's handshake; raises `UnauthenticatedError` or
`ForbiddenError` where its sender may not use the API."""

MAX_TIMEOUT_MS = 3_600_000
"""The longest time that a caller may say it waits, an hour."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:@/+=-]{1,128}\Z")
_MILLISECONDS = re.compile(rb"[1-9][0-9]{0,6}\Z")
_PROCESS = secrets.token_hex(6)
_numbers = count(1)


def request_id_of(headers: Headers) -> str:
    """Return the caller's `X-Request-Id` if it can be one, else a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.match(given):
        return given.decode("ascii")
    # Random for each process and counted in it: a random number for each request costs a call of
    # the system.
    return f"{_PROCESS}-{next(_numbers):x}"


def timeout_of(headers: Headers) -> float | None:
    """Return after how many seconds the caller does not wait any more, None for any time.

    Raises:
        InvalidRequestError: `X-Request-Timeout-Ms` is no such number.
    """
    given = headers.get(b"x-request-timeout-ms")
    if given is None:
        return None
    if not _MILLISECONDS.match(given) or int(given) > MAX_TIMEOUT_MS:
        expected = f"expected an integer from 1 to {MAX_TIMEOUT_MS}"
        text = f"{expected}, got {describe(given.decode('latin-1'))}"
        raise InvalidRequestError([Problem(("x-request-timeout-ms",), text)])
    return int(given) / 1000


def check_json(headers: Headers) -> None:
    """Check that a body is said to be JSON, or not said to be anything.

    Raises:
        UnsupportedMediaTypeError: It is said to be something else, or to be compressed.
    """
    content_type = headers.get(b"content-type")
    if content_type not in (None, b"", b"application/json"):
        media_type, *parameters = content_type.decode("latin-1").lower().split(";")
        media_type = media_type.strip()
        is_json = media_type == "application/json" or (
            media_type.startswith("application/") and media_type.endswith("+json")
        )
        charsets = [p.partition("=")[2].strip(' "') for p in parameters if "charset" in p]
        if not is_json or any(charset not in ("utf-8", "utf8") for charset in charsets):
            raise UnsupportedMediaTypeError(content_type.decode("latin-1")[:100])
    check_plain(headers)


def check_plain(headers: Headers) -> None:
    """Check that a body is not compressed.

    Raises:
        UnsupportedMediaTypeError: It is.
    """
    encoding = headers.get(b"content-encoding")
    if encoding not in (None, b"", b"identity"):
        raise UnsupportedMediaTypeError(f"{encoding.decode('latin-1')[:100]}-encoded")


def length_of(headers: Headers, limit: int) -> int:
    """Return the length that a body is said to have, 0 where nothing is said.

    Args:
        headers: The server has checked that the length is a number.
        limit: One of more digits than this has is told as `limit + 1`: it is not converted.
    """
    digits = headers.get(b"content-length", b"").lstrip(b"0")
    return limit + 1 if len(digits) > len(str(limit)) else int(digits or 0)


OPENAPI_TIMEOUT: dict[str, Any] = {
    "name": "X-Request-Timeout-Ms",
    "in": "header",
    "required": False,
    "description": "How long the caller waits, in milliseconds. What has not begun by then is"
    " answered with 504 and certainly not applied.",
    "schema": {"type": "integer", "minimum": 1, "maximum": MAX_TIMEOUT_MS},
}
