"""Which sessions have their rows at hand, and in which slots.

A cache over the store: every record at hand is in the store too (or was, where others write to it),
so the least recently used session that nobody waits for can make room at any time. Where there is
none to spare, a session that was away for longer than those at hand takes nobody's place: it goes
with its step, and stays the next time if that is soon. So sessions that come once in a while do not
drive out those in use.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Iterable

from lstm_core.runtime.base import ZERO_SLOT, DeviceRuntime, Runtime
from service.domain import Bool, Float32, SessionKey
from service.jobs import Live, Run
from service.records import Record
from service.stores.base import Stored, is_same


class Arena:
    """Sessions by key, over the slots of a runtime."""

    def __init__(self, runtime: Runtime, is_busy: Callable[[SessionKey], bool]) -> None:
        """Begin empty.

        Args:
            runtime: Owns the rows.
            is_busy: Whether a session's row is wanted, and so must stay.
        """
        self._runtime = runtime
        self._is_on_device = isinstance(runtime, DeviceRuntime)
        # Rows that a device has not got yet, by the slot that is taken for each.
        self._unwritten: dict[int, tuple[Float32, Bool]] = {}
        self._is_busy = is_busy
        self._sessions: OrderedDict[SessionKey, Live] = OrderedDict()
        # When the last session that had to make room was last used.
        self._made_room_at = -math.inf

    def __len__(self) -> int:
        """Return how many sessions are at hand."""
        return len(self._sessions)

    @property
    def num_rows(self) -> int:
        """How many slots there are."""
        return self._runtime.capacity

    @property
    def num_rows_used(self) -> int:
        """How many of them hold a row: sessions at hand, and steps on their way."""
        return self._runtime.capacity - self._runtime.num_free

    def find(self, key: SessionKey, now: float) -> Live | None:
        """Return a session that is at hand, as its latest use."""
        live = self._sessions.get(key)
        if live is not None:
            live.used_at = now
            self._sessions.move_to_end(key)
        return live

    def place(self, key: SessionKey, record: Record, now: float) -> Live:
        """Take a record that the store has to hand; it stays there if it is at hand already."""
        live = self._sessions.get(key)
        if live is not None:
            if is_same(live.stored, record):
                return live
            self.forget(key)
        live = Live(record, self.slot_with(record.row, record.has_output), now)
        self._sessions[key] = live
        return live

    def keep(self, key: SessionKey, live: Live, record: Record, slot: int) -> None:
        """Move a session to its newly committed record and to the slot that holds its row.

        It is let go of instead if those that made room for others were used after it.
        """
        before = live.stored
        self.free(live.slot)
        if isinstance(before, Record) and before.touched_at < self._made_room_at:
            self._sessions.pop(key, None)
            self.free(slot)
            return
        live.stored = record
        live.slot = slot
        self._sessions[key] = live

    def passivate(self, used_before: float) -> int:
        """Let go of the sessions that nobody has asked for since, and return how many they were.

        Args:
            used_before: Seconds since 1970.
        """
        idle: list[SessionKey] = []
        for key, live in self._sessions.items():
            if live.used_at >= used_before:
                break  # those behind it were asked for later
            if not self._is_busy(key):
                idle.append(key)
        for key in idle:
            self.forget(key)
        return len(idle)

    def forget(self, key: SessionKey) -> None:
        """Let go of a session, and free its slot."""
        live = self._sessions.pop(key, None)
        if live is not None:
            self.free(live.slot)

    def allocate(self) -> int:
        """Take a slot, from the session that was used the longest ago if need be.

        Raises:
            IndexError: Every session at hand is busy. The engine's limits rule that out.
        """
        if not self._runtime.num_free:
            self._make_room()
        return self._runtime.allocate()

    def _make_room(self) -> None:
        for _ in range(len(self._sessions)):
            key = next(iter(self._sessions))
            if not self._is_busy(key):
                self._made_room_at = self._sessions[key].used_at
                self.forget(key)
                return
            # It is about to be used, and so that the next search need not pass it again.
            self._sessions.move_to_end(key)

    def allocate_many(self, num_slots: int) -> list[int]:
        """Take slots as `allocate` does; all or none.

        Raises:
            IndexError: As there.
        """
        if num_slots <= self._runtime.num_free:
            return self._runtime.allocate_many(num_slots)
        slots: list[int] = []
        try:
            for _ in range(num_slots):
                slots.append(self.allocate())  # noqa: PERF401 - what was taken is known on failure
        except IndexError:
            for slot in slots:
                self.free(slot)
            raise
        return slots

    def slot_with(self, row: Float32, has_output: Bool) -> int:
        """Take a slot for a row `(state_size,)` and its flags, which are not written to any more.

        A device gets them by `unwritten`, when a kernel is to read them, and else at once.
        """
        slot = self.allocate()
        if self._is_on_device:
            self._unwritten[slot] = row, has_output
        else:
            self._runtime.write(slot, row, has_output)
        return slot

    def unwritten(self, runs: Iterable[Run]) -> dict[int, tuple[Float32, Bool]]:
        """Return the rows and flags that runs go on from, by slot, where the device lacks them."""
        rows = self._unwritten
        return {run.slot: rows[run.slot] for run in runs if run.slot in rows} if rows else {}

    def note_written(self, slots: Iterable[int]) -> None:
        """Take note that the device has the rows of some slots now."""
        for slot in slots:
            del self._unwritten[slot]

    def free(self, slot: int) -> None:
        """Give back a slot."""
        if self._unwritten:
            self._unwritten.pop(slot, None)
        self._runtime.free(slot)


def unplaced(stored: Stored | None, now: float) -> Live:
    """Return a session that has no row at hand: none exists, or none that this model can read."""
    return Live(stored, ZERO_SLOT, now)
