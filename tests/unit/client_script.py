"""The client's core without a network: scripted outcomes, and a service that keeps the contract."""

import json
from collections import deque

from service.client.core import SessionCore
from service.client.effects import Answer, Call, Frame, Lost, Open, Pause, Receive, Send
from service.client.retry import RetryPolicy

EPOCH = 7
WINDOW = 4


def make_core(**options):
    """Return a session whose pauses are as long as they can be."""
    policy = RetryPolicy(timeout_s=1.0, deadline_s=10.0, uniform=lambda _low, high: high)
    return SessionCore("alice", None, policy, **options)


def answer(status=200, took_s=0.0, headers=None, **document):
    """Return an answer of the service."""
    return Answer(status, headers or {}, json.dumps(document).encode(), took_s)


def stepped(position, epoch=EPOCH, *, replayed=False):
    """Return the fields of the answer to a step."""
    return {"outputs": [0.5], "position": position, "epoch": epoch, "replayed": replayed}


def conflict(position, epoch):
    """Return the answer to a request that expects the session elsewhere."""
    return answer(409, code="position_conflict", detail="x", position=position, epoch=epoch)


UNKNOWN = answer(404, code="session_unknown", detail="there is no session")
EXPIRED = answer(410, code="session_expired", detail="it has ended")


class Script:
    """Carries out an operation with the outcomes given, in their order.

    Attributes:
        effects: What was asked for.
    """

    def __init__(self, *outcomes):
        self._outcomes = deque(outcomes)
        self.effects = []

    def run(self, operation):
        """Return the operation's result."""
        outcome = None
        while True:
            try:
                effect = operation.send(outcome)
            except StopIteration as end:
                return end.value
            self.effects.append(effect)
            outcome = None if isinstance(effect, Pause | Send) else self._outcomes.popleft()

    @property
    def calls(self):
        """The requests: method, path and document."""
        return [
            (effect.method, effect.path, effect.body and json.loads(effect.body))
            for effect in self.effects
            if isinstance(effect, Call)
        ]

    @property
    def pauses(self):
        """The pauses, in seconds."""
        return [effect.seconds for effect in self.effects if isinstance(effect, Pause)]

    @property
    def sent(self):
        """The documents of the frames."""
        return [json.loads(effect.text) for effect in self.effects if isinstance(effect, Send)]


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

    def run(self, operation):
        """Carry out an operation and return its result."""
        outcome = None
        while True:
            try:
                effect = operation.send(outcome)
            except StopIteration as end:
                return end.value
            outcome = self._perform(effect)

    def _perform(self, effect):
        if isinstance(effect, Call):
            return self._call(effect.body and json.loads(effect.body))
        if isinstance(effect, Open):
            return self._open()
        if isinstance(effect, Send):
            self._send(json.loads(effect.text))
        if isinstance(effect, Receive):
            return self._receive()
        return None

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

    def _call(self, document):
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

    def _open(self):
        if self._draw() == 1:
            self._frames = None
            return Lost("refused")
        position = len(self.applied)
        hello = {"type": "hello", "position": position, "epoch": EPOCH if position else None}
        self._frames = deque([hello | {"output_size": 1, "replay_window": WINDOW}])
        return None

    def _send(self, document):
        if self._frames is None:
            return
        fault = self._draw()
        if fault == 1:
            self._frames = None
            return
        fields = self._apply(document)
        if fault == 2:
            self._frames = None
            return
        self._frames.append(fields or {"type": "error", "code": "position_conflict"})

    def _receive(self):
        if not self._frames or self._draw() == 3:
            self._frames = None
            return Lost("cut")
        return Frame(json.dumps(self._frames.popleft()))
