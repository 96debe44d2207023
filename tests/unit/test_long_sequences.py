"""A sequence that nobody waits for any more."""

import asyncio

import pytest

from service.errors import SessionUnknownError
from service.transport.long_sequences import SequenceWork
from service.transport.slices import SliceRunner
from tests.unit.engines import inputs, look, make_engine, sequence


async def test_a_sequence_cancelled_as_its_reading_ends_is_not_applied():
    """Its body is there as a whole, but the engine has not been asked."""
    engine = make_engine()
    await engine.start()
    answers: list[object] = []
    work = SequenceWork(engine, SliceRunner(), None, answers.append)

    def reading():
        yield
        # Between the end of the task and what is called behind it.
        asyncio.get_running_loop().call_soon(work.cancel)
        return sequence(inputs(3))

    work.read(reading())
    await asyncio.sleep(0.05)

    with pytest.raises(SessionUnknownError):
        await look(engine)
    assert [] == answers
    await engine.drain()
