"""One life of a session, put together again from its answers: which requests it took, in order.

Where no answer tells who took a position, those requests whose outcome is unknown are tried.
"""

from collections import defaultdict
from typing import Any

import numpy as np

from tests.chaos.history import Operation, Outcome

OUTPUT_TOLERANCE = 1e-6
STATE_TOLERANCE = 1e-5
"""For c, which reaches 13 here. The oracle counts in float64: a run in float32 that sums in another
order was seen 3.5e-6 from it in c, and 6.6e-7 in outputs, after 18,000 steps of random inputs."""
_MAX_TRIALS = 10_000


def is_close(actual, expected, tolerance=OUTPUT_TOLERANCE):
    """Tell whether numbers are equal as far as float32 and another order of sums allow."""
    return bool(np.allclose(actual, expected, rtol=OUTPUT_TOLERANCE, atol=tolerance))


class Chain:
    """The requests of one epoch from position 0 on.

    Attributes:
        epoch: Which.
        links: One operation a request, in order of position.
        largest_difference: Between an answer's outputs and the oracle's.
    """

    def __init__(self, epoch, seen, operations, oracle):
        """Collect what is known.

        Args:
            epoch: Which.
            seen: The operations that were answered with this epoch.
            operations: All operations of the session.
            oracle: What one uninterrupted run gives.
        """
        self.epoch = epoch
        self.links = []
        self.largest_difference = 0.0
        self._oracle = oracle
        self._seen = seen
        self._top = max(seen, key=lambda one: one.position)
        self._answered: dict[int, Operation] = {}
        for operation in seen:
            if operation.is_applied_advance:
                self._answered.setdefault(operation.intent.position, operation)
        self._open = self._collect_open(operations)
        self._carries = []
        self._starts = {}
        self._ends = {}

    def _collect_open(self, operations):
        """Return by position the requests that may have been applied unseen, each content once.

        Those that are known not to have been applied may have been all the same if the balancer
        sent them twice: it tells of the second time only.
        """
        candidates: Any = defaultdict(dict)
        may_repeat = (Outcome.CONFLICT, Outcome.REJECTED)
        open_first = sorted(operations, key=lambda one: not one.outcome.is_open)
        for operation in open_first:
            intent = operation.intent
            is_twice = operation.entrance == "hash" and operation.outcome in may_repeat
            is_elsewhere = operation.is_applied_advance and operation.epoch != self.epoch
            if (
                intent.kind == "advance"
                and intent.epoch in (None, self.epoch)
                and (operation.outcome.is_open or is_twice or is_elsewhere)
            ):
                candidates[intent.position].setdefault(intent.content, operation)
        return {position: list(found.values()) for position, found in candidates.items()}

    def index_from(self, position):
        """Return which link starts from a position; None if none does."""
        return self._starts.get(position)

    def index_to(self, position):
        """Return which link ends at a position; None if none does."""
        return self._ends.get(position)

    def check(self, blame):
        """Find the requests, and compare every answer with one run of them."""
        problem = self._connect()
        if problem is not None:
            blame(*problem)
            return
        self._starts = {link.intent.position: n for n, link in enumerate(self.links)}
        self._ends = {
            link.intent.position + link.intent.num_steps: n for n, link in enumerate(self.links)
        }
        for operation in self._seen:
            if operation.is_applied_advance:
                index = self._starts.get(operation.intent.position)
                if index is None or self._ends.get(operation.position) != index:
                    blame("an answered request overlaps with others", operation)
            elif operation.position and operation.position not in self._ends:
                blame("seen at a position within a request", operation)
            self._compare_states(operation, blame)

    def _compare_states(self, operation, blame):
        if operation.states is None or operation.position == 0:
            if operation.states is not None and operation.states.any():
                blame("a new life does not begin from zeros", operation)
            return
        index = self._ends.get(operation.position)
        if index is None:
            return
        expected = np.stack(self._carries[index + 1])
        if not is_close(operation.states, expected, STATE_TOLERANCE):
            difference = np.abs(operation.states - expected).max()
            blame(f"states differ from those of one run by {difference:.3g}", operation)

    def _connect(self):
        """Find links from 0 to the top; return what is wrong with the way that leads furthest.

        The way branches only where no answer tells who took a position.
        """
        self._carries = [self._oracle.begin()]
        untried = [iter(self._choices())]
        furthest, problem = -1, None
        for _ in range(self._top.position * 2 + _MAX_TRIALS):
            position = self._position()
            if position == self._top.position:
                return None
            choice = next(untried[-1], None)
            wrong = self._why_not(position, choice)
            if wrong is None:
                untried.append(iter(self._choices()))
                continue
            if position > furthest:
                furthest, problem = position, wrong
            if choice is None:
                untried.pop()
                if not untried:
                    return problem
                self.links.pop()
                self._carries.pop()
        return problem

    def _position(self):
        last = self.links[-1].intent if self.links else None
        return 0 if last is None else last.position + last.num_steps

    def _choices(self):
        position = self._position()
        answered = self._answered.get(position)
        return self._open.get(position, ()) if answered is None else [answered]

    def _why_not(self, position, choice):
        """Add a link if it fits; else return why not."""
        if choice is None:
            return f"nothing was asked that could have taken position {position}", self._top
        if position + choice.intent.num_steps > self._top.position:
            return f"{self._top.position} is within the request at {position}", choice, self._top
        difference = self._add(choice)
        if difference is None:
            return None
        text = f"outputs at position {position} differ from those of one run by {difference:.3g}"
        return text, *self.links[-1:], choice

    def _add(self, link):
        """Add a link unless its outputs differ from the oracle's; return by how much they do."""
        intent = link.intent
        outputs, carry = self._oracle.advance(self._carries[-1], intent.inputs, intent.mask)
        if link.outputs is not None and link.epoch == self.epoch:
            expected = outputs if intent.is_sequence else outputs[-1:]
            if link.outputs.shape != expected.shape:
                return np.inf
            difference = float(np.abs(link.outputs - expected).max())
            if not is_close(link.outputs, expected):
                return difference
            self.largest_difference = max(self.largest_difference, difference)
        self.links.append(link)
        self._carries.append(carry)
        return None
