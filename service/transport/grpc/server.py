"""The gRPC server in the service's event loop: its port, its limits, its start and its end."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2

from service.transport.grpc import health, messages, service
from service.transport.grpc.health import Health
from service.transport.grpc.service import InferenceService
from service.transport.grpc.stream import Observe
from service.transport.headers import Admit
from service.transport.v2.catalog import Catalog
from service.transport.v2.inference import Inference

_OPTIONS = {
    # A second process on the same port gets an error, not a share of the calls.
    "grpc.so_reuseport": 0,
    "grpc.max_concurrent_streams": 1024,
    # A client that has gone without a word is noticed within a minute.
    "grpc.keepalive_time_ms": 40_000,
    "grpc.keepalive_timeout_ms": 20_000,
    "grpc.keepalive_permit_without_calls": 1,
    # What clients may ask as often, for the same reason.
    "grpc.http2.min_recv_ping_interval_without_data_ms": 10_000,
}


_REFUSED_UNREAD = 2
"""A message of as many times the limit is refused by grpc itself, which tells nobody: no handler is
called, and nothing is counted. A shorter one is read, and counted for the model that it names."""


class Tls(NamedTuple):
    """What the server shows.

    Attributes:
        cert: A file in PEM: the certificate, and behind it those that lead to its root.
        key: A file in PEM, its private key.
    """

    cert: Path
    key: Path


class GrpcServer:
    """The server, of which the caller says when it begins and ends."""

    def __init__(
        self,
        inference: Inference,
        catalog: Catalog,
        *,
        max_message_bytes: int,
        observe: Observe,
        admit: Admit | None = None,
    ) -> None:
        """Make a server without a port; call it in the event loop that it is to run in.

        Args:
            inference: For requests of inference.
            catalog: The models.
            max_message_bytes: A longer request of inference is refused with RESOURCE_EXHAUSTED.
            observe: Told of every call of the inference service, and of every answer in a stream.
            admit: Asked with the metadata of every call that is about models.
        """
        options = _OPTIONS | {
            "grpc.max_receive_message_length": _REFUSED_UNREAD * max_message_bytes,
            "grpc.max_send_message_length": -1,
        }
        self._server = grpc.aio.server(options=list(options.items()))
        self._service = InferenceService(
            inference,
            catalog,
            max_message_bytes=max_message_bytes,
            observe=observe,
            admit=admit,
        )
        handlers = grpc.method_handlers_generic_handler(service.NAME, self._service.handlers())
        self._server.add_generic_rpc_handlers([handlers])
        self._health = Health(catalog, [service.NAME])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        _reflect([service.NAME, health.NAME], self._server)

    def listen(self, host: str, port: int, tls: Tls | None = None) -> int:
        """Take a port; what connects waits for the start.

        Args:
            host: A name or an address.
            port: 0 for any.
            tls: None for none.

        Returns:
            The port.

        Raises:
            OSError: It cannot be taken, or the files of TLS are not what they should be.
        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        credentials = None if tls is None else _credentials(tls)
        try:
            if credentials is None:
                return self._server.add_insecure_port(address)
            return self._server.add_secure_port(address, credentials)
        except RuntimeError as error:  # what grpc raises for it
            raise OSError(f"gRPC cannot listen on {address}: {error}") from None

    async def start(self) -> None:
        """Begin to answer."""
        await self._server.start()

    async def drain(self, timeout_s: float) -> None:
        """Take no more calls, answer those in flight and the streams' requests, and end.

        Args:
            timeout_s: Calls that last longer are cut off.
        """
        stopping = asyncio.create_task(self._server.stop(timeout_s))
        self._health.close()
        self._service.close_streams()
        try:
            await asyncio.shield(stopping)
        except asyncio.CancelledError:
            await self._server.stop(None)
            raise


def _reflect(names: Iterable[str], server: grpc.aio.Server) -> None:
    """Let clients ask what there is to call."""
    pool = messages.DESCRIPTOR.pool
    for file in (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR):
        pool.AddSerializedFile(file.serialized_pb)
    reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server, pool)


def _credentials(tls: Tls) -> grpc.ServerCredentials:
    """Read what TLS needs.

    Raises:
        OSError: A file cannot be read, or they are no certificate and its key; grpc would not say.
    """
    cert, key = tls.cert.read_bytes(), tls.key.read_bytes()
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(tls.cert, tls.key)
    except ssl.SSLError as error:
        reason = error.reason or "unreadable"
        raise OSError(
            f"{tls.cert} and {tls.key} are no certificate and its key: {reason}"
        ) from None
    return grpc.ssl_server_credentials([(key, cert)])
