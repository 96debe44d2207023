"""What `advance` refuses, for the runtimes whose kernels would take it.

The native kernel refuses the same by itself, in C. Knows no row and no layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import index
from typing import NamedTuple

import numpy as np

from lstm_core.errors import InputRangeError
from lstm_core.network import TensorPart
from lstm_core.runtime.base import ZERO_SLOT, Float32, Indices


class Checked(NamedTuple):
    """Arguments of one `advance`, of which nothing can go wrong any more.

    Attributes:
        from_slots: `(batch,)` of a signed integer type, each a slot.
        to_slots: Likewise, and none is the zero slot.
        lengths: Likewise, each from 1 to `time`; None means `time` for all.
    """

    from_slots: Indices
    to_slots: Indices
    lengths: Indices | None


def check_arguments(
    from_slots: Sequence[int],
    to_slots: Sequence[int],
    inputs: object,
    lengths: Sequence[int] | None,
    mask: object,
    *,
    num_slots: int,
    input_size: int,
) -> Checked:
    """Check what `advance` was called with, and return its numbers as arrays.

    That the slots written to are different, and none of those read from, is not looked at.

    Args:
        from_slots: As for `CpuRuntime.advance`, like the next four.
        to_slots: Likewise.
        inputs: Likewise.
        lengths: Likewise.
        mask: Likewise.
        num_slots: Of the arena, the zero slot counted.
        input_size: Values of a time step.

    Raises:
        IndexError: A slot is none of the arena's, the zero slot is written to, or a length is not
            from 1 to `time`.
        OverflowError: A number is beyond any index.
        TypeError: Inputs are not float32, the mask is not bool, slots or lengths are no integers.
        ValueError: A shape is wrong, or there is no row or no time step.
    """
    if not isinstance(inputs, np.ndarray) or inputs.dtype.type is not np.float32:
        raise TypeError("inputs must be a float32 array")
    if inputs.ndim != 3 or 0 in inputs.shape[:2] or inputs.shape[2] != input_size:
        wanted = f"(batch, time, {input_size}), neither of the first two 0"
        raise ValueError(f"inputs must be {wanted}, not {inputs.shape}")
    batch, time, _ = inputs.shape
    if mask is not None:
        if not isinstance(mask, np.ndarray) or mask.dtype.type is not np.bool_:
            raise TypeError("mask must be a bool array")
        if mask.shape != (batch, time):
            raise ValueError(f"mask must be (batch, time) = {(batch, time)}, not {mask.shape}")
    last = num_slots - 1
    return Checked(
        _indices(from_slots, "from_slots", batch, ZERO_SLOT, last),
        _indices(to_slots, "to_slots", batch, ZERO_SLOT + 1, last),
        None if lengths is None else _indices(lengths, "lengths", batch, 1, time),
    )


def _indices(given: Sequence[int] | Indices, name: str, count: int, low: int, high: int) -> Indices:
    """Return `(count,)` integers from `low` to `high`."""
    if len(given) != count:
        raise ValueError(f"{name} has {len(given)} items for {count} rows")
    array = np.asarray(given)
    if array.dtype.kind != "i":
        if not isinstance(given, np.ndarray):
            # Not what NumPy made of them: that is floats where no one type of its own has them all.
            array = np.fromiter(map(index, given), np.intp, count)
        elif np.can_cast(array.dtype, np.intp):
            array = array.astype(np.intp)
        else:
            raise TypeError(f"{name} must be integers that fit an index, not {array.dtype}")
        given = array
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension, not {array.ndim}")
    # Python's: a tick is most often so short a list that NumPy's would take longer.
    if min(given) < low or max(given) > high:
        at = int(np.flatnonzero((array < low) | (array > high))[0])
        raise IndexError(f"{name}[{at}] is {array[at]}, not from {low} to {high}")
    return array


def check_integers(parts: Iterable[TensorPart], inputs: Float32) -> None:
    """Look at the inputs that are embedded.

    Args:
        parts: A model's inputs.
        inputs: `(..., input_size)` float32.

    Raises:
        InputRangeError: One is none of the integers that the model takes.
    """
    for part in parts:
        if part.vocabulary is not None:
            values = inputs[..., part.offset : part.offset + part.size]
            if not are_tokens(values, part.vocabulary):
                raise InputRangeError(part.name, part.vocabulary)


def are_tokens(values: Float32, vocabulary: int) -> bool:
    """Tell whether all of `(...)` float32 are integers in [0, vocabulary)."""
    return bool(((values >= 0) & (values < vocabulary) & (values == np.trunc(values))).all())
