"""The operation that runs a session on with its own outputs."""

from __future__ import annotations

import asyncio

from service.served import ServedModels
from service.transport import render
from service.transport.calls import Call
from service.transport.http_sessions import find_session
from service.transport.parse_forecast import parse_forecast
from service.transport.problem import Answer


class ForecastHandler:
    """What the forecast routes do."""

    def __init__(self, engines: ServedModels, *, max_steps: int) -> None:
        """Take the engines by model name, the default model's first."""
        self._engines = engines
        self._max_steps = max_steps

    async def forecast(self, call: Call) -> Answer:
        """Run a session on."""
        engine, key = find_session(self._engines, call.parameters)
        body = await call.read_body()
        request = parse_forecast(body, engine.signature, key, self._max_steps)
        # A task, so that a caller who leaves cancels it.
        forecasting = asyncio.create_task(engine.forecast(request))
        return Answer(200, render.render_forecast(await call.wait(forecasting)))
