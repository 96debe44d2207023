"""Models of Keras with random weights, their files, and our numbers beside Keras's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstm_core.formats.keras import read_keras
from lstm_core.network import Network
from lstm_core.runtime.cpu import CpuRuntime

keras = pytest.importorskip("keras")
layers = keras.layers

FEATURES = 3
TIME = 5

MARKS = [
    pytest.mark.usefixtures("fresh_names"),
    *(
        pytest.mark.filterwarnings(f"ignore:{beginning}")
        for beginning in (
            "__array__ implementation",  # Keras on NumPy 2
            "You passed `rms_scaling=True`",
            "Layer .* was passed an input with a mask",  # nested ones pass it on
        )
    ),
]
"""Of every module with tests of such models."""


def randomise(model: Any, seed: int = 0) -> None:
    """Give every floating variable values that none starts with."""
    random = np.random.default_rng(seed)
    for variable in model.variables:
        if "float" not in variable.dtype:
            continue
        drawn = random.normal(0, 0.5, variable.shape)
        variable.assign(np.abs(drawn) + 0.5 if "variance" in variable.name else drawn)
    for layer in model.layers:
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()


def save(model: Any, directory: Path) -> Path:
    """Write a model with random weights."""
    randomise(model)
    path = directory / "model.keras"
    model.save(path)
    return path


def masked_inputs(batch: int = 4) -> np.ndarray[Any, Any]:
    """Draw inputs with zero steps at the start, at the end, between, and a row of nothing else."""
    inputs = np.random.default_rng(1).normal(size=(batch, TIME, FEATURES)).astype(np.float32)
    inputs[0, [0, 1, 3]] = 0
    inputs[1, 4:] = 0
    inputs[2] = 0
    return inputs


def step_by_step(runtime: CpuRuntime, inputs: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the outputs of one `advance` a time step, `(batch, time, output_size)`."""
    batch = len(inputs)
    slots = [[0] * batch] + [[runtime.allocate() for _ in range(batch)] for _ in range(2)]
    outputs = []
    for t in range(inputs.shape[1]):
        source = slots[0] if t == 0 else slots[1 + t % 2]
        target = slots[2 - t % 2]
        advanced = runtime.advance(source, target, inputs[:, t : t + 1], [1] * batch)
        outputs.append(advanced.outputs[:, 0])
    return np.stack(outputs, axis=1)


def layers_of(tensors: Any) -> list[str]:
    """Return the names of the layers that symbolic tensors come from."""
    return [tensor._keras_history.operation.name for tensor in tensors]  # noqa: SLF001


def check_parity(
    model: Any,
    directory: Path,
    inputs: np.ndarray[Any, Any] | None = None,
    *,
    rtol: float = 1e-6,
    is_compiled: bool = False,
) -> Network:
    """Compare a saved model's predictions with Keras's, and single steps with the sequence.

    Args:
        model: The model, which gets random weights.
        directory: Where to save it.
        inputs: Floats with a features axis, or integers without one.
        rtol: Relative and absolute tolerance against Keras.
        is_compiled: Whether Keras runs the graph that its `predict` compiles, or, faster by far for
            one batch, layer after layer.
    """
    inputs = masked_inputs() if inputs is None else inputs
    network = read_keras(save(model, directory))
    runtime = CpuRuntime(network, 2 * len(inputs))
    ours = inputs[..., None].astype(np.float32) if inputs.ndim == 2 else inputs
    if is_compiled:
        expected = model.predict(inputs, batch_size=len(inputs), verbose=0)
    else:
        expected = np.asarray(model(inputs, training=False))

    predicted = runtime.predict(ours)

    np.testing.assert_allclose(predicted, expected, rtol=rtol, atol=rtol)
    assert predicted.shape == expected.shape
    assert layers_of(model.inputs) == [network.inputs[0].name]
    assert layers_of(model.outputs) == [network.outputs[0].name]
    if not network.streaming_obstacles:
        steps = step_by_step(runtime, ours)
        last = steps if network.returns_sequences else steps[:, -1]
        np.testing.assert_allclose(last, predicted, rtol=1e-6, atol=1e-6)
    return network


def check_graph(model: Any, directory: Path, *, rtol: float = 2e-6) -> Network:
    """Compare a model of several inputs or outputs with Keras, as `check_parity` does.

    Args:
        model: Inputs of `FEATURES` real numbers, or of integers from 0 to 4. Weights are drawn.
        directory: Where to save it.
        rtol: Relative and absolute tolerance against Keras.
    """
    network = read_keras(save(model, directory))
    random = np.random.default_rng(2)
    reals = masked_inputs()
    given = {
        name: reals if "float" in tensor.dtype else random.integers(0, 5, reals.shape[:2])
        for name, tensor in zip(layers_of(model.inputs), model.inputs, strict=True)
    }
    told = model(list(given.values()), training=False)
    ours = np.concatenate(
        [x[..., None] if x.ndim == 2 else x for x in given.values()], axis=-1
    ).astype(np.float32)
    runtime = CpuRuntime(network, 2 * len(ours))
    steps = step_by_step(runtime, ours)
    predicted = runtime.predict(ours)
    assert layers_of(model.inputs) == [part.name for part in network.inputs]
    for part, expected in zip(
        network.outputs, told if isinstance(told, list) else [told], strict=True
    ):
        of = slice(part.offset, part.offset + part.size)
        at = slice(None) if expected.ndim == 3 else -1
        np.testing.assert_allclose(steps[:, at, of], np.asarray(expected), rtol=rtol, atol=rtol)
    whole = predicted if network.returns_sequences else steps[:, -1]
    np.testing.assert_allclose(predicted, whole, rtol=rtol, atol=rtol)
    return network


def sequential(*chain: Any, batch: int | None = None, time: int | None = None) -> Any:
    """Build a Sequential model over real features."""
    return keras.Sequential([keras.Input((time, FEATURES), batch_size=batch), *chain])
