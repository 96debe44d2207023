"""Sessions that requests begin anew, must find, and end: what sequences of other protocols need."""

import asyncio
from typing import Any

import numpy as np
import pytest

from service.domain import ENDING_S, DeleteRequest, LookRequest, ResetRequest
from service.errors import (
    PositionConflictError,
    SessionUnknownError,
    StateNotFiniteError,
)
from service.opening import Lifetimes
from service.stores.base import Damaged
from service.stores.memory import MemoryStore
from tests.unit.engines import (
    SharedStore,
    inputs,
    key,
    look,
    make_engine,
    network,
    sequence,
    step,
)

VALUES = inputs(4)


class Clock:
    """Tells the time that it is set to."""

    now = 1_000_000.0

    def __call__(self):
        """Return the time."""
        return self.now


@pytest.fixture(params=[lambda **given: MemoryStore(1000, **given), lambda **_: SharedStore()])
async def engine(request):
    """A running engine, over a store of its own and over one that others write to."""
    engine = make_engine(store=request.param())
    await engine.start()
    yield engine
    assert engine.arena.num_rows_used == len(engine.arena)
    await engine.drain()


async def first_of(values):
    """Return what the first step of a session gives."""
    engine = make_engine()
    await engine.start()
    reply = await engine.ask(step(values))
    await engine.drain()
    return reply.outputs


async def test_a_step_that_must_find_a_session_begins_none(engine):
    """And goes on with one that is there, in one piece with others too."""
    with pytest.raises(SessionUnknownError):
        await engine.ask(step(VALUES[0], must_exist=True))
    with pytest.raises(SessionUnknownError):
        await look(engine)

    await engine.ask(step(VALUES[0]))
    replies = await asyncio.gather(
        *(engine.ask(step(value, must_exist=True)) for value in VALUES[1:])
    )
    assert [2, 3, 4] == [reply.position for reply in replies]


async def test_a_beginning_forgets_what_there_was(engine):
    """From zeros at position 0 of a new epoch, whatever the session has come to."""
    before = await engine.ask(sequence(VALUES))
    reply = await engine.ask(step(VALUES[0], begins_anew=True))

    assert 1 == reply.position
    assert before.epoch != reply.epoch
    np.testing.assert_allclose(await first_of(VALUES[0]), reply.outputs, rtol=1e-6)
    after = await engine.ask(step(VALUES[1], must_exist=True))
    assert (2, reply.epoch) == (after.position, after.epoch)


async def test_a_beginning_that_fails_leaves_the_session_as_it_was():
    """Nothing of it is applied, so nothing is forgotten either."""
    engine = make_engine(network(activation="exponential"))
    await engine.start()
    huge = np.full((4, 3), 1e30, np.float32)
    before = await engine.ask(sequence(VALUES))
    with pytest.raises(StateNotFiniteError):
        await engine.ask(sequence(huge, begins_anew=True))
    now = await look(engine)
    assert (before.position, before.epoch) == (now.position, now.epoch)
    await engine.drain()


async def test_the_retry_of_a_beginning_is_answered_again(engine):
    """With position 0, as long as the session has come no further; else it begins once more."""
    first = await engine.ask(step(VALUES[0], begins_anew=True, position=0))
    retry = await engine.ask(step(VALUES[0], begins_anew=True, position=0))
    assert (first.epoch, True) == (retry.epoch, retry.replayed)
    other = await engine.ask(step(VALUES[1], begins_anew=True, position=0))
    assert (1, False) == (other.position, other.replayed)
    assert first.epoch != other.epoch

    await engine.ask(step(VALUES[2]))
    again = await engine.ask(step(VALUES[1], begins_anew=True, position=0))
    assert (1, False) == (again.position, again.replayed)
    assert other.epoch != again.epoch


async def test_without_a_position_a_beginning_is_no_retry(engine):
    """Two sequences that begin alike are two."""
    first = await engine.ask(step(VALUES[0], begins_anew=True))
    second = await engine.ask(step(VALUES[0], begins_anew=True))
    assert first.epoch != second.epoch
    assert not second.replayed


async def test_an_end_leaves_nothing(engine):
    """The session is unknown afterwards, as after its deletion."""
    await engine.ask(step(VALUES[0]))
    assert 2 == (await engine.ask(step(VALUES[1], ends=True))).position

    with pytest.raises(SessionUnknownError):
        await look(engine)
    with pytest.raises(SessionUnknownError):
        await engine.ask(step(VALUES[1], ends=True, must_exist=True))
    assert 1 == (await engine.ask(step(VALUES[0]))).position


async def test_a_beginning_that_is_the_end_leaves_nothing(engine):
    """With a session of that name before, and without one."""
    for _ in range(2):
        reply = await engine.ask(sequence(VALUES, begins_anew=True, ends=True))
        assert 4 == reply.position
        with pytest.raises(SessionUnknownError):
            await look(engine)
        await engine.ask(step(VALUES[0]))


@pytest.mark.parametrize("size", [1, 3000], ids=["kept", "computed again"])
async def test_the_retry_of_an_end_is_answered_again(size):
    """With its position and, if it likes, the epoch; everything else finds no session."""
    engine = make_engine(network(outputs=size))
    await engine.start()
    await engine.ask(step(VALUES[0]))
    ending = {"position": 1, "ends": True, "must_exist": True}
    first = await engine.ask(sequence(VALUES[1:], **ending))
    assert not len(engine.arena)

    for epoch in (None, first.epoch):
        retry = await engine.ask(sequence(VALUES[1:], **ending, epoch=epoch))
        assert (first.position, first.epoch, True) == (retry.position, retry.epoch, retry.replayed)
        np.testing.assert_array_equal(first.outputs, retry.outputs)
    for other in (
        LookRequest(key=key()),
        DeleteRequest(key=key()),
        step(VALUES[0], must_exist=True),
        sequence(VALUES[1:], position=1),
        sequence(VALUES[1:], **ending, epoch=first.epoch + 1),
        sequence(VALUES[:3], **ending),
        sequence(VALUES[1:], **ending | {"position": 0}),
    ):
        with pytest.raises(SessionUnknownError):
            await engine.ask(other)
    assert ([], None) == await engine.list_sessions(10, None)
    assert 0 == (await engine.ask(ResetRequest(key=key()))).position
    with pytest.raises(PositionConflictError):
        await engine.ask(sequence(VALUES[1:], **ending))
    await engine.drain()


async def test_the_retry_of_a_whole_sequence_is_answered_again(engine):
    """One that began and ended in one request."""
    whole = sequence(VALUES, begins_anew=True, ends=True, position=0)
    first = await engine.ask(whole)
    retry = await engine.ask(whole)
    assert (first.epoch, 4, True) == (retry.epoch, retry.position, retry.replayed)
    other = await engine.ask(sequence(VALUES[:2], begins_anew=True, ends=True, position=0))
    assert (2, False) == (other.position, other.replayed)
    assert 1 == (await engine.ask(step(VALUES[0]))).position


async def test_what_has_ended_is_kept_for_its_retry_only():
    """For a few minutes, and not for as long as a session whose time to live is over."""
    clock = Clock()
    store = MemoryStore(1, tombstone_s=7 * 24 * 3600.0, clock=clock)
    engine = make_engine(store=store, lifetimes=Lifetimes(ttl_s=60.0), clock=clock)
    await engine.start()
    await engine.ask(step(VALUES[0], begins_anew=True, ends=True, position=0))

    clock.now += ENDING_S - 1
    retry = await engine.ask(step(VALUES[0], begins_anew=True, ends=True, position=0))
    assert retry.replayed
    clock.now += 2
    assert 1 == (await engine.ask(step(VALUES[0], "bob"))).position  # the store has room for one
    await engine.drain()


async def test_an_expired_session_begins_anew():
    """Even with the request that began it: its time is over."""
    clock = Clock()
    engine = make_engine(lifetimes=Lifetimes(ttl_s=60.0), clock=clock)
    await engine.start()
    first = await engine.ask(step(VALUES[0], begins_anew=True, position=0))
    clock.now += 61
    second = await engine.ask(step(VALUES[0], begins_anew=True, position=0))
    assert not second.replayed
    assert first.epoch != second.epoch
    await engine.drain()


async def test_a_damaged_session_begins_anew():
    """What cannot be read is replaced, as a reset would."""

    class DamagedStore(MemoryStore):
        damaged: Damaged | None = Damaged(b"x", "the checksum does not fit")

        async def load_many(self, keys):
            return [self.damaged or loaded for loaded in await super().load_many(keys)]

        async def commit_many(self, commits):
            for commit in commits:
                assert commit.before is self.damaged
                commit.before = self.damaged = None
            return await super().commit_many(commits)

    engine = make_engine(store=DamagedStore(10))
    await engine.start()
    assert 1 == (await engine.ask(step(VALUES[0], begins_anew=True))).position
    await engine.drain()


async def test_steps_behind_a_beginning_and_an_end_find_what_those_leave(engine):
    """All in flight at once, each with the session that its place in the order gives it."""
    asked = [
        step(VALUES[0], begins_anew=True),
        step(VALUES[1], must_exist=True),
        step(VALUES[2], must_exist=True, ends=True),
        step(VALUES[3], must_exist=True),
        step(VALUES[0], begins_anew=True),
        step(VALUES[1], must_exist=True),
    ]
    told: list[Any] = await asyncio.gather(*map(engine.ask, asked), return_exceptions=True)

    assert isinstance(told.pop(3), SessionUnknownError)
    assert [1, 2, 3, 1, 2] == [reply.position for reply in told]
    assert told[0].epoch == told[2].epoch != told[3].epoch == told[4].epoch
    np.testing.assert_allclose(told[0].outputs, told[3].outputs, rtol=1e-6)
