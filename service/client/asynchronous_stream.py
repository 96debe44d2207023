"""The awaiting face of a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from service.client.connection import Address, disconnected
from service.client.core import SessionCore
from service.client.documents import StepReply, Vector
from service.client.effects import (
    Effect,
    Frame,
    Lost,
    Open,
    Operation,
    Outcome,
    Pause,
    Receive,
    Send,
    T,
)
from service.client.stream_core import StreamCore


async def drive(operation: Operation[T], perform: Callable[[Effect], Awaitable[Outcome]]) -> T:
    """Carry out an operation of the core."""
    outcome: Outcome = None
    while True:
        try:
            effect = operation.send(outcome)
        except StopIteration as end:
            result: T = end.value
            return result
        outcome = await perform(effect)


class AsyncStream:
    """Time steps of a session over a WebSocket, several in flight, replies in order.

    It connects again and sends again what was not acknowledged. A block that ends waits for the
    replies to everything that was sent; one that ends with an error does not, and then `resume`
    tells where the session is.
    """

    def __init__(
        self, session: SessionCore, address: Address, options: Mapping[str, Any], lock: asyncio.Lock
    ) -> None:
        """Nothing is opened yet; `AsyncSession.stream` makes one for an `async with` block."""
        self._session = session
        self._core = StreamCore(session)
        self._address = address
        self._options = options
        self._lock = lock
        self._connection: ClientConnection | None = None

    async def __aenter__(self) -> Self:
        self._session.begin_stream()
        try:
            await self._drive(self._core.open())
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            # A generator that is left early is no error: what it has sent was meant.
            if kind is None or kind is GeneratorExit:
                await self._drive(self._core.drain())
        finally:
            await self._close()

    @property
    def window(self) -> int:
        """Most steps in flight, as the service allows."""
        return self._core.window

    @property
    def num_pending(self) -> int:
        """How many steps were sent whose replies were not received."""
        return self._core.num_pending

    async def send(self, inputs: Vector) -> None:
        """Send one time step, `[features]`; more than the window may be sent before receiving."""
        await self._drive(self._core.send(inputs))

    async def receive(self) -> StepReply:
        """Return the next reply, in the order of the steps.

        Raises:
            RuntimeError: No step waits for one.
        """
        return await self._drive(self._core.receive())

    async def _drive(self, operation: Operation[T]) -> T:
        async with self._lock:
            return await drive(operation, self._perform)

    async def _perform(self, effect: Effect) -> Outcome:
        if isinstance(effect, Pause):
            await asyncio.sleep(effect.seconds)
        elif isinstance(effect, Open):
            return await self._open(effect.timeout_s)
        elif isinstance(effect, Receive):
            return await self._receive(effect.timeout_s)
        elif isinstance(effect, Send) and self._connection is not None:
            # If it is broken, the next receive tells, behind what has come before.
            with suppress(ConnectionClosed, OSError):
                await self._connection.send(effect.text)
        return None

    async def _open(self, timeout_s: float) -> Lost | None:
        await self._disconnect()
        started = time.monotonic()
        url = self._address.stream(self._core.path)
        options = self._address.stream_options(self._options)
        try:
            self._connection = await connect(url, open_timeout=timeout_s, **options)
        except (OSError, EOFError, WebSocketException) as error:
            return disconnected(error, time.monotonic() - started)
        return None

    async def _receive(self, timeout_s: float) -> Frame | Lost:
        if self._connection is None:
            return Lost("not connected")
        started = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                text = await self._connection.recv()
        except TimeoutError:
            return Lost("no answer in time", time.monotonic() - started)
        except (ConnectionClosed, OSError) as error:
            return disconnected(error, time.monotonic() - started)
        return Frame(text if isinstance(text, str) else text.decode(errors="replace"))

    async def _disconnect(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _close(self) -> None:
        self._session.is_streaming = False
        await self._disconnect()
