"""The engine over a small real network: its numbers, and the lives of its sessions."""

import asyncio

import numpy as np
import pytest

from lstm_core.kernels.native import OBSTACLE
from lstm_core.network import Bidirectional, Network
from service.domain import (
    DeleteRequest,
    ImportRequest,
    ResetRequest,
)
from service.errors import (
    NotStreamableError,
    PositionConflictError,
    SessionUnknownError,
)
from service.limits import EngineLimits
from tests.unit.engines import (
    TOLERANCE,
    inputs,
    key,
    look,
    lstm,
    make_engine,
    sequence,
    step,
)


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
