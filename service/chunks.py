"""What one `advance` gave, row by row, as sessions keep it.

Copies: a view would keep the whole batch in memory as long as one session of it is kept.
"""

from __future__ import annotations

from functools import cache
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from lstm_core.runtime.base import Advanced
from service.domain import Bool, Float32
from service.errors import StateNotFiniteError

ScalarT = TypeVar("ScalarT", bound=np.generic)


class Chunks:
    """The rows of an `Advanced`.

    Attributes:
        are_finite: Whether every row came to a state that a session may have, as nearly always.
        rows: `(state_size,)` float32 each, the new states.
        has_output: `(recurrent layers,)` bool each, the new flags.
        single_outputs: `(output_size,)` float32 each, where one step was taken; else empty.
    """

    def __init__(self, advanced: Advanced) -> None:
        """Copy what sessions keep."""
        self._advanced = advanced
        self.are_finite = _are_all(advanced.is_state_finite) and _are_all(advanced.is_output_finite)
        self.rows = _copies(advanced.rows)
        flags, outputs = advanced.has_output, advanced.outputs
        self.has_output: list[Bool] = (
            [_all_set(flags.shape[1])] * len(flags) if _are_all(flags) else _copies(flags)
        )
        self.single_outputs: list[Float32] = _copies(outputs[:, 0]) if outputs.shape[1] == 1 else []

    def check_finite(self, index: int) -> None:
        """Look at one row.

        Raises:
            StateNotFiniteError: It came to no state that a session may have.
        """
        if not self._advanced.is_state_finite[index]:
            raise StateNotFiniteError("a state")
        if not self._advanced.is_output_finite[index]:
            raise StateNotFiniteError("an output")

    def outputs(self, index: int, start: int, end: int) -> Float32:
        """Return `(end - start, output_size)` float32, what a row gave in some of its steps."""
        return self._advanced.outputs[index, start:end].copy()


def _copies(rows: npt.NDArray[ScalarT]) -> list[npt.NDArray[ScalarT]]:
    # With no look behind the last one, which NumPy answers with an exception, at a microsecond.
    return list(map(np.ndarray.copy, islice(rows, len(rows))))


def _are_all(flags: Bool) -> bool:
    # A reduction by NumPy takes microseconds to begin.
    return 0 not in flags.tobytes()


@cache
def _all_set(num_flags: int) -> Bool:
    """Return `(num_flags,)` bool, all true: one array for all sessions, read-only."""
    flags = np.ones(num_flags, np.bool_)
    flags.flags.writeable = False
    return flags
