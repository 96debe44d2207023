"""No order of events leaves a job lying: all short ones, of jobs, ends of ticks and pauses."""

import asyncio
import itertools

from service.limits import EngineLimits
from service.stores.memory import MemoryStore
from tests.unit.engines import inputs, make_engine, step

VALUE = inputs(1)[0]
MOST = 2
LIMITS = EngineLimits(arena_rows=60, max_pending=20, max_batch_rows=MOST, inline_us=1e9)
NUM_EVENTS = 5


class GatedStore(MemoryStore):
    """A store in which every commit waits.

    Attributes:
        gates: What those that wait wait for, with the number of their sessions.
    """

    def __init__(self):
        super().__init__(max_sessions=100_000)
        self.gates = []

    async def commit_many(self, commits):
        """Wait, and commit."""
        gate = asyncio.get_running_loop().create_future()
        self.gates.append((gate, len(commits)))
        await gate
        return await super().commit_many(commits)


class Desk:
    """An engine whose kernels run in the event loop, and what is asked of it.

    Attributes:
        num_asked: Jobs so far.
        answers: Theirs.
    """

    def __init__(self):
        self.store = GatedStore()
        self.engine = make_engine(store=self.store, limits=LIMITS)
        self.num_asked = 0
        self.answers = []

    async def learn(self):
        """Have the engine measure its kernels, which it does on their thread."""
        await self.engine.start()
        async with asyncio.timeout(5):
            for num_rows in range(1, MOST + 1):
                for _ in range(num_rows):
                    await self.happen("new")
                while not self.store.gates:
                    await asyncio.sleep(0.001)
                await self.finish()

    async def finish(self):
        """Let all that is asked be answered."""
        await self.settle()
        while self.store.gates:
            self.end_tick(0)
            await self.settle()
        assert self.num_asked == len(self.answers)
        assert 0 == self.engine.num_pending

    async def happen(self, event):
        """Ask for a step, of a new session or of the same one again; end a tick; or pause."""
        if event in {"new", "late", "more"}:
            name = "c" if event == "more" else f"c{self.num_asked}"
            timeout_s = 0.0 if event == "late" else None
            self.engine.submit(step(VALUE, name), self.answers.append, timeout_s)
            self.num_asked += 1
        elif event == "pause":
            await asyncio.sleep(0)
        elif event == "settle":
            await self.settle()
        elif self.store.gates:
            self.end_tick(0 if event == "first" else -1)

    def end_tick(self, which):
        """Let one of the ticks that wait go on."""
        self.store.gates.pop(which)[0].set_result(None)

    async def settle(self):
        """Wait until nothing moves; then a tick is on its way for each lane that has work."""
        for _ in range(8):
            await asyncio.sleep(0)
        num_ready = len(self.engine._sessions._turns.ready)  # noqa: SLF001 - no reply tells
        if not self.store.gates:
            assert 0 == num_ready
        elif len(self.store.gates) == 1:
            assert num_ready < self.store.gates[0][1]


EVENTS = ("new", "more", "late", "first", "last", "pause", "settle")


async def test_whoever_can_have_a_turn_has_it():
    """And each is answered, whenever a tick ends and the next jobs come."""
    desk = Desk()
    await desk.learn()
    for events in itertools.product(EVENTS[:3], *[EVENTS] * (NUM_EVENTS - 1)):
        for event in events:
            await desk.happen(event)
        await desk.finish()
    await desk.engine.drain()
