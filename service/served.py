"""What is served under which name, and what the short form of a path stands for.

Changes while it serves, as versions come and models go; whoever holds it sees that at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple
from weakref import WeakSet

from service.engine import Engine
from service.errors import DrainingError, NotReadyError


class IndexEntry(NamedTuple):
    """A version of a model that is served, or could be.

    Attributes:
        name: The model's name.
        version: Its number.
        state: Whether it is served.
        reason: Why it is not; else empty.
    """

    name: str
    version: str
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str


class ServedModels(Mapping[str, Engine]):
    """The engines by model name.

    Attributes:
        default: The name of the model that a path means which names none. It stays the default
            while it is not served: nobody's sessions go to another model unasked.
        is_leaving: Whether the process is about to end. It takes requests still, and says that it
            is not ready, so that balancers send them elsewhere.
    """

    is_leaving = False

    def __init__(self, engines: Mapping[str, Engine], default: str | None = None) -> None:
        """Take the engines of the start.

        Args:
            engines: By model name.
            default: The default model, which may not be served now; None: the first of them.

        Raises:
            ValueError: There is none.
        """
        if not engines:
            raise ValueError("there must be at least one model to serve")
        self._engines = dict(engines)
        self._dropped: defaultdict[str, WeakSet[Engine]] = defaultdict(WeakSet)
        self.default = default or next(iter(engines))

    def __getitem__(self, name: str) -> Engine:
        """Return the engine of a model; KeyError if it is not served."""
        return self._engines[name]

    def __iter__(self) -> Iterator[str]:
        """Return the names, the default model's first."""
        return iter(sorted(self._engines, key=lambda name: name != self.default))

    def __len__(self) -> int:
        """Return how many models are served."""
        return len(self._engines)

    async def check_ready(self, name: str | None = None) -> None:
        """See that requests are welcome, to every model or to one, and that the store commits.

        Args:
            name: A model that is served; None for all.

        Raises:
            DrainingError: The process is about to end.
            NotReadyError: An engine takes no requests.
            UnavailableError: The store does not answer, or takes nothing.
        """
        if self.is_leaving:
            raise DrainingError
        # As they are now: they come and go while a store is asked.
        engines = dict(self) if name is None else {name: self[name]}
        missing = [name for name, engine in engines.items() if not engine.is_ready]
        if missing:
            raise NotReadyError(missing)
        for engine in engines.values():
            await engine.check_store()

    def serve(self, name: str, engine: Engine) -> None:
        """Serve a model by an engine that has started, in the place of what served it before."""
        predecessor = self._engines.get(name)
        if predecessor is not None:
            engine.succeed(predecessor)
        for dropped in self._dropped.pop(name, ()):
            dropped.send_on(engine)  # connections and streams may hold it still
        self._engines[name] = engine

    def drop(self, name: str) -> Engine:
        """Serve a model no more, and return its engine, which goes on until it is drained."""
        engine = self._engines.pop(name)
        self._dropped[name].add(engine)
        return engine
