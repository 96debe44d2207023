"""Which models the Open Inference Protocol serves, and what was asked of them by it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, Protocol

from service.engine import Engine
from service.errors import ModelUnknownError, NoRepositoryError
from service.served import IndexEntry, ServedModels
from service.transport.explain import MAX_PROBLEMS, shorten, wrong
from service.transport.v2.statistics import Statistics


class ServedModel(NamedTuple):
    """A model that is served.

    Attributes:
        engine: Runs it.
        statistics: What was asked of it by this protocol.
    """

    engine: Engine
    statistics: Statistics

    @property
    def name(self) -> str:
        """The name that it is served under."""
        return self.engine.signature.model

    @property
    def version(self) -> str:
        """The version that new sessions take, a decimal number."""
        return self.engine.signature.version


class Repository(Protocol):
    """Where models come from while the service runs."""

    def index(self) -> Sequence[IndexEntry]:
        """Return every version of every model in it."""
        ...

    async def load(self, name: str) -> None:
        """Serve a model, or raise a `ServiceError`: what was served before still is."""
        ...

    async def unload(self, name: str) -> None:
        """Serve a model no more; raise a `ServiceError` if it is not from here."""
        ...


class Catalog:
    """The models, by name and version."""

    def __init__(self, served: ServedModels, repository: Repository | None = None) -> None:
        """Take what is served, and where some of it comes from."""
        self._served = served
        self._repository = repository
        self._statistics: dict[str, Statistics] = {}

    def find(self, name: str, version: str = "") -> ServedModel:
        """Return a model, of its current version if none is given.

        Raises:
            ModelUnknownError: There is none of this name and version.
        """
        engine = self._served.get(name)
        if engine is None:
            raise ModelUnknownError(shorten(name), list(self._served))
        current = engine.signature.version
        if version not in ("", current):
            raise ModelUnknownError(shorten(f"{name}/{version}"), [f"{name}/{current}"])
        return self._model(name, engine)

    def note_failure(self, name: str, version: str, seconds: float) -> None:
        """Count a request that could not be read, if it names a model that is served."""
        try:
            model = self.find(name, version)
        except ModelUnknownError:
            return
        model.statistics.note_failure(seconds)

    async def check_ready(self, model: ServedModel | None = None) -> None:
        """See that requests are welcome, to every model or to one.

        Raises:
            ServiceError: They are not; see `ServedModels`.
        """
        await self._served.check_ready(None if model is None else model.name)

    def models(self) -> Sequence[ServedModel]:
        """Return what is served now."""
        return [self._model(name, engine) for name, engine in self._served.items()]

    def index(self, *, is_ready_only: bool) -> Sequence[IndexEntry]:
        """Return what is served or could be.

        Args:
            is_ready_only: Leave out what is not served now.
        """
        lines = list(self._repository.index()) if self._repository is not None else []
        of_repository = {line.name for line in lines}
        for name, engine in self._served.items():
            if name not in of_repository:
                for version in (*reversed(engine.earlier), engine):
                    lines.append(_entry(name, version))
        return [line for line in lines if line.state == "READY" or not is_ready_only]

    async def load(self, name: str, parameters: Collection[str] = ()) -> None:
        """Serve a model with all that the repository has of it.

        Args:
            name: The model's.
            parameters: Names of the request's parameters: none is known.

        Raises:
            ServiceError: It cannot be; what was served before still is.
        """
        if parameters:
            names = ", ".join(shorten(name) for name in sorted(parameters)[:MAX_PROBLEMS])
            text = f"a model is loaded as the repository has it, without parameters; got {names}"
            raise wrong(("parameters",), text)
        await self._repository_of(name).load(name)

    async def unload(self, name: str) -> None:
        """Serve a model no more.

        Raises:
            ServiceError: It does not come from the repository; it is still served.
        """
        await self._repository_of(name).unload(name)

    def _repository_of(self, name: str) -> Repository:
        repository = self._repository
        is_fixed = name in self._served and (
            repository is None or all(line.name != name for line in repository.index())
        )
        if repository is None or is_fixed:
            raise NoRepositoryError(shorten(name))
        return repository

    def _model(self, name: str, engine: Engine) -> ServedModel:
        statistics = self._statistics.get(name)
        if statistics is None:
            statistics = self._statistics[name] = Statistics()
        return ServedModel(engine, statistics)


def _entry(name: str, engine: Engine) -> IndexEntry:
    version = engine.signature.version
    if engine.is_ready:
        return IndexEntry(name, version, "READY", "")
    return IndexEntry(name, version, "UNAVAILABLE", "starting or about to end")
