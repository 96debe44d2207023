"""Sessions over the slots of a runtime."""

import numpy as np

from lstm_core.runtime.cpu import CpuRuntime
from service.arena import Arena
from service.records import Record
from tests.unit.engines import key, network


def record(touched_at):
    """Return a session's record."""
    return Record(
        fingerprint="f",
        epoch=1,
        position=1,
        row=np.zeros(10, np.float32),
        has_output=np.ones(1, np.bool_),
        touched_at=touched_at,
    )


def test_room_is_found_without_passing_the_busy_sessions_again_and_again():
    """Thousands that wait in the queue and were used the longest ago do not slow every step."""
    runtime = CpuRuntime(network(), 60)
    num_asked = 0

    def is_busy(asked):
        nonlocal num_asked
        num_asked += 1
        return int(asked.client_id) < 30

    arena = Arena(runtime, is_busy)
    for i in range(80):
        arena.place(key(str(i)), record(touched_at=0.0), 0.0)

    assert num_asked == 30 + 20
    assert all(arena.find(key(str(i)), 0.0) for i in range(30))
    assert [i for i in range(30, 80) if arena.find(key(str(i)), 0.0)] == list(range(50, 80))


def test_who_comes_once_in_a_while_takes_nobodys_place():
    """Where rows are scarce, a session stays at hand if it was last there as lately as others."""
    arena = Arena(CpuRuntime(network(), 4), lambda _: False)

    def take_step(name, last_at, now):
        live = arena.find(key(name), now) or arena.place(key(name), record(last_at), now)
        arena.keep(key(name), live, record(now), arena.allocate())

    for now, name in enumerate(("alice", "bob", "carol", "dave"), 10):
        take_step(name, last_at=now - 1, now=now)
    assert not arena.find(key("alice"), 14)  # a step takes a second slot
    take_step("erin", last_at=5, now=20)
    at_hand = [name for name in ("bob", "carol", "dave", "erin") if arena.find(key(name), 21)]
    num_rows_used = arena.num_rows_used
    take_step("erin", last_at=20, now=22)

    assert ["carol", "dave"] == at_hand
    assert 2 == num_rows_used
    assert arena.find(key("erin"), 23)
