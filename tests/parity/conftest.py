"""What every parity test needs: a quiet TensorFlow, drawn weights, and the table of differences."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings

from tests.parity import format_record, record

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

IS_CI = os.environ.get("CI") == "true"
settings.register_profile("default", max_examples=200, deadline=None, derandomize=IS_CI)
settings.register_profile("parity", max_examples=2_000, deadline=None, derandomize=IS_CI)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

Arrays = list[np.ndarray[Any, Any]]


@pytest.fixture(scope="session")
def draw_weights() -> Callable[..., Arrays]:
    """Draw kernel, recurrent kernel and bias, none of them zero anywhere."""

    def draw(features: int, units: int, *, use_bias: bool = True, seed: int = 0) -> Arrays:
        random = np.random.default_rng(seed)
        shapes = [(features, 4 * units), (units, 4 * units), (4 * units,)]
        arrays = [random.normal(0, 0.6, shape).astype(np.float32) for shape in shapes]
        return arrays if use_bias else arrays[:2]

    return draw


@pytest.fixture(scope="session")
def draw_inputs() -> Callable[..., np.ndarray[Any, Any]]:
    """Draw standard normal float32 inputs of any shape."""

    def draw(*shape: int, seed: int = 1) -> np.ndarray[Any, Any]:
        return np.random.default_rng(seed).normal(size=shape).astype(np.float32)

    return draw


@pytest.fixture
def fresh_names() -> None:
    """Start Keras's counters of layer names anew."""
    import keras

    keras.utils.clear_session(free_memory=False)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let `pytest tests/parity` write the table; a run of all tests does not know this file yet."""
    parser.addoption(
        "--parity-table",
        metavar="FILE",
        help="write the largest differences as Markdown, and fail where a feature has none",
    )


def _table_path(config: pytest.Config) -> str | None:
    path: str | None = config.getoption("--parity-table", None)
    return path


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table; a worker of pytest-xdist hands its rows to the process that does."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["parity"] = [
            [*row, difference] for row, difference in record.DIFFERENCES.items()
        ]
        session.config.workeroutput["formats"] = {k: [*v] for k, v in format_record.FILES.items()}
        return
    path = _table_path(session.config)
    if path is None:
        return
    Path(path).write_text(_tables(), encoding="utf-8")
    if record.missing(record.DIFFERENCES) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the rows of a worker of pytest-xdist."""
    handed_over = getattr(node, "workeroutput", {})
    for *row, difference in handed_over.get("parity", []):
        record.note([(row[0], row[1], row[2])], difference)
    for name, file_row in handed_over.get("formats", {}).items():
        format_record.FILES[name] = format_record.FileRow(*file_row)


def _tables() -> str:
    layers, files = record.markdown(record.DIFFERENCES), format_record.markdown(format_record.FILES)
    return f"{layers}\n{files}"


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print the table, and what is missing from it."""
    if _table_path(config) is None:
        return
    terminalreporter.section("parity")
    terminalreporter.write(_tables())
    for feature in record.missing(record.DIFFERENCES):
        terminalreporter.write_line(f"no row, no test: {feature}", red=True)
