"""The engine over a small real network: turns, batches, failures and ends."""

import asyncio
import gc
import time
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest

from lstm_core.kernels.native import OBSTACLE
from lstm_core.network import Bidirectional, Network
from lstm_core.runtime.cpu import CpuRuntime
from service import sessions
from service.domain import (
    AdvanceReply,
    DeleteRequest,
    ImportRequest,
    Record,
    Reply,
    ResetRequest,
)
from service.errors import (
    DeadlineExceededError,
    DrainingError,
    InternalError,
    NotStreamableError,
    PositionConflictError,
    QueueFullError,
    ServiceError,
    SessionUnknownError,
    StateNotFiniteError,
    TooManySessionsError,
)
from service.limits import EngineLimits
from service.stores.base import Commit
from service.stores.memory import MemoryStore
from tests.unit.engines import (
    LIMITS,
    TOLERANCE,
    inputs,
    key,
    look,
    lstm,
    make_engine,
    network,
    sequence,
    step,
)


@pytest.fixture
async def engine():
    """A running engine."""
    engine = make_engine()
    await engine.start()
    yield engine
    await engine.drain()


async def test_steps_equal_a_sequence_and_predict(engine):
    """Step by step, at once and without a session, the numbers agree."""
    values = inputs(40)

    whole = await engine.ask(sequence(values, "whole"))
    steps = [await engine.ask(step(value, "steps", position=t)) for t, value in enumerate(values)]
    predicted = await engine.predict(values[None])

    np.testing.assert_allclose([reply.outputs for reply in steps], whole.outputs, **TOLERANCE)
    np.testing.assert_allclose(predicted[0], whole.outputs, **TOLERANCE)
    assert (40, 40) == (whole.position, steps[-1].position)
    one, other = await look(engine, "whole"), await look(engine, "steps")
    np.testing.assert_allclose(one.row, other.row, **TOLERANCE)


@pytest.mark.skipif(OBSTACLE is not None, reason=f"the native kernel does not run: {OBSTACLE}")
async def test_on_the_native_kernel_the_bits_are_the_same_whatever_shares_the_batch(engine):
    """Alone, beside others, queued behind each other and as a sequence."""
    values = inputs(40)
    alone = [await engine.ask(step(value, "alone")) for value in values]
    others = [step(inputs(1, seed=i)[0], f"other{i}") for i in range(20)]

    whole, *rest = await asyncio.gather(
        engine.ask(sequence(values, "whole")),
        *(engine.ask(step(value, "queued")) for value in values),
        *map(engine.ask, others),
    )

    expected = np.array([reply.outputs for reply in alone])
    np.testing.assert_array_equal(expected, whole.outputs)
    np.testing.assert_array_equal(expected, [reply.outputs for reply in rest[:40]])
    rows = [(await look(engine, name)).row for name in ("alone", "whole", "queued")]
    np.testing.assert_array_equal(rows[0], rows[1])
    np.testing.assert_array_equal(rows[0], rows[2])


async def test_interleaved_clients_get_what_each_gets_alone(engine):
    """Thirty clients at once, with steps and sequences mixed, do not touch each other."""
    random = np.random.default_rng(3)
    values = {f"c{i}": inputs(25, seed=i) for i in range(30)}

    async def client(name):
        replies, begin = [], 0
        while begin < 25:
            length = min(int(random.integers(1, 6)), 25 - begin)
            asked = sequence(values[name][begin : begin + length], name, position=begin)
            replies.append((await engine.ask(asked)).outputs)
            begin += length
        return np.concatenate(replies)

    got = await asyncio.gather(*map(client, values))

    alone = await engine.predict(np.stack(list(values.values())))
    np.testing.assert_allclose(np.stack(got), alone, **TOLERANCE)


async def test_queued_steps_of_one_session_keep_their_order(engine):
    """Steps that are sent without waiting run one after the other."""
    values = inputs(20)

    replies = await asyncio.gather(*(engine.ask(step(value)) for value in values))

    assert list(range(1, 21)) == [reply.position for reply in replies]
    expected = await engine.predict(values[None])
    np.testing.assert_allclose([reply.outputs for reply in replies], expected[0], **TOLERANCE)


async def test_a_retry_is_answered_and_not_applied(engine):
    """The same request again gets the first answer, bit for bit, and the state stays."""
    first = await engine.ask(step(inputs(1)[0], position=0, return_state=True))
    before = await look(engine)

    again = await engine.ask(step(inputs(1)[0], position=0, return_state=True))

    assert (False, True) == (first.replayed, again.replayed)
    assert (first.position, first.epoch) == (again.position, again.epoch)
    np.testing.assert_array_equal(first.outputs, again.outputs)
    np.testing.assert_array_equal(first.row, again.row)
    assert before.position == (await look(engine)).position


async def test_a_long_answer_is_computed_again(engine):
    """An answer too long to keep comes out the same from the state before it."""
    values = inputs(3000)
    first = await engine.ask(sequence(values, position=0, return_state=True))

    again = await engine.ask(sequence(values, position=0, return_state=True))

    assert again.replayed
    assert (first.position, first.epoch) == (again.position, again.epoch)
    np.testing.assert_allclose(first.outputs, again.outputs, **TOLERANCE)
    np.testing.assert_allclose(first.row, again.row, **TOLERANCE)
    assert 3000 == (await look(engine)).position


async def test_a_wrong_position_changes_nothing(engine):
    """A gap is refused with the truth, and the state stays."""
    await engine.ask(sequence(inputs(4)))
    before = await look(engine)

    with pytest.raises(PositionConflictError) as caught:
        await engine.ask(step(inputs(1)[0], position=9))

    assert 4 == caught.value.position
    after = await look(engine)
    assert (before.position, before.epoch) == (after.position, after.epoch)
    np.testing.assert_array_equal(before.row, after.row)


async def test_reset_begins_a_new_life(engine):
    """Position 0, another epoch, zeros or the state given; old answers are gone."""
    await engine.ask(step(inputs(1)[0], position=0))
    old = await look(engine)
    row = np.arange(10, dtype=np.float32)

    fresh = await engine.ask(ResetRequest(key=key(), row=row))

    assert 0 == fresh.position
    assert old.epoch != fresh.epoch
    np.testing.assert_array_equal(row, (await look(engine)).row)
    assert not (await engine.ask(step(inputs(1)[0], position=0))).replayed
    await engine.ask(ResetRequest(key=key()))
    np.testing.assert_array_equal(np.zeros(10), (await look(engine)).row)


async def test_an_exported_state_goes_on_elsewhere(engine):
    """A state put into another session continues as the first would have."""
    values = inputs(10)
    await engine.ask(sequence(values[:6]))
    exported = await look(engine)
    expected = await engine.ask(sequence(values[6:]))

    await engine.ask(
        ImportRequest(
            key=key("bob"),
            row=exported.row,
            has_output=exported.has_output,
            new_position=exported.position,
            fingerprint=exported.fingerprint,
        )
    )
    actual = await engine.ask(sequence(values[6:], "bob", position=6))

    np.testing.assert_array_equal(expected.outputs, actual.outputs)


async def test_an_ended_session_is_unknown_and_may_begin_again(engine):
    """After deletion nothing is left of a session."""
    await engine.ask(step(inputs(1)[0]))
    await engine.ask(DeleteRequest(key=key()))

    with pytest.raises(SessionUnknownError):
        await look(engine)
    with pytest.raises(SessionUnknownError):
        await engine.ask(step(inputs(1)[0], position=1))
    assert 1 == (await engine.ask(step(inputs(1)[0], position=0))).position


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


async def test_a_caller_that_fails_to_take_its_answer_harms_nobody(engine):
    """An exception in one caller's hands does not reach the others."""

    def refuse(_result):
        raise RuntimeError("no hands")

    engine.submit(step(inputs(1)[0], "bad"), refuse)

    assert 1 == (await engine.ask(step(inputs(1)[0]))).position
    assert 1 == (await look(engine, "bad")).position


async def test_sessions_beyond_the_arena_come_back():
    """More sessions than rows at hand: each goes on where it was."""
    engine = make_engine(limits=EngineLimits(arena_rows=12, max_pending=4))
    await engine.start()
    names = [f"c{i}" for i in range(40)]
    values = inputs(3)

    for t, value in enumerate(values):
        for name in names:
            assert t + 1 == (await engine.ask(step(value, name, position=t))).position

    assert engine.num_live <= 12
    expected = await engine.ask(sequence(values, "whole", return_state=True))
    for name in names:
        np.testing.assert_allclose((await look(engine, name)).row, expected.row, **TOLERANCE)
    await engine.drain()


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
    """A job that counts no more is gone with its request, and those behind it have their turns."""
    store = HangingStore()
    engine = make_engine(store=store)
    await engine.start()
    first = asyncio.create_task(engine.ask(step(inputs(1)[0])))
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
    assert [1, 2] == [(await first).position, (await last).position]
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


async def test_a_model_that_cannot_stream_says_why():
    """Steps are refused with the layer's reason; predict serves it."""
    layer = Bidirectional(
        name="both", forward=lstm("f"), backward=lstm("b", seed=1, go_backwards=True)
    )
    engine = make_engine(Network("net", 3, (layer,)))
    await engine.start()

    with pytest.raises(NotStreamableError, match="both runs in both directions"):
        await engine.ask(step(inputs(1)[0]))
    assert (2, 7, 10) == (await engine.predict(np.stack([inputs(7), inputs(7)]))).shape
    await engine.drain()


async def test_masks_carry_over_requests(engine):
    """A masked step repeats the output of an earlier request; the position counts it."""
    values = inputs(6)
    live = np.array([False, True, False, False, True, False])
    whole = await engine.ask(sequence(values, "whole", mask=live))

    pieces = [
        await engine.ask(sequence(values[t : t + 1], "steps", mask=live[t : t + 1]))
        for t in range(6)
    ]

    got = np.concatenate([piece.outputs for piece in pieces])
    np.testing.assert_allclose(got, whole.outputs, **TOLERANCE)
    np.testing.assert_array_equal(got[0], np.zeros(2))
    assert 6 == pieces[-1].position
