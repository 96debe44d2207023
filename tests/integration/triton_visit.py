"""An unmodified tritonclient, in a process of its own, at a server of the model `bench_model`."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

NUM_SEQUENCES, NUM_STEPS = 12, 5
_values = np.random.default_rng(5).uniform(-1, 1, (NUM_SEQUENCES, NUM_STEPS, 32))
SEQUENCES = _values.astype(np.float32)
"""Inputs, `(sequences, time, features)`."""
TOLERANCE: dict[str, Any] = {"rtol": 0, "atol": 1e-5}


def visit(program, address):
    """Run a program of this directory that uses a server; return what it told."""
    result = subprocess.run(
        [sys.executable, "-m", f"tests.integration.{program}", address],
        input=json.dumps(SEQUENCES.tolist()),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert 0 == result.returncode, result.stderr
    return json.loads(result.stdout)
