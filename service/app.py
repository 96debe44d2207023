"""The ASGI application: engines behind HTTP and WebSocket. Owns their start and their end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.metadata import PackageNotFoundError, version
from time import perf_counter
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.engine import Engine
from service.errors import InternalError
from service.repository import ModelRepository
from service.served import ServedModels
from service.transport.calls import Receive, Scope, Send
from service.transport.headers import Admit, request_id_of
from service.transport.http import HttpEntrance, Observe
from service.transport.openapi import add_docs, component_schemas, document
from service.transport.problem import PROBLEMS, Answer, ErrorForm
from service.transport.routes import build_routes
from service.transport.routing import RouteTable
from service.transport.v2 import http_errors
from service.transport.v2.catalog import Catalog
from service.transport.v2.inference import Inference
from service.transport.v2.routes import v2_routes
from service.transport.websocket import WebSocketEntrance

UNMATCHED = "unmatched"
"""The template that is observed for the documentation, and for paths that lead nowhere."""

DESCRIPTION = """
Each client owns a recurrent state that the server keeps: stream one time step at a time, or post
whole sequences. `/v1/sessions/...` is the short form for the default model.

Errors are `application/problem+json` with a stable `code`. Every answer names its `X-Request-Id`.

**WebSocket** `/v1/models/{model}/sessions/{client_id}/stream` and
`/v1/sessions/{client_id}/stream`: the first frame is
`{"type": "hello", "position", "epoch", "input_size", "output_size", "replay_window"}`; `epoch` is
null where there is no session yet. Then a text frame is the body of a step and is answered with a
step's reply. A binary frame is one or more time steps, `input_size` little-endian float32 numbers
each, applied as a whole, and is answered with `output_size` of them for each step. Answers keep the
order; up to `replay_window` frames are in flight, and what is sent beyond them waits unread. A
client that reads nothing for half a minute while answers wait for it is cut off, and so is one
that answers no ping.

After a reconnect a client sends again what was not answered. Text frames name their `position`, and
need nothing else. For binary frames the stream's URL says where the first of them starts:
`?position=41&epoch=5102375120932`, the position alone before the first answer. The hello still
tells the session's own place. Cut into the same frames, steps that were applied already are
answered as they were then; but of answers over 16 KiB only the last is kept.

The first error ends the stream, and nothing behind it applies: a text frame
`{"type": "error", "code", "message", "position"?, "epoch"?}`, then close: 4409 if somebody else
wrote to the session, answered steps were lost, or it cannot go on from where the URL says, 4410 if
its time to live is over, 4422 for an invalid frame or query, 4404 for an unknown model or session,
1009 for a message over the limit, 1012 if the replica shuts down, 1013 if it is too busy or its
store does not answer, 1011 for a fault or a damaged session. What breaks WebSocket's own rules is
closed at once: 1002, or 1007 for text that is no UTF-8. Only a step that names its `position` may
be a retry and be replayed, or one of the first `replay_window` frames behind a URL that does. A
handshake whose `Origin` is not the service's own host and port is refused with 403.

**Open Inference Protocol** `/v2/...`: as its specification says, with sequences, binary tensors,
statistics, configuration and repository, over the same sessions: the sequence 42 is the session
`int:42`. Errors are `{"error": message}`. Beyond the specification, a request may have the
parameters `position` and `epoch`, as a step has, and its answer then has `position`, `epoch` and
`replayed`.
"""


class Application(FastAPI):
    """FastAPI for the documentation, and two entrances before it for everything that is fast.

    What a framework does for each request costs more than a step of the network; the API's own
    routes go past it. Middleware that is added to this application sees the other paths only.

    Attributes:
        http: The entrance of requests.
        streams: The entrance of WebSockets.
        routes_of_api: What the documentation tells of.
        catalog: The models of the Open Inference Protocol, for its other transport too.
        inference: Their one operation, likewise.
    """

    served: ServedModels
    http: HttpEntrance
    streams: WebSocketEntrance
    routes_of_api: RouteTable
    catalog: Catalog
    inference: Inference

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        kind = scope["type"]
        if kind == "http":
            if not await self.http.serve(scope, receive, send):
                await self._serve_other(scope, receive, send)
        elif kind != "websocket" or not await self.streams.serve(scope, receive, send):
            await super().__call__(scope, receive, send)

    def openapi(self) -> dict[str, Any]:
        """Return the OpenAPI document, made when somebody first asks: it would delay the start."""
        if self.openapi_schema is None:
            document(self, self.routes_of_api.routes)
            schema = super().openapi()
            components = schema.setdefault("components", {}).setdefault("schemas", {})
            components.update(component_schemas(self.routes_of_api.routes))
        return super().openapi()

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = perf_counter()
        request_id = request_id_of(dict(scope["headers"]))
        scope.setdefault("state", {})["request_id"] = request_id
        status = 500

        async def send_named(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    (b"x-request-id", request_id.encode()),
                ]
            await send(message)

        try:
            await super().__call__(scope, receive, send_named)
        finally:
            self.http.observe(UNMATCHED, status, perf_counter() - began)


def create_app(
    engines: Mapping[str, Engine],
    *,
    repository: ModelRepository | None = None,
    repository_poll_s: float = 0.0,
    render_metrics: Callable[[], tuple[bytes, str]],
    max_body_bytes: int,
    max_sequence_steps: int,
    observe: Observe | None = None,
    admit: Admit | None = None,
) -> Application:
    """Return the application that serves engines.

    Args:
        engines: By model name; the first is the default model. They are started and drained with
            the application.
        repository: Where some of them come from, and more may.
        repository_poll_s: How often it is looked at, in seconds; 0: never.
        render_metrics: Returns the body of `/metrics` and its content type.
        max_body_bytes: A longer body or frame is refused.
        max_sequence_steps: More time steps in one request are refused; in `predict`, of all its
            sequences together.
        observe: Told of every HTTP request: the route's template, the status, and the seconds.
        admit: Looks at the headers of every request of the API and of every stream's handshake, and
            raises `UnauthenticatedError` or `ForbiddenError`; not asked for health and metrics.

    Raises:
        ValueError: There is no engine.
    """
    served = engines if isinstance(engines, ServedModels) else ServedModels(engines)
    if repository is not None:
        repository.attach(served)

    app = Application(
        title="LSTM service",
        version=_version(),
        description=DESCRIPTION,
        lifespan=_lifespan(served, repository, repository_poll_s),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        exception_handlers={HTTPException: _on_http_error, Exception: _on_fault},
    )
    app.served = served
    app.routes_of_api = build_routes(
        served, max_sequence_steps=max_sequence_steps, render_metrics=render_metrics
    )
    app.catalog = Catalog(served, repository)
    app.inference = Inference(app.catalog, max_sequence_steps=max_sequence_steps)
    v2 = v2_routes(app.catalog, app.inference, max_body_bytes=max_body_bytes)
    app.http = HttpEntrance(
        RouteTable([*app.routes_of_api.routes, *v2]),
        max_body_bytes=max_body_bytes,
        observe=observe,
        admit=admit,
    )
    app.streams = WebSocketEntrance(
        served, max_frame_bytes=max_body_bytes, max_frame_steps=max_sequence_steps, admit=admit
    )
    add_docs(app)
    return app


def _lifespan(
    served: ServedModels, repository: ModelRepository | None, repository_poll_s: float
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        for engine in dict(served).values():
            await engine.start()
        watching = None
        if repository is not None and repository_poll_s:
            watching = asyncio.create_task(repository.watch(repository_poll_s))
        yield
        assert isinstance(app, Application)
        await app.streams.close()
        if watching is not None:
            watching.cancel()
        for engine in dict(served).values():
            await engine.drain()
        if repository is not None:
            await repository.close()

    return lifespan


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    detail = "nothing is at this path; see /docs" if error.status_code == 404 else error.detail
    headers = tuple((k.lower().encode(), v.encode()) for k, v in (error.headers or {}).items())
    form = _form_of(request)
    return _response(form.of_http(error.status_code, detail, request.state.request_id, headers))


async def _on_fault(request: Request, _: Exception) -> Response:
    return _response(_form_of(request).of_service(InternalError(), request.state.request_id))


def _form_of(request: Request) -> ErrorForm:
    return http_errors.ERRORS if http_errors.is_path(request.url.path) else PROBLEMS


def _response(answer: Answer) -> Response:
    response = Response(answer.body, answer.status, media_type=answer.content_type.decode())
    response.raw_headers += answer.headers
    return response


def _version() -> str:
    try:
        return version("lstm-service")
    except PackageNotFoundError:
        return "0"
