"""What is the memory store's own: its limit."""

from dataclasses import replace

import numpy as np

from service.domain import Record, SessionKey
from service.stores.base import Commit, Outcome
from service.stores.memory import MemoryStore


def record():
    """Return a session's record."""
    return Record(
        fingerprint="f",
        epoch=1,
        position=0,
        row=np.zeros(2, np.float32),
        has_output=np.zeros(1, np.bool_),
    )


async def test_a_full_store_buries_what_need_not_be_known_any_more():
    """Searching for it takes a while, so where there was nothing it is not searched at once."""
    now = 1000.0
    store = MemoryStore(max_sessions=1, tombstone_s=5.0, clock=lambda: now)
    alice, bob = (SessionKey("default", "m", name) for name in ("alice", "bob"))
    mortal = replace(record(), touched_at=now, ttl_s=10.0)
    await store.commit_many([Commit(alice, None, mortal)])

    assert [Outcome.FULL] == await store.commit_many([Commit(bob, None, record())])
    now = 1015.5
    assert [Outcome.COMMITTED] == await store.commit_many([Commit(bob, None, record())])
    assert [Outcome.FULL] == await store.commit_many([Commit(alice, None, record())])
    assert [None] == await store.load_many([alice])


async def test_a_full_store_refuses_new_sessions_only():
    """At the limit the sessions that exist go on, and an ended one makes room."""
    store = MemoryStore(max_sessions=1)
    alice, bob = (SessionKey("default", "m", name) for name in ("alice", "bob"))
    first = record()

    assert [Outcome.COMMITTED] == await store.commit_many([Commit(alice, None, first)])
    assert [Outcome.FULL] == await store.commit_many([Commit(bob, None, record())])
    assert [Outcome.COMMITTED] == await store.commit_many([Commit(alice, first, None)])
    assert [Outcome.COMMITTED] == await store.commit_many([Commit(bob, None, record())])
