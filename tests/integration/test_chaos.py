"""The short form of `make chaos`: failing parts under load, and every answer checked.

And proof that the checker can fail: services with one broken promise, and histories that cannot be.
"""

from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from service.errors import PositionConflictError
from tests.chaos import mutants
from tests.chaos.cluster import EmbeddedCluster, RedisCluster
from tests.chaos.history import History, Intent, Operation, Outcome
from tests.chaos.oracle import Oracle
from tests.chaos.run import Goals, Plan, run
from tests.chaos.verdict import judge
from tests.integration.deployment import needs
from tests.unit.engines import make_engine, step

MUTANTS = str(Path(mutants.__file__))
SHORT = Goals(steps=2000, faults=7, unknown=30, replays=100, conflicts=100, resumed=100)
"""The whole run wants 100,000 steps and 30 faults, and more than 100 of each of the others."""
SHORT_ALONE = Goals(steps=2000, faults=2, unknown=15, replays=100, conflicts=100, resumed=100)
FOR_MUTANTS = Goals(steps=500, faults=2, unknown=100, replays=0, conflicts=0, resumed=-1)
FOR_MUTANTS_ALONE = Goals(steps=500, faults=1, unknown=0, replays=0, conflicts=0, resumed=-1)
FOR_STREAMS = Goals(steps=300, faults=-1, unknown=-1, replays=-1, conflicts=-1, resumed=10)
MAX_TRIES = 4
"""A broken promise shows only where a fault meets a step: a run in many misses all of them."""
MAX_S = 100.0
"""A run ends as soon as its goals are met, usually after a tenth of this."""


def find_out(kind, mutant, plan, directory):
    """Run a mutant until it is found out, with other faults each time."""
    reports = []
    for attempt in range(MAX_TRIES):
        place = directory / str(attempt)
        place.mkdir()
        verdict = run(kind(place, (MUTANTS, mutant)), replace(plan, seed=plan.seed + attempt))
        if verdict.violations:
            return
        reports.append(verdict.report())
    pytest.fail(f"{mutant} was not found out:\n" + "\n".join(reports))


@needs("haproxy", "haproxy")
def test_nothing_is_lost_or_applied_twice_when_replicas_redis_and_the_network_fail(tmp_path):
    """Three replicas behind the shipped balancer and a random one keep every promise."""
    plan = Plan(seed=11, goals=SHORT, max_s=MAX_S, gap_s=1.0)
    verdict = run(RedisCluster(tmp_path), plan)
    assert verdict.is_good, verdict.report()


def test_nothing_is_lost_or_applied_twice_when_a_process_is_killed(tmp_path):
    """The embedded store keeps every promise through kill -9."""
    plan = Plan(seed=12, goals=SHORT_ALONE, max_s=MAX_S, num_owners=18, gap_s=0.7)
    verdict = run(EmbeddedCluster(tmp_path), plan)
    assert verdict.is_good, verdict.report()


@needs("haproxy", "haproxy")
@pytest.mark.parametrize("mutant", ["without_compare", "with_hope"])
def test_a_service_with_a_broken_promise_is_found_out(mutant, tmp_path):
    """Without compare-and-set, or taking unknown outcomes for good, steps are lost or repeated."""
    plan = Plan(seed=13, goals=FOR_MUTANTS, max_s=MAX_S, num_owners=18, num_streamed=0, gap_s=0.7)
    find_out(RedisCluster, mutant, plan, tmp_path)


def test_answers_before_their_commits_are_found_out(tmp_path):
    """What was answered is gone after kill -9, and the checker notices."""
    plan = Plan(
        seed=14, goals=FOR_MUTANTS_ALONE, max_s=MAX_S, num_owners=18, num_streamed=0, gap_s=0.7
    )
    find_out(EmbeddedCluster, "with_early_answers", plan, tmp_path)


@pytest.mark.parametrize("mutant", ["without_stream_positions", "with_doubled_frames"])
def test_frames_that_are_lost_or_taken_twice_are_found_out(mutant, tmp_path):
    """By streams alone, whose clients leave in their midst and come back."""
    plan = Plan(seed=15, goals=FOR_STREAMS, max_s=MAX_S, num_owners=0, num_batched=0)
    find_out(EmbeddedCluster, mutant, plan, tmp_path)


@pytest.mark.parametrize(
    ("mutant", "expected"), [("without_replays", (2, "position_conflict")), ("with_repeats", 3)]
)
async def test_a_mutant_breaks_its_promise_and_does_not_just_fail(mutant, expected):
    """A retry is refused without the answers kept, and taken for the next step with repeats."""
    engine = make_engine()
    await engine.start()
    first, second = (step(np.zeros(3, np.float32), position=position) for position in range(2))
    mutants.MUTANTS[mutant]()
    try:
        await engine.ask(first)
        await engine.ask(second)
        got = (await engine.ask(first)).position
    except PositionConflictError as error:
        got = error.position, error.code
    finally:
        mock.patch.stopall()
    await engine.drain()
    assert expected == got


class Story:
    """A history of one session, told by hand: four steps in one epoch, and what is made of them."""

    def __init__(self):
        """Take four steps, each answered before the next one."""
        self.oracle = Oracle()
        self.operations = []
        inputs = np.random.default_rng(0).uniform(-1, 1, (6, self.oracle.input_size))
        self.intents = [
            Intent("s", "advance", position, None, step[None].astype(np.float32))
            for position, step in enumerate(inputs)
        ]
        self.outputs, _ = self.oracle.advance(
            self.oracle.begin(), np.concatenate([intent.inputs for intent in self.intents])
        )
        for position in range(4):
            self.add(position)

    def add(self, position, *, replayed=False, intent=None):
        """Answer the step at a position with 200; return the operation."""
        operation = self.ask(intent or self.intents[position])
        outputs = self.outputs[position].tolist()
        operation.take({"position": position + 1, "epoch": 7, "replayed": replayed})
        operation.outputs = np.array([outputs], np.float32)
        return operation

    def ask(self, intent, outcome=Outcome.UNKNOWN, position=None, epoch=None):
        """Ask for something after everything else, and let it have an outcome."""
        began = float(len(self.operations))
        operation = Operation(intent, "hand", "random", began, began + 0.5, outcome)
        operation.position, operation.epoch = position, epoch
        self.operations.append(operation)
        return operation

    def rules(self):
        """Return the rules that are broken."""
        found, _ = judge("s", self.operations, self.oracle)
        history = History({"s": self.operations})
        assert all(violation.rule in violation.report(history) for violation in found)
        return [violation.rule for violation in found]


def test_a_good_history_is_not_blamed():
    """Retries, conflicts, unknown outcomes that came true, looks and resets are all as they are."""
    story = Story()
    story.add(2, replayed=True)
    story.ask(story.intents[1]._replace(inputs=story.intents[0].inputs), Outcome.CONFLICT, 4, 7)
    story.ask(story.intents[4])
    story.add(5)
    story.ask(Intent("s", "look"), Outcome.APPLIED, 6, 7)
    story.ask(Intent("s", "reset", epoch=7), Outcome.APPLIED, 0, 8)
    assert [] == story.rules()


def _lose(story):
    story.ask(Intent("s", "look"), Outcome.APPLIED, 3, 7)


def _forget(story):
    story.ask(Intent("s", "look"), Outcome.ABSENT)


def _repeat(story):
    story.add(3)


def _take_another(story):
    story.add(3, intent=story.intents[3]._replace(inputs=story.intents[0].inputs))


def _skip(story):
    story.add(5)


def _answer_otherwise(story):
    other = story.add(2, replayed=True)
    other.outputs = np.nextafter(other.outputs, np.float32(1))


def _apply_otherwise(story):
    story.add(4).outputs += 1e-5


def _refuse_a_retry(story):
    story.ask(story.intents[1], Outcome.CONFLICT, 4, 7)


def _refuse_for_nothing(story):
    story.ask(story.intents[4], Outcome.CONFLICT, 4, 7)


def _begin_by_itself(story):
    story.ask(Intent("s", "look"), Outcome.APPLIED, 0, 8)


def _come_back(story):
    story.ask(Intent("s", "reset"), Outcome.APPLIED, 0, 8)
    story.ask(Intent("s", "look"), Outcome.APPLIED, 0, 8)
    story.ask(Intent("s", "look"), Outcome.APPLIED, 4, 7)


def _stay(story):
    story.ask(Intent("s", "reset", epoch=7), Outcome.APPLIED, 0, 7)


def _drift(story):
    story.ask(Intent("s", "look"), Outcome.APPLIED, 4, 7).states = np.zeros((2, 48), np.float32)


def _break(story):
    story.ask(story.intents[4], Outcome.WRONG).code = "internal"


STORIES = {
    _lose: "back at position 3 after 4",
    _forget: "a session that was there is unknown",
    _repeat: "position 3 was taken twice",
    _take_another: "two requests were applied at position 3",
    _skip: "nothing was asked that could have taken position 4",
    _answer_otherwise: "two answers of one request at position 2",
    _apply_otherwise: "outputs at position 4 differ from those of one run by 1e-05",
    _refuse_a_retry: "a retry within the replay window was refused",
    _refuse_for_nothing: "a conflict where there is none",
    _begin_by_itself: "2 epochs began by themselves, 0 resets could have",
    _come_back: "an epoch came back after another one",
    _stay: "a reset in the same epoch, or a step in another",
    _drift: "states differ from those of one run by 1.77",
    _break: "answered internal",
}


@pytest.mark.parametrize("tell", STORIES, ids=lambda tell: tell.__name__[1:])
def test_a_history_that_cannot_be_is_blamed(tell):
    """Each rule is broken by a history that differs from a good one in a single answer or two."""
    story = Story()
    tell(story)
    assert STORIES[tell] in story.rules()
