"""`.keras` and `.h5` files of tf_keras beside tf_keras itself: every layer that is read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lstm_core.formats.read import read_network
from lstm_core.runtime.cpu import CpuRuntime

pytest.importorskip("tensorflow")
keras = pytest.importorskip("tf_keras")
layers = keras.layers

FEATURES = 3


def inputs() -> np.ndarray[Any, Any]:
    """Draw inputs with zero steps at the start, at the end, between, and a row of nothing else."""
    drawn = np.random.default_rng(1).normal(size=(4, 5, FEATURES)).astype(np.float32)
    drawn[0, [0, 1, 3]] = 0
    drawn[1, 4:] = 0
    drawn[2] = 0
    return drawn


def pointwise() -> list[Any]:
    """Return every layer without a state that lets a mask through."""
    return [
        layers.Masking(),
        layers.Dense(4, activation="swish"),
        layers.BatchNormalization(axis=2, epsilon=0.01),
        layers.ReLU(max_value=2.0, negative_slope=0.25, threshold=0.125),
        layers.Dense(4, use_bias=False, activation="gelu"),
        layers.LayerNormalization(),
        layers.LeakyReLU(),
        layers.TimeDistributed(layers.Dense(4, activation="hard_sigmoid")),
        layers.BatchNormalization(scale=False, trainable=False),
        layers.ELU(0.5),
        layers.Dense(3, activation="exponential"),
        layers.TimeDistributed(layers.LayerNormalization(scale=False)),
        layers.PReLU(shared_axes=[1]),
        layers.ThresholdedReLU(0.1),
        layers.Activation("selu"),
        layers.GaussianNoise(0.1),
        layers.SpatialDropout1D(0.1),
        layers.LSTM(3, return_sequences=True),
    ]


def recurrent() -> list[Any]:
    """Return LSTMs with every argument that matters, behind a mask."""
    cells = [layers.LSTMCell(2), layers.LSTMCell(3, recurrent_activation="hard_sigmoid")]
    return [
        layers.Masking(),
        layers.LSTM(4, return_sequences=True, dropout=0.2, recurrent_dropout=0.1),
        layers.LSTM(3, go_backwards=True, return_sequences=True, zero_output_for_mask=True),
        layers.Bidirectional(layers.LSTM(2, return_sequences=True), merge_mode="mul"),
        layers.Bidirectional(
            layers.LSTM(2, return_sequences=True, use_bias=False),
            backward_layer=layers.LSTM(2, return_sequences=True, go_backwards=True),
        ),
        layers.RNN(cells, return_sequences=True),
        layers.LSTM(3),
        layers.Dense(2, activation="softmax"),
    ]


def unmasked() -> list[Any]:
    """Return the layers that do not let a mask through."""
    return [
        layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[1.0, 4.0, 9.0]),
        layers.Rescaling(2.0, offset=0.5),
        layers.Softmax(),
        layers.LSTM(3, return_sequences=True),
        layers.Normalization(axis=None),
        layers.LSTM(2),
    ]


@pytest.mark.parametrize("chain", [pointwise, recurrent, unmasked])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_every_layer(chain, tmp_path):
    """Each layer computes what tf_keras's does, from both kinds of file."""
    model = keras.Sequential([keras.Input((None, FEATURES)), *chain()])
    random = np.random.default_rng(0)
    model.set_weights(
        [
            np.abs(random.normal(size=weight.shape)) + 0.5
            if "variance" in weight.name
            else random.normal(size=weight.shape).astype(weight.dtype.as_numpy_dtype)
            for weight in model.weights
        ]
    )
    for layer in model.layers:
        if isinstance(layer, layers.Normalization):
            layer.finalize_state()
    expected = model(inputs())
    for suffix in ("keras", "h5"):
        path = tmp_path / f"model.{suffix}"
        model.save(path)
        predicted = CpuRuntime(read_network(path), 1).predict(inputs())
        np.testing.assert_allclose(predicted, expected, rtol=0, atol=2e-6)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_operations_with_numbers_and_quotients(tmp_path):
    """A number that comes first is no tensor, and values are divided by each other."""
    reals = keras.Input((None, FEATURES))
    x = layers.LSTM(FEATURES, return_sequences=True)(reals)
    model = keras.Model(reals, (1.0 - x) * reals + x / (2.0 + reals * reals))
    expected = np.asarray(model(inputs(), training=False))
    for name in ("model.keras", "model.h5"):
        model.save(tmp_path / name)
        told = CpuRuntime(read_network(tmp_path / name), 1).predict(inputs())
        np.testing.assert_allclose(told, expected, rtol=1e-6, atol=1e-6)
