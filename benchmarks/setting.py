"""What the figures of the hot path share: where servers run, how long is measured, what is sent.

Inputs are random numbers of six digits, the same in each run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench_model import INPUT_SIZE, Float32
from load import post
from servers import service_command


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where and how long to measure.

    Attributes:
        core: The servers'; None where there is only one.
        folder: For files.
        repeats: Of each measurement; figures are medians.
        warmup_s: What comes in this time first is not counted.
        duration_s: What comes in this time then is.
        is_quick: Whether this is to see that everything runs, rather than for its figures.
    """

    core: int | None
    folder: Path
    repeats: int
    warmup_s: float
    duration_s: float
    is_quick: bool

    @property
    def model(self) -> Path:
        """The model's file."""
        return self.folder / "bench.keras"

    def service(self, *options: str) -> list[str | Path]:
        """Return the service's command, its sessions in memory if the options do not say else."""
        return [*service_command(self.folder), *options]


def random_inputs(num_steps: int, seed: int = 0) -> Float32:
    """Return `(num_steps, INPUT_SIZE)` float32 numbers of about six digits within -1 and 1."""
    values = np.random.default_rng(seed).uniform(-1, 1, (num_steps, INPUT_SIZE))
    return values.round(6).astype(np.float32)


def as_json(document: object) -> bytes:
    """Return a document as a client's library writes it, without spaces."""
    return json.dumps(document, separators=(",", ":")).encode()


def as_numbers(inputs: Float32) -> list[float]:
    """Return float32 numbers as the short decimals that they came from."""
    numbers: list[float] = inputs.astype(np.float64).round(6).tolist()
    return numbers


def step_requests(client_ids: Sequence[str]) -> list[bytes]:
    """Return a step's request for each client, inputs of its own in it."""
    inputs = as_numbers(random_inputs(256))
    bodies = [as_json({"inputs": values}) for values in inputs]
    return [
        post(f"/v1/sessions/{client_id}/step", bodies[index % len(bodies)])
        for index, client_id in enumerate(client_ids)
    ]
