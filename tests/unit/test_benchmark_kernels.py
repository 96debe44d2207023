"""What the grid of kernels says of its points, and whom it lets race."""

import numpy as np
import pytest
from contest import DisagreementError, Pace, Timing, check, race
from kernel_grid import Point, targets
from rivals.problem import Contestant, make_problem

from lstm_core import equations

PACE = Pace(sample_s=1e-4, point_s=0, least_rounds=3, most_rounds=3)


def point(units, rows, steps=1, **seconds):
    """Return a point where each runtime took so long."""
    timings = [
        Timing(name=name, median_s=taken, least_s=taken, cores=1.0)
        for name, taken in seconds.items()
    ]
    return Point(units=units, rows=rows, steps=steps, precision="float32", timings=timings)


def contestant(problem, name, error=0.0):
    """Return a runtime that computes the equations, but for an error."""
    result = equations.sequence(
        problem.spec, problem.weights, problem.inputs, h=problem.h, c=problem.c
    )
    outputs = result.outputs.copy()
    outputs[-1, -1, -1] += error
    return Contestant(name=name, call=lambda: None, results=lambda: (outputs, result.h, result.c))


def test_the_rival_is_the_best_of_the_others():
    """Not the first, and not our own kernel."""
    one = point(128, 64, ours=2.0, slow=9.0, fast=3.0, other=4.0)
    assert one.rival is not None
    assert ("fast", 1.5) == (one.rival.name, one.ratio)
    assert point(128, 64, ours=2.0).ratio is None


def test_a_target_is_measured_at_its_worst_point():
    """One good point does not hide another."""
    points = [point(128, 64, ours=1.0, a=1.9), point(256, 64, ours=1.0, a=1.3)]
    (found,) = [t for t in targets(points) if t.what.startswith("single steps, 64 rows")]
    assert "256 units" in found.what
    assert ("1.30", "at least 1.20") == (found.measured, found.wanted)


@pytest.mark.parametrize("error", [1e-3, np.nan])
def test_who_computes_something_else_does_not_race(error):
    """One wrong number anywhere is enough."""
    problem = make_problem(5, 3, 2)
    ours = contestant(problem, "ours")
    check(problem, [ours, contestant(problem, "right", 1e-6)])
    with pytest.raises(DisagreementError, match="wrong"):
        check(problem, [ours, contestant(problem, "wrong", error)])


def test_everybody_has_a_sample_in_each_round():
    """Rounds are counted, whatever the time."""
    problem = make_problem(5, 3, 2)
    timings = race([contestant(problem, "a"), contestant(problem, "b")], PACE)
    assert ["a", "b"] == [timing.name for timing in timings]
    assert all(0 < timing.least_s <= timing.median_s for timing in timings)
