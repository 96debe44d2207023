"""Single steps on the graph that takes them soonest: as it is, or compiled by XLA.

XLA compiles a graph anew for each number of rows, so a tick is filled up to the next of a few
numbers. Knows no layer; whether XLA pays is measured, not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Float32 = npt.NDArray[np.float32]
Run: TypeAlias = Callable[[Any], Any]
"""A graph: `(rows, width)` float32 to `(rows, ...)` float32."""

SIZES = (1, 8, 64, 512)
"""Numbers of rows that are tried."""
_TRIALS = 15


class StepGraphs:
    """Two graphs that give the same.

    Attributes:
        compiled_sizes: Numbers of rows, ascending, that the compiled one takes.
    """

    def __init__(
        self, plain: Run, compiled: Run, filling: Float32, compiled_sizes: Sequence[int] | None
    ) -> None:
        """Choose between them, by measuring unless it is said.

        Args:
            plain: Takes any number of rows.
            compiled: Is compiled anew for each number of them.
            filling: `(width,)`, a row that changes nothing that anybody reads.
            compiled_sizes: As the attribute; None: measure. Each of them is compiled here.
        """
        self._plain = plain
        self._compiled = compiled
        self._filling = filling
        sizes = sorted(SIZES if compiled_sizes is None else compiled_sizes)
        self.compiled_sizes = tuple(
            size for size in sizes if self._pays(size, is_asked=compiled_sizes is not None)
        )

    def __call__(self, packed: Float32) -> Float32:
        """Run `(rows, width)` float32."""
        num_rows = len(packed)
        for size in self.compiled_sizes:
            if num_rows <= size:
                filled = np.empty((size, len(self._filling)), np.float32)
                filled[:num_rows] = packed
                filled[num_rows:] = self._filling
                return np.asarray(self._compiled(tf.constant(filled)))[:num_rows]
        return np.asarray(self._plain(tf.constant(packed)))

    def _pays(self, size: int, *, is_asked: bool) -> bool:
        rows = tf.constant(np.tile(self._filling, (size, 1)))
        try:
            compiled_s = _seconds(self._compiled, rows)
        except tf.errors.OpError:
            if is_asked:
                raise
            return False  # an operation that XLA does not know
        return is_asked or compiled_s < _seconds(self._plain, rows)


def _seconds(run: Run, rows: Any) -> float:
    """Return how long a graph takes, the median of some calls behind the first."""
    np.asarray(run(rows))
    times = []
    for _ in range(_TRIALS):
        began = perf_counter()
        np.asarray(run(rows))
        times.append(perf_counter() - began)
    return median(times)
