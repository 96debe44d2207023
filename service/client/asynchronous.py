"""The awaiting face, and the network of an asyncio event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Self

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from service.client.documents import Place, Vector
from service.client.exchange import Exchange, RetryPolicy
from service.client.network import (
    Address,
    Answer,
    Frame,
    Lost,
    disconnected,
    frame_bytes,
    unanswered,
)
from service.client.numbering import Numbering
from service.client.session import SessionCore
from service.client.stream import AsyncStream, block_size, blocks


class AsyncSession(SessionCore):
    """A `Session` whose calls are awaited, and which the tasks of one event loop may share."""

    def __init__(
        self,
        url: str,
        client_id: str,
        model: str | None = None,
        *,
        timeout_s: float = 10.0,
        deadline_s: float = 30.0,
        position: int = 0,
        epoch: int | None = None,
        headers: Mapping[str, str] | None = None,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """Nothing is sent yet; the arguments are those of `Session`."""
        self._address = Address(url, headers)
        self._given_http = http
        self._http = http or httpx.AsyncClient(verify=self._address.is_encrypted)
        policy = RetryPolicy(timeout_s, deadline_s)
        exchange = Exchange(policy, _Network(self._address, self._http))
        place = Place(position, epoch)
        super().__init__(model, Numbering(client_id, model, place, exchange, asyncio.Lock()))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def fork(self, new_client_id: str) -> AsyncSession:
        """Begin a second session from this one's state; to be closed as this one."""
        place = await self._fork_place(new_client_id)
        return AsyncSession(
            self._address.url,
            new_client_id,
            self._model,
            timeout_s=self._exchange.policy.timeout_s,
            deadline_s=self._exchange.policy.deadline_s,
            position=place.position,
            epoch=place.epoch,
            headers=self._address.headers,
            http=self._given_http,
        )

    def stream(self) -> AsyncStream:
        """Return a stream for an `async with` block; it alone may step meanwhile."""
        return AsyncStream(self._numbering)

    async def stream_steps(
        self, inputs: Iterable[Vector] | AsyncIterable[Vector], max_in_flight: int | None = None
    ) -> AsyncIterator[list[float]]:
        """Stream time steps, and yield the outputs of each, in order. See `Session.stream_steps`.

        To leave it early and step on, wrap it in `contextlib.aclosing`: the stream ends with it.
        """
        async with self.stream() as stream:
            most = min(max_in_flight or stream.window, stream.window)
            size = block_size(inputs, most)
            async for block in _blocks(inputs, size):
                await stream.send_many(block)
                while stream.num_pending > most - size:
                    yield (await stream.receive()).outputs
            while stream.num_pending:
                yield (await stream.receive()).outputs

    async def close(self) -> None:
        """Close the connections; the session itself stays."""
        if self._given_http is None:
            await self._http.aclose()


class _Network:
    def __init__(self, address: Address, http: httpx.AsyncClient) -> None:
        self._address = address
        self._http = http
        self._socket: ClientConnection | None = None

    async def request(
        self, method: str, path: str, body: bytes | None, timeout_s: float
    ) -> Answer | Lost:
        ends_at = time.monotonic() + timeout_s
        content = bytearray()
        try:
            async with self._http.stream(
                method, **self._address.request(path, body), timeout=timeout_s
            ) as response:
                async for part in response.aiter_bytes():
                    content += part
                    if time.monotonic() > ends_at:
                        return Lost("no whole answer in time")
        except httpx.RequestError as error:
            return unanswered(error)
        return Answer(response.status_code, response.headers, bytes(content))

    async def connect(self, path: str, timeout_s: float) -> Lost | None:
        await self.disconnect()
        try:
            self._socket = await connect(**self._address.stream(path, timeout_s))
        except (OSError, EOFError, WebSocketException) as error:
            return disconnected(error)
        return None

    async def send(self, frames: Sequence[Frame]) -> None:
        socket = self._socket
        if socket is not None and frames:
            with suppress(ConnectionClosed, OSError):
                async with socket.send_context():
                    socket.transport.write(frame_bytes(socket.protocol, frames))

    async def receive(self, timeout_s: float) -> Frame | Lost:
        if self._socket is None:
            return Lost("not connected")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._socket.recv()
        except TimeoutError:
            return Lost("no answer in time")
        except (ConnectionClosed, OSError) as error:
            return disconnected(error)

    async def disconnect(self) -> None:
        if self._socket is not None:
            socket, self._socket = self._socket, None
            await socket.close()

    async def pause(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def _blocks(
    inputs: Iterable[Vector] | AsyncIterable[Vector], size: int
) -> AsyncIterator[list[Vector]]:
    if isinstance(inputs, AsyncIterable):
        async for step in inputs:
            yield [step]
        return
    for block in blocks(inputs, size):
        yield block
