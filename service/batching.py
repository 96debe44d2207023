"""Which jobs run together in the next tick. Pure: no clock, no arrays, no engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar


class HasSteps(Protocol):
    """A job with time steps to take."""

    @property
    def num_left(self) -> int:
        """Time steps that it has still to take, at least 1."""
        ...

    @property
    def mask(self) -> object | None:
        """Which of its steps are live; None means all."""
        ...


JobT = TypeVar("JobT", bound=HasSteps)


class Batch(NamedTuple, Generic[JobT]):
    """Jobs for one `advance`.

    Attributes:
        jobs: One row each.
        lengths: How many steps each takes now.
    """

    jobs: list[JobT]
    lengths: list[int]


def plan(jobs: Sequence[JobT], chunk_steps: int) -> list[Batch[JobT]]:
    """Group the jobs of a tick, so that short ones do not pay for long ones.

    No job takes more than `chunk_steps` steps in a tick. Lengths up to 1, 2, 4, 8 ... go together,
    so that at least half of a batch's area is work. Masked rows go apart: a mask costs every row of
    its batch.

    Args:
        jobs: What is ready.
        chunk_steps: Most time steps of one job in one tick, at least 1.
    """
    if not [job for job in jobs if job.num_left != 1 or job.mask is not None]:
        # Nearly always: nothing but single steps.
        return [Batch(list(jobs), [1] * len(jobs))] if jobs else []
    groups: dict[tuple[int, bool], Batch[JobT]] = {}
    for job in jobs:
        length = min(job.num_left, chunk_steps)
        group = ((length - 1).bit_length(), job.mask is not None)
        batch = groups.get(group)
        if batch is None:
            batch = groups[group] = Batch([], [])
        batch.jobs.append(job)
        batch.lengths.append(length)
    return [groups[group] for group in sorted(groups)]
