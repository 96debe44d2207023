"""What a document beside a model says of its numbers, where the model is a graph."""

from __future__ import annotations

import numpy as np
import pytest

from lstm_core.network import Network
from lstm_core.pointwise import Embedding
from lstm_core.runtime.cpu import CpuRuntime
from lstm_core.wiring import Wiring
from service.configured import normalised
from service.model_config import ModelConfig, Normalisation, Scaling
from tests.unit.graph_networks import INPUT_SIZE, REALS, Building, graph


def test_each_input_and_output_is_scaled_at_its_place():
    """Two inputs and two outputs, each with its part of the means and deviations."""
    building = Building(1)
    h = building.lstm(0)
    building.lstm(1)
    wiring = Wiring(
        inputs=(("a", 3), ("b", 1)),
        takes=tuple(building.takes),
        outputs=(("second", h + 1), ("first", h)),
    )
    network = Network("two", 4, tuple(building.layers), wiring=wiring)
    into, out = np.linspace(-1, 1, 4), np.linspace(-2, 2, 8)
    config = ModelConfig(
        normalisation=Normalisation(
            inputs=Scaling(mean=tuple(into), std=tuple(into + 2)),
            outputs=Scaling(mean=tuple(out), std=tuple(out + 3)),
        )
    )
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype(np.float32)

    scaled = CpuRuntime(normalised(network, config), 1).predict(x)

    plain = CpuRuntime(network, 1).predict(((x - into) / (into + 2)).astype(np.float32))
    np.testing.assert_allclose(scaled, plain * (out + 3) + out, rtol=1e-5, atol=1e-5)


def test_integers_beside_real_numbers_stay_as_they_are():
    """Means and deviations are those of the real numbers."""
    network = graph([("add", 0, 1)], 0)
    (words,) = (part.offset for part in network.inputs if part.vocabulary is not None)
    reals = [index for index in range(INPUT_SIZE) if index != words]
    into = np.linspace(-1, 1, REALS)
    scaling = Scaling(mean=tuple(into), std=tuple(into + 2))
    config = ModelConfig(normalisation=Normalisation(inputs=scaling))
    x = np.random.default_rng(0).normal(size=(2, 3, INPUT_SIZE)).astype(np.float32)
    x[..., words] = [[0, 1, 2], [3, 4, 5]]

    scaled = CpuRuntime(normalised(network, config), 1).predict(x)

    x[..., reals] = (x[..., reals] - into) / (into + 2)
    np.testing.assert_allclose(scaled, CpuRuntime(network, 1).predict(x), rtol=1e-5, atol=1e-5)
    building = Building(0)
    building.lstm(building.put(Embedding(name="e", table=building.draw(6, 4), mask_zero=False), 1))
    words_only = Network("words", 1, tuple(building.layers))
    with pytest.raises(ValueError, match="the model takes integers"):
        normalised(words_only, config)
    short = Scaling(mean=(0.0,), std=(1.0,))
    with pytest.raises(ValueError, match=f"expected {REALS} values, got 1"):
        normalised(network, ModelConfig(normalisation=Normalisation(inputs=short)))
