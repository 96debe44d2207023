"""Where kernels run: by what they compute, not by how long they wait for the processor."""

import threading
import time
from typing import Any

import numpy as np
import pytest

from service.compute import Compute


class Runtime:
    """A runtime that only takes its time, and notes on which thread."""

    def __init__(self, take_time):
        self.threads: list[str] = []
        self._take_time = take_time

    def advance(self, *arguments):
        """Take some time."""
        del arguments
        self.threads.append(threading.current_thread().name)
        self._take_time()


def wait():
    """Take 3 ms in which nothing is computed, as on a processor that others use."""
    time.sleep(0.003)


def work():
    """Compute for 3 ms."""
    ends_at = time.thread_time() + 0.003
    while time.thread_time() < ends_at:
        pass


@pytest.mark.parametrize(("take_time", "is_inline"), [(wait, True), (work, False)])
async def test_a_call_that_computes_little_runs_in_the_event_loop(take_time, is_inline):
    """Whatever else the processor does meanwhile; one that computes for long leaves it."""
    runtime: Any = Runtime(take_time)
    compute = Compute(runtime, "m", inline_us=1000)
    try:
        for _ in range(3):
            await compute.advance([1], [2], np.zeros((1, 1, 3), np.float32), [1], None)
    finally:
        compute.close()

    here = threading.current_thread().name
    # The first call has its own thread, since nothing is known of it yet.
    assert [False, is_inline, is_inline] == [name == here for name in runtime.threads]
    assert 0.009 <= compute.kernel_s
