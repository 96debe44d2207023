"""The client library: sessions that number their steps and retry them without applying one twice.

`Session` blocks, `AsyncSession` awaits; both only do the input and output that one core asks for.
Knows nothing of the server but its documents, and imports none of it.
"""

try:
    import httpx as _httpx  # noqa: F401 - only to say what is missing
except ImportError as error:
    raise ImportError(
        "service.client needs httpx: pip install 'lstm-service[client]'", name="httpx"
    ) from error

from service.client.asynchronous import AsyncSession
from service.client.blocking import Session, Stream
from service.client.documents import ForecastReply, SequenceReply, StepReply
from service.client.errors import (
    ClientError,
    ConflictError,
    FingerprintMismatchError,
    InvalidRequestError,
    LostUpdateError,
    ProtocolError,
    RequestError,
    SessionDamagedError,
    SessionExistsError,
    SessionExpiredError,
    SessionUnknownError,
    UnavailableError,
)
from service.client.stream import AsyncStream

__all__ = [
    "AsyncSession",
    "AsyncStream",
    "ClientError",
    "ConflictError",
    "FingerprintMismatchError",
    "ForecastReply",
    "InvalidRequestError",
    "LostUpdateError",
    "ProtocolError",
    "RequestError",
    "SequenceReply",
    "Session",
    "SessionDamagedError",
    "SessionExistsError",
    "SessionExpiredError",
    "SessionUnknownError",
    "StepReply",
    "Stream",
    "UnavailableError",
]
