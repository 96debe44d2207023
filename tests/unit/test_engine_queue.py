"""The queue of an engine: what waits and how long, what is refused or cancelled before its turn."""

import asyncio
import gc
import time
import weakref
from typing import Any, cast

import numpy as np
import pytest

from lstm_core.runtime.cpu import CpuRuntime
from service.domain import (
    AdvanceReply,
    Reply,
)
from service.errors import (
    DeadlineExceededError,
    DrainingError,
    QueueFullError,
    ServiceError,
    SessionUnknownError,
    TooManySessionsError,
)
from service.limits import EngineLimits
from service.stores.memory import MemoryStore
from tests.unit.engines import (
    LIMITS,
    inputs,
    look,
    make_engine,
    network,
    sequence,
    step,
)


async def test_a_full_store_refuses_a_new_session():
    """Beyond the limit a first step fails, and the sessions that exist go on."""
    engine = make_engine(store=MemoryStore(max_sessions=1))
    await engine.start()
    await engine.ask(step(inputs(1)[0]))

    with pytest.raises(TooManySessionsError):
        await engine.ask(step(inputs(1)[0], "bob"))
    assert 2 == (await engine.ask(step(inputs(1)[0]))).position
    await engine.drain()


async def test_a_step_does_not_wait_behind_a_long_sequence(engine):
    """A step that comes after a long sequence has begun is answered before that ends."""
    long = asyncio.create_task(engine.ask(sequence(inputs(5000), "long")))
    await asyncio.sleep(0)

    for t in range(5):
        await engine.ask(step(inputs(1)[0], "quick", position=t))

    assert not long.done()
    assert 5000 == (await long).position


async def test_cancelled_callers_are_skipped(engine):
    """A job whose caller has gone before its turn changes nothing."""
    await engine.ask(step(inputs(1)[0]))
    answers: list[Any] = []
    job = engine.submit(step(inputs(1)[0]), answers.append)

    job.cancel()

    assert 2 == (await engine.ask(step(inputs(1)[0]))).position
    assert [] == answers
    assert 1 == engine.stats.num_cancelled


async def test_a_sequence_cancelled_half_way_changes_nothing(engine):
    """What ran of it is dropped: the session is where it was."""
    await engine.ask(step(inputs(1)[0]))
    before = await look(engine)
    task = asyncio.create_task(engine.ask(sequence(inputs(5000))))
    await engine.ask(step(inputs(1)[0], "bob"))
    assert 0 < engine.stats.num_steps < 5000

    task.cancel()

    after = await look(engine)
    assert before.position == after.position
    np.testing.assert_array_equal(before.row, after.row)


class SlowRuntime(CpuRuntime):
    """Takes its time, and counts the predictions."""

    num_predictions = 0

    def advance(self, *arguments):
        """Wait, then advance."""
        time.sleep(0.05)
        return super().advance(*arguments)

    def predict(self, *arguments):
        """Wait, then predict."""
        self.num_predictions += 1
        time.sleep(0.05)
        return super().predict(*arguments)


async def test_a_step_cancelled_while_the_kernel_runs_is_not_applied():
    """A caller who goes before the commit leaves the session as it was."""
    engine = make_engine(runtime=SlowRuntime(network(), LIMITS.arena_rows))
    await engine.start()
    task = asyncio.create_task(engine.ask(step(inputs(1)[0])))
    await asyncio.sleep(0.02)

    task.cancel()

    with pytest.raises(SessionUnknownError):
        await look(engine)
    await engine.drain()


async def test_a_prediction_that_nobody_waits_for_does_not_run():
    """Cancelled predictions in the queue are skipped, and do not hold up the end."""
    runtime = SlowRuntime(network(), LIMITS.arena_rows)
    engine = make_engine(runtime=runtime)
    await engine.start()
    tasks = [asyncio.create_task(engine.predict(inputs(3)[None])) for _ in range(5)]
    await asyncio.sleep(0.02)

    for task in tasks[1:]:
        task.cancel()

    assert (1, 3, 2) == (await tasks[0]).shape
    await engine.drain()
    assert 1 == runtime.num_predictions


async def test_a_full_queue_refuses_and_recovers():
    """Beyond the limit a request is refused at once; what was taken is answered."""
    engine = make_engine(limits=EngineLimits(arena_rows=12, max_pending=4))
    tasks = [asyncio.create_task(engine.ask(step(inputs(1)[0], f"c{i}"))) for i in range(4)]
    await asyncio.sleep(0)

    with pytest.raises(QueueFullError):
        await engine.ask(step(inputs(1)[0], "late"))
    await engine.start()
    assert [1] * 4 == [reply.position for reply in await asyncio.gather(*tasks)]
    assert 1 == (await engine.ask(step(inputs(1)[0], "late"))).position
    await engine.drain()


async def test_many_requests_are_taken_as_far_as_there_is_room():
    """The first ones are, in their order, two of one session too; the others are refused."""
    engine = make_engine(limits=EngineLimits(arena_rows=12, max_pending=4))
    value = inputs(1)[0]
    busy = asyncio.create_task(engine.ask(step(value, "busy")))
    await asyncio.sleep(0)
    answers: dict[int, Reply | ServiceError] = {}

    requests = [step(value, name) for name in ("a", "b", "a", "c", "d")]
    jobs = engine.submit_many(requests, answers.__setitem__)

    assert 3 == len(jobs)
    assert [3, 4] == [
        index for index, error in answers.items() if isinstance(error, QueueFullError)
    ]
    assert 2 == engine.stats.num_rejected
    await engine.start()
    await busy
    await asyncio.wait_for(engine.drain(), 5)
    positions = [cast(AdvanceReply, answers[index]).position for index in range(3)]
    assert [1, 1, 2] == positions
    with pytest.raises(DrainingError):
        engine.submit_many(requests, answers.__setitem__)


async def test_many_requests_have_deadlines_like_one():
    """Those whose turn does not come in time fail, and are not applied."""
    engine = make_engine()
    answers: dict[int, Reply | ServiceError] = {}

    engine.submit_many([step(inputs(1)[0], name) for name in "ab"], answers.__setitem__, 0.0)
    await asyncio.sleep(0.001)  # the engine has not started

    assert [DeadlineExceededError] * 2 == [type(answers[index]) for index in range(2)]
    await engine.start()
    assert 1 == (await engine.ask(step(inputs(1)[0], "a"))).position
    await engine.drain()


class HangingStore(MemoryStore):
    """Commits nothing before the gate opens."""

    def __init__(self):
        super().__init__(max_sessions=1000)
        self.gate = asyncio.Event()

    async def commit_many(self, commits):
        """Wait, and commit."""
        await self.gate.wait()
        return await super().commit_many(commits)


@pytest.mark.parametrize("is_one_session", [True, False])
async def test_what_has_expired_is_not_kept_behind_a_store_that_hangs(is_one_session):
    """A job that counts no more is gone with its request, and those behind it have their turns.

    Those that hang with the store are the two ticks that may be on their way.
    """
    store = HangingStore()
    engine = make_engine(store=store)
    await engine.start()
    first = asyncio.create_task(engine.ask(step(inputs(1)[0])))
    await asyncio.sleep(0.01)
    second = asyncio.create_task(engine.ask(step(inputs(1)[0], "bob")))
    await asyncio.sleep(0.01)
    results: list[object] = []
    names = ["alice" if is_one_session else str(index) for index in range(20)]
    jobs = [engine.submit(step(inputs(1)[0], name), results.append, 0.001) for name in names]
    requests = [weakref.ref(job.request.inputs) for job in jobs]
    last = asyncio.create_task(engine.ask(step(inputs(1)[0])))
    del jobs

    async with asyncio.timeout(5):
        while len(results) < len(names):
            await asyncio.sleep(0.001)
    await asyncio.sleep(0)
    gc.collect()
    assert {DeadlineExceededError} == set(map(type, results))
    assert [None] * len(names) == [request() for request in requests]
    store.gate.set()
    assert [1, 1, 2] == [(await task).position for task in (first, second, last)]
    assert 0 == engine.num_pending
    await engine.drain()


async def test_draining_answers_what_was_taken_and_refuses_the_rest():
    """Work in flight ends, new work is refused, and nobody hangs."""
    engine = make_engine()
    await engine.start()
    task = asyncio.create_task(engine.ask(sequence(inputs(2000))))
    prediction = asyncio.create_task(engine.predict(inputs(500)[None]))
    await asyncio.sleep(0)

    drain = asyncio.create_task(engine.drain())
    await asyncio.sleep(0)

    assert not engine.is_ready
    with pytest.raises(DrainingError):
        await engine.ask(step(inputs(1)[0], "late"))
    await drain
    assert 2000 == (await task).position
    assert (1, 500, 2) == (await prediction).shape
