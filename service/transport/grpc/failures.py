"""Errors as the status of a call."""

from __future__ import annotations

import logging
from typing import Any, Never, TypeAlias

import grpc

from service.errors import InternalError, ServiceError, UnavailableError
from service.transport.render import error_document
from service.transport.status import status_of

log = logging.getLogger(__name__)

# The name of a type only: the class takes no arguments.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


def code_of(error: ServiceError) -> grpc.StatusCode:
    """Return the status code of an error, from the table of all transports."""
    return grpc.StatusCode[status_of(error).grpc]


async def abort(context: Context, error: ServiceError) -> Never:
    """End a call with an error.

    The trailing metadata tells its `code`, and where the error knows them the session's `position`
    and `epoch`, and after how many seconds to try again as `retry-after`.
    """
    # It holds the frames that it passed, and those hold it: a cycle with the inputs in it.
    error.__traceback__ = None
    document = error_document(error)
    message = str(document.pop("message"))
    metadata = [(name, str(value)) for name, value in document.items()]
    if isinstance(error, UnavailableError):
        metadata.append(("retry-after", str(error.retry_after_s)))
    await context.abort(code_of(error), message, tuple(metadata))


def as_service_error(error: Exception, method: str) -> ServiceError:
    """Return what the caller is told of whatever went wrong; a fault of ours is logged."""
    if isinstance(error, ServiceError):
        return error
    log.error("%s failed", method, exc_info=error)
    return InternalError()
