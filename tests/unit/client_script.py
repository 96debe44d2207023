"""The client's core without a network: scripted outcomes, and a service that keeps the contract."""

import json
import struct
import types
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from service.client.documents import Place
from service.client.exchange import Exchange, RetryPolicy
from service.client.network import Answer, Lost
from service.client.numbering import Numbering
from service.client.session import SessionCore
from service.client.stream import AsyncStream

EPOCH = 7
WINDOW = 4


@dataclass
class Clock:
    """A clock that moves only when an outcome or a pause takes time."""

    now: float = 0.0

    def __call__(self):
        """Return the time."""
        return self.now


class Relay:
    """A network that hands everything to the one of whoever runs the operation."""

    network: Any = None

    def __getattr__(self, name):
        """Return the other's method."""
        return getattr(self.network, name)


CLOCK = Clock()
RELAY = Relay()


def make_core(position=0, epoch=None, client_id="alice", model=None, lock=None):
    """Return a session whose pauses are as long as they can be."""
    policy = RetryPolicy(1.0, 10.0, uniform=lambda _low, high: high, clock=CLOCK)
    place = Place(position, epoch)
    numbering = Numbering(client_id, model, place, Exchange(policy, RELAY), lock or nullcontext())
    return SessionCore(model, numbering)


def fork(core, client_id):
    """Return the operation of a fork."""
    return core._fork_place(client_id)  # noqa: SLF001 - as its faces do


def path_of(core):
    """Return a session's path."""
    return core._numbering.path  # noqa: SLF001 - nobody else asks


def make_stream(core):
    """Return a stream of a session."""
    return AsyncStream(core._numbering)  # noqa: SLF001 - as its faces do


def run_with(network, operation):
    """Return the result of an operation of a session."""
    RELAY.network = network
    try:
        operation.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("suspended")


def answer(status=200, headers=None, **document):
    """Return an answer of the service."""
    return Answer(status, headers or {}, json.dumps(document).encode())


@dataclass
class Late:
    """An outcome that takes time."""

    took_s: float
    outcome: object


def stepped(position, epoch=EPOCH, *, replayed=False):
    """Return the fields of the answer to a step."""
    return {"outputs": [0.5], "position": position, "epoch": epoch, "replayed": replayed}


def conflict(position, epoch):
    """Return the answer to a request that expects the session elsewhere."""
    return answer(409, code="position_conflict", detail="x", position=position, epoch=epoch)


UNKNOWN = answer(404, code="session_unknown", detail="there is no session")
EXPIRED = answer(410, code="session_expired", detail="it has ended")


def floats(frame):
    """Return the numbers of a binary frame."""
    return list(struct.unpack(f"<{len(frame) // 4}f", frame))


INTERRUPT = object()
"""An outcome that does not come: the operation stays suspended."""


@types.coroutine
def _suspend():
    yield


class Script:
    """A network with the outcomes given, in their order.

    Attributes:
        requests: Method, path and body of each.
        pauses: In seconds.
        frames: Each, text or binary.
        writes: How many of them went together.
        waits: What was waited for: `"connect"` or `"receive"`, and how long at most.
    """

    def __init__(self, *outcomes):
        self._outcomes = deque(outcomes)
        self.requests, self.pauses, self.frames, self.waits = [], [], [], []
        self.writes = []

    def run(self, operation):
        """Return the operation's result."""
        return run_with(self, operation)

    async def _next(self):
        outcome = self._outcomes.popleft()
        if outcome is INTERRUPT:
            await _suspend()
        if isinstance(outcome, Late):
            CLOCK.now += outcome.took_s
            return outcome.outcome
        return outcome

    async def request(self, method, path, body, timeout_s):
        """Take a request."""
        self.requests.append((method, path, body))
        self.waits.append(("request", timeout_s))
        return await self._next()

    async def connect(self, _path, timeout_s):
        """Take a connection."""
        self.waits.append(("connect", timeout_s))
        return await self._next()

    async def receive(self, timeout_s):
        """Take who waits for a frame."""
        self.waits.append(("receive", timeout_s))
        return await self._next()

    async def send(self, frames):
        """Take frames."""
        self.frames += frames
        self.writes += [len(frames)] if frames else []

    async def disconnect(self):
        """Take the end."""

    async def pause(self, seconds):
        """Let the time pass."""
        self.pauses.append(seconds)
        CLOCK.now += seconds

    @property
    def calls(self):
        """The requests: method, path and document."""
        return [(method, path, body and json.loads(body)) for method, path, body in self.requests]

    @property
    def sent(self):
        """The documents of the frames; of binary ones the numbers."""
        return [json.loads(one) if isinstance(one, str) else floats(one) for one in self.frames]


class Service:
    """One session, by the contract: positions, epochs, replays. Faults come as they are drawn.

    Attributes:
        applied: The inputs of every step that was applied.
    """

    def __init__(self, draw):
        """Take what draws an integer from 0 to 3: of 0 nothing bad comes."""
        self.applied = []
        self._draw = draw
        self._answers = {}
        self._frames = None
        self._next = 0  # from where a binary frame starts

    def run(self, operation):
        """Carry out an operation and return its result."""
        return run_with(self, operation)

    async def pause(self, seconds):
        """Let the time pass."""
        CLOCK.now += seconds

    async def disconnect(self):
        """Forget the connection."""
        self._frames = None

    def _apply(self, document):
        """Return the answer to a step, as fields, or None for a conflict."""
        start, inputs = document["position"], document["inputs"]
        if document.get("epoch", EPOCH) != EPOCH:
            return None
        if start == len(self.applied):
            self.applied.append(inputs)
            self._answers[start] = inputs
            self._answers.pop(start - WINDOW, None)
            return stepped(start + 1)
        replayed = self._answers.get(start) == inputs
        return stepped(start + 1, replayed=True) if replayed else None

    async def request(self, _method, _path, body, _timeout_s):
        """Answer a request, perhaps."""
        document = body and json.loads(body)
        fault = self._draw()
        if fault == 1:
            return Lost("never arrived")
        if fault == 2:
            return answer(503)
        if document is None:
            return answer(position=len(self.applied), epoch=EPOCH)
        fields = self._apply(document)
        if fault == 3:
            return Lost("applied")
        return conflict(len(self.applied), EPOCH) if fields is None else answer(**fields)

    async def connect(self, _path, _timeout_s):
        """Say hello, perhaps."""
        if self._draw() == 1:
            self._frames = None
            return Lost("refused")
        position = len(self.applied)
        hello = {"type": "hello", "position": position, "epoch": EPOCH if position else None}
        sizes = {"input_size": 1, "output_size": 1, "replay_window": WINDOW}
        self._frames = deque([json.dumps(hello | sizes)])
        self._next = position
        return None

    async def send(self, frames):
        """Take frames, or only the first ones."""
        for frame in frames:
            self._take(frame)

    def _take(self, frame):
        is_text = isinstance(frame, str)
        if self._frames is None:
            return
        if is_text:
            document = json.loads(frame)
        else:
            document = {"inputs": floats(frame), "position": self._next, "epoch": EPOCH}
        self._next = document["position"] + 1
        fault = self._draw()
        if fault == 1:
            self._frames = None
            return
        fields = self._apply(document)
        if fault == 2:
            self._frames = None
            return
        if fields is None or (fields["replayed"] and not is_text):
            self._frames.append(json.dumps({"type": "error", "code": "position_conflict"}))
        else:
            outputs = struct.pack("<1f", *fields["outputs"])
            self._frames.append(json.dumps(fields) if is_text else outputs)

    async def receive(self, _timeout_s):
        """Answer the next frame, perhaps."""
        if not self._frames or self._draw() == 3:
            self._frames = None
            return Lost("cut")
        return self._frames.popleft()
