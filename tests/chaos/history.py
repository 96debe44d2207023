"""What was asked and what was answered, and when: the evidence, and its counts."""

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

MAX_STORED_ANSWER_BYTES = 16 * 1024
"""The design's promise: shorter answers are kept for their retries, longer ones computed again."""
_MAY_BE_LONG = 100
"""Time steps: an answer that nobody saw is taken for long from here on."""


class Outcome(Enum):
    """What a client knows of a request after its answer, or without one."""

    APPLIED = "200"
    CONFLICT = "409, nothing applied"
    ABSENT = "404, nothing applied"
    REJECTED = "refused, nothing applied"
    UNSENT = "never sent"
    UNKNOWN = "unknown"
    ABANDONED = "unknown, the client left"
    BROKEN_OFF = "unknown, the stream broke off"
    WRONG = "an answer that must not be"

    @property
    def is_open(self):
        """Whether it may have been applied, or may still be."""
        return self in (Outcome.UNKNOWN, Outcome.ABANDONED, Outcome.BROKEN_OFF)


_BY_CODE = {
    "position_conflict": Outcome.CONFLICT,
    "session_unknown": Outcome.ABSENT,
    "store_unavailable": Outcome.UNKNOWN,
    "bad_gateway": Outcome.UNKNOWN,
    "gateway_timeout": Outcome.UNKNOWN,
} | dict.fromkeys(
    ("draining", "not_ready", "queue_full", "too_many_sessions", "no_replica", "request_timeout"),
    Outcome.REJECTED,
)


def outcome_of(code):
    """Return what an error's code says; one that no fault explains is wrong."""
    return _BY_CODE.get(code, Outcome.WRONG)


class Intent(NamedTuple):
    """What a client wants of a session: sent once, or again and again until it is settled.

    Attributes:
        session: The client id.
        kind: `advance`, `reset` or `look`.
        position: The position that it names, or None.
        epoch: The epoch that it names, or None.
        inputs: `(time, features)` float32, of `advance`.
        mask: `(time,)` bool, or None.
        is_sequence: Whether every step's output is wanted.
        has_states: Whether the states are wanted too.
    """

    session: str
    kind: str
    position: int | None = None
    epoch: int | None = None
    inputs: Any = None
    mask: np.ndarray | None = None
    is_sequence: bool = False
    has_states: bool = False

    @property
    def num_steps(self):
        """Time steps that it takes."""
        return 0 if self.inputs is None else len(self.inputs)

    @property
    def content(self):
        """What a retry has in common with the first: everything but position and epoch."""
        mask = None if self.mask is None else self.mask.tobytes()
        return self.inputs.tobytes(), mask, self.is_sequence, self.has_states


@dataclass(slots=True, eq=False)
class Operation:
    """A request that was sent once, with its answer.

    Attributes:
        intent: What was wanted.
        writer: Who sent it.
        entrance: Where to.
        began: When it was sent, in seconds of the run.
        ended: When its answer came, or hope was given up.
        outcome: What is known of it.
        code: The error's.
        position: Where the session is by the answer.
        epoch: Which life of it.
        replayed: Whether the answer is an earlier one's.
        may_be_replayed: Whether it may be, and cannot tell: a frame that was sent before.
        outputs: `(time, outputs)` float32, or `(1, outputs)`.
        states: `(2, units)` float32.
    """

    intent: Intent
    writer: str
    entrance: str
    began: float
    ended: float = float("inf")
    outcome: Outcome = Outcome.UNKNOWN
    code: str = ""
    position: int | None = None
    epoch: int | None = None
    replayed: bool = False
    may_be_replayed: bool = False
    outputs: np.ndarray | None = None
    states: np.ndarray | None = None

    @property
    def is_applied_advance(self):
        """Whether it acknowledges time steps."""
        return self.outcome is Outcome.APPLIED and self.intent.kind == "advance"

    @property
    def is_long(self):
        """Whether its answer is too long to be kept."""
        if self.outputs is None:
            return self.intent.num_steps > _MAY_BE_LONG
        size = sum(part.nbytes for part in (self.outputs, self.states) if part is not None)
        return size > MAX_STORED_ANSWER_BYTES

    def take(self, document):
        """Take over what a good answer says."""
        self.outcome = Outcome.APPLIED
        self.position, self.epoch = document["position"], document["epoch"]
        self.replayed = document.get("replayed", False)
        if document.get("outputs") is not None:
            self.outputs = np.atleast_2d(np.array(document["outputs"], np.float32))
        if document.get("states"):
            self.states = np.array(document["states"], np.float32)

    def refuse(self, code, document):
        """Take over what an error says."""
        self.code = code
        self.outcome = outcome_of(code)
        self.position, self.epoch = document.get("position"), document.get("epoch")

    def __str__(self):
        asked = f"{self.intent.kind} at {_or_any(self.intent.position)}"
        if self.intent.num_steps:
            asked += f" +{self.intent.num_steps} #{hash(self.intent.content) & 0xFFFF:04x}"
        if self.intent.epoch is not None:
            asked += f" of {_short(self.intent.epoch)}"
        told = "" if self.position is None else f" -> {self.position} of {_short(self.epoch)}"
        if self.replayed:
            told += " replayed"
        return (
            f"{self.began:9.4f} {self.ended:9.4f} {self.writer:<8} {self.entrance:<7} {asked:<36}"
            f" {self.outcome.name} {self.code}{told}"
        )


def _or_any(position):
    return "any" if position is None else position


def _short(epoch):
    return "-" if epoch is None else f"{epoch % 0x10000:04x}"


@dataclass(slots=True)
class History:
    """All of it.

    Attributes:
        operations: By session, in the order of their beginning.
        faults: What was done to the service: when, what and what to, and what was in flight.
        codes: How often each error code came.
        num_retries: Operations that sent an intent again whose outcome was not known.
        num_resumed: Frames of streams that were sent again on another connection.
        num_acknowledged: Time steps that were acknowledged, each once.
        outcomes: How often there was each.
        requests: How many acknowledged ones had a `single` time step, or were `longer`.
        num_replayed: Answers that were said to be given again.
    """

    operations: dict[str, list[Operation]] = field(default_factory=dict)
    faults: list[tuple[float, str, str, int]] = field(default_factory=list)
    codes: Counter[str] = field(default_factory=Counter)
    num_retries: int = 0
    num_resumed: int = 0
    num_acknowledged: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    requests: Counter[str] = field(default_factory=Counter)
    num_replayed: int = 0
    _acknowledged: set[Any] = field(default_factory=set)

    def begin(self, operation):
        """Take in an operation that is sent now."""
        self.operations.setdefault(operation.intent.session, []).append(operation)

    def end(self, operation, now):
        """Count an operation whose outcome is as known as it will be."""
        operation.ended = now
        self.outcomes[operation.outcome] += 1
        if operation.code:
            self.codes[operation.code] += 1
        if not operation.is_applied_advance:
            return
        self.num_replayed += operation.replayed
        intent = operation.intent
        step = (intent.session, operation.epoch, intent.position)
        if step not in self._acknowledged:
            self._acknowledged.add(step)
            self.num_acknowledged += intent.num_steps
            self.requests["single" if intent.num_steps == 1 else "longer"] += 1

    def num_hidden(self):
        """Return how many requests were applied whose first answer nobody got, though he waited."""
        answers = defaultdict(list)
        left = set()
        for operation in itertools.chain.from_iterable(self.operations.values()):
            if operation.is_applied_advance:
                intent = operation.intent
                answers[intent.session, operation.epoch, intent.position].append(operation)
            elif operation.outcome is Outcome.ABANDONED:
                left.add((operation.intent.session, operation.intent.position))
        return sum(
            all(one.replayed or one.may_be_replayed for one in group)
            and (session, position) not in left
            for (session, _, position), group in answers.items()
        )
