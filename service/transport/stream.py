"""The rules of a stream: time steps of one session, several in flight, answers in order.

No socket, no event loop: a shell hands messages in, is told when there are answers, and takes them
out. Both shells, for ASGI and for uvicorn's sockets, are made of it.

A stream holds its session's position itself and expects it with every step, so that another writer
is noticed. The first error ends it, and nothing behind it applies.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from service.domain import (
    REPLAY_WINDOW,
    AdvanceReply,
    AdvanceRequest,
    LookRequest,
    Reply,
    Request,
    SessionKey,
    SessionReply,
)
from service.errors import (
    InternalError,
    InvalidRequestError,
    PositionConflictError,
    ServiceError,
    SessionUnknownError,
    StateNotFiniteError,
)
from service.jobs import Complete, Job
from service.signature import Signature
from service.transport.render import render_error_frame, render_hello
from service.transport.status import status_of
from service.transport.stream_messages import Close, Incoming, Limits, Outgoing
from service.transport.stream_place import Place
from service.transport.stream_steps import Messages, answers_to, read, single_steps

log = logging.getLogger(__name__)

_FAULTS_OF_ONE = (StateNotFiniteError, InvalidRequestError)
"""What fails steps that were asked for together because of one of them; none was applied."""


class Engine(Protocol):
    """What takes the requests; `service.engine` has it."""

    @property
    def signature(self) -> Signature:
        """What the model takes and gives."""
        ...

    def submit(self, request: Request, complete: Complete) -> Job:
        """Take a request; `complete` is called later, once."""
        ...


@dataclass(slots=True, eq=False)
class _Step:
    """A message, or several of one step each, that is not answered yet.

    Attributes:
        messages: What came.
        position: From where it starts.
        may_replay: Whether it may be an earlier request that comes again.
        job: The engine's, until there is a result.
        result: What the engine said.
    """

    messages: Messages
    position: int
    may_replay: bool
    job: Job | None = None
    result: Reply | ServiceError | None = None

    @property
    def num_messages(self) -> int:
        """How many answers it gets."""
        return len(self.messages) if isinstance(self.messages, np.ndarray) else 1


class Stream:
    """One stream, from its opening to its end.

    Attributes:
        close: How it has ended, once its last answer was taken; None until then.
    """

    def __init__(self, limits: Limits, on_answers: Callable[[], None]) -> None:
        """Begin with nothing; `begin` opens it.

        Args:
            limits: What it takes.
            on_answers: Called when there is something to take out, once until it is taken.
        """
        self.close: Close | None = None
        self._limits = limits
        self._on_answers = on_answers
        self._is_told = False
        self._engine: Engine
        self._key: SessionKey
        self._look: Job | None = None
        self._place: Place | None = None  # until it is open
        self._waiting: deque[Messages] = deque()
        self._in_flight: deque[_Step] = deque()
        self._num_unanswered = 0  # messages in both
        self._greeting: list[Outgoing] = []
        self._error: ServiceError | None = None

    @property
    def room(self) -> int:
        """How many more messages may be handed in now."""
        if self._error is not None or self._place is None:
            return 0
        return REPLAY_WINDOW - self._num_unanswered

    def begin(
        self, engine: Engine, key: SessionKey, position: int | None, epoch: int | None
    ) -> None:
        """Ask where the session is.

        Args:
            engine: The model's.
            key: The session.
            position: From where the client's next step starts; None: where the session is.
            epoch: The life that the client expects; None means any.
        """
        self._engine = engine
        self._key = key
        try:
            self._look = engine.submit(
                LookRequest(key=key), partial(self._open, position=position, epoch=epoch)
            )
        except ServiceError as error:
            self.end(error)

    def take(self, messages: Sequence[Incoming]) -> None:
        """Take messages as they come, no more than there is room for; behind an error, none."""
        if self._error is not None:
            return
        self._num_unanswered += len(messages)
        inputs = single_steps(messages, self._engine.signature, self._limits)
        if inputs is None:
            self._waiting.extend(messages)
        else:
            self._waiting.append(inputs)
        self._submit_waiting()

    def answers(self) -> list[Outgoing]:
        """Return what is to be sent now, in order; an error is the last, and `close` behind it."""
        self._is_told = False
        answers, self._greeting = self._greeting, []
        in_flight = self._in_flight
        while in_flight and (result := in_flight[0].result) is not None:
            if isinstance(result, ServiceError):
                # Nothing behind it applies: it was cancelled when this came.
                self._error = result
                in_flight.clear()
                break
            assert isinstance(result, AdvanceReply)
            step = in_flight.popleft()
            self._num_unanswered -= step.num_messages
            answers += answers_to(step.messages, result, self._engine.signature)
        if self._waiting:
            self._submit_waiting()
        if self._error is not None and not (in_flight or self._waiting) and self.close is None:
            answers.append((True, render_error_frame(self._error)))
            self.close = Close(status_of(self._error).websocket, self._error.code)
        return answers

    def end(self, error: ServiceError) -> None:
        """End with an error, after the answers to the steps in flight."""
        # It holds the frames that it passed, and those hold the stream: a cycle with the inputs.
        error.__traceback__ = None
        if self._error is None:
            self._error = error
        self._drop_waiting()
        self._tell()

    def abandon(self) -> None:
        """Let go of everything: nobody is there to be answered."""
        self._error = self._error or InternalError()
        self.close = self.close or Close(status_of(self._error).websocket, self._error.code)
        self._drop_waiting()
        self._cancel()
        self._in_flight.clear()

    def _open(
        self, result: Reply | ServiceError, *, position: int | None, epoch: int | None
    ) -> None:
        """Say hello, and see whether the client can go on from where it says."""
        self._look = None
        if self._error is not None:
            return
        if not isinstance(result, SessionReply | SessionUnknownError):
            self.end(result if isinstance(result, ServiceError) else InternalError())
            return
        place = Place(result if isinstance(result, SessionReply) else None, position)
        hello = render_hello(
            self._engine.signature,
            position=place.head,
            epoch=place.epoch,
            replay_window=REPLAY_WINDOW,
        )
        self._greeting.append((True, hello))
        self._place = place
        if (error := place.problem(self._key.client_id, epoch)) is None:
            self._tell()
        else:
            self.end(error)

    def _submit_waiting(self) -> None:
        """Submit what has its turn, in order."""
        waiting = self._waiting
        try:
            while waiting and self._submit(waiting[0]):
                waiting.popleft()
        except ServiceError as error:
            self.end(error)
        except Exception:
            # The guard: whatever went wrong inside, this stream ends, and the client is told.
            log.exception("a stream of session %s failed", self._key)
            self.end(InternalError())

    def _submit(self, messages: Messages) -> bool:
        """Submit what is the first that waits; false, and nothing done, if it is not its turn yet.

        Raises:
            ServiceError: It is none, or was not taken.
        """
        signature, limits = self._engine.signature, self._limits
        inputs, return_state, named, epoch = read(messages, signature, self._key, limits)
        place = self._place
        assert place is not None, "there is no room before"
        position = place.position if named is None else named
        if self._in_flight and (position != place.position or place.epoch is None):
            # A jump, such as a retry from before a reconnect: what is in flight comes first, so
            # that nothing behind an error applies. And behind the step that begins the session, so
            # that its epoch is known.
            return False
        may_replay = place.may_be_retry(named)
        step = _Step(messages, position, may_replay)
        are_apart = step.num_messages > 1
        if are_apart and (may_replay or place.epoch is None):
            self._split_first()
            return self._submit(self._waiting[0])
        request = AdvanceRequest(
            self._key,
            inputs,
            return_sequences=len(inputs) > 1,
            return_state=return_state,
            position=position,
            epoch=place.epoch if epoch is None else epoch,
            # A step that names its position may be the retry of the one that began the session.
            must_begin=place.epoch is None and not may_replay,
            are_apart=are_apart,
        )
        job = self._engine.submit(request, partial(self._complete, step))
        self._in_flight.append(step)
        step.job = job
        place.go_on(position, len(inputs))
        return True

    def _split_first(self) -> None:
        """Put steps that wait together apart."""
        inputs = self._waiting.popleft()
        assert isinstance(inputs, np.ndarray)
        self._waiting.extendleft(inputs[i : i + 1] for i in reversed(range(len(inputs))))

    def _complete(self, step: _Step, result: Reply | ServiceError) -> None:
        """Take the engine's word; an error ends the stream before the next step has its turn."""
        step.job = None  # which holds this step in its turn: a cycle
        place = self._place
        assert place is not None, "it was submitted"
        if isinstance(result, AdvanceReply):
            place.learn(result)
            if result.replayed and not step.may_replay:
                problem = "another writer has sent the same step"
                result = PositionConflictError(result.position, result.epoch, problem)
        elif isinstance(result, _FAULTS_OF_ONE) and step.num_messages > 1:
            self._ask_again(step)
            return
        step.result = result
        if isinstance(result, ServiceError):
            self.end(result)
            self._cancel()
        else:
            self._tell()

    def _ask_again(self, failed: _Step) -> None:
        """Ask for steps that failed together, of which none was applied, one by one.

        So those before the one whose fault it is are applied, as if each had been a request; also
        where the stream ends already, with something that came behind them.
        """
        self._cancel()
        first = self._in_flight.index(failed)
        while len(self._in_flight) > first:
            self._waiting.appendleft(self._in_flight.pop().messages)
        assert self._place is not None, "it was submitted"
        self._place.position = failed.position
        self._split_first()
        self._submit_waiting()

    def _drop_waiting(self) -> None:
        self._waiting.clear()
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def _cancel(self) -> None:
        for step in self._in_flight:
            if step.job is not None:
                step.job.cancel()
                step.job = None

    def _tell(self) -> None:
        if not self._is_told:
            self._is_told = True
            self._on_answers()
