"""How many time steps a model is tried on, where it takes any number, and what counts as the same.

Knows no trial.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from lstm_core.runtime.tensorflow_graph import Arguments, Graph

Tensor: TypeAlias = Any
Operation: TypeAlias = Any

TIMES = (509, 127, 19)
"""Prime, so that what turns time in a circle shows."""
MAX_VALUES = 1 << 22
"""Most values of one layer's outputs in a trial, but for the shortest: 16 MB."""
_TOLERANCE = {"float16": 2e-2, "bfloat16": 1e-1}
_TF32_TOLERANCE = 1e-2


def times_of_trial(graph: Graph, batch: int) -> list[int]:
    """Return numbers of time steps, the most first: layers may know no more than so many.

    Where a layer says that it looks further, it is at least so many.

    Args:
        graph: Of the model.
        batch: Rows of the trial.
    """
    dilations, sizes = [0], [1]

    def call(operation: Operation, _: Arguments | None, symbolic: Sequence[Tensor]) -> Any:
        dilations.extend(filter(None, keras.tree.flatten(getattr(operation, "dilation_rate", 0))))
        sizes.extend(math.prod(filter(None, tensor.shape[1:])) for tensor in symbolic)
        return symbolic

    graph.run(graph.inputs, call)
    most = MAX_VALUES // (batch * max(sizes))
    fitting = [time for time in TIMES[:-1] if time <= most]
    least = 1 + int(max(dilations))
    return list(dict.fromkeys(max(time, least) for time in (*fitting, TIMES[-1])))


def is_close(a: Tensor, b: Tensor) -> bool:
    """Tell whether two tensors are the same but for rounding, in the dtype and place of `b`.

    Args:
        a: A tensor or an array.
        b: A tensor of the same shape.
    """
    may_be_tf32 = "GPU" in b.device and tf.config.experimental.tensor_float_32_execution_enabled()
    tolerance = _TOLERANCE.get(b.dtype.name, _TF32_TOLERANCE if may_be_tf32 else 1e-4)
    x, y = (np.asarray(tf.cast(tensor, tf.float64)) for tensor in (a, b))
    return bool(np.allclose(x, y, rtol=tolerance, atol=tolerance, equal_nan=True))
