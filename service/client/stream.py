"""A stream as its client sees it: what is in flight, and what is sent again on a new connection.

No socket, as in `session`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence, Sized
from dataclasses import dataclass
from functools import wraps
from itertools import islice
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from service.client.documents import Hello, Place, StepReply, Vector, decode, read
from service.client.errors import (
    ClientError,
    ProtocolError,
    SessionUnknownError,
    error_of,
    is_passing,
)
from service.client.exchange import Backoff
from service.client.frames import plain, read_binary, write_binary, write_text
from service.client.network import Frame, Lost
from service.client.numbering import Numbering
from service.client.session import STEP

MAX_STORED_ANSWER_BYTES = 16 * 1024
"""A service keeps longer answers for the last step only, so that no more may be in doubt."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(slots=True)
class _InFlight:
    """A step that is not answered yet.

    Attributes:
        position: From where it starts.
        values: Its inputs, as `plain` has them.
        num_sent: How often it was sent.
        is_binary: Whether the last time was in a binary frame, which is answered by one.
    """

    position: int
    values: Any
    num_sent: int = 0
    is_binary: bool = False


def _in_turn(
    method: Callable[Concatenate[AsyncStream, P], Awaitable[T]],
) -> Callable[Concatenate[AsyncStream, P], Coroutine[Any, Any, T]]:
    """Let calls of several tasks take turns, and refuse them outside of the block."""

    @wraps(method)
    async def call(self: AsyncStream, /, *args: P.args, **kwargs: P.kwargs) -> T:
        async with self._numbering.lock:
            if not self._is_open:
                raise RuntimeError("the stream is not open: use it inside of its with block")
            return await method(self, *args, **kwargs)

    return call


class AsyncStream:
    """A `Stream` whose calls are awaited."""

    # A step that may have been applied already, or begins the session, is sent as text: it names
    # its position, so that it is replayed and never applied twice, and its answer tells whether it
    # was, and in which life. Every other step is a binary frame. The service counts those on from
    # where the session was in its hello, or from the text frame before, and expects its epoch: what
    # `_greet` has compared with where we are.
    # A connection that breaks is noticed by what is received, and by nothing else: so all answers
    # that have come are read before anything is sent again.

    def __init__(self, numbering: Numbering) -> None:
        """Nothing is opened yet; `stream` of a session makes one for a `with` block."""
        self._numbering = numbering
        self._is_open = False
        self._exchange = numbering.exchange
        self._network = numbering.exchange.network
        self._window = 1
        self._input_size = self._output_size = 0
        # Steps before it may have been applied by an earlier call whose answer was lost.
        self._doubted_until: int | None = None
        self._in_flight: deque[_InFlight] = deque()
        self._replies: deque[StepReply] = deque()
        self._is_connected = False
        self._error_frame: dict[str, Any] = {}
        self._error: ClientError | None = None

    async def __aenter__(self) -> Self:
        async with self._numbering.lock:
            self._numbering.check_idle()
            self._is_open = self._numbering.is_streaming = True
            try:
                await self._connect(Backoff(self._exchange.policy))
            except BaseException:
                await self._close()
                raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            # A generator that is left early is no error: what it has sent was meant.
            if kind in (None, GeneratorExit):
                async with self._numbering.lock:
                    while self._in_flight:
                        self._replies.append(await self._next_reply())
        finally:
            await self._close()

    @property
    def window(self) -> int:
        """Most steps in flight, as the service allows."""
        return self._window

    @property
    def num_pending(self) -> int:
        """How many steps were sent whose replies were not received."""
        return len(self._in_flight) + len(self._replies)

    @_in_turn
    async def send(self, inputs: Vector) -> None:
        """Send one time step, `[features]`; more than the window may be sent before receiving.

        A call that fails while it waits for room has not taken the step: `num_pending` tells.
        """
        await self._send([inputs])

    @_in_turn
    async def send_many(self, inputs: Sequence[Vector]) -> None:
        """Send time steps, `[time][features]`, together; each has its reply, as with `send`.

        A call that fails while it waits for room has taken some of them: `num_pending` tells.
        """
        await self._send(inputs)

    @_in_turn
    async def receive(self) -> StepReply:
        """Return the next reply, in the order of the steps.

        Raises:
            RuntimeError: No step waits for one.
        """
        if self._replies:
            return self._replies.popleft()
        if not self._in_flight:
            raise self._error or RuntimeError("no step is in flight: send one first")
        return await self._next_reply()

    def _distrust(self) -> None:
        """Go on over another connection, wherever a call was interrupted.

        Half a frame may have gone, whose end the next one would be; or a reply is lost, and those
        to binary frames do not tell which they are.
        """
        self._is_connected = False

    async def _close(self) -> None:
        self._is_open = self._numbering.is_streaming = False
        await self._network.disconnect()

    async def _send(self, inputs: Sequence[Vector]) -> None:
        if self._error is not None:
            raise self._error
        waiting = deque([plain(one) for one in inputs])
        while waiting:
            while len(self._in_flight) >= self._window:
                self._replies.append(await self._next_reply())
            first = self._next_position()
            room = min(len(waiting), self._window - len(self._in_flight))
            steps = [_InFlight(first + index, waiting.popleft()) for index in range(room)]
            self._in_flight += steps
            if self._is_connected:
                await self._network.send([self._frame_of(step) for step in steps])

    def _next_position(self) -> int:
        """Return from where the next step starts."""
        last = self._in_flight[-1] if self._in_flight else None
        return self._numbering.place.position if last is None else last.position + 1

    def _frame_of(self, step: _InFlight) -> Frame:
        """Return the frame in which a step is sent now."""
        epoch = self._numbering.place.epoch
        may_be_applied = step.num_sent > 0 or step.position < (self._doubted_until or 0)
        step.num_sent += 1
        # If the stream is left before the answer, the session goes on in doubt.
        self._exchange.doubts.add(STEP)
        binary = None
        if epoch is not None and not may_be_applied:
            binary = write_binary(step.values, self._input_size)
        step.is_binary = binary is not None
        return write_text(step.values, step.position, epoch) if binary is None else binary

    async def _next_reply(self) -> StepReply:
        backoff = Backoff(self._exchange.policy)
        while True:
            if not self._is_connected:
                await self._connect(backoff)
            answer = await self._read(backoff)
            if not isinstance(answer, Lost):
                return self._acknowledge(self._reply_of(answer))
            await self._fail(answer, backoff)

    async def _read(self, backoff: Backoff) -> dict[str, Any] | bytes | Lost:
        """Return the next frame that is no error, or how the connection ended, the error kept."""
        while True:
            outcome = await self._network.receive(backoff.start())
            if not isinstance(outcome, str):
                return outcome
            try:
                document = decode(outcome)
            except ProtocolError as error:
                raise self._end(error) from None
            if document.get("type") != "error":
                return document
            self._error_frame = document

    def _reply_of(self, answer: dict[str, Any] | bytes) -> StepReply:
        """Return the reply to the first step in flight, which is answered in its own kind."""
        step = self._in_flight[0]
        epoch = self._numbering.place.epoch
        try:
            if isinstance(answer, dict) and not step.is_binary:
                return read(StepReply, answer)
            if isinstance(answer, bytes) and step.is_binary and epoch is not None:
                outputs = read_binary(answer, self._output_size)
                return StepReply(outputs, step.position + 1, epoch, replayed=False)
        except ProtocolError as error:
            # A binary answer tells no position: what follows could be taken for another's.
            raise self._end(error) from None
        raise self._end(ProtocolError(f"a step was answered in the other kind: {answer!r:.100}"))

    def _acknowledge(self, reply: StepReply) -> StepReply:
        step = self._in_flight[0]
        place = Place(reply.position, reply.epoch)
        if reply.position != step.position + 1:
            problem = f"the answer to the step from position {step.position} says {reply.position}"
            raise self._end(ProtocolError(problem))
        if reply.replayed and step.num_sent == 1 and step.position >= (self._doubted_until or 0):
            # Nothing between the two ends of a stream could have sent it before.
            raise self._end(
                self._numbering.conflict("another writer has sent the same step", place)
            )
        # In this order: interrupted in between, it is sent again, and its answer comes once more.
        self._numbering.adopt(place)
        self._in_flight.popleft()
        if self._in_flight:
            self._exchange.doubts.add(STEP)
        return reply

    async def _connect(self, backoff: Backoff) -> None:
        """Connect until it succeeds, and send again what is not acknowledged."""
        while True:
            self._is_connected = False
            self._error_frame = {}
            lost = await self._network.connect(f"{self._numbering.path}/stream", backoff.start())
            first = lost or await self._read(backoff)
            if not isinstance(first, Lost):
                break
            await self._fail(first, backoff)
        if isinstance(first, bytes):
            raise self._end(ProtocolError("a stream began with a binary frame"))
        self._greet(read(Hello, first))
        await self._network.send([self._frame_of(step) for step in self._in_flight])
        self._is_connected = True

    async def _fail(self, lost: Lost, backoff: Backoff) -> None:
        """Wait before the next connection.

        Raises:
            UnavailableError: The deadline is over; the next call tries again.
            ClientError: The service ended the stream for a reason that will not pass.
        """
        self._is_connected = False
        error = error_of(self._error_frame or {"message": lost.reason}, lost.status)
        if not is_passing(error):
            raise self._end(error)
        pause_s = backoff.fail(error, may_be_applied=bool(self._in_flight))
        await self._network.pause(pause_s)

    def _greet(self, hello: Hello) -> None:
        """See that nobody else has moved the session.

        Raises:
            SessionUnknownError: It is gone.
            ConflictError: It is in another life, or further than our own steps could bring it.
        """
        position, epoch = self._numbering.place.position, self._numbering.place.epoch
        if epoch is not None and hello.epoch is None:
            problem = f"session {self._numbering.client_id!r} exists no more"
            raise self._end(SessionUnknownError(problem, code="session_unknown"))
        if self._doubted_until is None:
            is_doubted = STEP in self._exchange.doubts
            self._doubted_until = position + (hello.replay_window if is_doubted else 0)
        ends = max(self._doubted_until, self._next_position())
        if epoch not in (None, hello.epoch) or not position <= hello.position <= ends:
            expected = f"expected position {position} of epoch {epoch}"
            raise self._end(self._numbering.conflict(expected, Place(hello.position, hello.epoch)))
        fits = 4 * hello.output_size <= MAX_STORED_ANSWER_BYTES
        self._window = max(1, hello.replay_window) if fits else 1
        self._input_size, self._output_size = hello.input_size, hello.output_size

    def _end(self, error: ClientError) -> ClientError:
        """End the stream: what is in flight will have no reply."""
        self._error = error
        self._in_flight.clear()
        return error


def block_size(inputs: object, max_in_flight: int) -> int:
    """Return how many steps are to be sent together: half of what may be in flight.

    Of what has no length each by itself: the next input may be a long time coming.
    """
    return max(1, max_in_flight // 2) if isinstance(inputs, Sized) else 1


def blocks(inputs: Iterable[Vector], size: int) -> Iterator[list[Vector]]:
    """Yield the steps in lists of `size`, the last one perhaps shorter."""
    steps = iter(inputs)
    while block := list(islice(steps, size)):
        yield block
