"""Every fixture gives the numbers that its own framework gave, as a sequence and step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lstm_core import equations
from lstm_core.formats.read import format_at, read_network
from lstm_core.network import Network
from lstm_core.runtime.cpu import CpuRuntime
from tests.parity.format_record import FILES, FileRow, load, names

TOLERANCE = 2e-6
"""Float32 against float32: two roundings of sums of a few numbers of size 1."""


@pytest.mark.parametrize("name", names())
def test_a_file_answers_as_its_framework_did(name):
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


def test_the_equations_clip_as_onnx_runtime_does():
    """The oracle of the kernels has ONNX's `clip`, masks or not."""
    fixture = load("onnx/clip.onnx")
    (layer,) = read_network(fixture.path).recurrent
    told = equations.sequence(layer.spec, layer.weights, fixture.inputs)
    assert abs(told.outputs - fixture.outputs).max() <= TOLERANCE
    assert abs(told.c).max() > (layer.spec.gate_clip or 0)  # the cell state is not clipped
    mask = np.random.default_rng(0).random(fixture.inputs.shape[:2]) < 0.6
    told = equations.sequence(layer.spec, layer.weights, fixture.inputs, mask=mask)
    network = Network("clip", layer.spec.input_size, (layer,))
    predicted = CpuRuntime(network, 1).predict(fixture.inputs, mask)
    assert abs(told.outputs - predicted).max() <= TOLERANCE


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
