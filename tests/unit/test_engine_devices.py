"""The engine over a device: what is copied there ahead, and rows of sessions that come back."""

import asyncio
import gc
import threading
import weakref
from typing import Any

import numpy as np
import pytest

from lstm_core.errors import DeviceMemoryError
from lstm_core.runtime.base import DeviceRuntime
from lstm_core.runtime.cpu import CpuRuntime
from service.domain import ResetRequest
from service.errors import DeadlineExceededError
from service.errors import DeviceMemoryError as NoDeviceMemoryError
from service.limits import EngineLimits
from service.stores.memory import MemoryStore
from tests.unit.engines import TOLERANCE, inputs, key, look, make_engine, network, sequence, step

PATIENCE_S = 5.0
LIMITS = EngineLimits(arena_rows=12, max_pending=4, inline_us=0.0)


class Device(CpuRuntime):
    """A runtime that says where it was called, and can hold its calls or have no memory.

    Attributes:
        threads: The thread of each call, by the method's name.
        begun: Set when a call of `run` has begun.
        proceed: What a call of `run` waits for.
        staged: Set when something was staged; those that began to run before it are in `early`.
        written: The slots of each `write_many`.
    """

    def __init__(self):
        super().__init__(network(), LIMITS.arena_rows)
        self.threads = []
        self.begun = threading.Event()
        self.proceed = threading.Event()
        self.proceed.set()
        self.staged = threading.Event()
        self.written = []
        self.has_memory = True

    def write(self, slot, row, has_output):
        """Refuse: a device is not written to from the event loop."""
        raise AssertionError((slot, row, has_output))

    def write_many(self, slots, rows, has_output):
        """Write, if there is memory."""
        self._note("write_many")
        if not self.has_memory:
            raise DeviceMemoryError("rows")
        self.written.append(list(slots))
        for slot, row, flags in zip(slots, rows, has_output, strict=True):
            super().write(slot, row, flags)

    def stage(self, *arguments):
        """Keep what is given."""
        self._note("stage")
        self.staged.set()
        return arguments

    def run(self, staged):
        """Wait if it is to, and advance."""
        self._note("run")
        self.begun.set()
        assert self.proceed.wait(PATIENCE_S)
        return super().advance(*staged)

    def advance(self, *arguments):
        """Do both."""
        return self.run(self.stage(*arguments))

    def _note(self, name):
        self.threads.append((name, threading.current_thread().name))


class SlowStore(MemoryStore):
    """A store that loads when it may.

    Attributes:
        may_load: What each load waits for.
    """

    def __init__(self, max_sessions):
        super().__init__(max_sessions=max_sessions)
        self.may_load = asyncio.Event()
        self.may_load.set()

    async def load_many(self, keys):
        """Wait, and load."""
        await self.may_load.wait()
        return await super().load_many(keys)


@pytest.fixture
def device():
    """A device."""
    return Device()


@pytest.fixture
async def engine(device):
    """An engine over it, in which no session stays at hand when it is idle."""
    engine = make_engine(runtime=device, limits=LIMITS)
    await engine.start()
    yield engine
    device.proceed.set()
    async with asyncio.timeout(PATIENCE_S):
        await engine.drain()


async def until(event):
    """Wait for another thread."""
    assert await asyncio.to_thread(event.wait, PATIENCE_S)


async def away(engine, *names):
    """Make a step of each session, and let them leave the arena."""
    for name in names:
        await engine.ask(step(inputs(2)[0], name))
    for name in names:
        engine.arena.forget(key(name))


def test_what_is_a_device_is_told_by_what_it_offers(device):
    """A CPU is none: its rows are written where they are."""
    assert isinstance(device, DeviceRuntime)
    assert not isinstance(CpuRuntime(network(), 2), DeviceRuntime)


async def test_the_next_tick_is_staged_while_one_runs(engine, device):
    """On a thread of its own; alone, a tick stages on the thread that runs it."""
    device.proceed.clear()
    first = asyncio.create_task(engine.ask(step(inputs(1)[0])))
    await until(device.begun)
    assert [("stage", "advance-m_0"), ("run", "advance-m_0")] == device.threads
    device.staged.clear()
    second = asyncio.create_task(engine.ask(step(inputs(1)[0], "bob")))

    await until(device.staged)

    assert not first.done()
    assert [("stage", "stage-m_0")] == device.threads[2:]
    device.proceed.set()
    replies = await asyncio.gather(first, second)
    assert [1, 1] == [reply.position for reply in replies]
    assert ("run", "advance-m_0") == device.threads[3]
    np.testing.assert_array_equal(replies[0].outputs, replies[1].outputs)


async def test_what_cannot_be_staged_fails_its_tick_alone(engine, device, monkeypatch):
    """The one that runs is answered, and the next ones are."""
    device.proceed.clear()
    first = asyncio.create_task(engine.ask(step(inputs(1)[0])))
    await until(device.begun)

    def refuse(*_):
        device.staged.set()
        raise DeviceMemoryError("inputs")

    device.staged.clear()
    with monkeypatch.context() as patch:
        patch.setattr(device, "stage", refuse)
        second = asyncio.create_task(engine.ask(step(inputs(1)[0], "bob")))
        await until(device.staged)
        device.proceed.set()
        with pytest.raises(NoDeviceMemoryError):
            await second
    assert 1 == (await first).position
    assert 1 == (await engine.ask(step(inputs(1)[0], "bob"))).position


async def test_sessions_that_come_back_are_written_in_one_call(engine, device):
    """On the kernels' thread, before the tick that needs them; nothing else is written."""
    await away(engine, "alice", "bob")
    await look(engine, "alice")  # at hand again, without a step
    assert [] == device.written

    async with asyncio.timeout(PATIENCE_S):
        replies = await asyncio.gather(
            *(engine.ask(step(inputs(2)[1], name)) for name in ("alice", "bob")),
            engine.ask(step(inputs(2)[0], "carol")),
        )

    [slots] = device.written
    assert 2 == len(slots)
    assert ("write_many", "advance-m_0") in device.threads
    whole = await engine.ask(sequence(inputs(2), "whole"))
    for reply, expected in zip(replies, whole.outputs[[1, 1, 0]], strict=True):
        np.testing.assert_allclose(reply.outputs, expected, **TOLERANCE)
    await engine.ask(step(inputs(1)[0], "alice"))
    assert 1 == len(device.written)
    assert engine.num_live == engine.arena.num_rows_used


async def test_without_memory_only_those_that_come_back_fail(engine, device):
    """They are as they were, and go on when there is memory; their neighbours are answered."""
    await away(engine, "alice", "bob")
    device.has_memory = False

    async with asyncio.timeout(PATIENCE_S):
        results = await asyncio.gather(
            *(engine.ask(step(inputs(2)[1], name)) for name in ("alice", "alice", "bob", "carol")),
            return_exceptions=True,
        )

    assert [NoDeviceMemoryError] * 3 == [type(result) for result in results[:3]]
    assert 3 == len({id(result) for result in results[:3]})
    assert 1 == getattr(results[3], "position", None)
    device.has_memory = True
    again = await engine.ask(step(inputs(2)[1], "alice", position=1))
    whole = await engine.ask(sequence(inputs(2), "whole"))
    np.testing.assert_allclose(again.outputs, whole.outputs[1], **TOLERANCE)
    assert engine.num_live == engine.arena.num_rows_used


async def test_a_step_that_was_too_late_fails_once(device):
    """It had joined one that comes back, and expired while the tick asked the store for another."""
    store = SlowStore(max_sessions=100)
    engine = make_engine(runtime=device, limits=LIMITS, store=store)
    await engine.start()
    await away(engine, "alice")
    await look(engine, "alice")
    device.has_memory = False
    store.may_load.clear()
    results: list[Any] = []

    engine.submit(step(inputs(1)[0], "alice"), results.append)
    engine.submit(step(inputs(1)[0], "alice"), results.append, 0.001)
    engine.submit(step(inputs(1)[0], "bob"), results.append)
    async with asyncio.timeout(PATIENCE_S):
        while not results:
            await asyncio.sleep(0.001)
        store.may_load.set()
        while len(results) < 3:
            await asyncio.sleep(0.001)

    assert [DeadlineExceededError, NoDeviceMemoryError] == [type(result) for result in results[:2]]
    assert 1 == results[2].position
    assert 0 == engine.num_pending
    async with asyncio.timeout(PATIENCE_S):
        await engine.drain()


async def test_a_row_that_no_kernel_has_read_goes_with_its_slot(engine, device):
    """A state that is set anew before the first one was used is the one that counts."""
    rows = np.random.default_rng(0).normal(size=(2, 10)).astype(np.float32)
    for row in rows:
        await engine.ask(ResetRequest(key=key(), row=row))
    assert [] == device.written

    reply = await engine.ask(step(inputs(1)[0]))

    runtime = CpuRuntime(network(), 2)
    runtime.write(1, rows[1], [False])
    expected = runtime.advance([1], [2], inputs(1)[None], None).outputs[0, 0]
    np.testing.assert_allclose(reply.outputs, expected, **TOLERANCE)
    assert [1] == [len(slots) for slots in device.written]


async def test_what_has_ended_lets_go_of_its_device():
    """At once, whoever still holds the engine: its memory is for the next version."""
    device = Device()
    engine = make_engine(runtime=device, limits=LIMITS)
    await engine.start()
    await away(engine, "alice")
    await look(engine, "alice")  # a row that is not written yet
    held = weakref.ref(device)
    del device
    gc.disable()
    try:
        await engine.end()
        await asyncio.sleep(0)
        assert held() is None
    finally:
        gc.enable()


async def test_rows_find_room_whatever_is_not_yet_written():
    """More sessions than slots come and go, each with the state that it had."""
    device = Device()
    engine = make_engine(runtime=device, limits=LIMITS, store=MemoryStore(max_sessions=100))
    await engine.start()
    names = [f"c{i}" for i in range(20)]
    values = inputs(3)
    for value in values:
        for name in names:
            await engine.ask(step(value, name))
            await look(engine, names[0])
    whole = await engine.ask(sequence(values, "whole", return_state=True))
    for name in names:
        np.testing.assert_allclose((await look(engine, name)).row, whole.row, **TOLERANCE)
    await engine.drain()
