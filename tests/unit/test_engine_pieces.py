"""Queued steps of one session run in one piece, with the answers of steps that run alone."""

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from service.domain import AdvanceReply
from service.errors import PositionConflictError, ServiceError
from service.stores.base import Outcome
from service.stores.memory import MemoryStore
from tests.unit.engines import TOLERANCE, inputs, look, make_engine, network, step


async def together(engine, requests, *, cancelled=(), expired=()):
    """Queue requests before the engine looks, and return what became of each."""
    loop = asyncio.get_running_loop()
    answers = [loop.create_future() for _ in requests]
    jobs = [
        engine.submit(request, answer.set_result, 0.0 if i in expired else None)
        for i, (request, answer) in enumerate(zip(requests, answers, strict=True))
    ]
    for index in cancelled:
        jobs[index].cancel()
        answers[index].set_result(None)
    if expired:
        await asyncio.sleep(0.001)  # the engine has not started
    await engine.start()
    return await asyncio.gather(*answers)


async def one_by_one(engine, requests):
    """Ask for one after the other."""
    await engine.start()
    answers: list[AdvanceReply | ServiceError] = []
    for request in requests:
        try:
            answers.append(await engine.ask(request))
        except ServiceError as error:
            answers.append(error)
    return answers


def assert_same(wanted, got):
    """Compare answers; epochs are random."""
    assert [type(each) for each in wanted] == [type(each) for each in got]
    for one, other in zip(wanted, got, strict=True):
        if isinstance(one, AdvanceReply):
            assert (one.position, one.replayed) == (other.position, other.replayed)
            np.testing.assert_allclose(one.outputs, other.outputs, **TOLERANCE)
        else:
            assert one.code == other.code


async def assert_same_engines(requests, *, net=None):
    """Compare both ways, then the replay of each request, then the sessions."""
    piece, alone = make_engine(net), make_engine(net)
    assert_same(await one_by_one(alone, requests), await together(piece, requests))
    for request in requests:
        wanted, got = await asyncio.gather(*(one_by_one(e, [request]) for e in (alone, piece)))
        assert_same(wanted, got)
    rows = [(await look(engine)) for engine in (alone, piece)]
    assert rows[0].position == rows[1].position
    np.testing.assert_allclose(rows[0].row, rows[1].row, **TOLERANCE)
    await asyncio.gather(alone.drain(), piece.drain())
    return piece


@pytest.mark.parametrize("num", [2, 15, 16, 17, 40])
async def test_steps_in_one_piece_are_steps(num):
    """As many as a chunk has, fewer and more; in fewer batches than steps."""
    requests = [step(x, position=i) for i, x in enumerate(inputs(num))]
    engine = make_engine()
    await together(engine, requests)
    assert engine.stats.num_batches == -(-num // 16)
    await engine.drain()
    await assert_same_engines(requests)


@pytest.mark.parametrize("num", [2, 16, 17])
async def test_steps_of_one_request_that_are_apart_are_steps(num):
    """Their outputs, and a retry of each is answered as its own request is."""
    values = inputs(num)
    requests = [step(x, position=i) for i, x in enumerate(values)]
    engine, alone = make_engine(), make_engine()
    wanted = await one_by_one(alone, requests)
    apart = replace(step(values[0]), inputs=values, return_sequences=True, are_apart=True)
    (got,) = await together(engine, [apart])
    assert num == got.position
    wanted_outputs = [reply.outputs for reply in wanted if isinstance(reply, AdvanceReply)]
    np.testing.assert_allclose(got.outputs, wanted_outputs, **TOLERANCE)
    for request in requests:
        again = [(await one_by_one(each, [request])) for each in (alone, engine)]
        assert_same(*again)
    assert engine.stats.num_replayed == min(num, 16)
    await asyncio.gather(alone.drain(), engine.drain())


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from([None, 0, 1, 2, 3, 9]), st.integers(0, 1)), max_size=8))
def test_any_positions_give_the_answers_of_single_steps(asked):
    """Retries, gaps, none; with the same inputs or others."""
    values = inputs(2)
    requests = [step(values[which], position=position) for position, which in asked]
    asyncio.run(_compare(requests))


async def _compare(requests):
    piece, alone = make_engine(), make_engine()
    assert_same(await one_by_one(alone, requests), await together(piece, requests))
    await asyncio.gather(alone.drain(), piece.drain())


async def test_an_epoch_that_is_another_stops_only_its_step():
    """Those before and behind it are taken."""
    engine = make_engine()
    values = inputs(4)
    (first,) = await together(engine, [step(values[0])])
    epochs = (first.epoch, first.epoch + 1, None)
    asks = [step(x, epoch=e) for x, e in zip(values[1:], epochs, strict=True)]
    told: list[Any] = await asyncio.gather(*(engine.ask(a) for a in asks), return_exceptions=True)
    assert (2, 3) == (told[0].position, told[2].position)
    assert isinstance(told[1], PositionConflictError)
    assert 3 == (await look(engine)).position
    await engine.drain()


async def test_a_step_to_no_finite_state_fails_alone():
    """In the middle of a piece; the others are as if it had not been."""
    values = inputs(5)
    values[2] = 1e30
    requests = [step(x) for x in values]
    await_same = await assert_finite(requests)
    assert "state_not_finite" in await_same


async def assert_finite(requests):
    """Compare both ways in a network that can overflow; return the codes of the errors."""
    nets = [network("exponential") for _ in range(2)]
    alone, piece = (make_engine(net) for net in nets)
    wanted, got = await one_by_one(alone, requests), await together(piece, requests)
    assert_same(wanted, got)
    assert (await look(alone)).position == (await look(piece)).position
    await asyncio.gather(alone.drain(), piece.drain())
    return [each.code for each in got if isinstance(each, ServiceError)]


@pytest.mark.parametrize("index", [0, 1, 2])
@pytest.mark.parametrize("how", ["cancelled", "expired"])
async def test_a_step_that_is_not_wanted_is_left_out(index, how):
    """The first, one in the middle, the last."""
    values = inputs(3)
    requests = [step(x) for x in values]
    engine, alone = make_engine(), make_engine()
    got = await together(engine, requests, **{how: (index,)})
    if how == "expired":
        assert "deadline_exceeded" == got[index].code
    rest = [i for i in range(3) if i != index]
    assert_same(await one_by_one(alone, [requests[i] for i in rest]), [got[i] for i in rest])
    await asyncio.gather(alone.drain(), engine.drain())


class ConflictOnce(MemoryStore):
    """A store in which the first commit meets another writer."""

    has_met = False

    async def commit_many(self, commits):
        """Refuse once."""
        if not self.has_met:
            self.has_met = True
            return [Outcome.CONFLICT for _ in commits]
        return await super().commit_many(commits)


async def test_a_conflict_at_the_commit_begins_all_anew():
    """None is lost, none applied twice."""
    requests = [step(x, position=i) for i, x in enumerate(inputs(5))]
    engine, alone = make_engine(store=ConflictOnce(max_sessions=10)), make_engine()
    assert_same(await one_by_one(alone, requests), await together(engine, requests))
    again = [await engine.ask(request) for request in requests[-2:]]
    assert [True, True] == [reply.replayed for reply in again]
    assert replace(again[-1], replayed=False).position == 5
    await asyncio.gather(alone.drain(), engine.drain())
