"""The routes of the Open Inference Protocol. Its specification documents them."""

from __future__ import annotations

from service.transport.routing import Handler, Route
from service.transport.v2.catalog import Catalog
from service.transport.v2.http_errors import ERRORS, PREFIX
from service.transport.v2.http_infer import InferOperation
from service.transport.v2.http_models import V2Handlers
from service.transport.v2.inference import Inference

_MODEL = f"{PREFIX}/models/{{model}}"
_VERSION = f"{_MODEL}/versions/{{version}}"
_REPOSITORY = f"{PREFIX}/repository"


def v2_routes(catalog: Catalog, inference: Inference, *, max_body_bytes: int) -> list[Route]:
    """Return every operation of the protocol.

    Args:
        catalog: The models.
        inference: Over the same ones.
        max_body_bytes: A longer body is refused, also where it is compressed to less.
    """
    handlers = V2Handlers(catalog)
    infer = InferOperation(catalog, inference, max_body_bytes=max_body_bytes)
    return [
        _route("GET", f"{PREFIX}/health/live", handlers.live, tag="process"),
        _route("GET", f"{PREFIX}/health/ready", handlers.ready, tag="process"),
        _route("GET", PREFIX, handlers.server_metadata),
        _route("GET", f"{PREFIX}/models/stats", handlers.statistics),
        _route("POST", f"{_REPOSITORY}/index", handlers.repository_index),
        _route("POST", f"{_REPOSITORY}/models/{{model}}/load", handlers.load),
        _route("POST", f"{_REPOSITORY}/models/{{model}}/unload", handlers.unload),
        *(
            route
            for prefix in (_MODEL, _VERSION)
            for route in (
                _route("GET", prefix, handlers.model_metadata),
                _route("GET", f"{prefix}/ready", handlers.model_ready),
                _route("GET", f"{prefix}/config", handlers.model_config),
                _route("GET", f"{prefix}/stats", handlers.model_statistics),
                _route("POST", f"{prefix}/infer", infer=infer),
            )
        ),
    ]


def _route(
    method: str,
    template: str,
    handler: Handler | None = None,
    *,
    infer: InferOperation | None = None,
    tag: str = "v2",
) -> Route:
    return Route(
        method=method,
        template=template,
        name=f"{method} {template}",
        handler=handler,
        operation=None if infer is None else infer.infer,
        note_refusal=None if infer is None else infer.note_refusal,
        summary="See the protocol's specification",
        tag=tag,
        errors_as=ERRORS,
        ignores_query=True,
    )
