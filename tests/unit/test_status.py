"""The table from errors to status codes."""

import pytest

from service import errors
from service.transport.status import STATUS, status_of

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


@pytest.mark.parametrize(
    ("error", "http", "websocket"),
    [
        (errors.InvalidRequestError([]), 422, 4422),
        (errors.PositionConflictError(3, 5, "no"), 409, 4409),
        (errors.SessionUnknownError("a"), 404, 4404),
        (errors.SessionExpiredError("a", 5.0), 410, 4410),
        (errors.SessionExistsError("a"), 409, 4409),
        (errors.LostUpdateError("a"), 409, 4409),
        (errors.StoreLostError(), 503, 1013),
        (errors.BodyTooLargeError(5), 413, 1009),
        (errors.DrainingError(), 503, 1012),
        (errors.InternalError(), 500, 1011),
    ],
)
def test_some_rows(error, http, websocket):
    """The codes that clients rely on most."""
    assert (http, websocket) == status_of(error)
