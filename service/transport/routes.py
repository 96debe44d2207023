"""The REST API: the table of its routes, with what is documented of each."""

from __future__ import annotations

from typing import Any

from service import errors
from service.served import ServedModels
from service.transport import binary_steps, replies, schema
from service.transport.http_forecast import ForecastHandler
from service.transport.http_models import ModelHandlers, RenderMetrics
from service.transport.http_sessions import SessionHandlers
from service.transport.http_states import StateHandlers
from service.transport.operations import SessionOperations
from service.transport.routes_sessions import session_routes
from service.transport.routing import Route, RouteTable


def build_routes(
    engines: ServedModels,
    *,
    max_sequence_steps: int,
    render_metrics: RenderMetrics,
) -> RouteTable:
    """Return every operation of the API."""
    models = ModelHandlers(
        engines, max_sequence_steps=max_sequence_steps, render_metrics=render_metrics
    )
    operations = SessionOperations(engines, max_sequence_steps=max_sequence_steps)
    sessions = SessionHandlers(engines)
    states = StateHandlers(engines)
    forecasts = ForecastHandler(engines, max_steps=max_sequence_steps)
    handlers = operations, sessions, states, forecasts
    return RouteTable(
        [
            *_process_routes(models),
            *_model_routes(models, operations, "/v1/models/{model}", ""),
            *session_routes(*handlers, "/v1/models/{model}/sessions", ""),
            *_model_routes(models, operations, "/v1", "_default"),
            *session_routes(*handlers, "/v1/sessions", "_default"),
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
            errors=(
                errors.NotReadyError,
                errors.StoreUnavailableError,
                errors.StoreLostError,
            ),
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
    models: ModelHandlers, operations: SessionOperations, prefix: str, suffix: str
) -> list[Route]:
    return [
        Route(
            method="POST",
            template=f"{prefix}/predict",
            name=f"predict{suffix}",
            handler=models.predict,
            summary="Whole sequences, without a session",
            tag="models",
            has_timeout=True,
            bodies=(schema.PredictBody, schema.TokenPredictBody),
            reply=replies.PredictReply,
            errors=(
                errors.ModelUnknownError,
                errors.StateNotFiniteError,
                errors.DeviceMemoryError,
                errors.QueueFullError,
                errors.DrainingError,
            ),
        ),
        Route(
            method="POST",
            template=f"{prefix}/steps",
            name=f"steps{suffix}",
            operation=operations.steps,
            summary="One step of many sessions",
            description="Status 200 even where rows failed: each has its error in `errors`.",
            tag="sessions",
            has_timeout=True,
            bodies=(schema.StepsBody, schema.TokenStepsBody),
            binary_bodies={binary_steps.MEDIA_TYPE: binary_steps.BODY},
            reply=replies.StepsReply,
            binary_replies={binary_steps.MEDIA_TYPE: binary_steps.REPLY},
            errors=(
                errors.ModelUnknownError,
                errors.NotStreamableError,
                errors.DrainingError,
            ),
        ),
    ]
