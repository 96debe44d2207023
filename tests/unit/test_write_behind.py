"""Commits that are answered before they are durable."""

import asyncio

import numpy as np
import pytest
from msgspec.structs import replace

from service.domain import SessionKey
from service.errors import StoreUnavailableError
from service.records import Record
from service.stores.base import Commit, Damaged, Lost, Outcome
from service.stores.memory import MemoryStore
from service.stores.write_behind import WriteBehindStore

ALICE, BOB = (SessionKey("default", "m", name) for name in ("alice", "bob"))


def record(position, epoch=1):
    """Return a session's record."""
    return Record(
        fingerprint="f",
        epoch=epoch,
        position=position,
        row=np.full(2, position, np.float32),
        has_output=np.ones(1, np.bool_),
        nonce=1,
    )


class GatedStore(MemoryStore):
    """A store whose commits wait for a gate, and may be lost or go unanswered."""

    is_shared = True

    def __init__(self):
        super().__init__(max_sessions=100)
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault = None
        self.num_commits = 0
        self.largest_trip = 0
        self.answer = asyncio.Event()
        self.answer.set()

    async def commit_many(self, commits):
        """Commit behind the gate."""
        await self.gate.wait()
        self.num_commits += 1
        self.largest_trip = max(self.largest_trip, len(commits))
        if self.fault == "refused":
            raise StoreUnavailableError("refused")
        outcomes = await super().commit_many(commits)
        await self.answer.wait()
        if self.fault == "unanswered":
            raise StoreUnavailableError("no answer")
        return outcomes


@pytest.fixture
def behind():
    """The store behind."""
    return GatedStore()


@pytest.fixture
async def store(behind):
    """An open store that may go ten steps, or ten seconds, ahead."""
    store = WriteBehindStore(behind, max_steps=10, max_ms=10_000)
    await store.open()
    yield store
    behind.gate.set()
    behind.answer.set()
    await store.close()


async def commit(store, before, after, key=ALICE):
    """Commit one change and return its outcome."""
    [outcome] = await store.commit_many([Commit(key, before, after)])
    return outcome


async def until(is_so):
    """Wait until something is so."""
    async with asyncio.timeout(5):
        while not is_so():
            await asyncio.sleep(0.001)


async def load(store, key=ALICE):
    """Return what a store has for a session."""
    [loaded] = await store.load_many([key])
    return loaded


async def test_an_answer_does_not_wait_for_the_store(store, behind):
    """Commits are taken while the store behind is slow, seen at once, and durable later."""
    behind.gate.clear()

    assert Outcome.COMMITTED == await commit(store, None, record(1))
    assert Outcome.COMMITTED == await commit(store, record(1), record(3))

    assert 3 == (await load(store)).position
    assert None is await load(behind)
    assert 3 == store.num_unflushed_steps
    assert 0 < store.unflushed_s
    behind.gate.set()
    await until(lambda: store.num_unflushed_steps == 0)
    assert 3 == (await load(behind)).position
    assert 0 == store.unflushed_s


async def test_no_more_than_the_bound_is_ever_in_danger(store, behind):
    """Where the bound is reached, the next commit waits for the store."""
    behind.gate.clear()
    await commit(store, None, record(8))

    waiting = asyncio.create_task(commit(store, None, record(5), BOB))
    await asyncio.sleep(0.02)

    assert (False, 8) == (waiting.done(), store.num_unflushed_steps)
    behind.gate.set()
    assert Outcome.COMMITTED == await waiting


async def test_a_change_over_the_bound_is_durable_before_its_answer(store, behind):
    """A sequence longer than what may be lost is committed as in the mode sync."""
    await commit(store, None, record(50))

    assert 50 == (await load(behind)).position


async def test_a_change_is_not_in_danger_for_longer_than_said(behind):
    """Once the oldest change has waited too long, commits wait until it is durable."""
    store = WriteBehindStore(behind, max_steps=1000, max_ms=1)
    await store.open()
    behind.gate.clear()
    await commit(store, None, record(1))
    await asyncio.sleep(0.01)

    waiting = asyncio.create_task(commit(store, None, record(1), BOB))
    await asyncio.sleep(0.02)

    assert not waiting.done()
    behind.gate.set()
    assert Outcome.COMMITTED == await waiting
    await store.close()


async def test_a_change_over_the_bound_is_not_told_before_it_is_durable(store, behind):
    """Where it could not be made, nobody reads it, and no retry is answered from it."""
    behind.fault = "refused"

    with pytest.raises(StoreUnavailableError):
        await commit(store, None, record(50))

    assert None is await load(store)
    assert 0 == store.num_unflushed_steps


async def test_an_unanswered_change_over_the_bound_may_be_made_later(store, behind):
    """Nobody is answered for a step from before it, which it would take the place of."""
    behind.fault = "refused"
    with pytest.raises(StoreUnavailableError):
        await commit(store, None, record(50))
    behind.fault = None
    await MemoryStore.commit_many(behind, [Commit(ALICE, None, record(50))])

    assert Outcome.CONFLICT == await commit(store, None, replace(record(1), nonce=2))
    assert (50, 0) == ((await load(store)).position, store.num_lost)
    assert Outcome.COMMITTED == await commit(store, record(50), record(51))
    behind.gate.clear()
    assert Outcome.COMMITTED == await commit(store, record(51), record(52))


async def test_a_change_over_the_bound_follows_those_of_its_session(store, behind):
    """What is ahead goes first."""
    behind.gate.clear()
    await commit(store, None, record(1))
    waiting = asyncio.create_task(commit(store, record(1), record(50)))
    await asyncio.sleep(0.01)
    behind.gate.set()

    assert Outcome.COMMITTED == await waiting
    assert (50, 0) == ((await load(behind)).position, store.num_lost)


async def test_a_store_that_is_down_is_bridged_up_to_the_bound(store, behind):
    """Then commits are refused, and all that was answered comes to the store when it is back."""
    behind.fault = "refused"
    assert Outcome.COMMITTED == await commit(store, None, record(9))
    await until(lambda: behind.num_commits > 1)

    with pytest.raises(StoreUnavailableError):
        await commit(store, record(9), record(12))
    behind.fault = None
    await until(lambda: store.num_unflushed_steps == 0)

    assert 9 == (await load(behind)).position
    assert Outcome.COMMITTED == await commit(store, record(9), record(12))


async def test_an_unanswered_commit_of_our_own_is_no_other_writer(store, behind):
    """What was made although nobody said so is recognised, and gone on from."""
    behind.fault = "unanswered"
    await commit(store, None, record(1))
    await until(lambda: behind.num_commits > 1)
    await commit(store, record(1), record(2))
    await until(lambda: behind.num_commits > 3)
    behind.fault = None
    await until(lambda: store.num_unflushed_steps == 0)

    assert (2, 0) == ((await load(behind)).position, store.num_lost)


async def test_commits_wait_and_do_not_fail_once_the_store_is_back(store, behind):
    """Also while others keep it busy, so that something is always ahead."""
    behind.fault = "refused"
    await commit(store, None, record(1))
    await until(lambda: behind.num_commits > 1)
    behind.fault = None
    behind.answer.clear()
    num_commits = behind.num_commits
    await until(lambda: behind.num_commits > num_commits)
    behind.gate.clear()
    await commit(store, record(1), record(2))
    behind.answer.set()
    await until(lambda: store.num_unflushed_steps == 1)

    waiting = asyncio.create_task(commit(store, None, record(10), BOB))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    behind.gate.set()
    assert Outcome.COMMITTED == await waiting


async def test_a_full_store_refuses_new_sessions():
    """After it has said so, nobody is answered for a session that there is no room for."""
    behind = MemoryStore(max_sessions=1)
    store = WriteBehindStore(behind, max_steps=10, max_ms=10_000)
    await store.open()
    await commit(store, None, record(1))
    await until(lambda: store.num_unflushed_steps == 0)
    await commit(store, None, record(1), BOB)
    await until(lambda: store.num_lost == 1)

    assert isinstance(await load(store, BOB), Lost)
    assert Outcome.FULL == await commit(store, None, record(1), BOB)
    assert Outcome.COMMITTED == await commit(store, record(1), record(2))
    await commit(store, record(2), None)
    await until(lambda: store.num_unflushed_steps == 0)
    assert Outcome.COMMITTED == await commit(store, None, record(1), BOB)
    assert 1 == store.num_lost
    await store.close()


async def test_what_cannot_be_read_is_replaced_before_the_answer(store, behind):
    """A store that cannot replace it does not hold up what others were answered."""
    behind.fault = "refused"

    with pytest.raises(StoreUnavailableError):
        await commit(store, Damaged(b"", "hidden"), record(1))
    assert Outcome.COMMITTED == await commit(store, None, record(1), BOB)

    behind.fault = None
    await until(lambda: store.num_unflushed_steps == 0)
    assert 1 == (await load(behind, BOB)).position


async def test_a_flush_that_ends_during_a_load_hides_nothing(store, behind, monkeypatch):
    """What was ahead when the store behind was asked for others is known all the same."""
    behind.gate.clear()
    await commit(store, None, record(1))
    load_many = behind.load_many

    async def load_many_slowly(keys):
        loaded = await load_many(keys)
        behind.gate.set()
        await until(lambda: store.num_unflushed_steps == 0)
        return loaded

    monkeypatch.setattr(behind, "load_many", load_many_slowly)
    alice, bob = await store.load_many([ALICE, BOB])

    assert (1, None) == (alice.position, bob)


async def test_many_sessions_are_not_flushed_in_one_go(behind):
    """A store may keep the event loop for as long as a trip takes."""
    behind._max_sessions = 1000  # noqa: SLF001
    store = WriteBehindStore(behind, max_steps=1000, max_ms=10_000)
    await store.open()
    behind.gate.clear()
    keys = [SessionKey("default", "m", str(i)) for i in range(90)]
    await store.commit_many([Commit(key, None, record(1)) for key in keys])
    await store.commit_many([Commit(key, record(1), record(5)) for key in keys])
    many = [SessionKey("default", "m", f"other-{i}") for i in range(500)]
    await store.commit_many([Commit(key, None, record(1)) for key in many])
    behind.gate.set()
    await store.close()

    assert all(loaded.position == 5 for loaded in await behind.load_many(keys))
    assert all(loaded.position == 1 for loaded in await behind.load_many(many))
    assert behind.largest_trip < 200


async def test_another_writer_is_told_to_the_next_request(store, behind):
    """Steps that were answered and then lost are admitted once, and the truth is gone on from."""
    behind.gate.clear()
    await commit(store, None, record(1))
    theirs = replace(record(1), epoch=2)
    await MemoryStore.commit_many(behind, [Commit(ALICE, None, theirs)])
    behind.gate.set()
    await until(lambda: store.num_lost == 1)

    assert Outcome.CONFLICT == await commit(store, record(1), record(2))
    assert isinstance(await load(store), Lost)
    assert 2 == (await load(store)).epoch
    assert Outcome.COMMITTED == await commit(store, theirs, record(2, epoch=2))


async def test_closing_makes_everything_durable(behind):
    """An orderly end loses nothing."""
    store = WriteBehindStore(behind, max_steps=10, max_ms=10_000)
    await store.open()
    behind.gate.clear()
    await commit(store, None, record(1))
    asyncio.get_running_loop().call_later(0.01, behind.gate.set)

    await store.close()

    assert 1 == (await load(behind)).position


async def test_closing_finds_out_what_was_made_of_a_commit_on_its_way(behind):
    """What goes ahead while a commit is on its way is not lost when that is given up."""
    store = WriteBehindStore(behind, max_steps=10, max_ms=10_000)
    await store.open()
    behind.answer.clear()
    await commit(store, None, record(1))
    await until(lambda: behind.num_commits == 1)
    await commit(store, record(1), record(2))
    asyncio.get_running_loop().call_later(0.01, behind.answer.set)

    await store.close()

    assert (0, 2) == (store.num_lost, (await load(behind)).position)


async def test_closing_waits_for_a_store_that_is_away_for_a_moment(behind):
    """For as long as changes may be in danger."""
    store = WriteBehindStore(behind, max_steps=10, max_ms=10_000)
    await store.open()
    behind.fault = "refused"
    await commit(store, None, record(1))
    asyncio.get_running_loop().call_later(0.05, setattr, behind, "fault", None)

    await store.close()

    assert 1 == (await load(behind)).position


async def test_a_listing_does_not_wait_for_what_comes_after_it(store, behind):
    """It would never be answered where something is always ahead."""
    stopped = False

    async def step_on():
        position = 0
        while not stopped:
            behind.answer.clear()
            before = record(position) if position else None
            await commit(store, before, record(position := position + 1))
            await asyncio.sleep(0.002)
            behind.answer.set()
            await asyncio.sleep(0)

    stepping = asyncio.create_task(step_on())
    await asyncio.sleep(0.02)
    try:
        async with asyncio.timeout(1):
            [session], _ = await store.list_sessions("default", "m", 10, None)
    finally:
        stopped = True
        await stepping
    assert 0 < session.position


async def test_a_listing_has_what_was_answered(store, behind):
    """A list waits for the changes that were answered before it."""
    del behind
    await commit(store, None, record(1))

    sessions, _ = await store.list_sessions("default", "m", 10, None)
    keys, _ = await store.list_keys(10, None)

    assert ["alice"] == [session.client_id for session in sessions]
    assert [ALICE] == keys
