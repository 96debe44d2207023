"""The arena of state rows in memory.

Owns how a row lies there: whole, or in blocks, one for each run of a kernel over a part of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]


class Block(NamedTuple):
    """One part of every row.

    Attributes:
        rows: `(slots, size)` float32.
        has_output: `(slots, recurrent layers)` bool, for each of the part's layers whether it has
            had a live step since its state was set.
    """

    rows: Float32
    has_output: Bool


class Arena:
    """Rows and flags by slot, zeros until written to.

    Attributes:
        blocks: The parts of a row in their order.
    """

    def __init__(self, num_slots: int, sizes: Sequence[tuple[int, int]]) -> None:
        """Reserve the memory, which is touched as slots are first used.

        Args:
            num_slots: How many.
            sizes: For each block its part of a row and its recurrent layers.
        """
        self.blocks = tuple(
            Block(np.zeros((num_slots, size), np.float32), np.zeros((num_slots, flags), np.bool_))
            for size, flags in sizes
        )

    def read(self, slot: int) -> tuple[Float32, Bool]:
        """Return copies of a slot's row `(state_size,)` and flags `(recurrent layers,)`."""
        if len(self.blocks) == 1:
            rows, has_output = self.blocks[0]
            return rows[slot].copy(), has_output[slot].copy()
        return (
            np.concatenate([block.rows[slot] for block in self.blocks]),
            np.concatenate([block.has_output[slot] for block in self.blocks]),
        )

    def write(self, slot: int, row: npt.ArrayLike, has_output: npt.ArrayLike) -> None:
        """Copy a row `(state_size,)` and its flags `(recurrent layers,)` into a slot.

        Raises:
            ValueError: They have another length.
        """
        if len(self.blocks) == 1:
            rows, flags = self.blocks[0]
            rows[slot] = row
            flags[slot] = has_output
            return
        row, has_output = np.asarray(row, np.float32), np.asarray(has_output, np.bool_)
        num_values = sum(block.rows.shape[1] for block in self.blocks)
        num_flags = sum(block.has_output.shape[1] for block in self.blocks)
        if row.shape != (num_values,) or has_output.shape != (num_flags,):
            problem = f"a row has {num_values} values and {num_flags} flags"
            raise ValueError(f"{problem}, not {row.shape} and {has_output.shape}")
        for block in self.blocks:
            size, flags = block.rows.shape[1], block.has_output.shape[1]
            block.rows[slot], row = row[:size], row[size:]
            block.has_output[slot], has_output = has_output[:flags], has_output[flags:]
