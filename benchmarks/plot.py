"""Draws throughput and latency against clients, each server a line, from `hot_path.py --json`.

    python benchmarks/plot.py results.json benchmarks/plots/hot_path.png

Needs matplotlib: `pip install '.[bench]'`. The suffix of the second file says which form it has.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

COLOURS = {
    "service": "#c2185b",
    "echo": "#455a64",
    "FastAPI + NumPy": "#1976d2",
    "FastAPI + Keras": "#ef8a17",
}
LABELS = {"service": "this service", "echo": "uvicorn echo,\nvalidated (no LSTM)"}
LEAST_APART = 1.35
"""How far labels beside the lines stand from each other at least, as a factor."""


def draw(results: Sequence[dict[str, Any]], machine: str, path: Path) -> None:
    """Draw the results of the HTTP steps.

    Args:
        results: Of each server and number of clients, as `figures.http` leaves them.
        machine: For the title.
        path: Where the picture goes.
    """
    clients = sorted({result["clients"] for result in results})
    servers = [name for name in COLOURS if any(r["server"] == name for r in results)]
    figure, (throughput, latency) = plt.subplots(1, 2, figsize=(12, 5.6), layout="constrained")
    figure.suptitle(
        "One LSTM step a request over HTTP, JSON (32 inputs, 128 units, 8 outputs)\n"
        f"{machine}; server on one core, load generator on another",
        fontsize=11,
    )
    ends: dict[str, tuple[float, float]] = {}
    for name in servers:
        points = sorted((r for r in results if r["server"] == name), key=lambda r: r["clients"])
        x = [r["clients"] for r in points]
        colour = COLOURS[name]
        throughput.plot(x, [r["rate"] for r in points], "o-", color=colour, linewidth=2)
        ends[name] = (x[-1], points[-1]["rate"])
        latency.plot(x, [r["p50_ms"] for r in points], "o-", color=colour, linewidth=2)
        latency.plot(x, [r["p99_ms"] for r in points], "o--", color=colour, linewidth=1, ms=4)
    _label(throughput, ends)
    throughput.set(title="steps a second", xlim=(clients[0] * 0.8, clients[-1] * 6))
    latency.set(title="latency, ms")
    figure.legend(
        handles=[
            *(Line2D([], [], color=COLOURS[n], linewidth=2, label=_name(n)) for n in servers),
            Line2D([], [], color="black", linewidth=2, label="median"),
            Line2D([], [], color="black", linewidth=1, linestyle="--", label="p99"),
        ],
        fontsize=9,
        frameon=False,
        loc="outside lower center",
        ncols=len(servers) + 2,
    )
    for axes in (throughput, latency):
        axes.set(xscale="log", yscale="log", xlabel="clients, each with one request in flight")
        axes.set_xticks(clients, [str(n) for n in clients])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
        axes.grid(visible=True, which="major", color="#e0e0e0")
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)


def _name(server: str) -> str:
    return LABELS.get(server, server).replace("\n", " ")


def _label(axes: Any, ends: dict[str, tuple[float, float]]) -> None:
    """Write each server's name and figure behind the end of its line, none on another."""
    below = 0.0
    for name, (x, y) in sorted(ends.items(), key=lambda end: end[1][1]):
        at = max(y, below * LEAST_APART)
        below = at
        text = f"{LABELS.get(name, name)}: {y:,.0f}"
        axes.annotate(
            text,
            (x, at),
            xytext=(10, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=COLOURS[name],
        )


def main() -> None:
    """Read the results and draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, help="what `hot_path.py --json` wrote")
    parser.add_argument("picture", type=Path, help="a .png or .svg file")
    options = parser.parse_args()
    document = json.loads(options.results.read_text())
    http = document["figures"].get("http")
    if http is None:
        print("the HTTP steps were not measured: nothing is drawn")
        return
    draw(http["results"], document["machine"], options.picture)
    print(f"drawn: {options.picture}")


if __name__ == "__main__":
    main()
