"""How often a quantity was how large. Knows no exporter, so that whoever measures can count."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Histogram:
    """Counts of values in intervals.

    Attributes:
        bounds: The upper bounds of the intervals, rising, each in its interval; the last interval
            has none.
        counts: How many values were in each interval, one more than there are bounds.
        total: The sum of all values.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """Begin with no value."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[str, int]]:
        """Return each bound as text, `+Inf` last, and how many values were not over it."""
        lines = []
        num_below = 0
        for bound, count in zip(
            (*map(str, map(float, self.bounds)), "+Inf"), self.counts, strict=True
        ):
            num_below += count
            lines.append((bound, num_below))
        return lines


class Tally:
    """How many values there were, and their sum.

    Attributes:
        count: How many.
        total: The sum.
    """

    __slots__ = ("count", "total")

    def __init__(self) -> None:
        """Begin with no value."""
        self.count = 0
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.count += 1
        self.total += value


def merged(histograms: Sequence[Histogram]) -> Histogram:
    """Return the counts of histograms with the same bounds together; at least one."""
    both = Histogram(histograms[0].bounds)
    both.counts = [sum(counts) for counts in zip(*(h.counts for h in histograms), strict=True)]
    both.total = sum(h.total for h in histograms)
    return both
