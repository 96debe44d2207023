"""State rows while the layers of a model take their parts in turn. Knows no graph and no arena."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from lstm_core.runtime.tensorflow_recurrence import Recurrence

Tensor: TypeAlias = Any


class States:
    """State rows while the layers of a model take their parts, in the graph's order."""

    def __init__(
        self, recurrences: Sequence[Recurrence | None], rows: Tensor, flags: Tensor
    ) -> None:
        self._waiting = iter(recurrences)
        kept = [recurrence for recurrence in recurrences if recurrence is not None]
        self._rows = _parts(kept, rows, [recurrence.state_size for recurrence in kept])
        self._flags = _parts(kept, flags, [recurrence.num_flags for recurrence in kept])

    def next(self) -> Recurrence | None:
        """Return the next one, None where it keeps no state here."""
        return next(self._waiting)

    def take(
        self, recurrence: Recurrence, x: Tensor, live: Tensor | None, *, is_step: bool
    ) -> Tensor:
        """Take time steps with one of them: see `Recurrence.take`."""
        outputs, self._rows[recurrence], self._flags[recurrence] = recurrence.take(
            x, self._rows[recurrence], self._flags[recurrence], live, is_step=is_step
        )
        return outputs

    def last_output(self, recurrence: Recurrence) -> Tensor:
        """Return what one of them gave last: see `Recurrence.last_output`."""
        return recurrence.last_output(self._rows[recurrence], self._flags[recurrence])

    def vectors(self, recurrence: Recurrence) -> list[Tensor]:
        """Return its states, as its Keras layer would."""
        return recurrence.states(self._rows[recurrence])

    def after(self) -> tuple[Tensor, Tensor]:
        """Return the rows `(batch, state_size)` and the flags `(batch, num_recurrent)`."""
        return tf.concat([*self._rows.values()], 1), tf.concat([*self._flags.values()], 1)


def _parts(
    recurrences: Sequence[Recurrence], rows: Tensor, sizes: Sequence[int]
) -> dict[Recurrence, Tensor]:
    parts = tf.split(rows, sizes, axis=1) if recurrences else []
    return dict(zip(recurrences, parts, strict=True))
