"""What a caller of the client may have to handle, and how the service's errors become it.

`code` is the service's own, stable; several codes that call for the same handling share a class.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class ClientError(Exception):
    """Root of the errors of the client.

    Attributes:
        code: The service's name for what is wrong; None where no answer of the service tells one.
        status: The HTTP status or the WebSocket close code; None where there was no answer.
        position: Where the session is, if the service told.
        epoch: The life that it is in, if the service told.
        request_id: What the service's log calls the request.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        position: int | None = None,
        epoch: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.position = position
        self.epoch = epoch
        self.request_id = request_id


class RequestError(ClientError):
    """The service refused the request. Nothing was applied."""


class InvalidRequestError(RequestError):
    """The request does not fit the API or the model. Nothing was applied."""


class FingerprintMismatchError(RequestError):
    """The state belongs to other weights than the model's. Nothing was applied."""


class SessionExistsError(RequestError):
    """A fork's target is there already. Nothing was changed."""


class SessionUnknownError(ClientError):
    """The session does not exist, or does no more: its state is lost.

    Steps go on failing, rather than beginning from zeros, until `reset_states` or `load_state`.
    """


class SessionExpiredError(ClientError):
    """The session's time to live is over. Steps go on failing until it is reset or loaded."""


class SessionDamagedError(ClientError):
    """What the store holds for the session cannot be read."""


class ConflictError(ClientError):
    """Another writer has moved the session: it is at `position` of `epoch`. Nothing was applied.

    Steps go on failing until `resume` says that the caller goes on from where the session is.
    """


class LostUpdateError(ConflictError):
    """Steps that were answered are gone, because another writer's came first."""


class UnavailableError(ClientError):
    """No usable answer came within the deadline. The message says whether it may have been applied.

    The same call again is safe: it is sent with the same position, so that it is applied once.
    """


class ProtocolError(ClientError):
    """An answer that is none of this service's."""


_BY_CODE: dict[str | None, type[ClientError]] = {
    "fingerprint_mismatch": FingerprintMismatchError,
    "invalid_request": InvalidRequestError,
    "lost_update": LostUpdateError,
    "position_conflict": ConflictError,
    "session_damaged": SessionDamagedError,
    "session_exists": SessionExistsError,
    "session_expired": SessionExpiredError,
    "session_unknown": SessionUnknownError,
}
_PASSING_STATUSES = frozenset(
    # of HTTP, a broken connection, and the close codes of a stream
    (408, 429, 500, 502, 503, 504, None, 1000, 1001, 1005, 1006, 1011, 1012, 1013, 1014)
)


def error_of(
    document: Mapping[str, Any], status: int | None, request_id: str | None = None
) -> ClientError:
    """Return the exception for a problem document or an error frame.

    Args:
        document: With `code`, `detail` or `message`, and perhaps `position` and `epoch`; empty
            where the answer came from something in between.
        status: The HTTP status or the close code; None where the connection broke.
        request_id: From the headers, for answers that do not repeat it.
    """
    code = document.get("code")
    message = document.get("detail", document.get("message"))
    code = None if code is None else str(code)
    return _BY_CODE.get(code, RequestError)(
        str(message or f"the service answered with status {status}"),
        code=code,
        status=status,
        position=document.get("position"),
        epoch=document.get("epoch"),
        request_id=document.get("request_id", request_id),
    )


def is_passing(error: ClientError) -> bool:
    """Tell whether the same request may be answered otherwise in a while."""
    # What the service says in its own words is more than the status, which others may set too.
    return error.status in _PASSING_STATUSES and error.code not in _BY_CODE
