"""Whatever two replicas, slow kernels, a store that fails and callers that leave make of it."""

import asyncio
import random
import threading
import time

import numpy as np
import pytest

from lstm_core import equations
from lstm_core.network import Network
from lstm_core.runtime.cpu import CpuRuntime
from service.errors import QueueFullError, StoreUnavailableError
from service.limits import EngineLimits
from service.stores.memory import MemoryStore
from tests.unit.engines import TOLERANCE, inputs, look, lstm, make_engine, sequence

LIMITS = EngineLimits(
    arena_rows=30, max_pending=10, max_batch_rows=4, chunk_steps=4, chunk_us=0.0, inline_us=0.0
)
NUM_STEPS = 60


class SlowRuntime(CpuRuntime):
    """Takes up to a millisecond a call, and minds that there is one at a time.

    Attributes:
        is_committing: Whether a commit of its engine is on its way.
        num_beside: Calls that began while one was.
        has_met: Whether two calls were on their way.
    """

    def __init__(self, network, capacity, seed):
        super().__init__(network, capacity)
        self.is_committing = False
        self.num_beside = 0
        self.has_met = False
        self._random = random.Random(seed)
        self._alone = threading.Lock()

    def advance(self, *arguments):
        """Wait, and advance."""
        if not self._alone.acquire(blocking=False):
            self.has_met = True
        self.num_beside += self.is_committing
        time.sleep(self._random.random() / 1000)
        try:
            return super().advance(*arguments)
        finally:
            self._alone.release()


class UnsureStore(MemoryStore):
    """A replica's way to the store: takes its time, and does not always say what became of it."""

    is_shared = True

    def __init__(self, store, runtime, seed):
        super().__init__(max_sessions=0)
        self._store = store
        self._runtime = runtime
        self._random = random.Random(seed)

    async def load_many(self, keys):
        """Load, late."""
        await asyncio.sleep(self._random.random() / 1000)
        return await self._store.load_many(keys)

    async def commit_many(self, commits):
        """Commit late, or not, or commit and say nothing."""
        self._runtime.is_committing = True
        await asyncio.sleep(self._random.random() / 1000)
        self._runtime.is_committing = False
        luck = self._random.random()
        if luck < 0.05:
            raise StoreUnavailableError("no answer")
        outcomes = await self._store.commit_many(commits)
        if luck < 0.1:
            raise StoreUnavailableError("no answer")
        return outcomes


async def stream(engines, name, values, luck):
    """Send a session's steps in pieces to any replica; leave now and then, and ask again."""
    outputs, position = [], 0
    while position < len(values):
        piece = values[position : position + luck.choice((1, 1, 1, 2, 9))]
        reply = None
        while reply is None:
            asked = luck.choice(engines).ask(sequence(piece, name, position=position))
            patience_s = luck.choice((0.0, 0.001, 0.003, 5.0, 5.0, 5.0))
            try:
                reply = await asyncio.wait_for(asked, patience_s)
            except (TimeoutError, StoreUnavailableError, QueueFullError):
                await asyncio.sleep(0)
        position += len(piece)
        assert position == reply.position
        outputs.append(reply.outputs)
    return np.concatenate(outputs)


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_step_is_applied_once_and_in_order(seed):
    """The answers are those of the equations, and no slot is left behind."""
    layer = lstm()
    net = Network("net", 3, (layer,))
    store = MemoryStore(max_sessions=100)
    runtimes = [SlowRuntime(net, LIMITS.arena_rows, seed + i) for i in range(2)]
    engines = [
        make_engine(runtime=runtime, store=UnsureStore(store, runtime, seed), limits=LIMITS)
        for runtime in runtimes
    ]
    for engine in engines:
        await engine.start()
    values = {f"c{i}": inputs(NUM_STEPS, seed=i) for i in range(8)}

    async with asyncio.timeout(30):
        got = await asyncio.gather(
            *(stream(engines, name, each, random.Random(name)) for name, each in values.items())
        )
        ends = [(await look(engines[0], name)).position for name in values]
        for engine in engines:
            await engine.drain()

    expected = equations.sequence(layer.spec, layer.weights, np.stack(list(values.values())))
    np.testing.assert_allclose(np.stack(got), expected.outputs, **TOLERANCE)
    assert [NUM_STEPS] * 8 == ends
    for engine, runtime in zip(engines, runtimes, strict=True):
        assert engine.num_live == engine.arena.num_rows_used
        assert not runtime.has_met
        assert runtime.num_beside
