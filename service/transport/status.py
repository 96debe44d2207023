"""The one table from errors to the status codes of every transport. Knows no framework."""

from __future__ import annotations

from typing import NamedTuple

from service import errors


class Status(NamedTuple):
    """How the transports call one kind of error.

    Attributes:
        http: The status on `/v1`.
        websocket: The close code; 4000 + HTTP status where the protocol has none of its own.
    """

    http: int
    websocket: int


STATUS: dict[type[errors.ServiceError], Status] = {
    errors.InvalidRequestError: Status(http=422, websocket=4422),
    errors.UnauthenticatedError: Status(http=401, websocket=4401),
    errors.ForbiddenError: Status(http=403, websocket=4403),
    errors.ModelUnknownError: Status(http=404, websocket=4404),
    errors.NotStreamableError: Status(http=422, websocket=4422),
    errors.SessionUnknownError: Status(http=404, websocket=4404),
    errors.PositionConflictError: Status(http=409, websocket=4409),
    errors.SessionExpiredError: Status(http=410, websocket=4410),
    errors.SessionExistsError: Status(http=409, websocket=4409),
    errors.SessionDamagedError: Status(http=500, websocket=1011),
    errors.LostUpdateError: Status(http=409, websocket=4409),
    errors.FingerprintMismatchError: Status(http=409, websocket=4409),
    errors.StateNotFiniteError: Status(http=422, websocket=4422),
    errors.BodyTooLargeError: Status(http=413, websocket=1009),
    errors.UnsupportedMediaTypeError: Status(http=415, websocket=1003),
    errors.DeadlineExceededError: Status(http=504, websocket=1013),
    errors.QueueFullError: Status(http=503, websocket=1013),
    errors.DrainingError: Status(http=503, websocket=1012),
    errors.TooManySessionsError: Status(http=503, websocket=1013),
    errors.DeviceMemoryError: Status(http=503, websocket=1013),
    errors.StoreUnavailableError: Status(http=503, websocket=1013),
    errors.StoreLostError: Status(http=503, websocket=1013),
    errors.NotReadyError: Status(http=503, websocket=1013),
    errors.InternalError: Status(http=500, websocket=1011),
}


def status_of(error: errors.ServiceError) -> Status:
    """Return the row of an error's class; every leaf has one."""
    return STATUS[type(error)]
