"""Whose turn it is: the jobs of every session in the order of their coming.

Pure: no clock, no event loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import takewhile
from typing import Generic, Protocol, TypeVar

from service.domain import SessionKey


class Waiting(Protocol):
    """Something that waits for its session's turn."""

    @property
    def key(self) -> SessionKey:
        """The session."""
        ...

    @property
    def is_done(self) -> bool:
        """Whether it wants no turn any more."""
        ...


JobT = TypeVar("JobT", bound=Waiting)


class Turns(Generic[JobT]):
    """The jobs of every session in the order of their coming; at most one of each is out at a time.

    A session whose job was taken gets its next turn only after `done` or `again`.

    Attributes:
        ready: The jobs that `take` would give, for those who look.
    """

    def __init__(self) -> None:
        self._first: dict[SessionKey, JobT] = {}
        # Only of the sessions that have more than one job.
        self._behind: dict[SessionKey, deque[JobT]] = {}
        self.ready: deque[JobT] = deque()

    def add(self, job: JobT) -> None:
        """Queue a job behind the others of its session."""
        if self._first.setdefault(job.key, job) is job:
            self.ready.append(job)
        else:
            self._behind.setdefault(job.key, deque()).append(job)

    def take(self, most: int) -> list[JobT]:
        """Take the first job of up to `most` sessions, the longest waiting first."""
        ready = self.ready
        return [ready.popleft() for _ in range(min(most, len(ready)))]

    def behind(self, key: SessionKey) -> Iterable[JobT]:
        """Return the jobs of a session that wait behind its first one, in their order."""
        return self._behind.get(key, ())

    def again(self, key: SessionKey) -> None:
        """Put a session whose job is not finished behind the others."""
        self.ready.append(self._first[key])

    def done(self, key: SessionKey, num_jobs: int = 1) -> None:
        """Drop a session's first jobs, which are finished, and let its next one have its turn."""
        behind = self._behind.get(key) if self._behind else None
        if behind is None:
            del self._first[key]
            return
        for _ in range(num_jobs - 1):
            behind.popleft()
        if behind:
            self.ready.append(behind.popleft())
            self._first[key] = self.ready[-1]
        else:
            del self._first[key]
        if not behind:
            del self._behind[key]

    def end(self, job: JobT) -> None:
        """Drop a first job that is done, and those behind it that were done with it."""
        behind = self._behind.get(job.key) if self._behind else None
        if behind is None:
            del self._first[job.key]
        else:
            self.done(job.key, 1 + sum(1 for _ in takewhile(_is_done, behind)))

    def drop(self, job: JobT) -> None:
        """Take out a job that has had no turn; those behind it keep their order."""
        if self._first[job.key] is job:
            self.ready.remove(job)
            self.done(job.key)
            return
        behind = self._behind[job.key]
        behind.remove(job)
        if not behind:
            del self._behind[job.key]

    def is_out(self, key: SessionKey) -> bool:
        """Tell whether a session has jobs."""
        return key in self._first

    def is_wanted(self, key: SessionKey) -> bool:
        """Tell whether the first job of a session is still to be answered."""
        first = self._first.get(key)
        return first is not None and not first.is_done


def _is_done(job: Waiting) -> bool:
    return job.is_done
