"""One call of `ModelStreamInfer`: requests of any sequences, several in flight, answers in order.

Unlike a stream of `/v1`, an error ends its request only: the protocol keeps the stream open. What
follows it in the same sequence is applied, unless it names its position.

Answers are written one at a time. What comes meanwhile is held until they are out, and then begins
together: a tick of many steps costs little more than a tick of one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from time import perf_counter

from service.errors import DrainingError, ServiceError
from service.transport.grpc.conversion import id_of, write_stream_error, write_stream_reply
from service.transport.grpc.failures import Context, abort, as_service_error, code_of
from service.transport.grpc.known_heads import KnownHeads
from service.transport.v2.inference import Inference
from service.transport.v2.messages import InferReply, InferRequest
from service.transport.work import Work

NAME = "ModelStreamInfer"
MAX_IN_FLIGHT = 256
"""Most requests of a stream that are read and not answered; what comes behind them waits unread."""

Observe = Callable[[str, str, float], None]
"""Takes a method, the name of a status code, and the seconds that it took."""


@dataclass(slots=True, eq=False)
class _Asked:
    """A request that is not answered yet.

    Attributes:
        data: Its message.
        began_at: When it was read, in seconds of `perf_counter`.
        id: Its own name.
        is_typed: Whether its tensors are written out by type.
        work: What is done for it, until there is a result.
        result: What came of it.
    """

    data: bytes
    began_at: float
    id: str = ""
    is_typed: bool = False
    work: Work | None = None
    result: InferReply | ServiceError | None = None


class InferStream:
    """The requests of one call on their way, in the order in which they came."""

    def __init__(
        self,
        inference: Inference,
        heads: KnownHeads,
        context: Context,
        *,
        max_bytes: int,
        observe: Observe,
    ) -> None:
        """Begin with nothing.

        Args:
            inference: What answers the requests.
            heads: What reads them.
            context: Of the call.
            max_bytes: Most bytes of requests in flight, but for the last one read.
            observe: Told of every answer.
        """
        self._inference = inference
        self._heads = heads
        self._context = context
        self._max_bytes = max_bytes
        self._observe = observe
        # None where the caller waits for any time, whatever the types say.
        left_s: float | None = context.time_remaining()
        self._loop = asyncio.get_running_loop()
        self._ends_at = None if left_s is None else self._loop.time() + left_s
        self._in_flight: deque[_Asked] = deque()
        self._num_bytes = 0
        # Requests that came while answers were being written: they begin together behind those.
        self._held: list[_Asked] = []
        self._is_writing = False
        self._change: asyncio.Future[None] | None = None
        self._has_room = asyncio.Event()
        self._reading: asyncio.Task[None] | None = None
        self._is_closing = False

    async def answers(self, requests: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Answer the requests that come, until the caller has no more or the stream is closed."""
        self._reading = asyncio.create_task(self._read(requests))
        self._reading.add_done_callback(lambda _: self._tell())
        in_flight = self._in_flight
        try:
            while True:
                while in_flight and (result := in_flight[0].result) is not None:
                    self._is_writing = True
                    yield self._answer(in_flight.popleft(), result)
                self._is_writing = False
                if self._held:
                    self._begin_held()
                elif in_flight or not (self._reading.done() or self._is_closing):
                    await self._wait()
                else:
                    break
        finally:
            self._reading.cancel()
            for asked in in_flight:
                if asked.work is not None:
                    asked.work.cancel()
            in_flight.clear()  # what completes them holds this
        if self._is_closing:
            await abort(self._context, DrainingError())
        self._reading.result()

    def close(self) -> None:
        """Read no more, answer what was read, and end the call."""
        self._is_closing = True
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self, requests: AsyncIterator[bytes]) -> None:
        async for data in requests:
            if self._is_closing:
                return
            asked = _Asked(data, perf_counter())
            self._in_flight.append(asked)
            self._num_bytes += len(data)
            if self._is_writing:
                self._held.append(asked)
            else:
                self._begin(asked)
            while len(self._in_flight) >= MAX_IN_FLIGHT or self._num_bytes > self._max_bytes:
                self._has_room.clear()
                await self._has_room.wait()

    def _begin_held(self) -> None:
        held, self._held = self._held, []
        for asked in held:
            self._begin(asked)

    def _begin(self, asked: _Asked) -> None:
        try:
            request, asked.is_typed = self._heads.read(asked.data)
            asked.id = request.id
            left_s = self._left_s(asked, request)
            asked.work = self._inference.infer(request, partial(self._complete, asked), left_s)
        except Exception as error:  # noqa: BLE001 - the guard: the caller is told, the stream goes on
            asked.id = asked.id or id_of(asked.data)
            self._complete(asked, as_service_error(error, NAME))

    def _left_s(self, asked: _Asked, request: InferRequest) -> float | None:
        """Return how many seconds a request may wait still, None for any time."""
        left_s = None if self._ends_at is None else self._ends_at - self._loop.time()
        timeout_us = request.parameters.get("timeout")
        if type(timeout_us) is int and timeout_us > 0:
            # It counts from when the request was read; it may have been held since.
            own_s = timeout_us / 1e6 - (perf_counter() - asked.began_at)
            left_s = own_s if left_s is None else min(left_s, own_s)
        return left_s

    def _complete(self, asked: _Asked, result: InferReply | ServiceError) -> None:
        asked.work = None  # which holds this in what completes it: a cycle
        asked.result = result
        # None is in flight any more where the call was cancelled.
        if self._in_flight and asked is self._in_flight[0]:
            self._tell()

    def _tell(self) -> None:
        change, self._change = self._change, None
        if change is not None and not change.done():
            change.set_result(None)

    async def _wait(self) -> None:
        """Wait for the first answer in order, or for the end of the requests."""
        # An event would ask which loop runs, and with it the system, for each step.
        self._change = self._loop.create_future()
        await self._change

    def _answer(self, asked: _Asked, result: InferReply | ServiceError) -> bytes:
        self._num_bytes -= len(asked.data)
        self._has_room.set()
        code = "OK"
        if isinstance(result, ServiceError):
            # It holds the frames that it passed, and those hold it: a cycle with the inputs in it.
            result.__traceback__ = None
            code = code_of(result).name
            answer = write_stream_error(result, asked.id)
        else:
            answer = write_stream_reply(result, is_typed=asked.is_typed)
        self._observe(NAME, code, perf_counter() - asked.began_at)
        return answer
