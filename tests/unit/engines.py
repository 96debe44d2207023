"""A small engine, and what it is asked in tests."""

import asyncio
from typing import Any

import numpy as np

from lstm_core.network import Network, Recurrent
from lstm_core.pointwise import Dense
from lstm_core.runtime.cpu import CpuRuntime
from lstm_core.spec import LSTMSpec
from lstm_core.weights import initialize
from service.domain import AdvanceRequest, LookRequest, SessionKey
from service.engine import Engine
from service.limits import EngineLimits
from service.models import describe
from service.stores.memory import MemoryStore

TOLERANCE: dict[str, Any] = {"rtol": 1e-6, "atol": 1e-6}
LIMITS = EngineLimits(arena_rows=300, max_pending=100)


def lstm(name="lstm", *, seed=0, go_backwards=False, activation="tanh"):
    """Return an LSTM of 3 inputs and 5 units."""
    spec = LSTMSpec(input_size=3, units=5, activation=activation)
    weights = initialize(spec, seed)
    return Recurrent(name=name, spec=spec, weights=weights, go_backwards=go_backwards)


def network(activation="tanh", outputs=2, seed=0):
    """Return an LSTM with a linear head."""
    kernel = np.random.default_rng(1).standard_normal((5, outputs)).astype(np.float32)
    head = Dense(name="head", kernel=kernel, bias=None)
    return Network("net", 3, (lstm(activation=activation, seed=seed), head))


def make_engine(net=None, *, runtime=None, store=None, limits=LIMITS, **options):
    """Return an engine that has not started."""
    runtime = runtime or CpuRuntime(net or network(), limits.arena_rows)
    store = store or MemoryStore(max_sessions=1000)
    return Engine(describe("m", runtime), runtime, store, limits, **options)


def key(client="alice"):
    """Return a client's key."""
    return SessionKey("default", "m", client)


def inputs(time, seed=0):
    """Return `(time, 3)` random inputs."""
    return np.random.default_rng(seed).uniform(-1, 1, (time, 3)).astype(np.float32)


def sequence(values, client="alice", **options):
    """Return a request for many steps."""
    return AdvanceRequest(key=key(client), inputs=values, **options)


def step(value, client="alice", **options):
    """Return a request for one step."""
    return AdvanceRequest(key=key(client), inputs=value[None], return_sequences=False, **options)


async def look(engine, client="alice"):
    """Return a session as it is."""
    return await engine.ask(LookRequest(key=key(client)))


class SharedStore(MemoryStore):
    """A store that other processes write to; counts its trips."""

    is_shared = True

    def __init__(self):
        super().__init__(max_sessions=1000)
        self.num_trips = 0

    async def load_many(self, keys):
        """Load, with a pause in which others get their turn."""
        self.num_trips += 1
        await asyncio.sleep(0)
        return await super().load_many(keys)

    async def commit_many(self, commits):
        """Commit, with a pause in which others get their turn."""
        self.num_trips += 1
        await asyncio.sleep(0)
        return await super().commit_many(commits)
