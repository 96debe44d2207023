"""`grpc.health.v1.Health`: whether requests would be answered, asked and watched.

The whole server is called "" and the inference service by its name; both say the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service.errors import ServiceError
from service.transport.explain import shorten
from service.transport.grpc.failures import Context
from service.transport.v2.catalog import Catalog, ServedModel

NAME = "grpc.health.v1.Health"

_LOOK_EVERY_S = 1.0
"""How often a watch looks."""


async def is_ready(catalog: Catalog, model: ServedModel | None = None) -> bool:
    """Tell whether requests are welcome, to every model or to one."""
    try:
        await catalog.check_ready(model)
    except ServiceError:
        return False
    return True


class Health(health_pb2_grpc.HealthServicer):
    """The service of health, as it is at each question."""

    def __init__(self, catalog: Catalog, services: Sequence[str]) -> None:
        """Take what is asked for.

        Args:
            catalog: The models.
            services: Those that have a health, beside the whole server.
        """
        self._catalog = catalog
        self._known = ("", *services)
        self._closing = asyncio.Event()

    def close(self) -> None:
        """Be not serving from now on, and end the watches once they have said so."""
        self._closing.set()

    async def Check(  # noqa: N802 - a method of the protocol
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        """Tell the health now; NOT_FOUND for a service that is not here."""
        if request.service not in self._known:
            text = f"no service is called {shorten(request.service)!r}"
            await context.abort(grpc.StatusCode.NOT_FOUND, text)
        return health_pb2.HealthCheckResponse(status=await self._status(request.service))

    async def Watch(  # noqa: N802 - as above
        self, request: health_pb2.HealthCheckRequest, _: Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Tell the health now and whenever it changes."""
        told = None
        while True:
            is_last = self._closing.is_set()
            status = await self._status(request.service)
            if status != told:
                yield health_pb2.HealthCheckResponse(status=status)
                told = status
            if is_last:
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._closing.wait()

    async def _status(self, service: str) -> int:
        if service not in self._known:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        if self._closing.is_set() or not await is_ready(self._catalog):
            return health_pb2.HealthCheckResponse.NOT_SERVING
        return health_pb2.HealthCheckResponse.SERVING
