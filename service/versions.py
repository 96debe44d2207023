"""Which engines run the versions of one model, and which of them is asked.

Each version has an engine of its own. The newest one is asked everything; what belongs to a session
of an earlier version it hands over. Knows no request, no queue and no store.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

from service.domain import SessionKey
from service.signature import Signature


class Version(Protocol):
    """What runs one version of a model."""

    @property
    def signature(self) -> Signature:
        """What that version takes and gives."""
        ...

    @property
    def versions(self) -> Versions[Any]:
        """Its place among the others."""
        ...

    @property
    def is_ready(self) -> bool:
        """Whether requests are taken."""
        ...

    def has_jobs(self, key: SessionKey) -> bool:
        """Tell whether a session has jobs here."""
        ...


EngineT = TypeVar("EngineT", bound=Version)


class Versions(Generic[EngineT]):
    """The place of one engine among those of its model: who was before it, and who came after.

    Attributes:
        earlier: Those that run the sessions of earlier versions.
        dropped: Those that ran some once, for what they have counted.
    """

    def __init__(self, earlier: Sequence[EngineT]) -> None:
        """Begin as the newest one, behind others."""
        self.earlier = tuple(earlier)
        self.dropped: tuple[EngineT, ...] = ()
        self._by_fingerprint = {engine.signature.fingerprint: engine for engine in earlier}
        self._successor: EngineT | None = None

    def __contains__(self, fingerprint: object) -> bool:
        """Tell whether an earlier version has a fingerprint."""
        return fingerprint in self._by_fingerprint

    def find(self, fingerprint: str) -> EngineT | None:
        """Return what runs the earlier version with a fingerprint."""
        return self._by_fingerprint.get(fingerprint)

    def with_jobs(self, key: SessionKey) -> EngineT | None:
        """Return the one that has jobs of a session still, which it took when it was the newest."""
        for engine in self.earlier:
            if engine.is_ready and engine.has_jobs(key):
                return engine
        return None

    @property
    def heir(self) -> EngineT | None:
        """What runs the model by now, if another engine has taken the place of this one."""
        heir = self._successor
        if heir is not None:
            while (successor := heir.versions._successor) is not None:  # noqa: SLF001 - as this one
                heir = successor
            self._successor = heir
        return heir

    def send_on(self, successor: EngineT) -> None:
        """Ask another engine what this one is asked from now on."""
        self._successor = successor

    def succeed(self, own: EngineT, predecessor: EngineT) -> None:
        """Take the place of what has run the model so far, and its earlier ones with it.

        Args:
            own: Whose place this is.
            predecessor: What has run it; this one may be an earlier one of its.
        """
        self._successor = None
        before = predecessor.versions
        for engine in (predecessor, *before.earlier):
            if engine is not own:
                self.add(engine)
                # Of all, not of the last one only: else each would keep those that came between.
                engine.versions.send_on(own)
        before.earlier = ()
        self.dropped, before.dropped = before.dropped, ()

    def add(self, engine: EngineT) -> None:
        """Let an engine run the sessions of its version."""
        self.earlier = (*self.earlier, engine)
        self._by_fingerprint[engine.signature.fingerprint] = engine

    def drop(self, fingerprint: str) -> EngineT:
        """Ask the engine of an earlier version nothing any more, and return it."""
        dropped = self._by_fingerprint[fingerprint]
        self.earlier = tuple(engine for engine in self.earlier if engine is not dropped)
        self.dropped = (*self.dropped, dropped)
        self.forget(fingerprint)
        for engine in self.earlier:  # which were in front of it once
            engine.versions.forget(fingerprint)
        return dropped

    def forget(self, fingerprint: str) -> None:
        """Find a version no more."""
        self._by_fingerprint.pop(fingerprint, None)

    def clear(self) -> None:
        """Find none any more."""
        self._by_fingerprint.clear()
