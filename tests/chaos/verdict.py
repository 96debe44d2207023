"""Whether a session's history can have happened to a service that keeps its promises.

Looks at one session at a time: which lives it had, in which order it was seen, and whether every
answer is that of one uninterrupted run. Knows no clients, no faults and no service.
"""

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter

import numpy as np

from tests.chaos.chain import STATE_TOLERANCE, Chain, is_close
from tests.chaos.history import Operation, Outcome

REPLAY_WINDOW = 16
"""The design's promise: that many of a session's last requests are answered again."""


@dataclass(frozen=True)
class Violation:
    """A promise that was broken.

    Attributes:
        session: The client id.
        rule: Which, in words.
        operations: Those that show it.
    """

    session: str
    rule: str
    operations: tuple[Operation, ...]

    def report(self, history, num_around=12):
        """Return what happened around it, for people."""
        operations = sorted(history.operations[self.session], key=attrgetter("began"))
        marked = [n for n, one in enumerate(operations) if one in self.operations]
        shown = {n for mark in marked for n in range(mark - num_around, mark + num_around + 1)}
        lines = [f"session {self.session}: {self.rule}"]
        lines += [
            f"{'>' if n in marked else ' '} {one}" for n, one in enumerate(operations) if n in shown
        ]
        return "\n".join(lines)


def judge(session, operations, oracle):
    """Return every violation that a session's history shows, and the largest difference.

    Args:
        session: The client id.
        operations: Everything that was asked of it.
        oracle: What one uninterrupted run gives.
    """
    found = []

    def blame(rule, *culprits):
        found.append(Violation(session, rule, culprits))

    _check_answers(operations, blame)
    _check_repeats(operations, blame)
    _check_lives(operations, blame)
    lives = defaultdict(list)
    for operation in operations:
        if operation.epoch is not None:
            lives[operation.epoch].append(operation)
    largest = 0.0
    for epoch, seen in lives.items():
        _check_order(seen, blame)
        chain = Chain(epoch, seen, operations, oracle)
        chain.check(blame)
        largest = max(largest, chain.largest_difference)
        _check_window(chain, seen, blame)
    return found, largest


def _check_answers(operations, blame):
    """Each answer fits its request, and none says what no fault explains."""
    first_seen = min((o.ended for o in operations if o.epoch is not None), default=np.inf)
    for operation in operations:
        intent = operation.intent
        if operation.outcome is Outcome.WRONG:
            blame(f"answered {operation.code}", operation)
        elif operation.outcome is Outcome.ABSENT and first_seen < operation.began:
            blame("a session that was there is unknown", operation)
        elif operation.outcome is Outcome.CONFLICT:
            is_position_right = intent.position in (None, operation.position)
            if is_position_right and intent.epoch in (None, operation.epoch):
                blame("a conflict where there is none", operation)
        elif operation.outcome is Outcome.APPLIED and intent.kind != "look":
            is_reset = intent.kind == "reset"
            expected = 0 if is_reset else intent.position + intent.num_steps
            if operation.position != expected:
                blame(f"answered another position than {expected}", operation)
            if intent.epoch is not None and is_reset == (operation.epoch == intent.epoch):
                blame("a reset in the same epoch, or a step in another", operation)


def _check_repeats(operations, blame):
    """A position is taken by one request, once, and its answers are the same to the bit."""
    answers = defaultdict(list)
    for operation in operations:
        if operation.is_applied_advance:
            answers[operation.epoch, operation.intent.position].append(operation)
    for (_, position), group in answers.items():
        first = group[0]
        fresh = [one for one in group if not (one.replayed or one.may_be_replayed)]
        if len(fresh) > 1:
            blame(f"position {position} was taken twice", *fresh)
        for other in group[1:]:
            if other.intent.content != first.intent.content:
                blame(f"two requests were applied at position {position}", first, other)
            elif not _are_same(first, other):
                blame(f"two answers of one request at position {position}", first, other)


def _are_same(one, other):
    for mine, its in ((one.outputs, other.outputs), (one.states, other.states)):
        if mine is None or its is None:
            return mine is its
        # A long answer is computed again, and NumPy's bits depend on the size of the batch.
        if one.is_long and is_close(mine, its, STATE_TOLERANCE):
            continue
        if mine.tobytes() != its.tobytes():
            return False
    return True


def _check_lives(operations, blame):
    """Each epoch has a beginning of its own, and once another one began it is over."""
    resets = [o for o in operations if o.intent.kind == "reset"]
    births = defaultdict(list)
    for reset in resets:
        if reset.outcome is Outcome.APPLIED:
            births[reset.epoch].append(reset)
    for twins in births.values():
        if len(twins) > 1:
            blame("two resets began the same epoch", *twins)
    seen = defaultdict(list)
    for operation in operations:
        if operation.epoch is not None:
            seen[operation.epoch].append(operation)
    num_unexplained = len(seen) - len(births)
    num_open = sum(reset.outcome.is_open for reset in resets)
    if num_unexplained > num_open + 1:
        blame(f"{num_unexplained} epochs began by themselves, {num_open} resets could have", *())
    # It was there from the first of these moments to the last: nothing else was, in between.
    spans = [
        (min(group, key=attrgetter("ended")), max(group, key=attrgetter("began")))
        for group in seen.values()
    ]
    spans = sorted((s for s in spans if s[0].ended < s[1].began), key=lambda s: s[0].ended)
    for (_, last), (following, back) in pairwise(spans):
        if following.ended < last.began:
            blame("an epoch came back after another one", following, last, back)


def _check_order(seen, blame):
    """Nothing that is answered in an epoch is behind what was answered before it was asked."""
    by_end = sorted(seen, key=attrgetter("ended"))
    index = 0
    furthest = None
    for operation in sorted(seen, key=attrgetter("began")):
        while by_end[index].ended < operation.began:
            if furthest is None or by_end[index].position > furthest.position:
                furthest = by_end[index]
            index += 1
        if furthest is None or operation.replayed or operation.may_be_replayed:
            continue  # a replay tells where the session was, not where it is
        at = operation.intent.position if operation.is_applied_advance else operation.position
        if at < furthest.position:
            blame(f"back at position {at} after {furthest.position}", furthest, operation)


def _check_window(chain, seen, blame):
    """A retry of one of the last requests is answered again, and not refused."""
    for operation in seen:
        intent = operation.intent
        if operation.outcome is not Outcome.CONFLICT or intent.kind != "advance":
            continue
        if intent.position >= operation.position:
            continue
        first = chain.index_from(intent.position)
        last = chain.index_to(operation.position)
        if first is None or last is None or last - first >= REPLAY_WINDOW:
            continue
        link = chain.links[first]
        is_kept = not link.is_long or last == first
        if is_kept and link.intent.content == intent.content:
            blame("a retry within the replay window was refused", link, operation)
