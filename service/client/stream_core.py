"""A stream as its client sees it: what is in flight, and what is sent again on a new connection.

Pure, as `core` is.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from service.client.core import SessionCore
from service.client.documents import Hello, StepReply, Vector, decode, encode, read_hello, read_step
from service.client.effects import Frame, Lost, Open, Operation, Pause, Receive, Send
from service.client.errors import (
    ClientError,
    ConflictError,
    ProtocolError,
    RequestError,
    SessionUnknownError,
    error_of,
    is_fatal_close,
    is_retried_status,
)
from service.client.exchange import Kind, unavailable
from service.client.retry import Backoff

MAX_STORED_ANSWER_BYTES = 16 * 1024
"""A service keeps longer answers for the last step only, so that no more may be in doubt."""


@dataclass(slots=True)
class _InFlight:
    """A step that is not answered yet.

    Attributes:
        position: From where it starts.
        inputs: As JSON, the same each time.
        num_sent: How often it was sent.
    """

    position: int
    inputs: str
    num_sent: int = 0


class StreamCore:
    """The steps of one stream, over as many connections as it takes.

    Every step names its position, so that one that is sent again is replayed and never applied
    twice. A connection that breaks is noticed by what is received, and by nothing else: so all
    answers that have come are read before anything is sent again.
    """

    def __init__(self, session: SessionCore) -> None:
        """Stream the steps of a session; `open` begins."""
        self._session = session
        self._window = 1
        self._in_flight: deque[_InFlight] = deque()
        self._replies: deque[StepReply] = deque()
        self._backoff = Backoff(session.policy)
        self._is_connected = False
        self._error_frame: dict[str, Any] | None = None
        self._error: ClientError | None = None

    @property
    def num_pending(self) -> int:
        """How many steps were sent and their replies not taken by `receive`."""
        return len(self._in_flight) + len(self._replies)

    @property
    def window(self) -> int:
        """Most steps in flight."""
        return self._window

    @property
    def path(self) -> str:
        """Where it connects to."""
        return f"{self._session.path}/stream"

    def open(self) -> Operation[None]:
        """Connect, and see that the session is where it should be."""
        lost = yield from self._connect()
        while lost is not None:
            lost = yield from self._connect_after(lost)

    def send(self, inputs: Vector) -> Operation[None]:
        """Send one time step; where the window is full, the next reply is read first."""
        if self._error is not None:
            raise self._error
        text = encode(inputs).decode()
        while len(self._in_flight) >= self._window:
            self._replies.append((yield from self._next_reply()))
        step = _InFlight(self._session.position + len(self._in_flight), text)
        self._in_flight.append(step)
        if self._is_connected:
            yield from self._transmit(step)

    def receive(self) -> Operation[StepReply]:
        """Return the reply to the earliest step whose reply was not returned yet."""
        if self._replies:
            return self._replies.popleft()
        if not self._in_flight:
            raise self._error or RuntimeError("no step is in flight: send one first")
        return (yield from self._next_reply())

    def drain(self) -> Operation[None]:
        """Wait for the replies to everything in flight, so that the session's position is known."""
        while self._in_flight:
            self._replies.append((yield from self._next_reply()))

    def _transmit(self, step: _InFlight) -> Operation[None]:
        session = self._session
        epoch = "" if session.epoch is None else f',"epoch":{session.epoch}'
        step.num_sent += 1
        # If the stream is left before the answer, the session goes on in doubt.
        session.exchange.doubts.add(Kind.STEP)
        yield Send(f'{{"inputs":{step.inputs},"position":{step.position}{epoch}}}')

    def _next_reply(self) -> Operation[StepReply]:
        while True:
            if not self._is_connected:
                yield from self.open()
            outcome = yield from self._read()
            if not isinstance(outcome, Lost):
                return self._acknowledge(read_step(outcome))
            lost: Lost | None = outcome
            while lost is not None:
                lost = yield from self._connect_after(lost)

    def _read(self) -> Operation[dict[str, Any] | Lost]:
        """Return the next document, or how the connection ended, an error frame being kept."""
        while True:
            outcome = yield Receive(self._backoff.timeout_s)
            assert isinstance(outcome, Frame | Lost)
            if isinstance(outcome, Lost):
                return outcome
            document = decode(outcome.text)
            if document.get("type") != "error":
                return document
            self._error_frame = document

    def _acknowledge(self, reply: StepReply) -> StepReply:
        step = self._in_flight[0]
        if reply.position != step.position + 1:
            problem = f"the answer to the step from position {step.position} says {reply.position}"
            raise self._end(ProtocolError(problem))
        if reply.replayed and step.num_sent == 1:
            # Nothing between the two ends of a stream could have sent it before.
            raise self._end(self._conflict("another writer has sent the same step", reply))
        self._in_flight.popleft()
        self._session.acknowledge(reply)
        self._backoff = Backoff(self._session.policy)
        return reply

    def _connect_after(self, lost: Lost) -> Operation[Lost | None]:
        """Wait, connect again, and send again what is not acknowledged.

        Returns:
            How that failed, or None.

        Raises:
            UnavailableError: The deadline is over; the next call tries again.
            ClientError: The service ended the stream for a reason that will not pass.
        """
        self._is_connected = False
        error, is_final = self._judge(lost)
        if is_final:
            raise self._end(error)
        pause_s = self._backoff.pause_after(lost.took_s)
        if pause_s is None:
            num_attempts = self._backoff.num_failures
            self._backoff = Backoff(self._session.policy)
            raise unavailable(error, num_attempts, is_doubted=bool(self._in_flight))
        yield Pause(pause_s)
        return (yield from self._connect())

    def _connect(self) -> Operation[Lost | None]:
        self._is_connected = False
        self._error_frame = None
        outcome = yield Open(self._backoff.timeout_s)
        if isinstance(outcome, Lost):
            return outcome
        document = yield from self._read()
        if isinstance(document, Lost):
            return document
        self._greet(read_hello(document))
        for step in self._in_flight:
            yield from self._transmit(step)
        self._is_connected = True
        return None

    def _greet(self, hello: Hello) -> None:
        """See that nobody else has moved the session.

        Raises:
            SessionUnknownError: It is gone.
            ConflictError: It is in another life, or not between the first step that is not
                acknowledged and the end of the last one.
        """
        session = self._session
        if session.epoch is not None and hello.epoch is None:
            raise self._end(
                SessionUnknownError(
                    f"session {session.client_id!r} exists no more", code="session_unknown"
                )
            )
        ends = session.position + len(self._in_flight)
        is_other_life = session.epoch is not None and hello.epoch != session.epoch
        if is_other_life or not session.position <= hello.position <= ends:
            expected = f"expected position {session.position} of epoch {session.epoch}"
            raise self._end(self._conflict(expected, hello))
        fits = 4 * hello.output_size <= MAX_STORED_ANSWER_BYTES
        self._window = max(1, hello.replay_window) if fits else 1

    def _judge(self, lost: Lost) -> tuple[ClientError, bool]:
        """Return why a connection ended, and whether another one would end the same way."""
        if lost.status is not None:
            error = RequestError(lost.reason, status=lost.status)
            return error, not is_retried_status(lost.status, None)
        frame, code = self._error_frame, lost.close_code
        if frame is not None and code is not None:
            return error_of(frame, code, None), is_fatal_close(code)
        return RequestError(lost.reason, status=code), is_fatal_close(code)

    def _conflict(self, problem: str, place: Hello | StepReply) -> ConflictError:
        return ConflictError(
            f"{problem}; the session is at position {place.position} of epoch {place.epoch}",
            code="position_conflict",
            position=place.position,
            epoch=place.epoch,
        )

    def _end(self, error: ClientError) -> ClientError:
        """End the stream: what is in flight will have no reply."""
        self._error = error
        self._in_flight.clear()
        return error
