"""The engine where something breaks: a kernel, a store, a state that would not be finite."""

import asyncio
from collections.abc import Awaitable, Callable

import numpy as np
import pytest
from msgspec.structs import replace

from lstm_core.runtime.cpu import CpuRuntime
from service import sessions
from service.domain import DeleteRequest, ResetRequest
from service.errors import (
    InternalError,
    PositionConflictError,
    StateNotFiniteError,
)
from service.records import Record
from service.stores.base import Commit
from service.stores.memory import MemoryStore
from tests.unit.engines import (
    LIMITS,
    inputs,
    key,
    look,
    make_engine,
    network,
    sequence,
    step,
)


async def test_a_state_that_would_not_be_finite_is_not_taken():
    """A session whose state would overflow keeps the one that it has, and its neighbours run."""
    engine = make_engine(network(activation="exponential"))
    await engine.start()
    await engine.ask(step(inputs(1)[0]))
    before = await look(engine)
    huge = np.full(3, 1e30, np.float32)

    results = await asyncio.gather(
        engine.ask(step(huge)), engine.ask(step(inputs(1)[0], "bob")), return_exceptions=True
    )

    assert isinstance(results[0], StateNotFiniteError)
    assert not isinstance(results[1], BaseException)
    assert 1 == results[1].position
    after = await look(engine)
    np.testing.assert_array_equal(before.row, after.row)
    assert before.position == after.position
    assert engine.is_ready
    with pytest.raises(StateNotFiniteError):
        await engine.predict(np.full((1, 4, 3), 1e30, np.float32))
    await engine.drain()


@pytest.mark.parametrize("num_steps", [1, 5])
async def test_a_state_that_would_not_be_finite_takes_no_slot(num_steps):
    """However often it is asked for."""
    engine = make_engine(network(activation="exponential"))
    await engine.start()
    await engine.ask(step(inputs(1)[0]))
    bad = inputs(num_steps)
    bad[-1] = 1e30
    for _ in range(3):
        with pytest.raises(StateNotFiniteError):
            await engine.ask(sequence(bad))
    assert 1 == engine.arena.num_rows_used
    await engine.drain()


class FaultyRuntime(CpuRuntime):
    """Breaks down on a batch that holds the input 13."""

    def advance(self, from_slots, to_slots, values, lengths, mask=None):
        """Fail, or do as the runtime does."""
        if (values == 13).any():
            raise RuntimeError("a fault in the kernel")
        return super().advance(from_slots, to_slots, values, lengths, mask)


async def test_a_job_that_breaks_the_kernel_fails_alone():
    """The neighbours of a poisoned job get their answers, and its session goes on after it."""
    engine = make_engine(runtime=FaultyRuntime(network(), LIMITS.arena_rows))
    await engine.start()
    poison = np.full(3, 13, np.float32)

    results = await asyncio.gather(
        *(engine.ask(step(inputs(1, i)[0], f"c{i}")) for i in range(5)),
        engine.ask(step(poison, "bad")),
        return_exceptions=True,
    )

    replies = [reply for reply in results[:5] if not isinstance(reply, BaseException)]
    assert [1] * 5 == [reply.position for reply in replies]
    assert isinstance(results[5], InternalError)
    assert 1 == (await engine.ask(step(inputs(1)[0], "bad", position=0))).position
    await engine.drain()


async def test_a_fault_behind_the_kernel_fails_one_job_and_leaves_no_slot(monkeypatch):
    """What goes wrong with one job's result is not its neighbours' matter."""
    runtime = CpuRuntime(network(), LIMITS.arena_rows)
    engine = make_engine(runtime=runtime)
    await engine.start()
    free = runtime.num_free
    advanced = sessions.advanced

    def fail_for_bad(before, request, *arguments, **options):
        if request.key.client_id == "bad":
            raise MemoryError
        return advanced(before, request, *arguments, **options)

    monkeypatch.setattr(sessions, "advanced", fail_for_bad)

    results = await asyncio.gather(
        *(engine.ask(step(inputs(1)[0], name)) for name in ("a", "bad", "b")),
        return_exceptions=True,
    )

    assert [1, None, 1] == [getattr(result, "position", None) for result in results]
    assert isinstance(results[1], InternalError)
    assert (2, 2) == (engine.num_live, free - runtime.num_free)
    await engine.drain()


class FaultyStore(MemoryStore):
    """Loses its connection when told to, and does as `before_commit` says."""

    fault = None
    before_commit: Callable[[], Awaitable[None]] | None = None

    async def commit_many(self, commits):
        """Fail, or commit."""
        if self.fault is not None:
            raise self.fault
        if self.before_commit is not None:
            hook, self.before_commit = self.before_commit, None
            await hook()
        return await super().commit_many(commits)


@pytest.mark.parametrize("fault", [ConnectionError("the store is gone"), asyncio.CancelledError()])
async def test_a_broken_store_fails_its_tick_and_nothing_is_applied(fault):
    """Every caller gets an answer, the states stay, and the engine goes on when the store does."""
    store = FaultyStore(max_sessions=10)
    engine = make_engine(store=store)
    await engine.start()
    await engine.ask(sequence(inputs(3)))
    before = await look(engine)
    store.fault = fault

    results = await asyncio.gather(
        engine.ask(step(inputs(1)[0])),
        engine.ask(step(inputs(1)[0], "bob")),
        return_exceptions=True,
    )

    assert [InternalError, InternalError] == [type(result) for result in results]
    store.fault = None
    after = await look(engine)
    np.testing.assert_array_equal(before.row, after.row)
    assert 4 == (await engine.ask(step(inputs(1)[0], position=3))).position
    await engine.drain()


class LateFaultStore(MemoryStore):
    """Commits, and then fails as it is told to."""

    fault: Exception | None = None

    async def commit_many(self, commits):
        """Commit, and perhaps fail."""
        outcomes = await super().commit_many(commits)
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault
        return outcomes


async def test_a_fault_behind_a_commit_applies_no_step_twice():
    """Of steps that ran in one piece, none starts anew where they may all be applied already."""
    store = LateFaultStore(max_sessions=10)
    engine = make_engine(store=store)
    await engine.start()
    await engine.ask(step(inputs(1)[0]))
    store.fault = ValueError("what came back makes no sense")

    results = await asyncio.gather(
        *(engine.ask(step(value)) for value in inputs(3)), return_exceptions=True
    )

    assert [InternalError] * 3 == [type(result) for result in results]
    assert 4 == (await look(engine)).position
    await engine.drain()


@pytest.mark.parametrize("position", [None, 3])
async def test_another_writer_is_noticed_at_the_commit(position):
    """A lost race runs again from the truth without a position, and conflicts with one."""
    store = FaultyStore(max_sessions=10)
    engine = make_engine(store=store)
    await engine.start()
    await engine.ask(sequence(inputs(3)))

    async def intrude():
        [record] = await store.load_many([key()])
        assert isinstance(record, Record)
        theirs = replace(record, position=10, row=np.zeros_like(record.row))
        await MemoryStore.commit_many(store, [Commit(key(), record, theirs)])

    store.before_commit = intrude

    if position is None:
        assert 11 == (await engine.ask(step(inputs(1)[0]))).position
    else:
        with pytest.raises(PositionConflictError) as caught:
            await engine.ask(step(inputs(1)[0], position=position))
        assert 10 == caught.value.position
    await engine.drain()


async def test_a_caller_that_fails_to_take_its_answer_harms_nobody(engine):
    """An exception in one caller's hands does not reach the others."""

    def refuse(_result):
        raise RuntimeError("no hands")

    engine.submit(step(inputs(1)[0], "bad"), refuse)

    assert 1 == (await engine.ask(step(inputs(1)[0]))).position
    assert 1 == (await look(engine, "bad")).position


async def test_failures_leave_no_slot_behind():
    """After conflicts, cancellations, faults and ends, every slot but the sessions' is free."""
    runtime = FaultyRuntime(network(), LIMITS.arena_rows)
    engine = make_engine(runtime=runtime)
    await engine.start()
    free = runtime.num_free
    poison = np.full((40, 3), 13, np.float32)
    asked = [
        step(inputs(1)[0], "a"),
        step(inputs(1)[0], "a", position=9),
        sequence(inputs(200), "b"),
        sequence(poison, "c"),
        sequence(inputs(3000), "d", position=0),
        sequence(inputs(3000), "d", position=0),
        ResetRequest(key=key("a")),
        DeleteRequest(key=key("b")),
    ]
    await asyncio.gather(*map(engine.ask, asked), return_exceptions=True)
    task = asyncio.create_task(engine.ask(sequence(inputs(200_000), "e")))
    await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task])
    await engine.drain()

    assert engine.num_live == free - runtime.num_free
    assert 2 == engine.num_live


async def test_a_fault_of_a_load_is_only_of_those_that_it_was_for(monkeypatch):
    """The same tick computes an answer again from a state at hand, and leaves no slot behind."""
    store = MemoryStore(max_sessions=100)
    engine = make_engine(store=store)
    await engine.start()
    first = await engine.ask(sequence(inputs(3000), "alice", position=0))

    async def break_down(_):
        raise ConnectionError("the store is gone")

    with monkeypatch.context() as patch:
        patch.setattr(store, "load_many", break_down)
        again, error, other = await asyncio.gather(
            engine.ask(sequence(inputs(3000), "alice", position=0)),
            *(engine.ask(step(inputs(1)[0], name)) for name in ("bob", "carol")),
            return_exceptions=True,
        )

    assert [InternalError] * 2 == [type(error), type(other)]
    assert error is not other
    np.testing.assert_array_equal(first.outputs, getattr(again, "outputs", None))
    assert engine.num_live == engine.arena.num_rows_used
    assert 1 == (await engine.ask(step(inputs(1)[0], "bob"))).position
    await engine.drain()
