"""Two ticks of an engine on their way at once: who joins which, and what each leaves alone."""

import asyncio
import dataclasses
import threading

import numpy as np
import pytest
from msgspec import structs

from lstm_core.runtime.cpu import CpuRuntime
from service.domain import ForkRequest
from service.errors import DeadlineExceededError, InternalError, SessionExistsError
from service.stores.write_behind import WriteBehindStore
from tests.unit.engines import LIMITS, SharedStore, inputs, key, look, make_engine, network, step

VALUES = inputs(4)


class HeldStore(SharedStore):
    """A store in which the commits of some sessions wait until they are let go, or fail."""

    def __init__(self):
        super().__init__()
        self.gates = {}
        self.waiting = set()
        self.faults = {}
        self.at_commit = {}

    def hold(self, client):
        """Let the next commit of a session wait for the event that is returned."""
        self.gates[client] = gate = asyncio.Event()
        return gate

    async def until_waiting(self, *clients):
        """Wait until the commits of some sessions do."""
        async with asyncio.timeout(5):
            while not set(clients) <= self.waiting:
                await asyncio.sleep(0)

    async def commit_many(self, commits):
        """Wait where it is wanted, then fail where it is wanted, or commit."""
        clients = [commit.key.client_id for commit in commits]
        for client in clients:
            if client in self.gates:
                self.waiting.update(clients)
                await self.gates.pop(client).wait()
        for client in clients:
            if client in self.faults:
                raise self.faults.pop(client)
            if client in self.at_commit:
                [commit] = [each for each in commits if each.key.client_id == client]
                theirs = structs.replace(commit, after=self.at_commit.pop(client))
                await super().commit_many([theirs])
        return await super().commit_many(commits)


class HeldRuntime(CpuRuntime):
    """A runtime whose calls can be held.

    Attributes:
        begun: Set when a call has begun that is held.
        proceed: What each call waits for.
    """

    def __init__(self, network, capacity):
        super().__init__(network, capacity)
        self.begun = threading.Event()
        self.proceed = threading.Event()
        self.proceed.set()

    def advance(self, *arguments):
        """Wait, and advance."""
        if not self.proceed.is_set():
            self.begun.set()
        assert self.proceed.wait(5)
        return super().advance(*arguments)


@pytest.fixture
def store():
    """A store that others write to, and that can wait."""
    return HeldStore()


@pytest.fixture
async def engine(store):
    """An engine over it."""
    engine = make_engine(store=store)
    await engine.start()
    yield engine
    async with asyncio.timeout(5):
        await engine.drain()


def ask(engine, *clients):
    """Ask for a step of each of some sessions."""
    return [asyncio.create_task(engine.ask(step(VALUES[0], client))) for client in clients]


async def answers(*tasks):
    """Wait for tasks, not forever."""
    async with asyncio.timeout(5):
        return await asyncio.gather(*tasks, return_exceptions=True)


async def positions(*tasks):
    """Return where sessions have come to."""
    return [reply.position for reply in await answers(*tasks)]


async def settled():
    """Let everything go as far as it can without waiting."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_tick_runs_while_another_one_is_committed(engine, store):
    """Whoever comes meanwhile is answered first; what a session has queued waits for its turn."""
    gate = store.hold("alice")
    alice = ask(engine, "alice", "alice")
    await store.until_waiting("alice")

    assert [1] == await positions(*ask(engine, "bob"))
    assert [2] == await positions(*ask(engine, "bob"))
    assert not any(task.done() for task in alice)
    gate.set()
    assert [1, 2] == await positions(*alice)


async def test_the_end_waits_for_both_ticks(store):
    """What was taken is answered, in whichever tick it is."""
    engine = make_engine(store=store)
    await engine.start()
    gates = [store.hold("alice"), store.hold("bob")]
    tasks = []
    for name in ("alice", "bob"):
        tasks += ask(engine, name)
        await store.until_waiting(name)

    end = asyncio.create_task(engine.drain())
    gates[1].set()
    await settled()
    assert not end.done()
    gates[0].set()

    assert [1, 1] == await positions(*tasks)
    await answers(end)
    assert end.exception() is None
    assert not engine.is_ready


async def test_what_has_begun_does_not_begin_again():
    """The lanes of a second start would stay behind."""
    others = asyncio.all_tasks()
    engine = make_engine()
    for _ in range(2):
        await engine.start()
    async with asyncio.timeout(5):
        await engine.drain()
    await settled()
    assert others == asyncio.all_tasks()


async def test_the_second_tick_waits_until_as_many_have_come(engine, store):
    """Those who wait for company have deadlines, and go when the first tick has ended."""
    gate = store.hold("alice")
    first = ask(engine, "alice", "bob")
    await store.until_waiting("alice", "bob")
    [carol] = ask(engine, "carol")
    await settled()
    assert not carol.done()
    [dave] = ask(engine, "dave")
    assert [1, 1] == await positions(carol, dave)
    assert 2 == engine.stats.num_ticks

    late: list[object] = []
    engine.submit(step(VALUES[0], "erin"), late.append, 0.001)
    async with asyncio.timeout(5):
        while not late:
            await asyncio.sleep(0.001)
    assert isinstance(late[0], DeadlineExceededError)
    [frank] = ask(engine, "frank")
    await settled()
    assert not frank.done()
    gate.set()
    assert [1, 1, 1] == await positions(*first, frank)
    assert [1] == await positions(*ask(engine, "erin"))


async def test_a_fault_in_one_tick_leaves_the_other_alone(engine, store):
    """Its sessions are as they were, and go on; those of the other one are answered."""
    assert [1, 1] == await positions(*ask(engine, "alice", "bob"))
    first, second = store.hold("alice"), store.hold("bob")
    store.faults["alice"] = ConnectionError("the store is gone")
    [alice] = ask(engine, "alice")
    await store.until_waiting("alice")
    [bob] = ask(engine, "bob")
    await store.until_waiting("bob")
    num_live = engine.num_live

    first.set()
    [error] = await answers(alice)
    assert isinstance(error, InternalError)
    assert num_live - 1 == engine.num_live
    second.set()

    assert [2] == await positions(bob)
    assert [2, 3] == await positions(*ask(engine, "alice", "bob"))
    assert engine.num_live == engine.arena.num_rows_used


async def test_a_cancelled_caller_of_one_tick_is_no_matter_of_the_other(engine, store):
    """Who leaves before the commit of his tick is not applied; the other tick goes on."""
    gate = store.hold("alice")
    [alice] = ask(engine, "alice")
    await store.until_waiting("alice")
    load = store.load_many
    loading = asyncio.Event()

    async def wait(keys):
        await loading.wait()
        return await load(keys)

    store.load_many = wait
    [bob] = ask(engine, "bob")
    await settled()
    bob.cancel()
    loading.set()
    await settled()
    gate.set()

    assert [1] == await positions(alice)
    assert [1] == await positions(*ask(engine, "bob"))


async def test_a_fork_meets_no_step_of_its_target_in_another_tick(store):
    """Of two changes of what is not there yet a store written behind would take both."""
    behind = WriteBehindStore(store, max_steps=100, max_ms=1000.0)
    await behind.open()
    runtime = HeldRuntime(network(), LIMITS.arena_rows)
    engine = make_engine(
        runtime=runtime, store=behind, limits=dataclasses.replace(LIMITS, inline_us=0.0)
    )
    await engine.start()
    assert [1] == await positions(*ask(engine, "alice"))
    runtime.proceed.clear()
    [begun] = ask(engine, "copy")
    assert await asyncio.to_thread(runtime.begun.wait, 5)
    fork = asyncio.create_task(engine.ask(ForkRequest(key=key("alice"), target="copy")))
    [beside] = ask(engine, "bob")
    await settled()
    assert not fork.done()
    runtime.proceed.set()

    refused, stepped, other = await answers(fork, begun, beside)
    assert isinstance(refused, SessionExistsError)
    assert [1, 1] == [stepped.position, other.position]
    async with asyncio.timeout(5):
        await behind.list_sessions("default", "m", 10, None)  # once all is durable
        await engine.drain()
        await behind.close()
    assert 0 == behind.num_lost


async def test_a_fork_that_was_too_late_keeps_nobody_waiting(engine, store):
    """A tick may be beside the one on its way again."""
    gate = store.hold("alice")
    alice = ask(engine, "alice")
    await store.until_waiting("alice")
    late: list[object] = []
    engine.submit(ForkRequest(key=key("carol"), target="copy"), late.append, 0.001)
    [bob] = ask(engine, "bob")
    async with asyncio.timeout(5):
        while not late:
            await asyncio.sleep(0.001)

    assert isinstance(late[0], DeadlineExceededError)
    assert [1] == await positions(bob)
    gate.set()
    assert [1] == await positions(*alice)


async def test_a_job_that_another_version_gives_back_has_one_turn_at_a_time(store):
    """It is in the second tick already when the one that handed it over ends."""
    before = make_engine(store=store)
    earlier = make_engine(store=store, is_alone=False)
    current = make_engine(network(seed=5), store=store, earlier=[earlier])
    for engine in (before, current):
        await engine.start()
    assert [1] == await positions(*ask(before, "alice"))
    # At hand of the earlier version here; then another replica takes it to the current one.
    assert [2] == await positions(*ask(current, "alice"))
    [record] = await store.load_many([key("alice")])
    fingerprint = current.signature.fingerprint
    store.at_commit["alice"] = structs.replace(record, fingerprint=fingerprint, nonce=0)

    first, second = store.hold("bob"), store.hold("carol")
    bob, alice = ask(current, "bob", "alice")
    await store.until_waiting("bob")
    await settled()  # alice is back, and waits for company
    carol, after = ask(current, "carol", "alice")
    await store.until_waiting("carol", "alice")
    first.set()
    assert [1] == await positions(bob)
    dave = ask(current, "dave", "erin")
    await settled()
    second.set()

    assert [3, 4, 1] == await positions(alice, after, carol)
    assert [1, 1] == await positions(*dave)
    assert 0 == current.num_pending
    np.testing.assert_array_equal(fingerprint, (await look(current, "alice")).fingerprint)
    for engine in (before, current):
        await engine.drain()
