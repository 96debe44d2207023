"""What a `model.yaml` says, applied to the model that it stands beside."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lstm_core.network import Network
from lstm_core.pointwise import Affine
from lstm_core.runtime.base import ZERO_SLOT, Runtime, ServedNetwork
from service.model_config import ModelConfig, WarmUp


def normalised(network: Network, config: ModelConfig) -> Network:
    """Return a network that takes and gives numbers in the callers' units.

    Raises:
        ValueError: What is said of them does not fit it.
    """
    before, after = config.normalisation.inputs, config.normalisation.outputs
    layers = network.layers
    if before is not None:
        if network.vocabulary is not None:
            raise ValueError("normalisation.inputs: the model takes integers")
        _check_count("normalisation.inputs", network.input_size, len(before.mean))
        layers = (_affine("normalisation", before.mean, 1 / np.asarray(before.std), 0), *layers)
    if after is not None:
        _check_count("normalisation.outputs", network.output_size, len(after.mean))
        layers = (*layers, _affine("denormalisation", 0, after.std, after.mean))
    if layers is network.layers:
        return network
    return Network(
        network.name,
        network.input_size,
        layers,
        input_name=network.inputs[0].name,
        output_name=network.outputs[0].name,
        written_by=network.written_by,
    )


def _affine(name: str, *values: npt.ArrayLike) -> Affine:
    center, scale, offset = (np.asarray(value, np.float32) for value in values)
    return Affine(name=name, center=center, scale=scale, offset=offset)


def check_config(network: ServedNetwork, config: ModelConfig) -> None:
    """Check that what is said beside a model fits it.

    Raises:
        ValueError: It does not.
    """
    if config.labels is not None:
        _check_count("labels", network.output_size, len(config.labels))
    if config.feedback is not None:
        _check_count("feedback", network.input_size, len(config.feedback))
        for index in config.feedback:
            if index is not None and index >= network.output_size:
                raise ValueError(f"feedback: there is no output {index}")


def _check_count(what: str, expected: int, given: int) -> None:
    if given != expected:
        raise ValueError(f"{what}: expected {expected} values, got {given}")


def run_warm_up(runtime: Runtime, warm_up: WarmUp) -> None:
    """Run a few batches on zeros, from the zero slot into slots that are free again afterwards."""
    network = runtime.network
    num_steps = warm_up.steps
    for wanted in warm_up.rows:
        num_rows = min(wanted, runtime.num_free)
        inputs = np.zeros((num_rows, num_steps, network.input_size), np.float32)
        if network.streaming_obstacles:
            runtime.predict(inputs)
            continue
        slots = [runtime.allocate() for _ in range(num_rows)]
        runtime.advance([ZERO_SLOT] * num_rows, slots, inputs, None)
        for slot in reversed(slots):
            runtime.free(slot)
