"""One example of every problem document, written by the code that writes the real ones."""

from __future__ import annotations

import json
from typing import Any

from service import errors
from service.transport.problem import problem

_FINGERPRINTS = ("9f2c41d0…", "51e07a3b…")
_EXAMPLES: tuple[errors.ServiceError, ...] = (
    errors.InvalidRequestError([errors.Problem(("inputs",), "expected 12 numbers, got 11")]),
    errors.UnauthenticatedError(),
    errors.ForbiddenError(),
    errors.ModelUnknownError("gate", ["vowels", "gait"]),
    errors.NotStreamableError("tagger", ["layer bidirectional runs in both directions"]),
    errors.SessionUnknownError("pump-1"),
    errors.PositionConflictError(42, 5102375120932, "the request starts from position 40"),
    errors.FingerprintMismatchError(*_FINGERPRINTS, "reset it"),
    errors.SessionExpiredError("pump-1", 3600.0),
    errors.SessionExistsError("pump-2"),
    errors.SessionDamagedError("pump-1", "the checksum does not fit"),
    errors.LostUpdateError("pump-1"),
    errors.StateNotFiniteError("a state"),
    errors.BodyTooLargeError(4 * 1024 * 1024),
    errors.UnsupportedMediaTypeError("text/plain"),
    errors.DeadlineExceededError(),
    errors.QueueFullError(4096),
    errors.DrainingError(),
    errors.TooManySessionsError(),
    errors.DeviceMemoryError("the device has no memory for 64 rows of 512 time steps"),
    errors.StoreUnavailableError("no answer within 1 s"),
    errors.StoreLostError(),
    errors.NotReadyError(["gait"]),
    errors.InternalError(),
)
_BY_CLASS = {type(error): error for error in _EXAMPLES}


def problem_example(kind: type[errors.ServiceError]) -> dict[str, Any]:
    """Return what a caller gets who meets an error of this class."""
    document: dict[str, Any] = json.loads(problem(_BY_CLASS[kind], "5e0cbb0f3a9d4c55").body)
    return document
