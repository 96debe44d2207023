"""How many time steps a model is tried on, where it takes any number. Knows no trial."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import keras

from lstm_core.runtime.tensorflow_graph import Arguments, Graph

Tensor: TypeAlias = Any
Operation: TypeAlias = Any

TIMES = (509, 127, 19)
"""Prime, so that what turns time in a circle shows."""
MAX_VALUES = 1 << 22
"""Most values of one layer's outputs in a trial, but for the shortest: 16 MB."""


def times_of_trial(graph: Graph, batch: int) -> list[int]:
    """Return numbers of time steps, the most first: layers may know no more than so many.

    Where a layer says that it looks further, it is at least so many.

    Args:
        graph: Of the model.
        batch: Rows of the trial.
    """
    dilations, sizes = [0], [1]

    def call(operation: Operation, _: Arguments | None, symbolic: Sequence[Tensor]) -> Any:
        dilations.extend(keras.tree.flatten(getattr(operation, "dilation_rate", ())))
        sizes.extend(math.prod(filter(None, tensor.shape[1:])) for tensor in symbolic)
        return symbolic

    graph.run(graph.inputs, call)
    most = MAX_VALUES // (batch * max(sizes))
    fitting = [time for time in TIMES[:-1] if time <= most]
    least = 1 + int(max(dilations))
    return list(dict.fromkeys(max(time, least) for time in (*fitting, TIMES[-1])))
