"""One Redis server: its address, its connections, and trips to it. Knows no session.

Of redis-py this uses the connections (handshake, TLS, users), and not the clients over them: their
pipelines take two to three times the time, and send commands again whose answers were lost, or, in
a cluster, were 0. A compare-and-set would then meet its own write.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, parse_url
from redis.exceptions import RedisError, ResponseError

Address = tuple[str, int]
Reply = Any
"""Bytes, an integer, None, a list of such, or a `ResponseError`, returned rather than raised."""

_MAX_CONNECTIONS = 16
"""To one server. Trips over these wait; one connection is what serves ordinary load."""
_REPLIES_A_TIMEOUT = 64


class Endpoint:
    """What a URL says: where the first server is, and how to connect to any of them.

    Attributes:
        address: Host and port of the first server; a path and 0 for a Unix socket.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        """Read a URL.

        Args:
            url: It.
            timeout_s: How long the network may hold back what was sent.

        Raises:
            ValueError: It is none. The message has nothing of it, because it may hold a password.
        """
        # Who is used to saying that it is a cluster may; it is known from the answers.
        scheme, separator, rest = url.partition("://")
        url = scheme.removesuffix("+cluster") + separator + rest
        try:
            unknown = {
                name
                for name, _ in parse_qsl(urlsplit(url).query)
                if not name.startswith("ssl_") and name != "db"
            }
            options: dict[str, Any] = {**parse_url(url)}
        except ValueError:
            raise ValueError(
                "the store's URL cannot be read; expected redis[s]://[user:password@]host:port[/db]"
                " or unix://[user:password@]/path, special characters percent-encoded"
            ) from None
        if unknown:
            raise ValueError(
                f"the store's URL has unknown options: {', '.join(sorted(unknown))}; expected db"
                " and those of redis-py that begin with ssl_"
            )
        self._connection_class = options.pop("connection_class", Connection)
        self._is_unix = "path" in options
        if self._is_unix:
            self.address: Address = (options.pop("path"), 0)
        else:
            self.address = (options.pop("host", "localhost"), options.pop("port", 6379))
            options["socket_keepalive_options"] = _keepalive(timeout_s)
        # Timeouts are the trip's. RESP2, because it needs no command but AUTH to begin with.
        timeouts = {"socket_timeout": None, "socket_connect_timeout": None}
        self._options = options | timeouts | {"protocol": 2}
        try:
            self._pattern = self._make(self.address)
        except (TypeError, RedisError):
            raise ValueError(
                "the store's URL has ssl_ options that redis-py does not know, or does not begin"
                " with rediss://"
            ) from None

    def connection(self, address: Address) -> AbstractConnection:
        """Return a connection to a server, not yet connected."""
        connection = self._make(address)
        if isinstance(self._pattern, SSLConnection) and isinstance(connection, SSLConnection):
            # Reading the authorities' certificates takes milliseconds: once is enough.
            connection.ssl_context = self._pattern.ssl_context
        return connection

    def _make(self, address: Address) -> AbstractConnection:
        host, port = address
        place = {"path": host} if self._is_unix else {"host": host, "port": port}
        return self._connection_class(**place, **self._options)


def _keepalive(timeout_s: float) -> dict[int, int]:
    """Return the socket options that tell a dead way from a quiet one.

    What is sent and not acknowledged in time must not be delivered when the way is mended, minutes
    after the caller gave it up: it would begin again a session that was ended in between.
    """
    wanted = {
        "TCP_KEEPIDLE": 30,
        "TCP_KEEPINTVL": 5,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": int(1000 * timeout_s),
    }
    # Some systems lack some of them.
    return {getattr(socket, name): v for name, v in wanted.items() if hasattr(socket, name)}


class Node:
    """A server.

    Attributes:
        address: Where it is.
    """

    def __init__(self, address: Address, endpoint: Endpoint) -> None:
        """Make ready to connect to `address` in the way of `endpoint`."""
        self.address = address
        self._endpoint = endpoint
        self._idle: list[AbstractConnection] = []
        self._generation = 0
        self._places = asyncio.Semaphore(_MAX_CONNECTIONS)

    async def trip(
        self, commands: Sequence[bytes], timeout_s: float, deadline: asyncio.Timeout
    ) -> list[Reply]:
        """Send commands in one go, and return their replies.

        A trip that does not end well, by an error, a timeout or a cancellation, ends its connection
        too: no later trip can meet a reply that is not its own.

        Args:
            commands: Packed, one reply each.
            timeout_s: How long no reply may come.
            deadline: The timeout around this; put off while replies come.

        Raises:
            RedisError: The connection failed, or the server let nobody in.
            OSError: The connection failed.
        """
        async with self._places:
            generation = self._generation
            connection = await self._connect()
            try:
                await connection.send_packed_command([b"".join(commands)])
                replies = []
                for number in range(1, len(commands) + 1):
                    try:
                        replies.append(await connection.read_response())
                    except ResponseError as error:
                        replies.append(error)
                    if number % _REPLIES_A_TIMEOUT == 0:
                        deadline.reschedule(asyncio.get_running_loop().time() + timeout_s)
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
            if generation == self._generation:
                self._idle.append(connection)
            else:
                await connection.disconnect(nowait=True)
        return replies

    async def _connect(self) -> AbstractConnection:
        while self._idle:
            connection = self._idle.pop()
            # What can be read between two trips is the end of the connection: found out here, it
            # costs a new one, and found out after sending, the outcome would be unknown.
            if not await connection.can_read():
                return connection
            await connection.disconnect(nowait=True)
        connection = self._endpoint.connection(self.address)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def disconnect(self) -> None:
        """End the connections: the idle ones now, the others after their trip."""
        self._generation += 1
        while self._idle:
            await self._idle.pop().disconnect(nowait=True)
