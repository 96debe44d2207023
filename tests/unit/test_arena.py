"""Sessions over the slots of a runtime."""

import numpy as np

from lstm_core.runtime.cpu import CpuRuntime
from service.arena import Arena
from service.domain import Record
from tests.unit.engines import key, network


def test_room_is_found_without_passing_the_busy_sessions_again_and_again():
    """Thousands that wait in the queue and were used the longest ago do not slow every step."""
    runtime = CpuRuntime(network(), 60)
    num_asked = 0

    def is_busy(asked):
        nonlocal num_asked
        num_asked += 1
        return int(asked.client_id) < 30

    arena = Arena(runtime, is_busy)
    record = Record(
        fingerprint="f",
        epoch=1,
        position=1,
        row=np.zeros(10, np.float32),
        has_output=np.ones(1, np.bool_),
    )
    for i in range(80):
        arena.place(key(str(i)), record, 0.0)

    assert num_asked == 30 + 20
    assert all(arena.find(key(str(i)), 0.0) for i in range(30))
    assert [i for i in range(30, 80) if arena.find(key(str(i)), 0.0)] == list(range(50, 80))
