"""What was measured beside what is wanted, in Markdown and as JSON. Knows no server and no load."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from load import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One figure and what it shall be.

    Attributes:
        what: In words.
        measured: With its unit.
        wanted: Likewise.
        margin: How many times better than wanted; below 1 the target is missed, None if it was
            not measured.
    """

    what: str
    measured: str
    wanted: str
    margin: float | None


def at_least(what: str, value: float, wanted: float, form: str = "{:,.2f}") -> Target:
    """Return a target that a value above `wanted` meets; `form` writes both."""
    return Target(
        what=what,
        measured=form.format(value),
        wanted="at least " + form.format(wanted),
        margin=value / wanted,
    )


def at_most(what: str, value: float, wanted: float, form: str = "{:,.2f}") -> Target:
    """Return a target that a value below `wanted` meets; `form` writes both."""
    return Target(
        what=what,
        measured=form.format(value),
        wanted="at most " + form.format(wanted),
        # What costs nothing at all is within any limit.
        margin=wanted / value if value > 0 else float("inf"),
    )


def not_measured(what: str, why: str) -> Target:
    """Return a target without a figure."""
    return Target(what=what, measured=why, wanted="", margin=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What one module of `figures` found.

    Attributes:
        title: A heading.
        targets: What was wanted of it.
        text: Markdown with the details.
        data: The same for programs, as JSON can hold it.
    """

    title: str
    targets: Sequence[Target]
    text: str
    data: dict[str, Any] = field(default_factory=dict)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def targets_table(targets: Iterable[Target]) -> str:
    """Return the table of what was measured beside what was wanted."""
    rows = []
    for target in targets:
        margin = target.margin
        verdict = (
            "-" if margin is None else f"{margin:.2f}" + ("" if margin >= 1 else " **missed**")
        )
        rows.append([target.what, target.measured, target.wanted, verdict])
    return table(["figure", "measured", "wanted", "times as good as wanted"], rows)


MOST_GENERATOR_CPU = 0.9
"""Above this share of its core the generator may be what is measured."""
RESULT_HEAD = ["steps/s", "p50 ms", "p99 ms", "generator CPU", "failed"]


def result_cells(result: Result, steps_an_answer: int = 1) -> list[str]:
    """Return the cells of `RESULT_HEAD`."""
    is_in_doubt = result.generator_cpu > MOST_GENERATOR_CPU
    return [
        f"{result.rate * steps_an_answer:,.0f}",
        f"{result.p50_ms:.3f}",
        f"{result.p99_ms:.3f}",
        f"{result.generator_cpu:.0%}" + (" **too busy**" if is_in_doubt else ""),
        str(result.num_failed),
    ]


class Watch:
    """How long a run takes, and what other programs use of the machine meanwhile."""

    def __init__(self) -> None:
        """Begin now."""
        self._began_at = time.monotonic()
        self._others_s = _busy_s() - _own_s()

    def verdict(self) -> str:
        """Return in words how long it has been, and whether figures of that time are good."""
        took_s = time.monotonic() - self._began_at
        share = (_busy_s() - _own_s() - self._others_s) / took_s
        return (
            f"All in {took_s / 60:.1f} minutes. Other programs and the kernel used {share:.0%} of\n"
            "a core meanwhile: figures are good only if that is little."
        )


def _busy_s() -> float:
    """Return the CPU time that all programs together have had since the machine started."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:]
    user, nice, system, _, _, interrupts, soft_interrupts, stolen = map(int, fields[:8])
    ticks = user + nice + system + interrupts + soft_interrupts + stolen
    return ticks / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    """Return the CPU time that this process has had, with those of its children that ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def machine() -> str:
    """Return the processor, its cores and the Python in a line."""
    found = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    name = found[0] if found else platform.machine()
    return f"{name}, {os.cpu_count()} cores, Python {platform.python_version()}"
