"""Which models the Open Inference Protocol serves: the one seam to whatever loads them.

Knows engines, no transport and no file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from service.engine import Engine
from service.errors import ModelUnknownError, NoRepositoryError
from service.transport.explain import shorten
from service.transport.http_sessions import Engines
from service.transport.v2.statistics import Statistics


class ServedModel(NamedTuple):
    """A model under its name and version.

    Attributes:
        version: Its version, a decimal number.
        engine: Runs it.
        statistics: What was asked of it by this protocol.
    """

    version: str
    engine: Engine
    statistics: Statistics

    @property
    def name(self) -> str:
        """The name that it is served under."""
        return self.engine.signature.model


class IndexEntry(NamedTuple):
    """A line of the repository's index.

    Attributes:
        name: The model's name.
        version: Its version; empty where none is loaded.
        state: `READY`, `UNAVAILABLE`, `LOADING` or `UNLOADING`.
        reason: Why it is not ready; else empty.
    """

    name: str
    version: str
    state: str
    reason: str


class Catalog(Protocol):
    """The models, by name and version."""

    def find(self, name: str, version: str = "") -> ServedModel:
        """Return a model, of its current version if none is given.

        Raises:
            ModelUnknownError: There is none of this name and version.
        """
        ...

    def models(self) -> Sequence[ServedModel]:
        """Return what is served now."""
        ...

    def index(self, *, is_ready_only: bool) -> Sequence[IndexEntry]:
        """Return what is served or could be.

        Args:
            is_ready_only: Leave out what is not served now.
        """
        ...

    async def load(self, name: str) -> None:
        """Serve a model, anew if it is served already.

        Raises:
            ServiceError: It cannot be, and what was served before still is.
        """
        ...

    async def unload(self, name: str) -> None:
        """Serve a model no more.

        Raises:
            ServiceError: It still is.
        """
        ...


class FixedCatalog:
    """The models that the process was started with; none can be loaded or unloaded."""

    def __init__(self, engines: Engines) -> None:
        """Take the engines by model name."""
        # The current version is the newest one: as many are behind it as there are earlier ones.
        self._models = {
            name: ServedModel(str(1 + len(engine.earlier)), engine, Statistics())
            for name, engine in engines.items()
        }

    def find(self, name: str, version: str = "") -> ServedModel:
        """See `Catalog`."""
        model = self._models.get(name)
        if model is None or version not in ("", model.version):
            known = [each.name for each in self._models.values()]
            if model is not None:
                name, known = f"{name}/{version}", [f"{name}/{model.version}"]
            raise ModelUnknownError(shorten(name), known)
        return model

    def models(self) -> Sequence[ServedModel]:
        """See `Catalog`."""
        return list(self._models.values())

    def index(self, *, is_ready_only: bool) -> Sequence[IndexEntry]:
        """See `Catalog`."""
        lines = [
            IndexEntry(model.name, model.version, "READY", "")
            if model.engine.is_ready
            else IndexEntry(model.name, model.version, "UNAVAILABLE", "starting or about to end")
            for model in self._models.values()
        ]
        return [line for line in lines if line.state == "READY" or not is_ready_only]

    async def load(self, name: str) -> None:
        """Refuse: see `Catalog`."""
        raise NoRepositoryError(shorten(name))

    async def unload(self, name: str) -> None:
        """Refuse: see `Catalog`."""
        raise NoRepositoryError(shorten(name))
