"""What an operation has begun, and how it tells what came of it. Knows no server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from service.errors import ServiceError
from service.transport.headers import Headers
from service.transport.problem import Answer


class Work(Protocol):
    """What an operation has begun."""

    def cancel(self) -> None:
        """Say that nobody waits any more: the completion is not called, or need not be heard."""
        ...


Done = Callable[[Answer | ServiceError], None]
Begin = Callable[[Headers, bytes, float | None, Done], Work]
"""Begins what is asked by headers, by lower-case name, and a body, for a caller who waits so many
seconds. The completion is called once, from the event loop. It may raise `ServiceError` instead,
and then nothing has begun."""
Operation = Callable[[dict[str, str]], Begin]
"""Takes the parameters of a path, percent-decoded, and returns what is done there, for this request
and others to the same path. It may raise `ServiceError`."""
