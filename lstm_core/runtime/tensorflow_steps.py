"""Single steps on the graph that takes them soonest: plain, with layers on cuDNN, or by XLA.

XLA compiles a graph anew for each number of rows, so a tick is filled up to the next of a few
numbers; the others take any number as it is. Knows no layer; which graph is the fastest is
measured, not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import tensorflow as tf

Float32 = npt.NDArray[np.float32]
Run: TypeAlias = Callable[[Any], Any]
"""A graph: `(rows, width)` float32 to `(rows, ...)` float32."""

PLAIN, CUDNN, XLA = "plain", "cudnn", "xla"
"""The names of the graphs."""
SIZES = (1, 8, 64, 512)
"""Numbers of rows that are tried."""
_TRIALS = 15


class StepChoice(NamedTuple):
    """The graph of ticks of up to some number of rows.

    Attributes:
        num_rows: The number.
        graph: Its name.
        times_us: What each graph took for so many rows, by name; empty where nothing was measured.
        faults: Why a graph cannot run here, by name.
    """

    num_rows: int
    graph: str
    times_us: Mapping[str, float]
    faults: Mapping[str, str]


class StepGraphs:
    """Some graphs that give the same.

    Attributes:
        choices: Ascending by their number of rows.
        beyond: The graph of larger ticks.
    """

    def __init__(
        self, graphs: Mapping[str, Run], filling: Float32, chosen: Mapping[int, str] | None
    ) -> None:
        """Choose between them, by measuring unless it is said.

        Args:
            graphs: By name. `PLAIN` and, if there is one, `CUDNN` take any number of rows, `XLA` is
                compiled anew for each.
            filling: `(width,)`, a row that changes nothing that anybody reads.
            chosen: The graph for ticks of up to so many rows; None: measure. Each runs once here.

        Raises:
            ValueError: A graph is chosen that there is not.
            tf.errors.OpError: It cannot run.
        """
        self._graphs = graphs
        self._filling = filling
        if chosen is None:
            self.choices = tuple(self._measure(num_rows) for num_rows in SIZES)
            largest = self.choices[-1].times_us
            self.beyond = min((name for name in largest if name != XLA), key=largest.__getitem__)
            return
        for graph in chosen.values():
            if graph not in graphs:
                raise ValueError(f"steps run on {', '.join(graphs)}; there is no {graph} here")
        self.choices = tuple(
            StepChoice(num_rows, graph, {}, {}) for num_rows, graph in sorted(chosen.items())
        )
        for choice in self.choices:
            graphs[choice.graph](self._filled(choice.num_rows))
        last = self.choices[-1].graph if self.choices else PLAIN
        self.beyond = PLAIN if last == XLA else last

    def prepare(self, packed: Float32) -> tuple[Run, Float32]:
        """Return the graph that takes `(rows, width)`, and these, filled up as it wants them."""
        num_rows = len(packed)
        graph, size = self.graph_of(num_rows)
        if graph == XLA and size > num_rows:
            filling = np.broadcast_to(self._filling, (size - num_rows, len(self._filling)))
            packed = np.concatenate([packed, filling])
        return self._graphs[graph], packed

    def graph_of(self, num_rows: int) -> tuple[str, int]:
        """Return which graph takes ticks of so many rows, and up to how many of them."""
        for choice in self.choices:
            if num_rows <= choice.num_rows:
                return choice.graph, choice.num_rows
        return self.beyond, num_rows

    def explain(self) -> str:
        """Say which graph takes which ticks, and what was measured; empty if there is no choice."""
        if not self.choices:
            return ""
        told = [f"up to {choice.num_rows} on {_told(choice)}" for choice in self.choices]
        return f"single steps, by their rows: {', '.join(told)}, more on {self.beyond}"

    def _measure(self, num_rows: int) -> StepChoice:
        rows = self._filled(num_rows)
        times_us: dict[str, float] = {}
        faults: dict[str, str] = {}
        for name, run in self._graphs.items():
            try:
                times_us[name] = _microseconds(run, rows)
            except tf.errors.OpError as error:
                if name == PLAIN:
                    raise
                # An operation that XLA does not know, or a cuDNN that is not the driver's.
                faults[name] = error.message.partition("\n")[0]
        return StepChoice(num_rows, min(times_us, key=times_us.__getitem__), times_us, faults)

    def _filled(self, num_rows: int) -> Any:
        return tf.constant(np.tile(self._filling, (num_rows, 1)))


def _told(choice: StepChoice) -> str:
    measured = [f"{name} {us:.0f} us" for name, us in choice.times_us.items()]
    failed = [f"{name} cannot: {fault}" for name, fault in choice.faults.items()]
    told = ", ".join((*measured, *failed))
    return f"{choice.graph} ({told})" if told else choice.graph


def _microseconds(run: Run, rows: Any) -> float:
    """Return how long a graph takes, the median of some calls behind the first."""
    np.asarray(run(rows))
    times = []
    for _ in range(_TRIALS):
        began = perf_counter()
        np.asarray(run(rows))
        times.append(perf_counter() - began)
    return median(times) * 1e6
