"""The table of formats: each fixture, what wrote it, and how far our numbers are from its own.

Owns the fixtures' place, the record and its Markdown. A fixture is a model that a framework wrote,
with that framework's answers beside it, as `MODEL.npz`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

DIRECTORY = Path(__file__).parent.parent / "fixtures" / "formats"


class FileRow(NamedTuple):
    """A row of the table.

    Attributes:
        format: How `lstm-service models` calls the file's format.
        framework: What answered, with its version.
        layers: What the model is.
        sequence: The largest absolute difference of a whole sequence.
        steps: The same step by step; None where the model takes whole sequences only.
    """

    format: str
    framework: str
    layers: str
    sequence: float
    steps: float | None


FILES: dict[str, FileRow] = {}
"""By file, of this process."""


class Fixture(NamedTuple):
    """A model file, and what its framework answered.

    Attributes:
        path: The file.
        framework: What answered, with its version.
        layers: What the model is.
        inputs: `(batch, time, features)` float32; one feature where they are integers.
        outputs: `(batch, time, outputs)`, or `(batch, outputs)` of the last step.
    """

    path: Path
    framework: str
    layers: str
    inputs: np.ndarray[Any, Any]
    outputs: np.ndarray[Any, Any]


def names() -> list[str]:
    """Return every fixture by its path below `DIRECTORY`."""
    answers = sorted(DIRECTORY.glob("*/*.npz"))
    return [str(path.relative_to(DIRECTORY)).removesuffix(".npz") for path in answers]


def load(name: str) -> Fixture:
    """Return a fixture."""
    with np.load(DIRECTORY / f"{name}.npz") as answer:
        inputs = answer["inputs"]
        if inputs.ndim == 2:
            inputs = inputs[..., None]
        return Fixture(
            path=DIRECTORY / name,
            framework=str(answer["framework"]),
            layers=str(answer["layers"]),
            inputs=inputs.astype(np.float32),
            outputs=answer["outputs"],
        )


def markdown(rows: Mapping[str, FileRow]) -> str:
    """Return the table."""
    lines = [
        "| file | format | answers of | layers | sequence | step by step |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in sorted(rows.items()):
        steps = "sequences only" if row.steps is None else f"{row.steps:.1e}"
        cells = (row.format, row.framework, row.layers, f"{row.sequence:.1e}", steps)
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
