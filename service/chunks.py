"""What one `advance` gave, row by row, as sessions keep it.

Copies: a view would keep the whole batch in memory as long as one session of it is kept.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from lstm_core.runtime.base import Advanced
from service.domain import Bool, Float32
from service.errors import StateNotFiniteError


class Chunks:
    """The rows of an `Advanced`."""

    def __init__(self, advanced: Advanced) -> None:
        """Look at what all rows have in common, nearly always."""
        self._advanced = advanced
        self._rows = advanced.rows
        self._first_outputs = advanced.outputs[:, 0]
        self._are_finite = _are_all(advanced.is_state_finite) and _are_all(
            advanced.is_output_finite
        )
        flags = advanced.has_output
        self._all_have_output = _all_set(flags.shape[1]) if _are_all(flags) else None

    def check_finite(self, index: int) -> None:
        """Look at one row.

        Raises:
            StateNotFiniteError: It came to no state that a session may have.
        """
        if self._are_finite:
            return
        if not self._advanced.is_state_finite[index]:
            raise StateNotFiniteError("a state")
        if not self._advanced.is_output_finite[index]:
            raise StateNotFiniteError("an output")

    def first_output(self, index: int) -> Float32:
        """Return `(output_size,)` float32, what a row gave in its first step."""
        return self._first_outputs[index].copy()

    def outputs(self, index: int, start: int, end: int) -> Float32:
        """Return `(end - start, output_size)` float32, what a row gave in some of its steps."""
        return self._advanced.outputs[index, start:end].copy()

    def row(self, index: int) -> Float32:
        """Return `(state_size,)` float32, a row's new state."""
        return self._rows[index].copy()

    def has_output(self, index: int) -> Bool:
        """Return `(recurrent layers,)` bool, a row's new flags."""
        if self._all_have_output is not None:
            return self._all_have_output
        return self._advanced.has_output[index].copy()


def _are_all(flags: Bool) -> bool:
    # A reduction by NumPy takes microseconds to begin.
    return 0 not in flags.tobytes()


@cache
def _all_set(num_flags: int) -> Bool:
    """Return `(num_flags,)` bool, all true: one array for all sessions, read-only."""
    flags = np.ones(num_flags, np.bool_)
    flags.flags.writeable = False
    return flags
