"""What a `model.yaml` says, applied to the model that it stands beside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_core.network import Layer, Network, TensorPart
from lstm_core.pointwise import Affine
from lstm_core.runtime.base import ZERO_SLOT, Runtime, ServedNetwork
from service.model_config import ModelConfig, WarmUp

Array = npt.NDArray[Any]


def normalised(network: Network, config: ModelConfig) -> Network:
    """Return a network that takes and gives numbers in the callers' units.

    Raises:
        ValueError: What is said of them does not fit it.
    """
    before, after = config.normalisation.inputs, config.normalisation.outputs
    if before is not None:
        num_reals = sum(part.size for part in _reals(network))
        if not num_reals:
            raise ValueError("normalisation.inputs: the model takes integers")
        _check_count("normalisation.inputs", num_reals, len(before.mean))
        network = _scaled_inputs(network, np.asarray(before.mean), 1 / np.asarray(before.std))
    if after is not None:
        _check_count("normalisation.outputs", network.output_size, len(after.mean))
        network = _scaled_outputs(network, np.asarray(after.std), np.asarray(after.mean))
    return network


def _reals(network: Network) -> list[TensorPart]:
    return [part for part in network.inputs if part.vocabulary is None]


def _scaled_inputs(network: Network, center: Array, scale: Array) -> Network:
    """Return a network behind `(x - center) * scale` of each input of real numbers."""
    wiring, num_inputs = network.wiring, len(network.inputs)
    layers: list[Layer] = []
    takes: list[tuple[int, ...]] = []
    numbers: list[int] = []
    begin = 0
    for number, part in enumerate(network.inputs):
        if part.vocabulary is not None:
            numbers.append(number)
            continue
        of = slice(begin, begin := begin + part.size)
        numbers.append(num_inputs + len(layers))
        layers.append(_affine("normalisation", center[of], scale[of], 0))
        takes.append((number,))
    # What was an input is the layer's that stands in its place, and all others come behind those.
    behind = num_inputs + len(layers)
    numbers += range(behind, behind + len(network.layers))
    return _rewired(
        network,
        (*layers, *network.layers),
        takes=(*takes, *(tuple(numbers[value] for value in taken) for taken in wiring.takes)),
        outputs=tuple((name, numbers[value]) for name, value in wiring.outputs),
    )


def _scaled_outputs(network: Network, scale: Array, offset: Array) -> Network:
    """Return a network before `x * scale + offset` of each output."""
    wiring, num_layers = network.wiring, len(network.layers)
    layers = tuple(
        _affine("denormalisation", 0, scale[_of(part)], offset[_of(part)])
        for part in network.outputs
    )
    first = len(network.inputs) + num_layers
    return _rewired(
        network,
        (*network.layers, *layers),
        takes=(*wiring.takes, *((value,) for _, value in wiring.outputs)),
        outputs=tuple((name, first + index) for index, (name, _) in enumerate(wiring.outputs)),
    )


def _rewired(
    network: Network,
    layers: tuple[Layer, ...],
    *,
    takes: tuple[tuple[int, ...], ...],
    outputs: tuple[tuple[str, int], ...],
) -> Network:
    return Network(
        network.name,
        network.input_size,
        layers,
        written_by=network.written_by,
        wiring=replace(network.wiring, takes=takes, outputs=outputs),
    )


def _of(part: TensorPart) -> slice:
    return slice(part.offset, part.offset + part.size)


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
