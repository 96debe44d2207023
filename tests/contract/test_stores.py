"""One suite for every `SessionStore`."""

from dataclasses import replace

import numpy as np
import pytest

from service.domain import Record, SessionKey
from service.stores.base import Commit, Outcome
from service.stores.memory import MemoryStore


@pytest.fixture(params=["memory"])
def store(request):
    """Every store that there is, empty."""
    return {"memory": lambda: MemoryStore(max_sessions=1000)}[request.param]()


def key(client_id, model="m", tenant="default"):
    """Return a client's key."""
    return SessionKey(tenant, model, client_id)


def record(position=0, epoch=1):
    """Return a session's record."""
    return Record(
        fingerprint="f",
        epoch=epoch,
        position=position,
        row=np.full(4, position, np.float32),
        has_output=np.ones(1, np.bool_),
    )


async def commit(store, before, after, client_id="alice"):
    """Commit one change and return its outcome."""
    [outcome] = await store.commit_many([Commit(key(client_id), before, after)])
    return outcome


async def test_what_was_committed_is_loaded(store):
    """A record comes back as it was, beside None for what is not there."""
    assert Outcome.COMMITTED == await commit(store, None, record(3))

    loaded, missing = await store.load_many([key("alice"), key("bob")])

    assert (1, 3, "f") == (loaded.epoch, loaded.position, loaded.fingerprint)
    np.testing.assert_array_equal(np.full(4, 3, np.float32), loaded.row)
    assert missing is None


@pytest.mark.parametrize(
    "expected", [None, record(2), record(3, epoch=2)], ids=["absent", "position", "epoch"]
)
async def test_a_commit_on_another_state_is_a_conflict(store, expected):
    """Compare-and-set is on existence, position and epoch, and changes nothing if it fails."""
    await commit(store, None, record(3))

    assert Outcome.CONFLICT == await commit(store, expected, record(4))
    [loaded] = await store.load_many([key("alice")])
    assert 3 == loaded.position


async def test_an_equal_record_need_not_be_the_same_object(store):
    """A process that loaded the session may commit on it."""
    await commit(store, None, record(3))

    assert Outcome.COMMITTED == await commit(store, record(3), record(4))


async def test_an_ended_session_is_gone_and_may_begin_again(store):
    """A commit of nothing ends a session; a commit on nothing begins one."""
    await commit(store, None, record(3))

    assert Outcome.COMMITTED == await commit(store, record(3), None)
    assert [None] == await store.load_many([key("alice")])
    assert Outcome.CONFLICT == await commit(store, record(3), record(4))
    assert Outcome.COMMITTED == await commit(store, None, record())


async def test_commits_fail_one_by_one(store):
    """A conflict does not hold up the commits beside it."""
    await commit(store, None, record(3))

    outcomes = await store.commit_many(
        [Commit(key("alice"), None, record()), Commit(key("bob"), None, record())]
    )

    assert [Outcome.CONFLICT, Outcome.COMMITTED] == outcomes


async def test_tenants_and_models_do_not_meet(store):
    """The same client id is another session under another tenant or model."""
    await commit(store, None, record(3))

    others = [key("alice", model="n"), key("alice", tenant="t")]

    assert [None, None] == await store.load_many(others)
    assert ([], None) == await store.list_sessions("default", "n", 10, None)


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
async def test_a_listing_has_every_session_once(store, limit):
    """Page by page, every session comes up exactly once, with its position and epoch."""
    ids = {f"c{i}" for i in range(7)}
    for client_id in ids:
        await commit(store, None, replace(record(5), epoch=9), client_id)

    listed, cursor = [], None
    while True:
        page, cursor = await store.list_sessions("default", "m", limit, cursor)
        assert len(page) <= limit
        listed += page
        if cursor is None:
            break

    assert sorted(ids) == sorted(summary.client_id for summary in listed)
    assert {(5, 9)} == {(summary.position, summary.epoch) for summary in listed}
