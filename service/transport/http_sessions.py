"""The operations on sessions besides those that take steps: list, look, end."""

from __future__ import annotations

from typing import cast

from service.domain import (
    DEFAULT_TENANT,
    DeleteRequest,
    LookRequest,
    SessionKey,
    SessionReply,
    is_client_id,
)
from service.engine import Engine
from service.errors import ModelUnknownError
from service.served import ServedModels
from service.transport import render
from service.transport.calls import Call
from service.transport.explain import shorten
from service.transport.parse_steps import client_id_error
from service.transport.problem import Answer
from service.transport.query import parse_page, parse_preconditions


def find_engine(engines: ServedModels, parameters: dict[str, str]) -> Engine:
    """Return the engine that a path names, or the default one.

    Raises:
        ModelUnknownError: There is none of this name.
    """
    name = parameters.get("model", engines.default)
    engine = engines.get(name)
    if engine is None:
        raise ModelUnknownError(shorten(name), list(engines))
    return engine


def find_session(engines: ServedModels, parameters: dict[str, str]) -> tuple[Engine, SessionKey]:
    """Return the engine and the session that a path names.

    Raises:
        ModelUnknownError: There is no such model.
        InvalidRequestError: The client id is none.
    """
    engine = find_engine(engines, parameters)
    client_id = parameters["client_id"]
    if not is_client_id(client_id):
        raise client_id_error(client_id)
    return engine, SessionKey(DEFAULT_TENANT, engine.signature.model, client_id)


class SessionHandlers:
    """What the session routes do."""

    def __init__(self, engines: ServedModels) -> None:
        """Take the engines by model name, the default model's first."""
        self._engines = engines

    async def look(self, call: Call) -> Answer:
        """Tell where a session is."""
        engine, key = find_session(self._engines, call.parameters)
        reply = cast(SessionReply, await call.ask(engine, LookRequest(key=key)))
        return Answer(200, render.render_session(reply, key.client_id))

    async def delete(self, call: Call) -> Answer:
        """End a session."""
        engine, key = find_session(self._engines, call.parameters)
        position, epoch = parse_preconditions(call.query)
        await call.ask(engine, DeleteRequest(key=key, position=position, epoch=epoch))
        return Answer(204, b"")

    async def list_sessions(self, call: Call) -> Answer:
        """List a page of sessions."""
        engine = find_engine(self._engines, call.parameters)
        limit, cursor = parse_page(call.query)
        sessions, following = await engine.list_sessions(limit, cursor)
        return Answer(200, render.render_sessions(sessions, following))
