"""The process: settings to models, engines and a listening server, and its orderly end."""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import TYPE_CHECKING, Literal

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.app import Application, create_app
from service.choices import runtime_choice
from service.limits import EngineLimits
from service.model_files import ModelFileError, bundled_models
from service.models import ModelLoader
from service.opening import Lifetimes
from service.repository import ModelRepository
from service.served import ServedModels
from service.settings import SettingError, Settings
from service.storage import build_store
from service.stores.base import SessionStore
from service.stores.watched import WatchedStore
from service.stores.write_behind import WriteBehindStore
from service.telemetry import Telemetry
from service.transport.uvicorn_versions import is_extended
from service.transport.websocket import stream_protocol

if TYPE_CHECKING:
    from service.transport.grpc.server import GrpcServer

log = logging.getLogger(__name__)

_KEEP_ALIVE_S = 75
"""Longer than balancers keep their connections, so that it is they who close them."""


_LINGER_TICK_S = 0.1
"""How often a server that is about to drain looks whether it is to do so at once."""


class Server(uvicorn.Server):
    """uvicorn, but it goes on for a while, not ready, before it ends.

    Streams are closed before it closes their sockets.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        app: Application,
        store: SessionStore,
        listen_grpc: Callable[[], GrpcServer] | None = None,
        *,
        shutdown_delay_s: float = 0.0,
    ) -> None:
        """Serve `app`, which `config` may have wrapped, over its engines' store.

        Args:
            config: How.
            app: What.
            store: That of its engines.
            listen_grpc: Makes the server of gRPC, with its port, in the event loop; None: no gRPC.
            shutdown_delay_s: How long it goes on after SIGTERM, before it takes nothing more.
        """
        super().__init__(config)
        self._app = app
        self._store = store
        self._listen_grpc = listen_grpc
        self._grpc: GrpcServer | None = None
        self._shutdown_delay_s = shutdown_delay_s

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve with an open store, and close it last.

        Raises:
            OSError: gRPC cannot have its port.
        """
        if self._listen_grpc is not None:
            self._grpc = self._listen_grpc()
        await self._store.open()
        try:
            await super().serve(sockets)
        finally:
            await self._store.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, and gRPC behind it: the engines run by then."""
        await super().startup(sockets)
        if self._grpc is not None and self.started:
            await self._grpc.start()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End as uvicorn does; who interrupts by hand waits for no balancer."""
        if sig == signal.SIGINT and self._shutdown_delay_s:
            self._shutdown_delay_s = 0.0
            if self.should_exit:
                return  # it ends this wait only: uvicorn would drop what is in flight
        super().handle_exit(sig, frame)

    async def main_loop(self) -> None:
        """Serve until it shall end, and then a while longer, not ready.

        Whoever asks is told so by every protocol, and what comes all the same is answered: a
        balancer takes its time to send nothing more.
        """
        await super().main_loop()
        self._app.served.is_leaving = True
        if self._shutdown_delay_s:
            log.info("not ready any more; it drains in %g s", self._shutdown_delay_s)
        loop = asyncio.get_running_loop()
        began = loop.time()
        while loop.time() - began < self._shutdown_delay_s:
            await asyncio.sleep(_LINGER_TICK_S)
            await self.on_tick(0)  # keeps the clock of the answers' `date`
        self._shutdown_delay_s = 0.0

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more, let streams answer what they have taken, then end as uvicorn does.

        Requests in flight are answered, each as the last one of its connection, and the application
        is shut down last, all of it within the configured time; a second interrupt ends the
        waiting.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + (self.config.timeout_graceful_shutdown or 0)
        for listener in self.servers:
            listener.close()
        # What waits for its next request is closed before that comes: nobody is answered with 503.
        for connection in list(self.server_state.connections):
            if isinstance(connection, HttpToolsProtocol):
                connection.shutdown()
        closing = asyncio.gather(self._app.streams.close(), self._drain_grpc(deadline))
        while not (closing.done() or self.force_exit or loop.time() > deadline):
            await asyncio.wait([closing], timeout=0.1)
        # The clients of streams that are still open do not read; they are cut off.
        closing.cancel()
        with suppress(asyncio.CancelledError):
            await closing
        self.config.timeout_graceful_shutdown = max(0, math.ceil(deadline - loop.time()))
        await super().shutdown(sockets)

    async def _drain_grpc(self, deadline: float) -> None:
        if self._grpc is not None:
            await self._grpc.drain(deadline - asyncio.get_running_loop().time())


def spare_collections() -> None:
    """Keep the cyclic garbage collector from stopping the event loop for long.

    Sessions and their answers hold no cycles, so they are freed by their reference counts, while a
    full collection would walk every session that there is. What the start has built is taken out of
    its sight, and the rest is looked at more seldom.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: Everything that the operator decides.

    Returns:
        The exit status: 0 after an orderly end, 1 where the server could not start.

    Raises:
        ModelFileError: A model cannot be served.
        SettingError: gRPC is asked for, and not installed.
        OSError: gRPC cannot have its port, or its files of TLS are not what they should be.
    """
    log.info("settings: %s", settings.model_dump_json())
    watched = WatchedStore(build_store(settings))
    ahead = None
    if settings.durability == "async":
        ahead = WriteBehindStore(
            watched, max_steps=settings.async_max_steps, max_ms=settings.async_max_ms
        )
    store = ahead or watched
    served, repository = _load_models(settings, store)
    telemetry = Telemetry(served, watched, ahead)
    watched.observe_trip = telemetry.observe_trip
    app = create_app(
        served,
        repository=repository,
        repository_poll_s=settings.repository_poll_s,
        render_metrics=telemetry.render,
        observe=telemetry.observe,
        max_body_bytes=settings.max_body_bytes,
        max_sequence_steps=settings.max_sequence_steps,
    )
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=_http_protocol(app, settings.transfer_timeout_s, telemetry),
        timeout_keep_alive=_KEEP_ALIVE_S,
        ws=stream_protocol(app.streams),
        ws_max_size=settings.max_body_bytes,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=settings.drain_timeout_s,
    )
    server = Server(
        config,
        app,
        store,
        _grpc_of(settings, app, telemetry),
        shutdown_delay_s=settings.shutdown_delay_s,
    )
    spare_collections()
    # uvicorn raises the signal that ended it once more at its end, to whoever had it before.
    for caught in (signal.SIGINT, signal.SIGTERM):
        signal.signal(caught, server.handle_exit)
    with suppress(SystemExit):  # of a start that failed, for a reason that is in the log
        server.run()
    return 0 if server.started else 1


def _http_protocol(
    app: Application, transfer_timeout_s: float, telemetry: Telemetry
) -> type[asyncio.Protocol] | Literal["httptools"]:
    """Return what uvicorn's `http` shall be: the class that answers hot routes, if it fits."""
    if not is_extended("plain requests"):
        return "httptools"
    # Another uvicorn may lack what it extends.
    from service.transport.http_protocol import hot_protocol  # noqa: PLC0415
    from service.transport.patience import Patience  # noqa: PLC0415

    patience = Patience(idle_s=_KEEP_ALIVE_S, transfer_s=transfer_timeout_s)
    return hot_protocol(app.http, patience, telemetry.note_refusal)


def _grpc_of(
    settings: Settings, app: Application, telemetry: Telemetry
) -> Callable[[], GrpcServer] | None:
    """Return what makes the server of gRPC, if there is to be one.

    Raises:
        SettingError: It is not installed.
    """
    port = settings.grpc_port
    if port is None:
        return None
    try:
        from service.transport.grpc.server import GrpcServer, Tls  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise SettingError(f"--grpc-port: {error}") from error

    tls = None
    if settings.grpc_tls_cert is not None and settings.grpc_tls_key is not None:
        tls = Tls(settings.grpc_tls_cert, settings.grpc_tls_key)

    def listen() -> GrpcServer:
        server = GrpcServer(
            app.inference,
            app.catalog,
            max_message_bytes=settings.max_body_bytes,
            observe=telemetry.observe_call,
        )
        taken = server.listen(settings.host, port, tls)
        log.info("gRPC on %s:%d, %s", settings.host, taken, "with TLS" if tls else "without TLS")
        return server

    return listen


def _load_models(
    settings: Settings, store: SessionStore
) -> tuple[ServedModels, ModelRepository | None]:
    limits = EngineLimits(
        max_batch_rows=settings.max_batch_rows,
        max_pending=settings.max_pending,
        arena_rows=settings.arena_rows,
        max_wait_us=settings.max_wait_us,
    )
    lifetimes = Lifetimes(
        ttl_s=settings.default_ttl_s, tombstone_s=settings.tombstone_s, idle_s=settings.idle_s
    )
    loader = ModelLoader(
        store=store, limits=limits, lifetimes=lifetimes, choice=runtime_choice(settings)
    )
    models, repository = settings.model, None
    if settings.model_repository is not None:
        repository = ModelRepository(settings.model_repository, loader)
    elif not models:
        models = {name: (path,) for name, path in bundled_models().items()}
    engines = loader.engines(models)
    default = next(iter(engines), None)
    if repository is not None:
        for name, engine in repository.read_all().items():
            if name in engines:
                raise ModelFileError(
                    f"model {name!r} is given twice, by --model and in a repository"
                )
            engines[name] = engine
        # Also where it cannot be served now: its sessions would else go to another model.
        default = default or repository.index()[0].name
    for name, engine in engines.items():
        signature = engine.signature
        log.info("model %s runs on %s: %s", name, signature.runtime, signature.runtime_reason)
        for layer in signature.layers:
            if layer.kernel is not None:
                log.info(
                    "model %s: %s runs on kernel %s, %s: %s",
                    name, layer.name, layer.kernel, layer.device, layer.reason,
                )  # fmt: skip
    return ServedModels(engines, default), repository
