"""Errors as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import NamedTuple

import msgspec

from service.errors import (
    InvalidRequestError,
    ServiceError,
    UnauthenticatedError,
    UnavailableError,
)
from service.transport.render import dump, error_document
from service.transport.status import status_of

Headers = tuple[tuple[bytes, bytes], ...]


class Answer(msgspec.Struct, eq=False, gc=False):
    """A whole answer, for any entrance to write.

    Attributes:
        status: The HTTP status.
        body: All of it.
        content_type: Of the body.
        headers: Others than content type, content length and request id.
    """

    status: int
    body: bytes
    content_type: bytes = b"application/json"
    headers: Headers = ()


def problem(error: ServiceError, request_id: str) -> Answer:
    """Write an error of ours."""
    status = status_of(error).http
    fields = error_document(error)
    detail = str(fields.pop("message"))
    code = str(fields.pop("code"))
    if isinstance(error, InvalidRequestError):
        fields["errors"] = [
            {"location": entry.location, "message": entry.message} for entry in error.problems
        ]
    return _answer(status, code, detail, request_id, fields, headers_of(error))


def headers_of(error: ServiceError) -> Headers:
    """Return the headers that belong to an error, whatever its body is."""
    if isinstance(error, UnavailableError):
        return ((b"retry-after", b"%d" % error.retry_after_s),)
    if isinstance(error, UnauthenticatedError):
        return ((b"www-authenticate", b"Bearer"),)
    return ()


def http_problem(status: int, detail: str, request_id: str, headers: Headers = ()) -> Answer:
    """Write an error of HTTP itself, such as a path that leads nowhere."""
    code = HTTPStatus(status).name.lower()
    return _answer(status, code, detail, request_id, {}, headers)


class ErrorForm(NamedTuple):
    """How the errors of some routes are written.

    Attributes:
        of_service: Writes an error of ours, for a request id.
        of_http: Writes an error of HTTP itself: status, detail, request id, headers.
    """

    of_service: Callable[[ServiceError, str], Answer]
    of_http: Callable[[int, str, str, Headers], Answer]


PROBLEMS = ErrorForm(problem, http_problem)


def _answer(
    status: int,
    code: str,
    detail: str,
    request_id: str,
    fields: dict[str, object],
    headers: Headers,
) -> Answer:
    document = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": request_id,
        **fields,
    }
    return Answer(status, dump(document), b"application/problem+json", headers)
