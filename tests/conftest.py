"""What holds for every test: their order, and what may be skipped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator

import pytest

ROOMS = ("unit", "contract", "integration", "parity")
"""The directories under `tests` in the order that they run in: what fails fastest comes first."""

IS_CI = os.environ.get("CI") == "true"
HAS_GPU = shutil.which("nvidia-smi") is not None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the rooms in order, and mark what this machine cannot run."""

    def room(item: pytest.Item) -> int:
        return next((i for i, name in enumerate(ROOMS) if name in item.path.parts), len(ROOMS))

    items.sort(key=room)
    if not HAS_GPU:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no GPU"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI, fail a skipped test: only a `gpu` test may be skipped there."""
    report = yield
    is_expected_failure = hasattr(report, "wasxfail")
    if IS_CI and report.skipped and not is_expected_failure and not item.get_closest_marker("gpu"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which in CI only a gpu test may be: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """In CI, fail a module that skips itself, gpu tests included: they are skipped one by one."""
    report = yield
    if IS_CI and report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, which in CI only a gpu test may be: {report.longrepr}"
    return report
