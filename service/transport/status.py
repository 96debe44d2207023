"""The one table from errors to the status codes of every transport. Knows no framework."""

from __future__ import annotations

from typing import NamedTuple

from service import errors


class Status(NamedTuple):
    """How the transports call one kind of error.

    Attributes:
        http: The status on `/v1`.
        v2: The status on `/v2`.
        grpc: The name of the status code of gRPC.
        websocket: The close code; 4000 + HTTP status where the protocol has none of its own.
    """

    http: int
    v2: int
    grpc: str
    websocket: int


STATUS: dict[type[errors.ServiceError], Status] = {
    errors.InvalidRequestError: Status(422, 400, "INVALID_ARGUMENT", 4422),
    errors.UnauthenticatedError: Status(401, 401, "UNAUTHENTICATED", 4401),
    errors.ForbiddenError: Status(403, 403, "PERMISSION_DENIED", 4403),
    errors.ModelUnknownError: Status(404, 404, "NOT_FOUND", 4404),
    errors.ModelNotLoadedError: Status(400, 400, "INVALID_ARGUMENT", 4400),
    errors.NoRepositoryError: Status(409, 400, "FAILED_PRECONDITION", 4409),
    errors.NotStreamableError: Status(422, 400, "INVALID_ARGUMENT", 4422),
    errors.SessionUnknownError: Status(404, 400, "INVALID_ARGUMENT", 4404),
    errors.SequenceUnknownError: Status(404, 400, "INVALID_ARGUMENT", 4404),
    errors.PositionConflictError: Status(409, 409, "ABORTED", 4409),
    errors.SessionExpiredError: Status(410, 410, "FAILED_PRECONDITION", 4410),
    errors.SessionExistsError: Status(409, 409, "ALREADY_EXISTS", 4409),
    errors.SessionDamagedError: Status(500, 500, "DATA_LOSS", 1011),
    errors.LostUpdateError: Status(409, 409, "ABORTED", 4409),
    errors.FingerprintMismatchError: Status(409, 409, "FAILED_PRECONDITION", 4409),
    errors.StateNotFiniteError: Status(422, 400, "INVALID_ARGUMENT", 4422),
    errors.BodyTooLargeError: Status(413, 413, "RESOURCE_EXHAUSTED", 1009),
    errors.UnsupportedMediaTypeError: Status(415, 415, "INVALID_ARGUMENT", 1003),
    errors.DeadlineExceededError: Status(504, 504, "DEADLINE_EXCEEDED", 1013),
    errors.QueueFullError: Status(503, 503, "UNAVAILABLE", 1013),
    errors.DrainingError: Status(503, 503, "UNAVAILABLE", 1012),
    errors.TooManySessionsError: Status(503, 503, "UNAVAILABLE", 1013),
    errors.DeviceMemoryError: Status(503, 503, "UNAVAILABLE", 1013),
    errors.StoreUnavailableError: Status(503, 503, "UNAVAILABLE", 1013),
    errors.StoreLostError: Status(503, 503, "UNAVAILABLE", 1013),
    errors.NotReadyError: Status(503, 503, "UNAVAILABLE", 1013),
    errors.InternalError: Status(500, 500, "INTERNAL", 1011),
}
"""A row a leaf, its columns in the order of `Status`."""


def status_of(error: errors.ServiceError) -> Status:
    """Return the row of an error's class; every leaf has one."""
    return STATUS[type(error)]
