"""The operations of the Open Inference Protocol over HTTP besides `infer`."""

from __future__ import annotations

from typing import Any

from service.transport.calls import Call
from service.transport.explain import describe, wrong
from service.transport.problem import Answer
from service.transport.render import dump
from service.transport.v2 import metadata
from service.transport.v2.catalog import Catalog, ServedModel
from service.transport.v2.http_documents import parse_document
from service.transport.v2.sequences import read_flag


class V2Handlers:
    """What the routes of health, models and the repository do."""

    def __init__(self, catalog: Catalog) -> None:
        """Take the models."""
        self._catalog = catalog

    async def live(self, _: Call) -> Answer:
        """Say that the event loop turns."""
        return Answer(200, b"")

    async def ready(self, _: Call) -> Answer:
        """Say whether every model takes requests, and the stores commit."""
        await self._catalog.check_ready()
        return Answer(200, b"")

    async def server_metadata(self, _: Call) -> Answer:
        """Write what the server is."""
        return Answer(200, dump(metadata.server_metadata()))

    async def model_metadata(self, call: Call) -> Answer:
        """Write what a model takes and gives."""
        return Answer(200, dump(metadata.model_metadata(self._find(call))))

    async def model_ready(self, call: Call) -> Answer:
        """Say whether a model takes requests."""
        await self._catalog.check_ready(self._find(call))
        return Answer(200, b"")

    async def model_config(self, call: Call) -> Answer:
        """Write a model's configuration."""
        return Answer(200, dump(metadata.model_config(self._find(call))))

    async def model_statistics(self, call: Call) -> Answer:
        """Write what was asked of a model."""
        return Answer(200, dump(metadata.model_statistics([self._find(call)])))

    async def statistics(self, _: Call) -> Answer:
        """Write what was asked of all models."""
        return Answer(200, dump(metadata.model_statistics(self._catalog.models())))

    async def repository_index(self, call: Call) -> Answer:
        """List what is served, or could be."""
        document = await _read_optional(call)
        is_ready_only = read_flag(document, "ready", ())
        return Answer(
            200, dump(metadata.repository_index(self._catalog, is_ready_only=is_ready_only))
        )

    async def load(self, call: Call) -> Answer:
        """Serve a model, anew if it is served already."""
        document = await _read_optional(call)
        parameters = document.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise wrong(("parameters",), f"expected an object, got {describe(parameters)}")
        await self._catalog.load(call.parameters["model"], parameters)
        return Answer(200, b"")

    async def unload(self, call: Call) -> Answer:
        """Serve a model no more."""
        await _read_optional(call)
        await self._catalog.unload(call.parameters["model"])
        return Answer(200, b"")

    def _find(self, call: Call) -> ServedModel:
        parameters = call.parameters
        return self._catalog.find(parameters["model"], parameters.get("version", ""))


async def _read_optional(call: Call) -> dict[str, Any]:
    """Return the JSON object of a body that may be left out."""
    body = await call.read_body(check=None)
    return parse_document(body) if body else {}
