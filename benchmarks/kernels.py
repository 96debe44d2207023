"""The native kernel beside every runtime for CPUs, over a grid of sizes: `make bench-kernels`.

    python benchmarks/kernels.py                        # the whole grid
    python benchmarks/kernels.py --units 128 --rows 1,64 --only ONNX,OpenVINO
    python benchmarks/kernels.py --quick                # a part of it in a minute or two

One LSTM, each runtime on one thread in this process. Ours takes each call as the service does, rows
gathered from the arena and scattered to it, Python included. Before anybody is timed, outputs and
states are compared; all are warmed up and take turns. The rival at a point is the best of the
others there. Where other programs run, `--clock cpu` is the fairer one.
"""

from __future__ import annotations

import argparse
import os

# Before NumPy is imported: its threads would spin beside what is measured.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import gc
import importlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from contest import Pace, check, race
from kernel_grid import Point, grid_table, limits_table, targets
from report import Watch, machine, targets_table
from rivals import native
from rivals.problem import Contestant, Problem, make_problem

UNITS = (32, 128, 256, 512, 1024)
ROWS = (1, 4, 16, 64, 256)
STEPS = (1, 100)
RIVALS = {
    "onnx_runtime": ("onnxruntime", "onnx"),
    "openvino_runtime": ("openvino",),
    "pytorch": ("torch",),
    "tensorflow_keras": ("tensorflow", "keras"),
}
"""Modules of `rivals`, and the packages that they need."""
MOST_CORES = 1.05
"""Who has more CPU time in a second than this is not on one thread."""
Make = Callable[[Problem], Iterator[Contestant]]


def main() -> None:
    """Measure and print."""
    options = _options()
    pace = Pace(
        sample_s=0.002 if options.quick else 0.004,
        point_s=0.5 if options.quick else 1.5,
        least_rounds=2 if options.quick else 3,
        most_rounds=7 if options.quick else 21,
        has_cpu_clock=options.clock == "cpu",
    )
    watch = Watch()
    print(f"{machine()}; {options.precision}, one thread each, {options.clock} time.")
    makers = _rivals(options.precision)
    points = []
    for steps in options.steps:
        for units in options.units:
            for rows in options.rows:
                problem = make_problem(units, rows, steps, options.precision)
                point = _measure(problem, makers, options.only, pace)
                points.append(point)
                print(point.line(), flush=True)
    print(f"\n{limits_table(options.precision)}\n\n{grid_table(points)}\n")
    print(f"{targets_table(targets(points))}\n\n{_busiest(points)}")
    print(watch.verdict())
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(_document(points, options.clock), indent=1) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])

    def numbers(text: str) -> list[int]:
        return [int(number) for number in text.split(",")]

    parser.add_argument("--units", type=numbers, help=f"which of the grid {UNITS}")
    parser.add_argument("--rows", type=numbers, help=f"which of the grid {ROWS}")
    parser.add_argument("--steps", type=numbers, default=STEPS, help=f"which of the grid {STEPS}")
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=[""],
        metavar="NAME,...",
        help="rivals whose names begin so [all]",
    )
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu counts no waits, and little of what other programs on the machine do [wall]",
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the products; in bfloat16 only OpenVINO is a rival [float32]",
    )
    parser.add_argument("--quick", action="store_true", help="a part of the grid, fewer rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    options = parser.parse_args()
    options.units = options.units or (UNITS[:4] if options.quick else UNITS)
    options.rows = options.rows or (ROWS[::2] if options.quick else ROWS)
    return options


def _rivals(precision: str) -> list[Make]:
    """Import those that are installed, and tell which are not."""
    makers: list[Make] = []
    for name, packages in RIVALS.items():
        if precision == "bfloat16" and name != "openvino_runtime":
            continue
        try:
            module = importlib.import_module(f"rivals.{name}")
        except ModuleNotFoundError as error:
            print(f"Missing: {error.name}, so {name} does not run (pip install '.[rivals]').")
            continue
        makers.append(module.contestants)
        print(", ".join(f"{package} {version(package)}" for package in packages))
    return makers


def _measure(problem: Problem, makers: list[Make], names: list[str], pace: Pace) -> Point:
    contestants = list(native.contestants(problem))
    for make in makers:
        contestants += [c for c in make(problem) if c.name.startswith(tuple(names))]
    check(problem, contestants)
    timings = race(contestants, pace)
    del contestants
    gc.collect()
    return Point(
        units=problem.units,
        rows=problem.rows,
        steps=problem.steps,
        precision=problem.precision,
        timings=timings,
    )


def _busiest(points: list[Point]) -> str:
    """Return what shows whether everybody was on one thread."""
    timings = [(timing.cores, timing.name) for point in points for timing in point.timings]
    cores, name = max(timings)
    verdict = "" if cores <= MOST_CORES else ": **more than one thread**"
    return f"Nobody had more than {cores:.2f} s of CPU time a second ({name}){verdict}."


def _document(points: list[Point], clock: str) -> dict[str, Any]:
    return {
        "clock": clock,
        "machine": machine(),
        "measured": time.strftime("%Y-%m-%d"),
        "targets": [asdict(target) for target in targets(points)],
        "points": [point.data() for point in points],
    }


if __name__ == "__main__":
    main()
