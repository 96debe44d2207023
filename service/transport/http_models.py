"""The operations on models and on the process: health, metrics, models, predict."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from service.served import ServedModels
from service.transport import render
from service.transport.calls import Call
from service.transport.http_sessions import find_engine
from service.transport.parse import parse_predict
from service.transport.problem import Answer

RenderMetrics = Callable[[], tuple[bytes, str]]
"""Returns the body of `/metrics` and its content type."""


class ModelHandlers:
    """What the routes of models and of the process do."""

    def __init__(
        self, engines: ServedModels, *, max_sequence_steps: int, render_metrics: RenderMetrics
    ) -> None:
        """Take the engines by model name, the default model's first."""
        self._engines = engines
        self._max_sequence_steps = max_sequence_steps
        self._render_metrics = render_metrics

    async def healthz(self, _: Call) -> Answer:
        """Say that the event loop turns."""
        return Answer(200, b'{"status":"ok"}')

    async def readyz(self, _: Call) -> Answer:
        """Say whether every engine takes requests, and the store commits."""
        await self._engines.check_ready()
        return Answer(200, b'{"status":"ready"}')

    async def metrics(self, _: Call) -> Answer:
        """Write the metrics."""
        body, content_type = self._render_metrics()
        return Answer(200, body, content_type.encode())

    async def list_models(self, _: Call) -> Answer:
        """Write every model's signature."""
        signatures = [engine.signature for engine in self._engines.values()]
        return Answer(200, render.render_models(signatures, self._engines.default))

    async def get_model(self, call: Call) -> Answer:
        """Write a model's signature."""
        engine = find_engine(self._engines, call.parameters)
        return Answer(200, render.render_model(engine.signature))

    async def predict(self, call: Call) -> Answer:
        """Run whole sequences without a session."""
        engine = find_engine(self._engines, call.parameters)
        body = await call.read_body()
        inputs, mask = parse_predict(body, engine.signature, self._max_sequence_steps)
        # A task, so that a caller who leaves cancels it.
        predicting = asyncio.create_task(engine.predict(inputs, mask, call.timeout_s))
        return Answer(200, render.render_predict(await call.wait(predicting)))
