"""Which slots of an arena are free."""

from __future__ import annotations

from lstm_core.runtime.base import ZERO_SLOT


class Slots:
    """The slots of an arena but for the zero slot, each free or taken.

    Attributes:
        capacity: How many there are.
    """

    def __init__(self, capacity: int) -> None:
        """Begin with all of them free."""
        self.capacity = capacity
        self._free = list(range(capacity, ZERO_SLOT, -1))

    @property
    def num_free(self) -> int:
        """How many slots are free."""
        return len(self._free)

    def allocate(self) -> int:
        """Take a free slot. Its row holds anything.

        Raises:
            IndexError: None is free.
        """
        return self._free.pop()

    def allocate_many(self, num_slots: int) -> list[int]:
        """Take so many free slots, as `allocate` does.

        Raises:
            IndexError: So many are not free; none is taken.
        """
        first = len(self._free) - num_slots
        if first < 0:
            raise IndexError(f"{num_slots} slots are wanted, and {len(self._free)} are free")
        slots = self._free[first:]
        del self._free[first:]
        return slots

    def free(self, slot: int) -> None:
        """Give a slot back; the zero slot stays where it is."""
        if slot != ZERO_SLOT:
            self._free.append(slot)
