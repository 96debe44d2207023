"""A model with earlier versions: whose sessions are whose, and what is handed over."""

import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from msgspec import structs

from lstm_core.runtime.cpu import CpuRuntime
from service.domain import DeleteRequest, ImportRequest, ResetRequest
from service.errors import (
    PositionConflictError,
    SessionUnknownError,
)
from service.model_files import ModelFileError
from service.models import check_version, describe
from service.signature import TensorSummary
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


@pytest.fixture
async def versions():
    """A replica that ran the earlier version only, and one that runs both, over one store."""
    store = SharedStore()
    before = make_engine(store=store)
    earlier = make_engine(store=store, is_alone=False)
    current = make_engine(network(seed=5), store=store, earlier=[earlier])
    for engine in (before, current):
        await engine.start()
    yield before, current
    for engine in (before, current):
        await engine.drain()


async def test_a_session_goes_on_with_the_version_that_it_began_with(versions):
    """A new version takes the new sessions, and the others do not notice."""
    before, current = versions
    values = inputs(4)
    await before.ask(sequence(values[:2]))

    replies = [await current.ask(step(values[t], position=t)) for t in (2, 3)]
    replayed = await current.ask(step(values[3], position=3))

    whole = await before.ask(sequence(values, "whole"))
    np.testing.assert_allclose([r.outputs for r in replies], whole.outputs[2:], **TOLERANCE)
    assert (True, 4) == (replayed.replayed, replayed.position)
    assert before.signature.fingerprint == (await look(current)).fingerprint
    await current.ask(step(values[0], "bob"))
    assert current.signature.fingerprint == (await look(current, "bob")).fingerprint
    with pytest.raises(PositionConflictError):
        await current.ask(step(values[0], position=9))


async def test_a_reset_takes_a_session_to_the_current_version(versions):
    """And an import of a state of the earlier one takes it back."""
    before, current = versions
    values = inputs(3)
    await before.ask(sequence(values))
    kept = await look(current)

    await current.ask(step(values[0], position=3))
    assert current.signature.fingerprint == (await current.ask(ResetRequest(key=key()))).fingerprint
    assert 1 == (await current.ask(step(values[0], position=0))).position
    back = ImportRequest(
        key=key(),
        row=kept.row,
        has_output=kept.has_output,
        new_position=kept.position,
        fingerprint=kept.fingerprint,
    )
    assert (3, kept.fingerprint) == (
        (reply := await current.ask(back)).position,
        reply.fingerprint,
    )
    assert 4 == (await current.ask(step(values[0], position=3))).position


async def test_queued_steps_of_an_earlier_version_keep_their_order(versions):
    """Its sessions have one turn at a time, as all have."""
    before, current = versions
    values = inputs(10)
    await before.ask(step(values[0], position=0))

    replies = await asyncio.gather(
        *(current.ask(step(values[t], position=t)) for t in range(1, 10))
    )

    assert list(range(2, 11)) == [reply.position for reply in replies]


@pytest.mark.parametrize("is_moved", [False, True], ids=["answered", "sent-back"])
async def test_an_earlier_version_may_be_done_before_the_tick_is(is_moved):
    """A turn that another version has ended is not ended once more with the tick."""
    store = GatedStore()
    before = make_engine(store=store)
    earlier = make_engine(store=store, is_alone=False)
    current = make_engine(network(seed=5), store=store, earlier=[earlier])
    for engine in (before, current):
        await engine.start()
    values = inputs(3)
    await before.ask(step(values[0], position=0))
    if is_moved:
        await current.ask(step(values[1], position=1))  # at hand of the earlier version here
        [record] = await store.load_many([key()])
        store.record_at_commit = structs.replace(
            record, fingerprint=current.signature.fingerprint, nonce=0
        )
    store.held = key("bob")

    asked = step(values[2]) if is_moved else step(values[1], position=1)
    slow = asyncio.create_task(current.ask(step(values[0], "bob")))
    quick = asyncio.create_task(current.ask(asked))
    queued = asyncio.create_task(current.ask(step(values[2])))
    await asyncio.sleep(0.05)
    store.gate.set()

    async with asyncio.timeout(1):
        replies = [await slow, await quick, await queued]
    assert [1, 3 if is_moved else 2, 4 if is_moved else 3] == [r.position for r in replies]
    assert 0 == current.num_pending
    for engine in (before, current):
        await engine.drain()


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("streaming_obstacles", ("it looks ahead",)),
        ("output_size", 3),
        ("vocabulary", 5),
        ("outputs", (TensorSummary("b", 0, 1, None), TensorSummary("a", 1, 1, None))),
        ("outputs", (TensorSummary("ab", 0, 2, None),)),
    ],
)
def test_versions_that_callers_would_notice_are_refused(what, value):
    """Their sessions are asked by callers who do not know which version they live on."""
    first = replace(
        describe("m", CpuRuntime(network(), 3)),
        outputs=(TensorSummary("a", 0, 1, None), TensorSummary("b", 1, 1, None)),
    )
    second = replace(first, fingerprint="another", runtime_reason="whatever")
    check_version(second, [first])

    with pytest.raises(ModelFileError, match="differ in"):
        check_version(replace(second, **{what: value}), [first])


def test_the_name_of_an_only_input_may_change():
    """Keras numbers them through a process: trained anew, a model has another one."""
    first = describe("m", CpuRuntime(network(), 3))
    renamed = (TensorSummary("input_7", 0, 3, None),)
    check_version(replace(first, fingerprint="another", inputs=renamed), [first])


class GatedStore(SharedStore):
    """A store in which one session's commits wait, and another's may meet another writer."""

    def __init__(self):
        super().__init__()
        self.gate = asyncio.Event()
        self.held = None
        self.record_at_commit = None

    async def commit_many(self, commits):
        """Commit, late or too late."""
        if any(commit.key == self.held for commit in commits):
            await self.gate.wait()
        elif self.record_at_commit is not None:
            [commit] = commits
            theirs, self.record_at_commit = self.record_at_commit, None
            await super().commit_many([structs.replace(commit, after=theirs)])
        return await super().commit_many(commits)


async def test_a_session_that_changes_its_version_meanwhile_is_found(versions):
    """A step that comes to the earlier version too late goes to the current one."""
    before, current = versions
    value = inputs(1)[0]
    await before.ask(step(value))
    await current.ask(step(value))  # at hand of the earlier version here
    await before.ask(DeleteRequest(key=key()))

    assert 1 == (await current.ask(step(value))).position
    assert current.signature.fingerprint == (await look(current)).fingerprint


async def test_a_cancelled_step_of_an_earlier_version_is_not_applied(versions):
    """Nobody waits for it, so it leaves its session as it was, and ends its turn."""
    before, current = versions
    await before.ask(step(inputs(1)[0], position=0))

    running = asyncio.create_task(current.ask(sequence(inputs(3000), position=1)))
    while not current.earlier[0].num_pending:
        await asyncio.sleep(0)
    running.cancel()

    assert 1 == (await look(current)).position
    assert 2 == (await current.ask(step(inputs(1)[0], position=1))).position
    assert 0 == current.num_pending


async def test_a_step_cancelled_on_its_way_to_the_store_ends_its_turn():
    """It is too late to take it back, and the session goes on."""
    store = GatedStore()
    before = make_engine(store=store)
    earlier = make_engine(store=store, is_alone=False)
    current = make_engine(network(seed=5), store=store, earlier=[earlier])
    for engine in (before, current):
        await engine.start()
    values = inputs(3)
    await before.ask(step(values[0], position=0))
    store.held = key()

    job = current.submit(step(values[1], position=1), lambda _: None)
    await asyncio.sleep(0.05)
    job.cancel()
    store.gate.set()

    async with asyncio.timeout(5):
        assert 3 == (await current.ask(step(values[2], position=2))).position
    assert (0, None) == (current.num_pending, job.deputy)
    for engine in (before, current):
        await engine.drain()


async def test_many_requests_find_each_its_version(versions):
    """Those of one go may belong to different versions, or be refused on their own."""
    before, current = versions
    values = inputs(2)
    await before.ask(step(values[0], "alice"))
    answers: dict[int, Any] = {}
    requests = [step(values[1], "alice", position=1), step(values[0], "bob")]
    requests.append(step(values[0], "carol", position=3))

    jobs = current.submit_many(requests, answers.__setitem__)
    async with asyncio.timeout(5):
        while len(answers) < len(requests):
            await asyncio.sleep(0)

    assert len(requests) == len(jobs)
    assert [2, 1] == [answers[index].position for index in (0, 1)]
    assert isinstance(answers[2], SessionUnknownError)
    assert before.signature.fingerprint == (await look(current, "alice")).fingerprint
    assert current.signature.fingerprint == (await look(current, "bob")).fingerprint
