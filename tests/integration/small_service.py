"""A service with two small models, for the tests of its transports."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import httpx
import numpy as np
import uvicorn
from uvicorn.server import ServerState

from lstm_core.network import Bidirectional, Network, Recurrent
from lstm_core.pointwise import Dense, Embedding
from lstm_core.runtime.cpu import CpuRuntime
from lstm_core.spec import LSTMSpec
from lstm_core.weights import initialize
from service.app import create_app
from service.engine import Engine
from service.limits import EngineLimits
from service.models import describe
from service.stores.base import Commit, Damaged
from service.stores.memory import MemoryStore
from service.transport.http_protocol import hot_protocol
from service.transport.patience import Patience

LIMITS = EngineLimits(arena_rows=300, max_pending=100)
X = [[0.1, -0.2, 0.3], [0.4, 0.5, -0.6], [-0.7, 0.8, 0.9]]


def lstm(*, seed=0, go_backwards=False, units=5):
    """Return an LSTM of 3 inputs."""
    spec = LSTMSpec(input_size=3, units=units)
    weights = initialize(spec, seed)
    return Recurrent(name="lstm", spec=spec, weights=weights, go_backwards=go_backwards)


def streaming():
    """Return an LSTM with a linear head."""
    kernel = np.random.default_rng(1).standard_normal((5, 2)).astype(np.float32)
    return Network("net", 3, (lstm(), Dense(name="head", kernel=kernel, bias=None)))


def both_ways():
    """Return a network that cannot be stepped."""
    return Network(
        "both",
        3,
        (Bidirectional(name="both", forward=lstm(), backward=lstm(seed=1, go_backwards=True)),),
    )


def words():
    """Return a network of seven words."""
    table = np.random.default_rng(2).standard_normal((7, 3)).astype(np.float32)
    return Network("words", 1, (Embedding(name="table", table=table, mask_zero=False), lstm()))


def make_engine(name, network, limits=LIMITS, max_sessions=50, store=None, version="1", **options):
    """Return an engine of its own."""
    runtime = CpuRuntime(network, limits.arena_rows)
    signature = replace(describe(name, runtime), version=version)
    store = store or MemoryStore(max_sessions)
    return Engine(signature, runtime, store, limits, **options)


def make_engines():
    """Return the engines of the models: one to step, one that cannot be, one of words."""
    networks = {"net": streaming(), "both": both_ways(), "words": words()}
    return {name: make_engine(name, network) for name, network in networks.items()}


def make_app(engines=None, **options):
    """Return an application of the models."""
    given: dict[str, Any] = {
        "render_metrics": lambda: (b"up 1\n", "text/plain; version=1.0.0"),
        "max_body_bytes": 4 * 1024 * 1024,
        "max_sequence_steps": 20_000,
    } | options
    return create_app(engines or make_engines(), **given)


class StoreWithDamage(MemoryStore):
    """A store in which some sessions cannot be read."""

    def __init__(self, *damaged):
        super().__init__(50)
        self.damaged = dict.fromkeys(damaged, Damaged(b"LSTM?", "the checksum does not fit"))

    async def load_many(self, keys):
        """Return what each key has."""
        loaded = await super().load_many(keys)
        return [self.damaged.get(key, stored) for key, stored in zip(keys, loaded, strict=True)]

    async def commit_many(self, commits):
        """Make each change whose session is as expected, as other stores do with damaged ones."""
        outcomes = []
        for commit in commits:
            if commit.key in self.damaged and commit.before == self.damaged[commit.key]:
                del self.damaged[commit.key]
                outcomes += await super().commit_many([Commit(commit.key, None, commit.after)])
            else:
                outcomes += await super().commit_many([commit])
        return outcomes

    async def list_keys(self, limit, cursor):
        """Return every key."""
        keys, cursor = await super().list_keys(limit, cursor)
        return [*keys, *self.damaged], cursor


PATIENCE = Patience(idle_s=75, transfer_s=30)


@asynccontextmanager
async def serving_asgi(app):
    """Run an application, without a socket."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


@dataclass
class Listening:
    """What takes connections in the test's event loop.

    Attributes:
        address: Where.
        state: uvicorn's.
        refusals: The status of each connection that was ended for no whole request.
    """

    address: tuple[str, int]
    state: ServerState
    refusals: list[int]

    def open(self):
        """Open a connection; return its reader and its writer."""
        return asyncio.open_connection(*self.address)

    def shut_down(self):
        """Begin to drain, as uvicorn does."""
        for connection in list(self.state.connections):
            connection.shutdown()


@asynccontextmanager
async def listening(app, *, patience=PATIENCE, http=None):
    """Run an application behind a socket, as the service does but without a process.

    Args:
        app: The application.
        patience: How long clients may keep a connection waiting.
        http: uvicorn's class for HTTP; None means the one with the hot routes.
    """
    refusals: list[int] = []
    config = uvicorn.Config(
        app,
        http=http or hot_protocol(app.http, patience, refusals.append),
        ws="websockets-sansio",
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    config.load()
    protocol: Any = config.http_protocol_class
    state = ServerState()
    state.default_headers = [(b"date", b"Thu, 01 Jan 1970 00:00:00 GMT")]
    loop = asyncio.get_running_loop()

    def connect():
        return protocol(config=config, server_state=state, app_state={})

    async with app.router.lifespan_context(app):
        server = await loop.create_server(connect, "127.0.0.1", 0)
        opened = Listening(server.sockets[0].getsockname(), state, refusals)
        try:
            yield opened
        finally:
            server.close()
            opened.shut_down()
            async with asyncio.timeout(10):
                while state.connections or state.tasks:
                    await asyncio.sleep(0.001)


@asynccontextmanager
async def serving_hot(app):
    """Run an application behind a socket, with the hot routes inside the protocol."""
    async with listening(app) as opened:
        host, port = opened.address
        # What the environment says of proxies is not looked for: it takes longer than a test.
        async with httpx.AsyncClient(base_url=f"http://{host}:{port}", trust_env=False) as client:
            yield client
