"""Draws how many times as fast as the best rival the kernel is, from `kernels.py --json`.

    python benchmarks/kernels_plot.py results.json benchmarks/plots/kernels.png

Several files are one grid, the later ones' points instead of the earlier ones'. Needs matplotlib:
`pip install '.[bench]'`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.colors import LogNorm

MOST = 8.0
"""Ratios beyond this, or its inverse, have the last colour."""
Key = tuple[int, int, int]


def draw(points: Mapping[Key, dict[str, Any]], title: str, path: Path) -> None:
    """Draw a panel for each number of steps, each cell with its ratio and the rival's name.

    Args:
        points: By steps, units and rows, as `Point.data` gives them.
        title: Above all.
        path: Where the picture goes.
    """
    all_steps = sorted({key[0] for key in points})
    figure, panels = plt.subplots(
        1, len(all_steps), figsize=(7.2 * len(all_steps), 6), layout="constrained", squeeze=False
    )
    image = None
    for axes, steps in zip(panels[0], all_steps, strict=True):
        image = _panel(axes, {key[1:]: p for key, p in points.items() if key[0] == steps})
        axes.set_title("single steps" if steps == 1 else f"{steps} steps", fontsize=12)
    bar = figure.colorbar(image, ax=panels, shrink=0.8, extend="both")
    ticks = [1 / MOST, 0.5, 1, 2, MOST]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.minorticks_off()
    bar.set_label("times as fast as the best rival")
    figure.suptitle(title, fontsize=12)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _panel(axes: Any, points: Mapping[tuple[int, int], dict[str, Any]]) -> Any:
    units = sorted({key[0] for key in points})
    rows = sorted({key[1] for key in points})
    ratios = [[points[u, r]["ratio"] for r in rows] for u in units]
    image = axes.imshow(ratios, cmap="RdYlGn", norm=LogNorm(1 / MOST, MOST), aspect="auto")
    axes.set_xticks(range(len(rows)), [str(r) for r in rows])
    axes.set_yticks(range(len(units)), [str(u) for u in units])
    axes.set(xlabel="rows", ylabel="units")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for y, u in enumerate(units):
        for x, r in enumerate(rows):
            point = points[u, r]
            others = [t for t in point["timings"] if t["name"] != "ours"]
            rival = min(others, key=lambda timing: timing["median_s"])["name"]
            text = {"ha": "center", "va": "center", "color": "#202020"}
            axes.text(x, y - 0.16, f"{point['ratio']:.2f}", fontsize=14, **text)
            axes.text(x, y + 0.2, rival.replace(", ", ",\n"), fontsize=8, **text)
    return image


def main() -> None:
    """Read the results and draw."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("results", type=Path, nargs="+", help="what `kernels.py --json` wrote")
    parser.add_argument("picture", type=Path, help="a .png or .svg file")
    options = parser.parse_args()
    documents = [json.loads(path.read_text()) for path in options.results]
    points: dict[Key, dict[str, Any]] = {
        (point["steps"], point["units"], point["rows"]): point
        for document in documents
        for point in document["points"]
    }
    if any(point["ratio"] is None for point in points.values()):
        print("there were no rivals: nothing is drawn")
        return
    title = (
        "The native kernel beside the best of ONNX Runtime, OpenVINO, PyTorch, TensorFlow and Keras"
        f"\nfloat32, one thread; {documents[-1]['machine']}"
    )
    draw(points, title, options.picture)
    print(f"drawn: {options.picture}")


if __name__ == "__main__":
    main()
