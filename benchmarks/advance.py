"""Measure `CpuRuntime.advance` as a whole, Python included, on each CPU kernel of this machine.

    PYTHONPATH=. taskset -c 1 python benchmarks/advance.py [--input-size 32] [--units 128]

Prints the median and the least microseconds of a call for a network of one LSTM and a linear head
of 8, and which share of the floor that arithmetic sets the median is: 2 FLOPs for each weight, row
and step, at the rate given with `--gflops`: what one core can do, 115 on a Zen 4 at 3.6 GHz.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from lstm_core.kernels import native
from lstm_core.network import Network, Recurrent
from lstm_core.pointwise import Dense
from lstm_core.runtime.cpu import CpuRuntime
from lstm_core.spec import LSTMSpec
from lstm_core.weights import initialize

SHAPES = ((1, 1), (4, 1), (16, 1), (64, 1), (256, 1), (1, 100), (32, 100))
"""Rows and time steps of a call."""
OUTPUTS = 8


def main() -> None:
    """Print a table for each kernel."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--input-size", type=int, default=32)
    parser.add_argument("--units", type=int, default=128)
    parser.add_argument("--gflops", type=float, default=115.0)
    parser.add_argument("--seconds", type=float, default=0.5, help="for each shape")
    arguments = parser.parse_args()
    network = make_network(arguments.input_size, arguments.units)
    macs = 4 * arguments.units * (arguments.input_size + arguments.units)
    macs += arguments.units * OUTPUTS
    for kernel in ("numpy", *native.instruction_sets()):
        runtime = CpuRuntime(network, 512, instruction_sets=() if kernel == "numpy" else [kernel])
        for rows, steps in SHAPES:
            times = measure(runtime, rows, steps, arguments.seconds)
            median_us = float(np.median(times))
            share = 2 * macs * rows * steps / arguments.gflops / 1e3 / median_us
            print(
                f"{kernel:9} {rows:4} rows {steps:4} steps: median {median_us:10.2f} us, "
                f"least {min(times):10.2f} us, {share:4.0%} of the floor",
                flush=True,
            )


def make_network(input_size: int, units: int) -> Network:
    """Return an LSTM with a linear head."""
    spec = LSTMSpec(input_size=input_size, units=units)
    kernel = np.random.default_rng(0).standard_normal((units, OUTPUTS)).astype(np.float32)
    lstm = Recurrent(name="lstm", spec=spec, weights=initialize(spec, 0))
    return Network("n", input_size, (lstm, Dense(name="head", kernel=kernel, bias=kernel[0])))


def measure(runtime: CpuRuntime, rows: int, steps: int, seconds: float) -> list[float]:
    """Return the microseconds of each of the calls that fit into some seconds."""
    shape = (rows, steps, runtime.network.input_size)
    inputs = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    source, target = list(range(1, rows + 1)), list(range(rows + 1, 2 * rows + 1))
    lengths = [steps] * rows
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end:
        runtime.advance(source, target, inputs, lengths)
        times.append((time.perf_counter() - began) * 1e6)
        source, target = target, source
    return times


if __name__ == "__main__":
    main()
