"""The engine over stores that others write to, that fail, and that hold what cannot be read."""

import asyncio

import numpy as np
import pytest
from msgspec.structs import replace

from service.domain import (
    AdvanceReply,
    DeleteRequest,
    ForkRequest,
    ImportRequest,
    LookRequest,
    ResetRequest,
)
from service.errors import (
    FingerprintMismatchError,
    LostUpdateError,
    PositionConflictError,
    SessionDamagedError,
    SessionExistsError,
    SessionExpiredError,
    SessionUnknownError,
    StoreUnavailableError,
)
from service.opening import Lifetimes
from service.records import Record
from service.stores.base import Commit, Damaged, Lost
from service.stores.memory import MemoryStore
from service.stores.write_behind import WriteBehindStore
from tests.unit.engines import (
    TOLERANCE,
    SharedStore,
    inputs,
    key,
    look,
    make_engine,
    network,
    sequence,
    step,
)


class Clock:
    """Tells the time that it is set to."""

    now = 1_000_000.0

    def __call__(self):
        """Return the time."""
        return self.now


@pytest.fixture
def store():
    """A store that two replicas share."""
    return SharedStore()


@pytest.fixture
async def replicas(store):
    """Two running engines over one store."""
    engines = [make_engine(store=store), make_engine(store=store)]
    for engine in engines:
        await engine.start()
    yield engines
    for engine in engines:
        await engine.drain()


async def test_a_session_goes_on_in_another_replica(replicas):
    """Steps that alternate between two replicas are those of one session."""
    values = inputs(20)

    replies = [await replicas[t % 2].ask(step(value, position=t)) for t, value in enumerate(values)]

    whole = await replicas[0].ask(sequence(values, "whole"))
    np.testing.assert_allclose([reply.outputs for reply in replies], whole.outputs, **TOLERANCE)


async def test_a_warm_step_is_one_trip(replicas, store):
    """What is at hand is confirmed by the commit, not asked for before."""
    await replicas[0].ask(step(inputs(1)[0]))
    before = store.num_trips

    await replicas[0].ask(step(inputs(1)[0]))

    assert 1 == store.num_trips - before


async def test_a_stale_row_answers_nothing(replicas):
    """Reads, replays and conflicts tell what the store says, not what a replica remembers."""
    one, other = replicas
    values = inputs(4)
    await one.ask(step(values[0], position=0))
    await other.ask(step(values[1], position=1))
    second = await other.ask(step(values[2], position=2))

    assert 3 == (await look(one)).position
    await other.ask(step(values[3], position=3))
    replayed = await one.ask(step(values[2], position=2))
    assert (True, 3) == (replayed.replayed, replayed.position)
    np.testing.assert_array_equal(second.outputs, replayed.outputs)
    with pytest.raises(PositionConflictError) as caught:
        await one.ask(step(values[0], position=9))
    assert 4 == caught.value.position
    await other.ask(DeleteRequest(key=key()))
    with pytest.raises(SessionUnknownError):
        await one.ask(step(values[0], position=4))


async def test_of_two_writers_one_wins_and_the_other_gets_the_truth(replicas):
    """At the same moment and position, one request runs and the other is told where it stands."""
    value, other_value = inputs(2)
    await replicas[0].ask(step(value, position=0))
    await look(replicas[1])

    results = await asyncio.gather(
        replicas[0].ask(step(value, position=1)),
        replicas[1].ask(step(other_value, position=1)),
        return_exceptions=True,
    )

    [won] = [result for result in results if isinstance(result, AdvanceReply)]
    [lost] = [result for result in results if isinstance(result, PositionConflictError)]
    assert (2, 2) == (won.position, lost.position)


async def test_steps_without_a_position_run_after_each_other(replicas):
    """Writers who do not say where they are all get their step, whoever comes first."""
    value = inputs(1)[0]

    replies = await asyncio.gather(
        *(replicas[i % 2].ask(step(value)) for i in range(20)),
    )

    assert list(range(1, 21)) == sorted(reply.position for reply in replies)
    assert 20 == (await look(replicas[0])).position


class FailingStore(MemoryStore):
    """A store whose commits are made or not, but never answered, while it is broken."""

    def __init__(self):
        super().__init__(max_sessions=1000)
        self.is_broken = False
        self.is_made = True

    async def commit_many(self, commits):
        """Commit, or not, and say nothing."""
        if not self.is_broken:
            return await super().commit_many(commits)
        if self.is_made:
            await super().commit_many(commits)
        raise StoreUnavailableError("no answer")


@pytest.mark.parametrize("is_made", [True, False], ids=["made", "not-made"])
async def test_an_unknown_outcome_is_settled_by_the_store(is_made):
    """Whether the lost answer was a yes or a no, the retry gives the step once."""
    store = FailingStore()
    engine = make_engine(store=store)
    await engine.start()
    values = inputs(3)
    await engine.ask(step(values[0], position=0))
    store.is_broken, store.is_made = True, is_made

    with pytest.raises(StoreUnavailableError, match="is not known"):
        await engine.ask(step(values[1], position=1))
    store.is_broken = False
    retried = await engine.ask(step(values[1], position=1))

    assert (is_made, 2) == (retried.replayed, retried.position)
    last = await engine.ask(step(values[2], position=2))
    whole = await engine.ask(sequence(values, "whole"))
    np.testing.assert_allclose(last.outputs, whole.outputs[-1], **TOLERANCE)
    await engine.drain()


async def test_each_caller_gets_an_error_of_its_own():
    """What one of them raises does not hold the frames of the others."""
    store = FailingStore()
    store.is_broken = True
    engine = make_engine(store=store)
    await engine.start()

    errors = await asyncio.gather(
        *(engine.ask(step(inputs(1)[0], str(i))) for i in range(5)), return_exceptions=True
    )

    assert {StoreUnavailableError} == {type(error) for error in errors}
    assert 5 == len({id(error) for error in errors})
    assert 1 == len({str(error) for error in errors})
    await engine.drain()


async def test_a_store_that_cannot_be_read_fails_cold_sessions():
    """A session that is not at hand gets a 503, and nothing is begun in its place."""

    class Unreadable(MemoryStore):
        async def load_many(self, keys):
            del keys
            raise StoreUnavailableError("down")

    engine = make_engine(store=Unreadable(10))
    await engine.start()

    with pytest.raises(StoreUnavailableError):
        await engine.ask(step(inputs(1)[0]))
    assert 0 == engine.num_live
    await engine.drain()


class OddStore(MemoryStore):
    """A store that has something unusual for one session, once or until it is replaced."""

    def __init__(self, odd):
        super().__init__(max_sessions=1000)
        self.odd = odd

    async def load_many(self, keys):
        """Return what is odd for alice."""
        return [
            self.odd if each == key() and self.odd else loaded
            for each, loaded in zip(keys, await super().load_many(keys), strict=True)
        ]

    async def commit_many(self, commits):
        """Let what is odd be replaced by who knows it."""
        for index, commit in enumerate(commits):
            if self.odd is not None and commit.before is self.odd:
                self.odd = None
                commits[index] = replace(commit, before=None)
        return await super().commit_many(commits)


async def test_a_damaged_session_fails_alone_until_it_is_begun_anew():
    """A record that cannot be read is never gone on from, and a reset puts a state in its place."""
    engine = make_engine(store=OddStore(Damaged(b"x", "the checksum does not fit")))
    await engine.start()
    value = inputs(1)[0]

    assert 1 == (await engine.ask(step(value, "bob"))).position
    for asked in (step(value), LookRequest(key=key()), ResetRequest(key=key(), position=0)):
        with pytest.raises(SessionDamagedError, match="checksum"):
            await engine.ask(asked)
    assert 0 == (await engine.ask(ResetRequest(key=key()))).position
    assert 1 == (await engine.ask(step(value, position=0))).position
    await engine.drain()


async def test_a_lost_update_is_told_once():
    """The first request after answered steps were lost hears of it; then the session goes on."""
    store = OddStore(Lost())
    engine = make_engine(store=store)
    await engine.start()

    with pytest.raises(LostUpdateError):
        await engine.ask(step(inputs(1)[0]))
    store.odd = None
    assert 1 == (await engine.ask(step(inputs(1)[0]))).position
    await engine.drain()


async def test_a_fork_goes_its_own_way():
    """Two sessions with one past have two futures, and nobody's session is overwritten."""
    engine = make_engine()
    await engine.start()
    values = inputs(3)
    await engine.ask(sequence(values[:2]))

    forked = await engine.ask(ForkRequest(key=key(), target="bob"))
    one = await engine.ask(step(values[2], position=2))
    other = await engine.ask(step(values[2], "bob", position=2))

    assert 2 == forked.position
    np.testing.assert_allclose(one.outputs, other.outputs, **TOLERANCE)
    assert forked.epoch == (await look(engine, "bob")).epoch != (await look(engine)).epoch
    with pytest.raises(SessionExistsError):
        await engine.ask(ForkRequest(key=key(), target="bob"))
    with pytest.raises(SessionUnknownError):
        await engine.ask(ForkRequest(key=key("nobody"), target="carol"))
    await engine.drain()


async def test_of_two_that_begin_a_session_at_once_one_begins_it():
    """A fork and a step for the same new session in one tick do not both apply from nothing."""
    engine = make_engine()
    await engine.start()
    value = inputs(1)[0]
    await engine.ask(step(value))

    results = await asyncio.gather(
        engine.ask(ForkRequest(key=key(), target="bob")),
        engine.ask(step(value, "bob")),
        return_exceptions=True,
    )

    is_refused = isinstance(results[0], SessionExistsError)
    positions = [getattr(result, "position", None) for result in results]
    assert ([None, 1] if is_refused else [1, 2]) == positions
    await engine.drain()


async def test_a_session_ends_by_its_time_to_live():
    """Past it there is nothing to step or look at, until a reset begins it anew."""
    clock = Clock()
    engine = make_engine(lifetimes=Lifetimes(ttl_s=10.0, tombstone_s=100.0), clock=clock)
    await engine.start()
    value = inputs(1)[0]
    await engine.ask(step(value))
    clock.now += 9
    await engine.ask(step(value))
    clock.now += 10

    for asked in (step(value), step(value, position=2), ForkRequest(key=key(), target="bob")):
        with pytest.raises(SessionExpiredError):
            await engine.ask(asked)
    assert 0 == (await engine.ask(ResetRequest(key=key(), ttl_s=5.0))).position
    clock.now += 5 + 100
    assert 1 == (await engine.ask(step(value, position=0))).position
    await engine.drain()


async def test_a_session_that_the_store_has_forgotten_begins_anew_from_nothing():
    """Not from what is still at hand: an answer before the commit would be lost."""
    clock = Clock()
    behind = MemoryStore(max_sessions=1)
    store = WriteBehindStore(behind, max_steps=100, max_ms=1000)
    lifetimes = Lifetimes(ttl_s=10.0, tombstone_s=0.0)
    engine = make_engine(store=store, lifetimes=lifetimes, clock=clock)
    await store.open()
    await engine.start()
    await engine.ask(step(inputs(1)[0]))
    await engine.list_sessions(10, None)  # which waits until it is in the store
    clock.now += 11
    [record] = await behind.load_many([key()])
    assert isinstance(record, Record)
    await behind.commit_many([Commit(key(), record, None)])

    assert 1 == (await engine.ask(step(inputs(1)[0], position=0))).position
    await engine.list_sessions(10, None)
    assert 0 == store.num_lost
    await engine.drain()
    await store.close()


async def test_idle_sessions_leave_the_arena_and_come_back():
    """What nobody asks for leaves its row to others, and its client sees no difference."""
    clock = Clock()
    engine = make_engine(lifetimes=Lifetimes(idle_s=60.0), clock=clock)
    await engine.start()
    values = inputs(3)
    await engine.ask(step(values[0], position=0))
    clock.now += 50
    await engine.ask(step(values[0], "bob"))
    clock.now += 20

    assert (1, 1) == (engine.passivate(), engine.num_live)
    reply = await engine.ask(sequence(values[1:], position=1))
    whole = await engine.ask(sequence(values, "whole"))
    np.testing.assert_allclose(reply.outputs, whole.outputs[1:], **TOLERANCE)
    await engine.drain()


async def test_a_session_of_other_weights_is_not_stepped():
    """After the model was replaced, its sessions say how to go on, and can."""
    store = MemoryStore(max_sessions=10)
    old, new = make_engine(store=store), make_engine(network(seed=5), store=store)
    for engine in (old, new):
        await engine.start()
    await old.ask(step(inputs(1)[0]))

    with pytest.raises(FingerprintMismatchError, match="reset it, or take its state over"):
        await new.ask(step(inputs(1)[0], position=1))
    assert (await new.ask(step(inputs(1)[0], position=0))).replayed
    state = await look(new)
    assert (1, old.signature.fingerprint) == (state.position, state.fingerprint)
    taken = ImportRequest(
        key=key(), row=state.row, has_output=state.has_output, new_position=state.position
    )
    assert new.signature.fingerprint == (await new.ask(taken)).fingerprint
    assert 2 == (await new.ask(step(inputs(1)[0], position=1))).position
    for engine in (old, new):
        await engine.drain()
