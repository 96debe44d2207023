"""Layers that make one value of several: each time step on its own, in NumPy float32.

Owns what each operation computes, and which time steps are live behind it. Knows no graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import numpy.typing as npt

from lstm_core.errors import SpecError

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

_FUNCTIONS: Mapping[str, Callable[[Float32, Float32], Float32]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "average": np.add,
    "divide": np.divide,
    "maximum": np.maximum,
    "minimum": np.minimum,
}
_OF_TWO = frozenset({"divide", "subtract"})
OPERATIONS = (*_FUNCTIONS, "concatenate")
"""`concatenate` lays the features side by side; the others go feature by feature, where a value of
one feature goes with any number of them. `average` is the sum divided by the number of values."""

MASKS = ("any", "all", "none")
"""Where a time step is live behind a merge: where any value has it so (Keras 3), where all have it
so (Keras 2 and tf_keras), or everywhere (what is no layer in Keras). A value without a mask is live
everywhere."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Merge:
    """Several values of a time step into one.

    Attributes:
        name: The layer's name in its file.
        operation: One of `OPERATIONS`; `divide` and `subtract` take two values, others one or more.
        masks: One of `MASKS`.
    """

    name: str
    operation: str
    masks: str = "any"

    def output_size(self, *input_sizes: int) -> int:
        """Return the merged size; SpecError if the values do not fit together."""
        if self.operation == "concatenate":
            return sum(input_sizes)
        if self.operation in _OF_TWO and len(input_sizes) != 2:
            raise SpecError(self.name, f"can {self.operation} 2 values, not {len(input_sizes)}")
        wide = {size for size in input_sizes if size != 1}
        if len(wide) > 1:
            sizes = " and ".join(map(str, input_sizes))
            raise SpecError(self.name, f"cannot {self.operation} values of {sizes} features")
        return wide.pop() if wide else 1

    def __call__(self, *values: Float32) -> Float32:
        """Apply the layer to values `(..., features)`."""
        if self.operation == "concatenate":
            return np.concatenate(values, axis=-1)
        merged = reduce(_FUNCTIONS[self.operation], values)
        return merged / np.float32(len(values)) if self.operation == "average" else merged

    def live(self, masks: Sequence[Bool | None], given: Bool | None) -> Bool | None:
        """Return where a time step is live behind the layer.

        Args:
            masks: `(batch, time)` bool of each value, or None.
            given: `(batch, time)` bool, the caller's, which each of them has in it; or None.
        """
        known = [mask for mask in masks if mask is not None]
        if self.masks == "none" or not known or (self.masks == "any" and len(known) < len(masks)):
            return given
        return reduce(np.logical_or if self.masks == "any" else np.logical_and, known)
