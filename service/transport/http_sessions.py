"""The operations on sessions: step, sequence, steps, list, look, end."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import cast

from service.domain import (
    DEFAULT_TENANT,
    AdvanceReply,
    AdvanceRequest,
    DeleteRequest,
    LookRequest,
    Reply,
    SessionKey,
    SessionReply,
    is_client_id,
)
from service.engine import Engine
from service.errors import (
    DrainingError,
    ModelUnknownError,
    NotStreamableError,
    ServiceError,
)
from service.transport import binary_steps, render, slices
from service.transport.calls import Call, ClientGoneError, check_plain
from service.transport.explain import shorten
from service.transport.parse import parse_sequence, parse_step
from service.transport.parse_steps import Row, client_id_error, parse_steps
from service.transport.problem import Answer
from service.transport.query import parse_page, parse_preconditions

Engines = Mapping[str, Engine]

MAX_ROWS_IN_FLIGHT = 256
"""Most places in the engine's queue that one request takes."""


def find_engine(engines: Engines, parameters: dict[str, str]) -> Engine:
    """Return the engine that a path names, or the default one.

    Raises:
        ModelUnknownError: There is none of this name.
    """
    name = parameters.get("model")
    if name is None:
        return next(iter(engines.values()))
    engine = engines.get(name)
    if engine is None:
        raise ModelUnknownError(shorten(name), list(engines))
    return engine


def find_session(engines: Engines, parameters: dict[str, str]) -> tuple[Engine, SessionKey]:
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

    def __init__(self, engines: Engines, *, max_sequence_steps: int) -> None:
        """Take the engines by model name, the default model's first."""
        self._engines = engines
        self._max_sequence_steps = max_sequence_steps
        self._turns = slices.Turns()

    async def step(self, call: Call) -> Answer:
        """Take one time step."""
        engine, key = find_session(self._engines, call.parameters)
        request = parse_step(await call.read_body(), engine.signature, key)
        return await _advance(call, engine, request)

    async def sequence(self, call: Call) -> Answer:
        """Take many time steps."""
        engine, key = find_session(self._engines, call.parameters)
        body = await call.read_body()
        if len(body) <= slices.LARGE_BODY_BYTES:
            request = parse_sequence(body, engine.signature, key, self._max_sequence_steps)
        else:
            request = await self._turns.run(
                slices.parse_sequence_in_slices(
                    body, engine.signature, key, self._max_sequence_steps
                )
            )
        reply = cast(AdvanceReply, await call.ask(engine, request))
        if reply.outputs.size <= slices.LARGE_ANSWER_VALUES:
            return Answer(200, render.render_advance(reply, engine.signature))
        rendering = slices.render_advance_in_slices(reply, engine.signature)
        return Answer(200, await self._turns.run(rendering))

    async def steps(self, call: Call) -> Answer:
        """Take one time step of many sessions."""
        engine = find_engine(self._engines, call.parameters)
        if binary_steps.is_binary_steps(call.headers):
            body = await call.read_body(check_plain)
            rows = binary_steps.parse_binary_steps(body, engine.signature)
            results = await _ask_all(call, engine, rows)
            answer = binary_steps.render_binary_steps(results, engine.signature.output_size)
            return Answer(200, answer, binary_steps.MEDIA_TYPE.encode())
        rows = parse_steps(await call.read_body(), engine.signature)
        return Answer(200, render.render_steps(await _ask_all(call, engine, rows)))

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


async def _advance(call: Call, engine: Engine, request: AdvanceRequest) -> Answer:
    reply = cast(AdvanceReply, await call.ask(engine, request))
    return Answer(200, render.render_advance(reply, engine.signature))


async def _ask_all(
    call: Call, engine: Engine, rows: list[Row]
) -> list[AdvanceReply | ServiceError]:
    """Ask for every good row, a slice at a time, so that others find room in the queue.

    Raises:
        NotStreamableError: The model has no sessions.
        DrainingError: The engine takes no rows at all.
        ClientGoneError: The caller left first; the rows of the later slices are not applied.
    """
    results: list[Reply | ServiceError | None] = [
        row if isinstance(row, ServiceError) else None for row in rows
    ]
    good = [(index, row) for index, row in enumerate(rows) if not isinstance(row, ServiceError)]
    for start in range(0, len(good), MAX_ROWS_IN_FLIGHT):
        part = good[start : start + MAX_ROWS_IN_FLIGHT]
        await _ask_slice(call, engine, part, results, is_first=start == 0)
    return cast(list[AdvanceReply | ServiceError], results)


async def _ask_slice(
    call: Call,
    engine: Engine,
    rows: list[tuple[int, AdvanceRequest]],
    results: list[Reply | ServiceError | None],
    *,
    is_first: bool,
) -> None:
    """Submit rows, wait for all the answers, and put them into their places in `results`.

    Raises:
        NotStreamableError: The model has no sessions.
        DrainingError: The engine takes no rows, and this is the first slice.
        ClientGoneError: The caller left first.
    """
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    num_waiting = len(rows)

    def complete(index: int, result: Reply | ServiceError) -> None:
        nonlocal num_waiting
        if isinstance(result, ServiceError):
            # It holds the frames that it passed, and those hold these results: a cycle.
            result.__traceback__ = None
        results[index] = result
        num_waiting -= 1
        if not num_waiting and not answered.done():
            answered.set_result(None)

    jobs = []
    try:
        for index, row in rows:
            try:
                jobs.append(engine.submit(row, partial(complete, index)))
            except ServiceError as error:
                if is_first and isinstance(error, NotStreamableError | DrainingError):
                    raise
                complete(index, error)
        await call.wait(answered)
    except (asyncio.CancelledError, ClientGoneError, ServiceError):
        for job in jobs:
            job.cancel()
        raise
