"""What several tests of the engine begin with."""

import pytest

from tests.unit.engines import make_engine


@pytest.fixture
async def engine():
    """A running engine over a small network."""
    engine = make_engine()
    await engine.start()
    yield engine
    await engine.drain()
