"""The OpenAPI document of a table of routes, by FastAPI, and `/docs` without the internet.

Owns how a route is documented. Knows no handler, and serves none of the routes.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
)
from starlette.routing import Match

from service import errors
from service.domain import CLIENT_ID_PATTERN
from service.transport.calls import Scope
from service.transport.headers import OPENAPI_TIMEOUT
from service.transport.problem_examples import problem_example
from service.transport.replies import ProblemDocument
from service.transport.routing import Route
from service.transport.status import STATUS

_REF = "#/components/schemas/{model}"
_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
_PATH_PARAMETERS: dict[str, dict[str, Any]] = {
    "model": {"description": "The model's name.", "schema": {"type": "string"}},
    "client_id": {
        "description": "Whose session; percent-encoded where it must be.",
        "schema": {"type": "string", "pattern": CLIENT_ID_PATTERN},
        "example": "pump-1",
    },
}


class DocumentedRoute(APIRoute):
    """A route that FastAPI documents and our own entrance serves."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:  # noqa: ARG002 - FastAPI's signature
        """Leave every request alone."""
        return Match.NONE, {}


def document(app: FastAPI, routes: Iterable[Route]) -> None:
    """Put routes into an application's OpenAPI document."""
    for route in routes:
        app.router.routes.append(
            DocumentedRoute(
                route.template,
                _documented_only,
                methods=[route.method],
                operation_id=route.name,
                name=route.name,
                summary=route.summary,
                description=route.description or f"{route.summary}.",
                tags=[route.tag],
                status_code=route.reply_status,
                response_description="Done.",
                response_class=PlainTextResponse if route.is_reply_text else JSONResponse,
                openapi_extra=_operation(route),
            )
        )


def component_schemas(routes: Iterable[Route]) -> dict[str, Any]:
    """Return the schemas that the operations refer to, by name."""
    models: set[type[BaseModel]] = {ProblemDocument}
    for route in routes:
        models.update(route.bodies)
        if route.reply is not None:
            models.add(route.reply)
    ordered = sorted(models, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(m, "validation") for m in ordered], ref_template=_REF)
    schemas: dict[str, Any] = definitions["$defs"]
    return schemas


def add_docs(app: FastAPI) -> None:
    """Serve `/docs`, with every file that it needs."""

    async def docs(request: Request) -> Response:
        root = request.scope.get("root_path", "").rstrip("/")
        return HTMLResponse(
            get_swagger_ui_html(
                openapi_url=f"{root}{app.openapi_url}",
                title=app.title,
                swagger_js_url=f"{root}/docs/swagger-ui-bundle.js",
                swagger_css_url=f"{root}/docs/swagger-ui.css",
                swagger_favicon_url=f"{root}/docs/favicon.png",
            ).body
        )

    app.add_route("/docs", docs, include_in_schema=False)
    for name, media_type in _ASSETS.items():
        app.add_route(f"/docs/{name}", _asset(name, media_type), include_in_schema=False)


def _asset(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    async def asset(_: Request) -> Response:
        return FileResponse(_assets_folder() / name, media_type=media_type)

    return asset


@cache
def _assets_folder() -> Path:
    # The package's wheel holds Swagger UI's files; only they are wanted, so it is not imported.
    spec = importlib.util.find_spec("fastapi_offline")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("/docs needs the files of: pip install fastapi-offline")
    return Path(spec.origin).parent / "static"


async def _documented_only(request: Request) -> Response:  # noqa: ARG001 - FastAPI reads it
    raise AssertionError("served by HttpEntrance")


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "parameters": [
            *_path_parameters(route),
            *route.query,
            *([OPENAPI_TIMEOUT] if route.has_timeout else []),
        ],
        "responses": {str(route.reply_status): _reply(route), **_problems(route)},
    }
    if route.bodies:
        refs = [{"$ref": _REF.format(model=body.__name__)} for body in route.bodies]
        operation["requestBody"] = {
            "required": route.is_body_required,
            "content": {
                "application/json": {
                    "schema": refs[0] if len(refs) == 1 else {"anyOf": refs},
                    "examples": _examples(route.bodies),
                },
                **_binary(route.binary_bodies),
            },
        }
    return operation


def _examples(bodies: Iterable[type[BaseModel]]) -> dict[str, Any]:
    return {
        f"{body.__name__}-{index}": {"value": example}
        for body in bodies
        for index, example in enumerate(body.model_json_schema().get("examples", []), start=1)
    }


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, **details}
        for name, details in _PATH_PARAMETERS.items()
        if f"{{{name}}}" in route.template
    ]


def _reply(route: Route) -> dict[str, Any]:
    if route.reply is None:
        return {"description": "Done."}
    description = (route.reply.__doc__ or "").strip()
    content = {
        "schema": {"$ref": _REF.format(model=route.reply.__name__)},
        "examples": _examples([route.reply]),
    }
    contents = {"application/json": content, **_binary(route.binary_replies)}
    return {"description": description, "content": contents}


def _binary(kinds: Mapping[str, str]) -> dict[str, Any]:
    return {
        media_type: {"schema": {"type": "string", "format": "binary", "description": what}}
        for media_type, what in kinds.items()
    }


def _problems(route: Route) -> dict[str, Any]:
    kinds = [*route.errors, errors.InvalidRequestError, errors.InternalError]
    if route.has_timeout:
        kinds.append(errors.DeadlineExceededError)
    if route.bodies:
        kinds += [errors.BodyTooLargeError, errors.UnsupportedMediaTypeError]
    by_status: dict[int, list[type[errors.ServiceError]]] = {}
    for kind in dict.fromkeys(kinds):
        by_status.setdefault(STATUS[kind].http, []).append(kind)
    ref = {"$ref": _REF.format(model=ProblemDocument.__name__)}
    return {
        str(status): {
            "description": ", ".join(f"`{kind.code}`" for kind in kinds_of_status),
            "content": {
                "application/problem+json": {
                    "schema": ref,
                    "examples": {k.code: {"value": problem_example(k)} for k in kinds_of_status},
                }
            },
        }
        for status, kinds_of_status in sorted(by_status.items())
    }
