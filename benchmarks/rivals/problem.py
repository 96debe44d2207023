"""One LSTM, a batch and a number of steps, and how a runtime that computes it shows itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_core import equations
from lstm_core.kernels.native import Precision
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights, initialize

Float32 = npt.NDArray[np.float32]
Array = npt.NDArray[np.floating[Any]]
States = tuple[Array, Array, Array]
"""Outputs `(rows, steps, units)`, then h and c `(rows, units)` after the last step."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """What everybody computes.

    Attributes:
        spec: Of the layer.
        weights: Float32, gates in the order input, forget, candidate, output.
        inputs: `(rows, steps, input_size)` float32.
        h: `(rows, units)` float32, before the first step.
        c: Likewise.
        precision: Of the products.
    """

    spec: LSTMSpec
    weights: LSTMWeights
    inputs: Float32
    h: Float32
    c: Float32
    precision: Precision

    @property
    def rows(self) -> int:
        """Of the batch."""
        return self.inputs.shape[0]

    @property
    def steps(self) -> int:
        """Of each row."""
        return self.inputs.shape[1]

    @property
    def units(self) -> int:
        """Of the layer."""
        return self.spec.units

    @property
    def time_major(self) -> Float32:
        """The inputs as `(steps, rows, input_size)`."""
        return np.ascontiguousarray(self.inputs.swapaxes(0, 1))

    @property
    def bias(self) -> Float32:
        """`(4 * units,)` float32."""
        assert self.weights.bias is not None
        return self.weights.bias

    def with_gates(self, order: str) -> tuple[Float32, Float32, Float32]:
        """Return kernel, recurrent kernel and bias, gates in an order of the letters `ifco`."""

        def sort(array: Float32) -> Float32:
            gates = dict(zip("ifco", np.split(array, 4, axis=-1), strict=True))
            return np.ascontiguousarray(np.concatenate([gates[g] for g in order], axis=-1))

        w = self.weights
        return sort(w.kernel), sort(w.recurrent_kernel), sort(self.bias)

    def some_rows(self, rows: list[int]) -> States:
        """Return what the equations give for some rows, in float64."""
        result = equations.sequence(
            self.spec, self.weights, self.inputs[rows], h=self.h[rows], c=self.c[rows]
        )
        return result.outputs, result.h, result.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A runtime with the problem before it.

    Attributes:
        name: Of the runtime and the way it is used.
        call: Computes the whole problem; what is timed.
        results: Returns what the last call gave.
    """

    name: str
    call: Callable[[], object]
    results: Callable[[], States]


def make_problem(units: int, rows: int, steps: int, precision: Precision = "float32") -> Problem:
    """Return a problem with random numbers, the same each time."""
    random = np.random.default_rng([units, rows, steps])
    spec = LSTMSpec(input_size=input_size(units), units=units)

    def draw(*shape: int) -> Float32:
        return random.uniform(-1, 1, shape).astype(np.float32)

    return Problem(
        spec=spec,
        weights=initialize(spec, 0).astype(np.float32),
        inputs=draw(rows, steps, spec.input_size),
        h=draw(rows, units),
        c=draw(rows, units),
        precision=precision,
    )


def input_size(units: int) -> int:
    """Return how many inputs the layer of a problem has."""
    return 32 if units <= 128 else 128
