"""The table from errors to status codes."""

import pytest

from service import errors
from service.transport.status import STATUS, status_of

GRPC_ERRORS = {
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
}
"""Every status code of gRPC but OK."""

LEAVES = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.ServiceError) and "code" in vars(kind)
]


@pytest.mark.parametrize("kind", LEAVES)
def test_every_error_with_a_code_has_a_row(kind):
    """An error that a caller can get is never without a status."""
    assert kind in STATUS


def test_the_table_holds_nothing_else():
    """A row of a class that cannot be raised would be a mistake."""
    assert set(LEAVES) == set(STATUS)


def test_codes_are_unique():
    """A program can tell every kind of error by its code."""
    assert len(LEAVES) == len({kind.code for kind in LEAVES})


@pytest.mark.parametrize("kind", LEAVES)
def test_unavailable_means_503_and_nothing_else_does(kind):
    """What may be sent again as it is gets 503, and only that."""
    assert issubclass(kind, errors.UnavailableError) == (STATUS[kind].http == 503)


@pytest.mark.parametrize("kind", LEAVES)
def test_every_column_holds_a_code_of_its_transport(kind):
    """Of HTTP an error, of gRPC the name of one, of WebSocket a close code."""
    row = STATUS[kind]
    assert 400 <= row.http < 600
    assert 400 <= row.v2 < 600
    assert row.grpc in GRPC_ERRORS
    assert 1002 <= row.websocket < 1016 or row.websocket == 4000 + row.http


@pytest.mark.parametrize("kind", LEAVES)
def test_both_statuses_of_http_blame_the_same_side(kind):
    """A fault of the caller is one on both, and so is what may be sent again."""
    row = STATUS[kind]
    assert row.http // 100 == row.v2 // 100
    assert (row.http == 503) == (row.v2 == 503) == (row.grpc == "UNAVAILABLE")


@pytest.mark.parametrize(
    ("error", "row"),
    [
        (errors.InvalidRequestError([]), (422, 400, "INVALID_ARGUMENT", 4422)),
        (errors.ModelUnknownError("m", []), (404, 404, "NOT_FOUND", 4404)),
        (errors.PositionConflictError(3, 5, "no"), (409, 409, "ABORTED", 4409)),
        (errors.SessionUnknownError("a"), (404, 400, "INVALID_ARGUMENT", 4404)),
        (errors.SequenceUnknownError(1, "m"), (404, 400, "INVALID_ARGUMENT", 4404)),
        (errors.SessionExpiredError("a", 5.0), (410, 410, "FAILED_PRECONDITION", 4410)),
        (errors.SessionExistsError("a"), (409, 409, "ALREADY_EXISTS", 4409)),
        (errors.LostUpdateError("a"), (409, 409, "ABORTED", 4409)),
        (errors.StateNotFiniteError("a state"), (422, 400, "INVALID_ARGUMENT", 4422)),
        (errors.StoreLostError(), (503, 503, "UNAVAILABLE", 1013)),
        (errors.BodyTooLargeError(5), (413, 413, "RESOURCE_EXHAUSTED", 1009)),
        (errors.DeadlineExceededError(), (504, 504, "DEADLINE_EXCEEDED", 1013)),
        (errors.DrainingError(), (503, 503, "UNAVAILABLE", 1012)),
        (errors.UnauthenticatedError(), (401, 401, "UNAUTHENTICATED", 4401)),
        (errors.ForbiddenError(), (403, 403, "PERMISSION_DENIED", 4403)),
        (errors.InternalError(), (500, 500, "INTERNAL", 1011)),
    ],
)
def test_some_rows(error, row):
    """The codes that clients rely on most."""
    assert row == tuple(status_of(error))
