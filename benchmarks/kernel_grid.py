"""What the grid of `kernels.py` shows: rival and binding limit of each point, and the targets."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from contest import Timing
from limits import LEVELS, peak_flops, read_rate
from report import Target, at_least, not_measured, table
from rivals.native import NAME
from rivals.problem import input_size

from lstm_core.kernels.native import Precision

L2_BYTES = 1 << 20
"""Of most servers of today, or less than theirs."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of the grid.

    Attributes:
        units: Of the layer.
        rows: Of the batch.
        steps: Of each row.
        precision: Of the products.
        timings: Of everybody.
    """

    units: int
    rows: int
    steps: int
    precision: Precision
    timings: Sequence[Timing]

    @property
    def ours(self) -> Timing:
        """Of this project's kernel."""
        return next(timing for timing in self.timings if timing.name == NAME)

    @property
    def rival(self) -> Timing | None:
        """The best of the others; None if there are none."""
        others = [timing for timing in self.timings if timing.name != NAME]
        return min(others, key=lambda timing: timing.median_s, default=None)

    @property
    def ratio(self) -> float | None:
        """How many times as fast as the rival."""
        return None if self.rival is None else self.rival.median_s / self.ours.median_s

    @property
    def weight_bytes(self) -> int:
        """Of kernel and recurrent kernel."""
        return self._unit_bytes * self.units * (input_size(self.units) + self.units)

    @property
    def _unit_bytes(self) -> int:
        """Of the weights of a unit's four gates for one input."""
        return 16 if self.precision == "float32" else 8

    @property
    def flops_s(self) -> float:
        """The least time for the multiply-adds."""
        macs = 4 * self.units * (input_size(self.units) + self.units)
        return 2 * macs * self.rows * self.steps / peak_flops(self.precision)

    @property
    def bytes_s(self) -> float:
        """The least time to read weights: the recurrent ones each step, the others once a call."""
        again = self._unit_bytes * self.units * self.units * (self.steps - 1)
        return (self.weight_bytes + again) / read_rate(self.weight_bytes)

    @cached_property
    def limit_s(self) -> float:
        """The least time by whichever binds."""
        return max(self.flops_s, self.bytes_s)

    @property
    def share(self) -> float:
        """Of the limit; 1 is as fast as it allows."""
        return self.limit_s / self.ours.median_s

    def line(self) -> str:
        """Return what everybody took, in a line."""
        times = ", ".join(f"{t.name} {1e6 * t.median_s:,.1f}" for t in self.timings)
        return f"{self.units} units, {self.rows} rows, {self.steps} steps, us: {times}"

    def data(self) -> dict[str, Any]:
        """Return the point as JSON can hold it."""
        return {
            "units": self.units,
            "rows": self.rows,
            "steps": self.steps,
            "precision": self.precision,
            "ratio": self.ratio,
            "limit_s": self.limit_s,
            "share": self.share,
            "timings": [asdict(timing) for timing in self.timings],
        }


def limits_table(precision: Precision) -> str:
    """Return what the machine was measured to do on one core."""
    rows = [[f"{precision} multiply-adds", f"{peak_flops(precision) / 1e9:,.0f} GFLOP/s"]]
    for name, num_bytes in LEVELS.items():
        what = f"reading {num_bytes >> 10:,} KiB again and again ({name})"
        rows.append([what, f"{read_rate(num_bytes) / 1e9:,.0f} GB/s"])
    return table(["limit of a core", "measured"], rows)


def grid_table(points: Iterable[Point]) -> str:
    """Return the whole grid."""
    head = [
        *("units", "rows", "steps", "ours, us", "best rival", "its us", "ratio"),
        *("binding limit", "its us", "share"),
    ]
    return table(head, (list(_cells(point)) for point in points))


def _cells(point: Point) -> Iterator[str]:
    yield from (str(point.units), str(point.rows), str(point.steps))
    yield f"{1e6 * point.ours.median_s:,.1f}"
    rival = point.rival
    if rival is None:
        yield from ("none", "-", "-")
    else:
        ratio = rival.median_s / point.ours.median_s
        yield from (rival.name, f"{1e6 * rival.median_s:,.1f}")
        yield f"{ratio:.2f}" if ratio >= 1 else f"**{ratio:.2f}**"
    yield "FLOPs" if point.flops_s >= point.bytes_s else "bytes"
    yield f"{1e6 * point.limit_s:,.1f}"
    yield f"{point.share:.0%}"


def targets(points: Sequence[Point]) -> Iterator[Target]:
    """Yield what is wanted of the grid, each by its worst point."""
    if any(point.precision == "bfloat16" for point in points):
        wide = [point for point in points if point.rows >= 16]
        yield _worst("bfloat16, 16 rows and more", wide, _ratio, 1.5)
        return
    ones = [point for point in points if point.steps == 1]
    wishes: tuple[tuple[str, float, Callable[[Point], bool]], ...] = (
        ("1 row, up to 128 units", 3.0, lambda p: p.rows == 1 and p.units <= 128),
        ("1 row, 256 units", 2.0, lambda p: p.rows == 1 and p.units == 256),
        ("4 rows, up to 256 units", 2.0, lambda p: p.rows == 4 and p.units <= 256),
        ("4 rows, more units", 2.0, lambda p: p.rows == 4 and p.units > 256),
        ("16 rows, up to 256 units", 1.5, lambda p: p.rows == 16 and p.units <= 256),
        ("64 rows", 1.2, lambda p: p.rows == 64),
        ("256 rows", 1.1, lambda p: p.rows == 256),
    )
    for what, wanted, is_meant in wishes:
        yield _worst(f"single steps, {what}", [p for p in ones if is_meant(p)], _ratio, wanted)
    long = [point for point in points if point.steps > 1]
    yield _worst("100 steps, every point", long, _ratio, 1.0)
    ratios = [point.ratio for point in long if point.ratio is not None]
    if ratios:
        yield at_least("100 steps, the median", statistics.median(ratios), 1.1)
    fits = [p for p in points if p.rows == 1 and p.weight_bytes <= L2_BYTES]
    yield _worst("share of the limit, 1 row, weights within L2", fits, _share, 0.6)
    peak = [p for p in ones if p.units == 512 and p.rows == 64]
    yield _worst("share of the float32 peak, 512 units, 64 rows", peak, _peak_share, 0.75)


def _worst(
    what: str, points: Sequence[Point], figure: Callable[[Point], float | None], wanted: float
) -> Target:
    figures = [(value, point) for point in points if (value := figure(point)) is not None]
    if not figures:
        return not_measured(what, "not measured")
    worst, at = min(figures, key=lambda pair: pair[0])
    if len(figures) > 1:
        what += f" (worst at {at.units} units, {at.rows} rows)"
    if worst < wanted and figure is _ratio:
        what += f"; the limit there allows {worst / at.share:.2f}"
    return at_least(what, worst, wanted)


def _ratio(point: Point) -> float | None:
    return point.ratio


def _share(point: Point) -> float:
    return point.share


def _peak_share(point: Point) -> float:
    return point.flops_s / point.ours.median_s
