"""What a tick needs goes to TensorFlow's device while the one before it computes there."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from lstm_core.errors import DeviceMemoryError
from service.limits import EngineLimits
from tests.unit.engines import make_engine, step

keras = pytest.importorskip("keras")

import tensorflow as tf  # noqa: E402

from lstm_core.runtime.base import DeviceRuntime  # noqa: E402
from lstm_core.runtime.tensorflow import TensorFlowRuntime  # noqa: E402
from lstm_core.runtime.tensorflow_arena import memory_watched  # noqa: E402
from tests.parity.tensorflow_cases import TOLERANCE, draw, sequential, whole  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")  # Keras on NumPy 2

PATIENCE_S = 10.0


class WatchedRuntime(TensorFlowRuntime):
    """Tells when something was staged, and where that is.

    Attributes:
        staged: Set when something was.
        devices: Of what was staged.
    """

    def __init__(self, model, capacity):
        super().__init__(model, capacity)
        self.staged = threading.Event()
        self.devices = []

    def stage(self, *arguments):
        """Stage, and tell."""
        staged = super().stage(*arguments)
        self.devices.append(staged.packed.device.rpartition("device:")[2])
        self.staged.set()
        return staged


async def test_the_next_tick_is_copied_while_one_computes():
    """A layer of the first tick's graph waits until the second tick is on the device."""
    computing, is_held = threading.Event(), threading.Event()
    came: list[bool] = []

    def hold(values):
        if is_held.is_set():
            is_held.clear()
            runtime.staged.clear()
            computing.set()
            came.append(runtime.staged.wait(PATIENCE_S))
        return values

    def held(x):
        return tf.ensure_shape(tf.numpy_function(hold, [x], x.dtype), x.shape)

    model = sequential(keras.layers.Lambda(held), keras.layers.GRU(4, return_sequences=True))
    runtime = WatchedRuntime(model, 30)
    assert isinstance(runtime, DeviceRuntime)
    engine = make_engine(
        runtime=runtime, limits=EngineLimits(arena_rows=30, max_pending=10, inline_us=0.0)
    )
    await engine.start()
    inputs = draw(2, 1, 3)
    is_held.set()
    first = asyncio.create_task(engine.ask(step(inputs[0, 0])))
    assert await asyncio.to_thread(computing.wait, PATIENCE_S)
    second = asyncio.create_task(engine.ask(step(inputs[1, 0], "bob")))
    async with asyncio.timeout(2 * PATIENCE_S):
        replies = await asyncio.gather(first, second)
        await engine.drain()

    assert [True] == came
    assert [runtime.device] * 2 == runtime.devices
    expected = whole(model, inputs)[:, 0]
    np.testing.assert_allclose([reply.outputs for reply in replies], expected, **TOLERANCE)


def test_rows_are_written_many_at_once():
    """Each with its flags; the others stay, and no graph is made for another number of them."""
    runtime = TensorFlowRuntime(sequential(keras.layers.GRU(4), time=None), 6)
    rows = draw(4, 4)
    runtime.write_many([2, 5, 1], rows[:3], np.array([[True], [False], [True]]))
    num_traces = runtime.num_traces
    runtime.write_many([5], rows[3:], np.array([[True]]))

    for slot, row, flag in ((1, rows[2], True), (2, rows[0], True), (5, rows[3], True)):
        np.testing.assert_array_equal(row, runtime.read(slot)[0])
        np.testing.assert_array_equal([flag], runtime.read(slot)[1])
    for slot in (0, 3, 4, 6):
        np.testing.assert_array_equal(np.zeros(4), runtime.read(slot)[0])
    assert num_traces == runtime.num_traces


def test_a_copy_that_finds_no_memory_says_so():
    """In other words than an operation that finds none; other faults are told as they are."""
    told = "Failed copying input tensor from CPU:0 to GPU:0: Dst tensor is not initialized."
    with pytest.raises(DeviceMemoryError, match="no memory for a tick"), memory_watched("a tick"):
        raise tf.errors.InternalError(None, None, told)
    with pytest.raises(tf.errors.InternalError, match="stream"), memory_watched("a tick"):
        raise tf.errors.InternalError(None, None, "the stream is gone")
