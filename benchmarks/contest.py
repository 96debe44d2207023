"""Several runtimes on one problem: whether they agree, and how long each takes, in turns.

Knows no runtime and no target.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from rivals.problem import Array, Contestant, Problem

TOLERANCES = {"float32": 2e-5, "bfloat16": 2e-2}
"""Of products in a precision and sums in any order, after a hundred steps."""


class DisagreementError(AssertionError):
    """A runtime gives other numbers than the equations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How one runtime did.

    Attributes:
        name: Of the contestant.
        median_s: Of a call, over the rounds.
        least_s: Of the best round.
        cores: CPU time of the whole process for each second, over all rounds.
    """

    name: str
    median_s: float
    least_s: float
    cores: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long to measure.

    Attributes:
        sample_s: How long short calls are repeated, to be timed as one.
        point_s: About how long all samples of all contestants take together.
        least_rounds: The fewest rounds, however long they take.
        most_rounds: The most rounds, however short they are.
        has_cpu_clock: Count the CPU time of the process instead of the time that passes. For one
            thread they differ by its waits and by what other programs on the core take.
    """

    sample_s: float
    point_s: float
    least_rounds: int
    most_rounds: int
    has_cpu_clock: bool = False


def check(problem: Problem, contestants: Sequence[Contestant]) -> None:
    """Compare what everybody computes.

    The first contestant's first and last row are compared with the equations, the others with its
    rows.

    Raises:
        DisagreementError: They differ by more than rounding.
    """
    for contestant in contestants:
        contestant.call()
    some = [0, problem.rows - 1]
    ours = contestants[0].results()
    tolerance = TOLERANCES[problem.precision]
    for got, expected in zip(ours, problem.some_rows(some), strict=True):
        _compare(contestants[0].name, got[some], expected, tolerance)
    for contestant in contestants[1:]:
        for got, expected in zip(contestant.results(), ours, strict=True):
            _compare(contestant.name, got, expected, tolerance)


def _compare(name: str, got: Array, expected: Array, tolerance: float) -> None:
    if got.shape != expected.shape:
        raise DisagreementError(f"{name} gives {got.shape}, not {expected.shape}")
    difference = float(np.abs(got - expected).max())
    if not difference <= tolerance:
        raise DisagreementError(f"{name} is off by {difference:.1e}")


def race(contestants: Sequence[Contestant], pace: Pace) -> list[Timing]:
    """Time everybody, one sample each a round; the first calls, which warm up, are not counted."""
    counts = [_calls_in(contestant, pace.sample_s) for contestant in contestants]
    samples: list[list[_Sample]] = [[] for _ in contestants]
    gc.collect()
    gc.disable()
    end = time.perf_counter() + pace.point_s
    for number in range(pace.most_rounds):
        if number >= pace.least_rounds and time.perf_counter() > end:
            break
        for contestant, count, taken in zip(contestants, counts, samples, strict=True):
            if count > 1:
                # What another one left in the caches is not this one's cost.
                contestant.call()
            taken.append(_sample(contestant, count))
    gc.enable()
    return [
        _timing(contestant.name, taken, pace)
        for contestant, taken in zip(contestants, samples, strict=True)
    ]


class _Sample(NamedTuple):
    """The seconds of a call, over some."""

    passed_s: float
    cpu_s: float


def _sample(contestant: Contestant, count: int) -> _Sample:
    call = contestant.call
    began, cpu_began = time.perf_counter(), time.process_time()
    for _ in range(count):
        call()
    cpu_s, passed_s = time.process_time() - cpu_began, time.perf_counter() - began
    return _Sample(passed_s / count, cpu_s / count)


def _calls_in(contestant: Contestant, seconds: float) -> int:
    """Warm up; return how many calls take about so long."""
    taken = _sample(contestant, 1).cpu_s
    if taken < seconds:
        taken = _sample(contestant, max(1, min(200, int(seconds / taken)))).cpu_s
    return max(1, int(seconds / taken))


def _timing(name: str, taken: Sequence[_Sample], pace: Pace) -> Timing:
    passed = [sample.passed_s for sample in taken]
    cpu = [sample.cpu_s for sample in taken]
    clock = cpu if pace.has_cpu_clock else passed
    return Timing(
        name=name,
        median_s=statistics.median(clock),
        least_s=min(clock),
        cores=sum(cpu) / sum(passed),
    )
