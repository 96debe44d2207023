"""The statistics of the benchmarks, and what they say of a target."""

import json
from dataclasses import replace

import numpy as np
import pytest
from bench_model import expected_outputs, write_bench_model
from load import Result, median
from report import at_least, at_most, not_measured, result_cells, targets_table
from setting import as_numbers, random_inputs

from lstm_core.formats.keras import read_keras
from lstm_core.runtime.cpu import CpuRuntime
from service.transport.schema import StepBody


def result(rate, *, p50_ms=1.0, num_failed=0):
    """Return a result with a few figures of its own."""
    return Result(
        rate=rate,
        p50_ms=p50_ms,
        p99_ms=2.0,
        generator_cpu=0.5,
        num_failed=num_failed,
        num_answers=10,
    )


def test_each_figure_has_its_own_median_and_failures_add_up():
    """The median of one figure comes from another run than that of the next."""
    runs = [
        result(100, p50_ms=9.0),
        result(300, p50_ms=1.0, num_failed=2),
        result(200, p50_ms=5.0, num_failed=1),
    ]

    middle = median(runs)

    assert (200, 5.0) == (middle.rate, middle.p50_ms)
    assert (3, 30) == (middle.num_failed, middle.num_answers)


@pytest.mark.parametrize(
    ("target", "margin", "is_missed"),
    [
        (at_least("rate", 150, 100), 1.5, False),
        (at_least("rate", 50, 100), 0.5, True),
        (at_most("time", 50, 100), 2.0, False),
        (at_most("time", 200, 100), 0.5, True),
        (at_most("bytes", -3, 100), float("inf"), False),
        (not_measured("binary", "not served"), None, False),
    ],
)
def test_margin_says_how_many_times_better_than_wanted(target, margin, is_missed):
    """Below 1 the target is missed, whichever way it points."""
    assert margin == target.margin
    assert is_missed == ("**missed**" in targets_table([target]))


def test_a_generator_that_is_too_busy_is_pointed_out():
    """A figure that may be the generator's own says so."""
    free, busy = result(100), replace(result(100), generator_cpu=0.97)

    assert "**" not in " ".join(result_cells(free))
    assert "97% **too busy**" in result_cells(busy)


def test_expected_outputs_are_those_of_the_served_file(tmp_path):
    """The benchmark's own reader of the file and the service's agree about the network."""
    path = tmp_path / "bench.keras"
    write_bench_model(path)
    inputs = random_inputs(5)

    served = CpuRuntime(read_keras(path), capacity=1).predict(inputs[None])[0]

    np.testing.assert_allclose(served, expected_outputs(path, inputs), rtol=0, atol=1e-6)


def test_numbers_in_json_are_the_binary_ones():
    """What is sent as JSON and what is sent in binary is the same float32, bit for bit."""
    inputs = random_inputs(3)

    sent = json.dumps({"inputs": as_numbers(inputs)[1]})

    body = StepBody.model_validate_json(sent)
    np.testing.assert_array_equal(inputs[1], np.array(body.inputs, np.float32))
