"""The routes of sessions, with what is documented of each."""

from __future__ import annotations

from service import errors
from service.domain import MAX_POSITION
from service.transport import replies, schema, tensors
from service.transport.http_forecast import ForecastHandler
from service.transport.http_sessions import SessionHandlers
from service.transport.http_states import StateHandlers
from service.transport.operations import SessionOperations
from service.transport.query import DEFAULT_PAGE, MAX_PAGE
from service.transport.routing import Route

_STORE_ERRORS = (errors.StoreUnavailableError, errors.StoreLostError)
_EVERY_SESSION_ERROR = (
    errors.ModelUnknownError,
    errors.InvalidRequestError,
    errors.NotStreamableError,
    errors.SessionDamagedError,
    errors.LostUpdateError,
    errors.QueueFullError,
    errors.DrainingError,
    *_STORE_ERRORS,
)
_LIVE_ERRORS = (*_EVERY_SESSION_ERROR, errors.SessionUnknownError, errors.SessionExpiredError)
_ADVANCE_ERRORS = (
    *_LIVE_ERRORS,
    errors.PositionConflictError,
    errors.FingerprintMismatchError,
    errors.StateNotFiniteError,
    errors.DeviceMemoryError,
    errors.TooManySessionsError,
)
_CHANGE_ERRORS = (
    *_EVERY_SESSION_ERROR,
    errors.SessionUnknownError,
    errors.PositionConflictError,
    errors.TooManySessionsError,
)
_PRECONDITIONS = tuple(
    {
        "name": name,
        "in": "query",
        "required": False,
        "description": f"The {name} that the session is expected to have; else: 409.",
        "schema": {"type": "integer", "minimum": 0, "maximum": MAX_POSITION},
    }
    for name in ("position", "epoch")
)
_PAGE = (
    {
        "name": "limit",
        "in": "query",
        "required": False,
        "description": "Most sessions on the page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_PAGE, "default": DEFAULT_PAGE},
    },
    {
        "name": "cursor",
        "in": "query",
        "required": False,
        "description": "`next` of the page before.",
        "schema": {"type": "string"},
    },
)


def session_routes(
    operations: SessionOperations,
    sessions: SessionHandlers,
    states: StateHandlers,
    forecasts: ForecastHandler,
    prefix: str,
    suffix: str,
) -> list[Route]:
    """Return the operations on sessions.

    Args:
        operations: What does those that take steps.
        sessions: What does the others.
        states: What does those on whole states.
        forecasts: What does forecasts.
        prefix: Where the sessions of a model are.
        suffix: What makes the operations' names unique.
    """
    return [
        *_advance_routes(operations, prefix, suffix),
        *_life_routes(states, prefix, suffix),
        *_state_routes(states, prefix, suffix),
        _forecast_route(forecasts, prefix, suffix),
        *_session_routes(sessions, prefix, suffix),
    ]


def _advance_routes(operations: SessionOperations, prefix: str, suffix: str) -> list[Route]:
    return [
        Route(
            method="POST",
            template=f"{prefix}/{{client_id}}/step",
            name=f"step{suffix}",
            operation=operations.step,
            summary="One time step",
            description="Begins the session where there is none. A retry with the same `position`"
            " gets the first answer again.",
            tag="sessions",
            has_timeout=True,
            bodies=(schema.StepBody, schema.TokenStepBody),
            reply=replies.StepReply,
            errors=_ADVANCE_ERRORS,
        ),
        Route(
            method="POST",
            template=f"{prefix}/{{client_id}}/sequence",
            name=f"sequence{suffix}",
            operation=operations.sequence,
            summary="Many time steps",
            description="What as many steps would do, in one piece: applied whole, or not at all.",
            tag="sessions",
            has_timeout=True,
            bodies=(schema.SequenceBody, schema.TokenSequenceBody),
            reply=replies.SequenceReply,
            errors=_ADVANCE_ERRORS,
        ),
    ]


def _forecast_route(forecasts: ForecastHandler, prefix: str, suffix: str) -> Route:
    return Route(
        method="POST",
        template=f"{prefix}/{{client_id}}/forecast",
        name=f"forecast{suffix}",
        handler=forecasts.forecast,
        summary="What would come if outputs were the next inputs",
        description="Runs on from the session's state, each step's outputs fed back as the next"
        " one's inputs. The session itself stays as it is: position, epoch, time to live and the"
        " answers kept for retries. By default output i feeds input i; a model with more inputs"
        " than outputs, or in another order, needs `feedback`.",
        tag="sessions",
        bodies=(schema.ForecastBody,),
        reply=replies.ForecastReply,
        errors=(
            *_LIVE_ERRORS,
            errors.PositionConflictError,
            errors.FingerprintMismatchError,
            errors.StateNotFiniteError,
            errors.DeviceMemoryError,
        ),
    )


def _life_routes(states: StateHandlers, prefix: str, suffix: str) -> list[Route]:
    return [
        Route(
            method="POST",
            template=f"{prefix}/{{client_id}}/reset_states",
            name=f"reset_states{suffix}",
            handler=states.reset_states,
            summary="A new life at position 0",
            description="From zeros or from given states. `ttl_s` is how long it may be idle.",
            tag="sessions",
            has_timeout=True,
            bodies=(schema.ResetBody,),
            is_body_required=False,
            reply=replies.ResetReply,
            errors=_CHANGE_ERRORS,
        ),
        Route(
            method="POST",
            template=f"{prefix}/{{client_id}}/fork",
            name=f"fork{suffix}",
            handler=states.fork,
            summary="A second session from this one's state",
            description="It begins at this one's position and with its time to live, in an epoch of"
            " its own. The answers kept for retries are not copied.",
            tag="sessions",
            has_timeout=True,
            bodies=(schema.ForkBody,),
            reply=replies.SessionDocument,
            reply_status=201,
            errors=(*_LIVE_ERRORS, errors.SessionExistsError, errors.TooManySessionsError),
        ),
    ]


def _state_routes(states: StateHandlers, prefix: str, suffix: str) -> list[Route]:
    return [
        Route(
            method="GET",
            template=f"{prefix}/{{client_id}}/state",
            name=f"get_state{suffix}",
            handler=states.get_state,
            summary="Export a session",
            description="As JSON, or as a safetensors file for those that ask for one.",
            binary_replies={tensors.MEDIA_TYPE: tensors.DESCRIPTION},
            tag="sessions",
            has_timeout=True,
            reply=replies.StateDocument,
            errors=(*_LIVE_ERRORS, errors.FingerprintMismatchError),
        ),
        Route(
            method="PUT",
            template=f"{prefix}/{{client_id}}/state",
            name=f"put_state{suffix}",
            handler=states.put_state,
            summary="Import a session",
            description="Begins a new life at the given position. The PUT of an earlier export is"
            " a rollback.",
            tag="sessions",
            has_timeout=True,
            bodies=(schema.ImportBody,),
            binary_bodies={tensors.MEDIA_TYPE: tensors.DESCRIPTION},
            query=_PRECONDITIONS,
            reply=replies.SessionDocument,
            errors=(*_CHANGE_ERRORS, errors.FingerprintMismatchError),
        ),
    ]


def _session_routes(sessions: SessionHandlers, prefix: str, suffix: str) -> list[Route]:
    return [
        Route(
            method="GET",
            template=prefix,
            name=f"list_sessions{suffix}",
            handler=sessions.list_sessions,
            summary="List sessions",
            tag="sessions",
            query=_PAGE,
            reply=replies.SessionList,
            errors=(errors.ModelUnknownError, errors.InvalidRequestError, *_STORE_ERRORS),
        ),
        Route(
            method="GET",
            template=f"{prefix}/{{client_id}}",
            name=f"get_session{suffix}",
            handler=sessions.look,
            summary="Where a session is",
            tag="sessions",
            has_timeout=True,
            reply=replies.SessionDocument,
            errors=_LIVE_ERRORS,
        ),
        Route(
            method="DELETE",
            template=f"{prefix}/{{client_id}}",
            name=f"delete_session{suffix}",
            handler=sessions.delete,
            summary="End a session",
            tag="sessions",
            has_timeout=True,
            query=_PRECONDITIONS,
            reply_status=204,
            errors=(
                *_EVERY_SESSION_ERROR,
                errors.SessionUnknownError,
                errors.PositionConflictError,
            ),
        ),
    ]
