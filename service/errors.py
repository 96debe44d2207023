"""Everything that can go wrong for a caller. Knows no transport: `transport.status` maps them.

`code` is part of the API and never changes; the message says what was wrong, what was expected and,
where there is something to do, what.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self


class ServiceError(Exception):
    """Root of the errors of this package."""

    code: ClassVar[str]

    def again(self) -> Self:
        """Return the same error for another caller, without the frames that this one has passed."""
        # An instance that several raise would hold the frames of all of them.
        other = type(self).__new__(type(self), *self.args)
        vars(other).update(vars(self))
        return other


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a request.

    Attributes:
        location: Where, as a path into the body: `("inputs", 3)`. Empty for the whole of it.
        message: What was expected and what came.
    """

    location: tuple[str | int, ...]
    message: str

    def __str__(self) -> str:
        where = ".".join(map(str, self.location))
        return f"{where}: {self.message}" if where else self.message


class InvalidRequestError(ServiceError):
    """A request does not fit the API or the model. Nothing was applied."""

    code = "invalid_request"

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = problems


class ModelUnknownError(ServiceError):
    """No model has this name."""

    code = "model_unknown"

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"no model is called {name!r}; there are: {', '.join(known) or 'none'}")
        self.name = name


class ModelNotLoadedError(ServiceError):
    """A model of the repository could not be loaded; what was served before still is."""

    code = "model_not_loaded"

    def __init__(self, name: str, reasons: list[str]) -> None:
        super().__init__(f"model {name!r} could not be loaded: {'; '.join(reasons)}")
        self.reasons = reasons


class NoRepositoryError(ServiceError):
    """A model is none of the repository: it was given at the start, and stays."""

    code = "no_repository"

    def __init__(self, model: str) -> None:
        super().__init__(
            f"model {model!r} cannot be loaded or unloaded: it is none of a model repository"
        )


class NotStreamableError(ServiceError):
    """The model needs whole sequences, so it has no sessions; `predict` serves it."""

    code = "not_streamable"

    def __init__(self, model: str, reasons: list[str]) -> None:
        super().__init__(f"model {model!r} cannot be stepped, use predict: {'; '.join(reasons)}")
        self.reasons = reasons


class SessionUnknownError(ServiceError):
    """The session does not exist, and the request did not begin it."""

    code = "session_unknown"

    def __init__(self, client_id: str) -> None:
        super().__init__(
            f"there is no session {client_id!r}; it begins with a reset, an import, or a step that"
            " has position 0 or none, and no epoch"
        )


class SequenceUnknownError(ServiceError):
    """A request of the Open Inference Protocol goes on with a sequence that does not exist."""

    code = "sequence_unknown"

    def __init__(self, sequence_id: int | str, model: str) -> None:
        super().__init__(
            f"inference request for sequence {sequence_id} to model '{model}' must specify the"
            " START flag on the first request of the sequence"
        )


class PositionConflictError(ServiceError):
    """The session is not where the request expects it. Nothing was applied.

    Attributes:
        position: Where the session is.
        epoch: The life that it is in.
    """

    code = "position_conflict"

    def __init__(self, position: int, epoch: int, problem: str) -> None:
        super().__init__(f"{problem}; the session is at position {position} of epoch {epoch}")
        self.position = position
        self.epoch = epoch


class SessionExpiredError(ServiceError):
    """The session was not stepped for its time to live, so it has ended."""

    code = "session_expired"

    def __init__(self, client_id: str, ttl_s: float) -> None:
        super().__init__(
            f"session {client_id!r} has ended: nothing was applied for {ttl_s:g} s, its time to"
            " live; it begins anew with a reset, an import or the start of a sequence"
        )


class SessionExistsError(ServiceError):
    """A fork's target is there already. Nothing was changed."""

    code = "session_exists"

    def __init__(self, client_id: str) -> None:
        super().__init__(f"there is a session {client_id!r} already; end it first, or take another")


class SessionDamagedError(ServiceError):
    """What the store holds for the session is no record of it. It is kept for inspection."""

    code = "session_damaged"

    def __init__(self, client_id: str, reason: str) -> None:
        super().__init__(
            f"the record of session {client_id!r} cannot be read: {reason}; it begins anew with a"
            " reset, an import or the start of a sequence"
        )


class LostUpdateError(ServiceError):
    """Steps that were answered before their commit met another writer's, and are gone."""

    code = "lost_update"

    def __init__(self, client_id: str) -> None:
        super().__init__(
            f"steps of session {client_id!r} were answered but then lost to another writer; look"
            " where it is, and go on from there"
        )


class FingerprintMismatchError(ServiceError):
    """A state belongs to other weights than the model's."""

    code = "fingerprint_mismatch"

    def __init__(self, expected: str, actual: str, remedy: str) -> None:
        super().__init__(
            f"the state belongs to fingerprint {actual}, the model has {expected}; {remedy}"
        )


class StateNotFiniteError(ServiceError):
    """Finite inputs gave a state or an output with NaN or infinity. Nothing was applied."""

    code = "state_not_finite"

    def __init__(self, what: str) -> None:
        super().__init__(f"the inputs lead to {what} that is not finite, so they were not applied")


class BodyTooLargeError(ServiceError):
    """A body or frame is over the limit."""

    code = "body_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"the body is over the limit of {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class UnsupportedMediaTypeError(ServiceError):
    """A body that is not what it should be, or compressed in a way that is not known."""

    code = "unsupported_media_type"

    def __init__(self, given: str, expected: str = "application/json") -> None:
        super().__init__(f"the body must be {expected}, not {given}")


class DeadlineExceededError(ServiceError):
    """The request had no turn in the time that its caller waits. Nothing was applied."""

    code = "deadline_exceeded"

    def __init__(self) -> None:
        super().__init__("the request had no turn in the time that its caller waits; not applied")


class UnauthenticatedError(ServiceError):
    """The request has no credentials, or wrong ones."""

    code = "unauthenticated"

    def __init__(self) -> None:
        super().__init__("the request has no valid credentials")


class ForbiddenError(ServiceError):
    """The caller is known, but may not do this."""

    code = "forbidden"

    def __init__(self) -> None:
        super().__init__("the caller may not do this")


class UnavailableError(ServiceError):
    """Not now. Nothing was applied; the same request may be sent again.

    Attributes:
        retry_after_s: When to try again.
    """

    retry_after_s: ClassVar[int] = 1


class QueueFullError(UnavailableError):
    """As many requests are waiting as may wait."""

    code = "queue_full"

    def __init__(self, limit: int) -> None:
        super().__init__(f"{limit} requests are waiting already; try again")


class DrainingError(UnavailableError):
    """This process is about to end."""

    code = "draining"

    def __init__(self) -> None:
        super().__init__("this replica is shutting down; try another one")


class NotReadyError(UnavailableError):
    """This process cannot serve its models: it is starting, or about to end."""

    code = "not_ready"

    def __init__(self, models: list[str]) -> None:
        super().__init__(f"not ready to serve: {', '.join(models)}")
        self.models = models


class DeviceMemoryError(UnavailableError):
    """The device that computes had no memory left for the request. Nothing was applied."""

    code = "device_memory"

    def __init__(self, reason: str) -> None:
        super().__init__(f"{reason}; nothing was applied: try again, or send less at a time")


class StoreUnavailableError(UnavailableError):
    """The store does not answer, or takes nothing.

    Unlike the other errors of this kind, this one may come after the request was applied: sent
    again with its position, it is applied once.
    """

    code = "store_unavailable"

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"the session store is not available ({reason}); if the request was applied is not"
            " known: sent again with its position, it is applied once"
        )


class StoreLostError(UnavailableError):
    """The store has come back without what it held. Nothing was applied."""

    code = "store_lost"

    def __init__(self) -> None:
        super().__init__(
            "the session store has lost its sessions, or was never set up: restore it, or accept"
            " the loss with `lstm-service store init`"
        )


class TooManySessionsError(UnavailableError):
    """As many sessions exist as may exist."""

    code = "too_many_sessions"

    def __init__(self) -> None:
        super().__init__("there are as many sessions as may be; end one, or raise the limit")


class InternalError(ServiceError):
    """A fault of ours; the log has the reason."""

    code = "internal"

    def __init__(self) -> None:
        super().__init__("the service failed; sent again with its position, it is applied once")
