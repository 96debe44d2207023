"""Errors over HTTP as the Open Inference Protocol has them: `{"error": message}`."""

from __future__ import annotations

from service.errors import ServiceError
from service.transport.problem import Answer, ErrorForm, Headers, headers_of
from service.transport.render import dump
from service.transport.status import status_of

PREFIX = "/v2"
"""Where the protocol is."""


def _of_service(error: ServiceError, request_id: str) -> Answer:
    """Write an error of ours; the request's id is a header of the answer."""
    del request_id
    return Answer(status_of(error).v2, dump({"error": str(error)}), headers=headers_of(error))


def _of_http(status: int, detail: str, request_id: str, headers: Headers) -> Answer:
    """Write an error of HTTP itself."""
    del request_id
    return Answer(status, dump({"error": detail}), headers=headers)


ERRORS = ErrorForm(_of_service, _of_http)


def is_path(path: str) -> bool:
    """Tell whether a path is one of the protocol, so that errors have its form."""
    return path == PREFIX or path.startswith(PREFIX + "/")
