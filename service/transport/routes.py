"""The REST API: the table of its routes, with what is documented of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from service import errors
from service.engine import Engine
from service.transport import replies, schema
from service.transport.http_models import ModelHandlers, RenderMetrics
from service.transport.http_sessions import SessionHandlers
from service.transport.query import DEFAULT_PAGE, MAX_PAGE
from service.transport.routing import Route, RouteTable


def build_routes(
    engines: Mapping[str, Engine],
    *,
    max_sequence_steps: int,
    render_metrics: RenderMetrics,
) -> RouteTable:
    """Return every operation of the API."""
    models = ModelHandlers(
        engines, max_sequence_steps=max_sequence_steps, render_metrics=render_metrics
    )
    sessions = SessionHandlers(engines, max_sequence_steps=max_sequence_steps)
    return RouteTable(
        [
            *_process_routes(models),
            *_model_routes(models, sessions, "/v1/models/{model}", ""),
            *_session_routes(sessions, "/v1/models/{model}/sessions", ""),
            *_model_routes(models, sessions, "/v1", "_default"),
            *_session_routes(sessions, "/v1/sessions", "_default"),
        ]
    )


def _process_routes(models: ModelHandlers) -> list[Route]:
    health: dict[str, Any] = {"method": "GET", "tag": "process"}
    return [
        Route(
            template="/healthz",
            name="healthz",
            handler=models.healthz,
            summary="Whether the process lives",
            reply=replies.Health,
            **health,
        ),
        Route(
            template="/readyz",
            name="readyz",
            handler=models.readyz,
            summary="Whether it takes requests",
            reply=replies.Health,
            errors=(errors.NotReadyError,),
            **health,
        ),
        Route(
            template="/metrics",
            name="metrics",
            handler=models.metrics,
            summary="Metrics for Prometheus",
            is_reply_text=True,
            **health,
        ),
        Route(
            method="GET",
            template="/v1/models",
            name="list_models",
            handler=models.list_models,
            summary="The models that are served",
            tag="models",
            reply=replies.ModelList,
        ),
        Route(
            method="GET",
            template="/v1/models/{model}",
            name="get_model",
            handler=models.get_model,
            summary="What a model takes and gives",
            description="Sizes, layers, state layout, fingerprint, the kernel chosen and why.",
            tag="models",
            reply=replies.ModelDocument,
            errors=(errors.ModelUnknownError,),
        ),
    ]


def _model_routes(
    models: ModelHandlers, sessions: SessionHandlers, prefix: str, suffix: str
) -> list[Route]:
    return [
        Route(
            method="POST",
            template=f"{prefix}/predict",
            name=f"predict{suffix}",
            handler=models.predict,
            summary="Whole sequences, without a session",
            tag="models",
            bodies=(schema.PredictBody, schema.TokenPredictBody),
            reply=replies.PredictReply,
            errors=(
                errors.ModelUnknownError,
                errors.StateNotFiniteError,
                errors.QueueFullError,
                errors.DrainingError,
            ),
        ),
        Route(
            method="POST",
            template=f"{prefix}/steps",
            name=f"steps{suffix}",
            handler=sessions.steps,
            summary="One step of many sessions",
            description="Status 200 even where rows failed: each has its error in `errors`.",
            tag="sessions",
            bodies=(schema.StepsBody, schema.TokenStepsBody),
            reply=replies.StepsReply,
            errors=(
                errors.ModelUnknownError,
                errors.NotStreamableError,
                errors.DrainingError,
            ),
        ),
    ]


_EVERY_SESSION_ERROR = (
    errors.ModelUnknownError,
    errors.InvalidRequestError,
    errors.NotStreamableError,
    errors.QueueFullError,
    errors.DrainingError,
)
_ADVANCE_ERRORS = (
    *_EVERY_SESSION_ERROR,
    errors.SessionUnknownError,
    errors.PositionConflictError,
    errors.StateNotFiniteError,
    errors.TooManySessionsError,
)
_PRECONDITIONS = tuple(
    {
        "name": name,
        "in": "query",
        "required": False,
        "description": f"The {name} that the session is expected to have; else: 409.",
        "schema": {"type": "integer", "minimum": 0, "maximum": schema.MAX_POSITION - 1},
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


def _session_routes(sessions: SessionHandlers, prefix: str, suffix: str) -> list[Route]:
    return [
        *_advance_routes(sessions, prefix, suffix),
        *_state_routes(sessions, prefix, suffix),
        Route(
            method="GET",
            template=prefix,
            name=f"list_sessions{suffix}",
            handler=sessions.list_sessions,
            summary="List sessions",
            tag="sessions",
            query=_PAGE,
            reply=replies.SessionList,
            errors=(errors.ModelUnknownError, errors.InvalidRequestError),
        ),
        Route(
            method="GET",
            template=f"{prefix}/{{client_id}}",
            name=f"get_session{suffix}",
            handler=sessions.look,
            summary="Where a session is",
            tag="sessions",
            reply=replies.SessionDocument,
            errors=(*_EVERY_SESSION_ERROR, errors.SessionUnknownError),
        ),
        Route(
            method="DELETE",
            template=f"{prefix}/{{client_id}}",
            name=f"delete_session{suffix}",
            handler=sessions.delete,
            summary="End a session",
            tag="sessions",
            query=_PRECONDITIONS,
            reply_status=204,
            errors=(
                *_EVERY_SESSION_ERROR,
                errors.SessionUnknownError,
                errors.PositionConflictError,
            ),
        ),
    ]


def _advance_routes(sessions: SessionHandlers, prefix: str, suffix: str) -> list[Route]:
    return [
        Route(
            method="POST",
            template=f"{prefix}/{{client_id}}/step",
            name=f"step{suffix}",
            handler=sessions.step,
            summary="One time step",
            description="Begins the session where there is none. A retry with the same `position`"
            " gets the first answer again.",
            tag="sessions",
            bodies=(schema.StepBody, schema.TokenStepBody),
            reply=replies.StepReply,
            errors=_ADVANCE_ERRORS,
        ),
        Route(
            method="POST",
            template=f"{prefix}/{{client_id}}/sequence",
            name=f"sequence{suffix}",
            handler=sessions.sequence,
            summary="Many time steps",
            description="What as many steps would do, in one piece: applied whole, or not at all.",
            tag="sessions",
            bodies=(schema.SequenceBody, schema.TokenSequenceBody),
            reply=replies.SequenceReply,
            errors=_ADVANCE_ERRORS,
        ),
    ]


def _state_routes(sessions: SessionHandlers, prefix: str, suffix: str) -> list[Route]:
    changing = (
        *_EVERY_SESSION_ERROR,
        errors.SessionUnknownError,
        errors.PositionConflictError,
        errors.TooManySessionsError,
    )
    return [
        Route(
            method="POST",
            template=f"{prefix}/{{client_id}}/reset_states",
            name=f"reset_states{suffix}",
            handler=sessions.reset_states,
            summary="A new life at position 0",
            tag="sessions",
            bodies=(schema.ResetBody,),
            is_body_required=False,
            reply=replies.ResetReply,
            errors=changing,
        ),
        Route(
            method="GET",
            template=f"{prefix}/{{client_id}}/state",
            name=f"get_state{suffix}",
            handler=sessions.get_state,
            summary="Export a session",
            tag="sessions",
            reply=replies.StateDocument,
            errors=(*_EVERY_SESSION_ERROR, errors.SessionUnknownError),
        ),
        Route(
            method="PUT",
            template=f"{prefix}/{{client_id}}/state",
            name=f"put_state{suffix}",
            handler=sessions.put_state,
            summary="Import a session",
            description="Begins a new life at the given position. The PUT of an earlier export is"
            " a rollback.",
            tag="sessions",
            bodies=(schema.ImportBody,),
            query=_PRECONDITIONS,
            reply=replies.SessionDocument,
            errors=(*changing, errors.FingerprintMismatchError),
        ),
    ]
