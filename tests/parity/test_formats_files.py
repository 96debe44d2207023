"""Every fixture gives the numbers that its own framework gave, as a sequence and step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lstm_core.formats.read import format_at, read_network
from lstm_core.runtime.cpu import CpuRuntime
from tests.parity.format_record import FILES, FileRow, load, names

TOLERANCE = 2e-6
"""Float32 against float32: two roundings of sums of a few numbers of size 1."""


@pytest.mark.parametrize("name", names())
def test_file(name):
    """The file is read without its framework, and answers as its framework did."""
    fixture = load(name)
    network = read_network(fixture.path)
    batch = len(fixture.inputs)
    runtime = CpuRuntime(network, 2 * batch)
    predicted = runtime.predict(fixture.inputs)
    assert fixture.outputs.shape == predicted.shape
    sequence = float(abs(fixture.outputs - predicted).max())
    steps = None
    if not network.streaming_obstacles:
        outputs = step_by_step(runtime, fixture.inputs)
        if not network.returns_sequences:
            outputs = outputs[:, -1]
        steps = float(abs(fixture.outputs - outputs).max())
    FILES[name] = FileRow(
        format=format_at(fixture.path).name,
        framework=fixture.framework,
        layers=fixture.layers,
        sequence=sequence,
        steps=steps,
    )
    assert sequence <= TOLERANCE
    assert steps is None or steps <= TOLERANCE


def step_by_step(runtime: CpuRuntime, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the outputs of one `advance` a time step, `(batch, time, output_size)`."""
    batch = len(inputs)
    one, other = ([runtime.allocate() for _ in range(batch)] for _ in range(2))
    source, outputs = [0] * batch, []
    for t in range(inputs.shape[1]):
        target = other if source is one else one
        advanced = runtime.advance(source, target, inputs[:, t : t + 1], [1] * batch)
        outputs.append(advanced.outputs[:, 0])
        source = target
    return np.stack(outputs, axis=1)
