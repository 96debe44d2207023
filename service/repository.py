"""A directory of models, `NAME/VERSION/model.*`: what is there, what is served of it, and why not.

Versions are loaded and dropped while the service runs. A version's files never change once it is
loaded: what is new gets a new number. The highest version that is ready takes the new sessions, and
those that live stay on theirs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from service.engine import Engine
from service.errors import ModelNotLoadedError, ModelUnknownError
from service.model_files import ModelFileError
from service.models import ModelLoader, Prepared
from service.repository_files import MAX_NAME_LENGTH, Stamp, scan
from service.repository_versions import Version
from service.served import IndexEntry, ServedModels

log = logging.getLogger(__name__)


class ModelRepository:
    """What of a directory is served. Only files are read off the event loop's thread."""

    def __init__(self, directory: Path, loader: ModelLoader) -> None:
        """Take the directory; nothing is read yet.

        Args:
            directory: The repository.
            loader: Makes engines of its files.
        """
        self._directory = directory
        self._loader = loader
        self._versions: dict[str, dict[str, Version]] = {}
        self._unloaded: set[str] = set()
        # Names that are served from elsewhere: nothing here may touch those models.
        self._foreign: set[str] = set()
        self._warned_of: set[str] = set()
        self._served: ServedModels | None = None
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def read_all(self) -> dict[str, Engine]:
        """Read every model, before the service starts; return the engines of those that are ready.

        Raises:
            ModelFileError: The directory cannot be read, or none of its models can be served.
        """
        try:
            found = scan(self._directory)
        except OSError as error:
            raise ModelFileError(f"the model repository cannot be read: {error}") from error
        engines: dict[str, Engine] = {}
        for name, stamps in found.items():
            ready: list[Prepared] = []
            for version in self._note(name, stamps):
                others = [each.signature for each in ready]
                prepared = version.read(name, self._loader, others)
                if prepared is not None:
                    ready.append(prepared)
            if ready:
                *earlier, current = [self._engine(each) for each in ready]
                for engine in earlier:
                    current.add_earlier(engine)
                engines[name] = current
        if not engines:
            reasons = "".join(
                f"\n  {line.name} {line.version}: {line.reason}" for line in self.index()
            )
            raise ModelFileError(f"no model of {self._directory} can be served{reasons}")
        return engines

    def attach(self, served: ServedModels) -> None:
        """Say where the models are served; what is loaded and unloaded from now on changes it."""
        self._served = served
        ours = {line.name for line in self.index() if line.state == "READY"}
        self._foreign = set(served) - ours
        for name in self._foreign & self._versions.keys():
            self._warn_of_foreign(name)
            del self._versions[name]

    def index(self) -> list[IndexEntry]:
        """Return every version that was found, by name and number."""
        return [
            IndexEntry(name, number, version.state, version.reason)
            for name, versions in self._versions.items()
            for number, version in versions.items()
        ]

    async def load(self, name: str) -> None:
        """Serve what a model has in the directory; what is served of it already goes on.

        Raises:
            ModelUnknownError: The directory holds nothing of this name.
            ModelNotLoadedError: A version cannot be served, or all of them.
        """
        async with self._lock:
            try:
                found = await self._scan()
            except OSError as error:
                reason = f"the repository cannot be read: {error.strerror}"
                raise ModelNotLoadedError(name[:MAX_NAME_LENGTH], [reason]) from error
            if name not in found:
                raise ModelUnknownError(name[:MAX_NAME_LENGTH], list(found))
            self._unloaded.discard(name)
            await self._follow(name, found[name], is_asked=True)
            reasons = [
                f"version {number}: {version.reason}"
                for number, version in self._versions[name].items()
                if version.state != "READY"
            ]
            if reasons or not self._versions[name]:
                raise ModelNotLoadedError(name, reasons or ["there is no version of it"])

    async def unload(self, name: str) -> None:
        """Serve a model no more, until it is loaded again; requests that were taken are answered.

        Raises:
            ModelUnknownError: The directory holds nothing of this name.
        """
        async with self._lock:
            if name not in self._versions:
                raise ModelUnknownError(name[:MAX_NAME_LENGTH], list(self._versions))
            self._unloaded.add(name)
            self._drop_model(name)

    async def follow(self, *, settled_only: bool = False) -> None:
        """Do what the directory says: load what is new, drop what is gone.

        Args:
            settled_only: Leave a version that has changed since the last look for the next one:
                somebody may be copying it, and what is loaded is served as it was then.

        Raises:
            OSError: It cannot be read.
        """
        async with self._lock:
            found = await self._scan()
            for name in [name for name in self._versions if name not in found]:
                self._drop_model(name)
                del self._versions[name]
            for name, stamps in found.items():
                if name not in self._unloaded:
                    await self._follow(name, stamps, settled_only=settled_only)

    async def watch(self, every_s: float) -> None:
        """Follow the directory until it is cancelled.

        Args:
            every_s: How often, in seconds.
        """
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.follow(settled_only=True)
            except OSError as error:
                log.warning("the model repository cannot be read: %s", error)

    async def close(self) -> None:
        """Wait for the models that were dropped and still answer."""
        await asyncio.gather(*self._tasks)

    async def _scan(self) -> dict[str, dict[str, Stamp]]:
        """Return what lies in the directory, but for names that are served from elsewhere.

        Raises:
            OSError: It cannot be read.
        """
        found = await asyncio.to_thread(scan, self._directory)
        for name in self._foreign & found.keys():
            self._warn_of_foreign(name)
            del found[name]
        return found

    def _warn_of_foreign(self, name: str) -> None:
        if name not in self._warned_of:
            self._warned_of.add(name)
            log.warning(
                "model %s of the repository is not served: --model gave one of this name", name
            )

    async def _follow(
        self,
        name: str,
        stamps: dict[str, Stamp],
        *,
        is_asked: bool = False,
        settled_only: bool = False,
    ) -> None:
        """Serve the versions that lie there; drop those that do not, once what is new is served.

        Args:
            name: Of the model.
            stamps: Of its versions, by number.
            is_asked: Whether to try again what could not be read and has not changed.
            settled_only: As for `follow`.
        """
        before = {number: each.stamp for number, each in self._versions.get(name, {}).items()}
        broken: list[Version] = []
        is_settling = False
        for version in self._note(name, stamps):
            stamp = stamps.get(version.number)
            if stamp is None:
                continue
            is_new = version.state == "LOADING" or version.stamp != stamp
            version.stamp = stamp
            if version.state == "READY":
                if is_new:
                    self._warn_of_change(name, version)
            elif settled_only and before.get(version.number) != stamp:
                version.state, version.reason = "LOADING", ""
                is_settling = True
            elif (is_new or is_asked) and not await self._bring_up(name, version):
                broken.append(version)
        if not is_settling:
            await self._drop_gone(name, stamps, broken)

    async def _drop_gone(
        self, name: str, stamps: dict[str, Stamp], broken: Sequence[Version]
    ) -> None:
        """Drop a model's versions that lie there no more, and try the broken ones without them."""
        versions = self._versions[name]
        gone = [number for number in versions if number not in stamps]
        for number in gone:
            self._drop_version(name, versions.pop(number))
        if gone:
            for version in broken:  # perhaps only beside one that is gone, as its copy
                await self._bring_up(name, version)

    def _warn_of_change(self, name: str, version: Version) -> None:
        log.warning(
            "model %s: version %s was changed and is served as it was; give what is new a new"
            " number",
            name, version.number,
        )  # fmt: skip

    def _note(self, name: str, stamps: dict[str, Stamp]) -> list[Version]:
        """Return a model's versions, the lowest first, those that are new among them."""
        versions = self._versions.setdefault(name, {})
        for number, stamp in stamps.items():
            if number not in versions:
                versions[number] = Version(self._directory / name / number, stamp)
        return sorted(versions.values(), key=lambda version: int(version.number))

    async def _bring_up(self, name: str, version: Version) -> bool:
        """Read a version and serve it: in front if it is the highest, else for its sessions.

        Returns:
            Whether it can be.
        """
        assert self._served is not None, "attached before it is asked"
        current = self._served.get(name)
        running = [] if current is None else [current, *current.earlier]
        others = [engine.signature for engine in running]
        prepared = await asyncio.to_thread(version.read, name, self._loader, others)
        if prepared is None:
            return False
        engine = self._engine(prepared)
        await engine.start()
        if current is None or int(version.number) > int(current.signature.version):
            self._served.serve(name, engine)
        else:
            current.add_earlier(engine)
        log.info("model %s: version %s is served", name, version.number)
        return True

    def _engine(self, prepared: Prepared) -> Engine:
        # Not alone: another version may come at any time, and then writes to the same sessions.
        return self._loader.engine(prepared, is_alone=False)

    def _drop_version(self, name: str, version: Version) -> None:
        """End what runs a version that is gone; the next lower one follows on the highest."""
        assert self._served is not None, "attached before it is asked"
        current = self._served.get(name)
        if current is None or version.fingerprint is None:
            return
        log.info("model %s: version %s is gone", name, version.number)
        if current.signature.fingerprint == version.fingerprint:
            if not current.earlier:
                self._drop_model(name)
                return
            highest = max(current.earlier, key=lambda engine: int(engine.signature.version))
            self._served.serve(name, highest)
            current = highest
        self._run(current.drop_earlier(version.fingerprint).end())

    def _drop_model(self, name: str) -> None:
        assert self._served is not None, "attached before it is asked"
        if name in self._served:
            engine = self._served.drop(name)
            engine.refuse(ModelUnknownError(name, list(self._served)))
            self._run(engine.end())
            log.info("model %s is served no more", name)
        for version in self._versions[name].values():
            if version.state == "READY":
                version.state, version.reason, version.fingerprint = "UNAVAILABLE", "unloaded", None

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
