"""Every figure of the hot path in one run, beside what it shall be: `make bench`.

    python benchmarks/hot_path.py                       # all
    python benchmarks/hot_path.py --only http,start     # some
    python benchmarks/hot_path.py --quick               # in a minute or two, to see that it runs

The service has what it ships switched on, on one core; the load generator has another one and tells
how much of it it used. All sides are warmed up and measured in turns; figures are medians. Before a
server is measured its answers are compared with the equations of the LSTM, and afterwards the
positions of the sessions with the number of answers.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from bench_model import write_bench_model
from figures import grpc, http, million, mixed, sequence, start, steps, stores, v2, websocket
from report import Figure, Watch, machine, targets_table
from servers import share_cores
from setting import Setting

FIGURES: dict[str, Callable[[Setting], Figure]] = {
    "start": start.measure,
    "http": http.measure,
    "v2": v2.measure,
    "ws": websocket.measure,
    "grpc": grpc.measure,
    "steps": steps.measure,
    "sequence": sequence.measure,
    "mixed": mixed.measure,
    "stores": stores.measure,
    "million": million.measure,
}


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = set(names) - FIGURES.keys()
    if unknown:
        raise argparse.ArgumentTypeError(
            f"{', '.join(sorted(unknown))}: expected some of {', '.join(FIGURES)}"
        )
    return names


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--only",
        type=_names,
        default=list(FIGURES),
        metavar="NAME,...",
        help=f"which figures, of {', '.join(FIGURES)} [all]",
    )
    parser.add_argument("--quick", action="store_true", help="short runs, two of each")
    parser.add_argument("--repeats", type=int, help="of each measurement [3]")
    parser.add_argument("--seconds", type=float, help="of each measurement [2.5]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    options = parser.parse_args()

    watch = Watch()
    core = share_cores()
    print(f"{machine()};")
    print(f"server and load generator on a core each: {'no' if core is None else 'yes'}.")
    print("Network: 32 inputs, LSTM of 128 units, Dense of 8.\n")
    figures: dict[str, Figure] = {}
    with TemporaryDirectory() as folder:
        setting = Setting(
            core=core,
            folder=Path(folder),
            repeats=options.repeats or (2 if options.quick else 3),
            warmup_s=0.3 if options.quick else 1.0,
            duration_s=options.seconds or (0.5 if options.quick else 2.5),
            is_quick=options.quick,
        )
        write_bench_model(setting.model)
        for name in options.only:
            figure = figures[name] = FIGURES[name](setting)
            print(f"## {figure.title}\n\n{figure.text}\n", flush=True)
    print("## What is wanted\n")
    print(targets_table(target for figure in figures.values() for target in figure.targets))
    print(f"\nMedians of {setting.repeats} runs of {setting.duration_s} s.")
    print(watch.verdict())
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(_document(figures), indent=1) + "\n")


def _document(figures: dict[str, Figure]) -> dict[str, object]:
    return {
        "machine": machine(),
        "measured": time.strftime("%Y-%m-%d"),
        "targets": [asdict(target) for figure in figures.values() for target in figure.targets],
        "figures": {name: figure.data for name, figure in figures.items()},
    }


if __name__ == "__main__":
    main()
