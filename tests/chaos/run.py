"""One run: the cluster, the clients, the faults, and then the verdict."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field

import uvloop
from threadpoolctl import threadpool_limits

from tests.chaos.clients import BatchDriver, Owner, Rival, Writer
from tests.chaos.desk import Desk
from tests.chaos.faults import Faults
from tests.chaos.history import History, Intent, Outcome
from tests.chaos.oracle import Oracle
from tests.chaos.streams import Streamer
from tests.chaos.verdict import Violation, judge

_ANSWER_TIMEOUT_S = 2.0
"""How long clients wait: less than a replica may be stopped."""
_SETTLE_S = 40.0
"""How long after the last fault clients may take to settle what they began."""


@dataclass(frozen=True)
class Goals:
    """What a run has to have met to mean something: more than each of these.

    Attributes:
        steps: Acknowledged time steps.
        faults: Faults while requests were in flight.
        unknown: Requests without a known outcome, those that clients left not included.
        replays: Answers that were given again.
        conflicts: Requests that were refused because the session was elsewhere.
        resumed: Frames of streams that were sent again on another connection.
    """

    steps: int
    faults: int
    unknown: int
    replays: int
    conflicts: int
    resumed: int

    def missing(self, history):
        """Return what has not been met yet, in words."""
        hits = sum(num_in_flight > 0 for *_, num_in_flight in history.faults)
        met = {
            "steps": history.num_acknowledged,
            "faults": hits,
            "unknown": history.outcomes[Outcome.UNKNOWN],
            "replays": history.num_replayed,
            "conflicts": history.outcomes[Outcome.CONFLICT],
            "resumed": history.num_resumed,
        }
        return [
            f"{name}: {met[name]} of more than {wanted}"
            for name, wanted in vars(self).items()
            if met[name] <= wanted
        ]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run.

    Attributes:
        seed: Of everything random in it; what the service and the machine do besides is chance.
        goals: It lasts until they are met,
        max_s: or so many seconds are over.
        num_owners: Sessions with a client each; a third of them with a rival.
        num_batched: Sessions that are stepped together.
        num_streamed: Sessions that are streamed to; a third of them with a rival.
        gap_s: Between two faults, on average.
    """

    seed: int
    goals: Goals
    max_s: float
    num_owners: int = 36
    num_batched: int = 12
    num_streamed: int = 9
    gap_s: float = 2.0


@dataclass
class Verdict:
    """What a run came to.

    Attributes:
        history: What happened.
        violations: Promises that were broken.
        problems: What else went wrong, or was not met.
        duration_s: Of the traffic.
        largest_difference: Between outputs and the oracle's.
    """

    history: History
    violations: list[Violation] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    duration_s: float = 0.0
    largest_difference: float = 0.0

    @property
    def is_good(self):
        """Whether the service kept its promises, and was tested."""
        return not (self.violations or self.problems)

    def report(self):
        """Return all of it as text."""
        history = self.history
        kinds = Counter(kind for _, kind, *_ in history.faults)
        outcomes = ", ".join(f"{o.name.lower()} {n}" for o, n in history.outcomes.most_common())
        lines = [
            f"acknowledged steps: {history.num_acknowledged} in {self.duration_s:.0f} s",
            f"in requests of one step: {history.requests['single']}",
            f"in longer requests: {history.requests['longer']}",
            f"faults: {len(history.faults)}: {_list(kinds)}",
            f"requests sent: {history.outcomes.total()}: {outcomes}",
            f"unknown outcomes: {history.outcomes[Outcome.UNKNOWN]}",
            f"of which had been applied, as their retries told: {history.num_hidden()}",
            f"replays: {history.num_replayed}",
            f"conflicts: {history.outcomes[Outcome.CONFLICT]}",
            f"retries: {history.num_retries}",
            f"frames of streams that were sent again: {history.num_resumed}",
            f"errors by code: {_list(history.codes)}",
            f"largest difference of an output: {self.largest_difference:.2g}",
        ]
        lines += [f"PROBLEM: {problem}" for problem in self.problems]
        if self.violations:
            lines.append(f"VIOLATIONS: {len(self.violations)}")
            lines += [violation.report(history) for violation in self.violations[:3]]
            faults = [f"{when:9.4f} {kind} ({target})" for when, kind, target, _ in history.faults]
            lines += ["faults:", *faults]
        lines.append("PASSED" if self.is_good else "FAILED")
        return "\n".join(lines)


def _list(counts):
    return ", ".join(f"{name} {count}" for name, count in counts.most_common()) or "none"


def run(cluster, plan, tell=lambda _: None):
    """Run a plan on a cluster that is not started yet, and return the verdict.

    Args:
        cluster: What is tested.
        plan: What is done to it.
        tell: Told now and then, in words, how far it is.
    """
    return uvloop.run(_run(cluster, plan, tell))


async def _run(cluster, plan, tell):
    oracle = Oracle()
    verdict = Verdict(History())
    try:
        await cluster.start()
        desk = Desk(verdict.history, cluster.ports, oracle.input_size, _ANSWER_TIMEOUT_S)
        await _stress(cluster, desk, plan, verdict, tell)
        desk.close()
    finally:
        cluster.stop()
    tell("the end is seen; now the verdict")
    with threadpool_limits(1):  # more would only get in each other's way
        for session, operations in verdict.history.operations.items():
            found, difference = judge(session, operations, oracle)
            verdict.violations += found
            verdict.largest_difference = max(verdict.largest_difference, difference)
    missing = plan.goals.missing(verdict.history)
    verdict.problems += [f"too little was met to tell: {text}" for text in missing]
    return verdict


async def _stress(cluster, desk, plan, verdict, tell):
    """Let clients and faults loose until the goals are met, and look at every session then."""
    faults = Faults(cluster, desk, plan.seed, plan.gap_s)
    writers = _writers(desk, plan)
    running = [asyncio.create_task(one.run()) for one in writers]
    harm = asyncio.create_task(faults.run())
    next_word_s = 10.0
    while plan.goals.missing(desk.history) and desk.now < plan.max_s:
        await asyncio.sleep(0.1)
        for task in (harm, *running):
            if task.done():
                task.result()
                raise RuntimeError("a client or the faults ended early")
        if desk.now > next_word_s:
            next_word_s += 10.0
            tell(f"{desk.now:.0f} s: still to meet: {'; '.join(plan.goals.missing(desk.history))}")
    desk.is_ending = True
    verdict.duration_s = desk.now
    await harm
    tell(f"{desk.now:.0f} s: the goals are met, or time is up; now peace")
    await cluster.until_ready()
    verdict.problems += faults.problems
    _, late = await asyncio.wait(running, timeout=_SETTLE_S)
    desk.is_closing = True
    if late:
        verdict.problems.append(f"{len(late)} clients got no answer in {_SETTLE_S:g} s of peace")
        await asyncio.wait(late, timeout=_SETTLE_S)
    for session in sorted(desk.history.operations):
        await _look_last(session, desk, verdict)


def _writers(desk, plan):
    owners = [f"o{number}" for number in range(plan.num_owners)]
    batched = [f"b{number}" for number in range(plan.num_batched)]
    streamed = [f"s{number}" for number in range(plan.num_streamed)]
    writers: list[Writer] = [
        Owner(session, desk, [plan.seed, n]) for n, session in enumerate(owners)
    ]
    writers += [Rival(session, desk, [plan.seed, 1, n]) for n, session in enumerate(owners[::3])]
    # One of the batched sessions has a rival too.
    if batched:
        driver = BatchDriver(batched, desk, [plan.seed, 2])
        writers += [driver, Rival(batched[0], desk, [plan.seed, 3])]
    writers += [Streamer(session, desk, [plan.seed, 4, n]) for n, session in enumerate(streamed)]
    writers += [Rival(session, desk, [plan.seed, 5, n]) for n, session in enumerate(streamed[1::3])]
    return writers


async def _look_last(session, desk, verdict):
    """See where a session is, with its states: the end of its history."""
    intent = Intent(session, "look", has_states=True)
    for entrance in desk.entrances:
        for _ in range(20):
            operation = await desk.send(intent, "last", entrance)
            if operation.outcome in (Outcome.APPLIED, Outcome.WRONG, Outcome.ABSENT):
                break
            await asyncio.sleep(0.2)
        else:
            verdict.problems.append(f"{session} could not be seen in the end through {entrance}")
