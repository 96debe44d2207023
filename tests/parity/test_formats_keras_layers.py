"""`read_keras` beside Keras itself: pointwise layers and embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from tests.parity.keras_models import (
    MARKS,
    TIME,
    check_parity,
    keras,
    layers,
    masked_inputs,
    sequential,
)

pytestmark = MARKS


POINTWISE = {
    "Dense": lambda: layers.Dense(4, activation="tanh"),
    "Dense without bias": lambda: layers.Dense(4, use_bias=False),
    "TimeDistributed": lambda: layers.TimeDistributed(layers.Dense(4, activation="relu")),
    "TimeDistributed normalisation": lambda: layers.TimeDistributed(layers.BatchNormalization()),
    "TimeDistributed LayerNormalization": lambda: layers.TimeDistributed(
        layers.LayerNormalization(axis=1)
    ),
    "TimeDistributed PReLU": lambda: layers.TimeDistributed(layers.PReLU()),
    "TimeDistributed Dropout": lambda: layers.TimeDistributed(layers.Dropout(0.5)),
    "Dropout": lambda: layers.Dropout(0.5),
    "SpatialDropout1D": lambda: layers.SpatialDropout1D(0.5),
    "GaussianNoise": lambda: layers.GaussianNoise(0.5),
    "GaussianDropout": lambda: layers.GaussianDropout(0.5),
    "AlphaDropout": lambda: layers.AlphaDropout(0.5),
    "ActivityRegularization": lambda: layers.ActivityRegularization(0.1),
    "Identity": layers.Identity,
    "ReLU": layers.ReLU,
    "ReLU with parameters": lambda: layers.ReLU(
        max_value=0.9, negative_slope=0.25, threshold=0.125
    ),
    "LeakyReLU": lambda: layers.LeakyReLU(negative_slope=0.125),
    "ELU": lambda: layers.ELU(alpha=0.5),
    "PReLU": lambda: layers.PReLU(shared_axes=[1]),
    "PReLU shared": lambda: layers.PReLU(shared_axes=[1, 2]),
    "BatchNormalization": lambda: layers.BatchNormalization(epsilon=0.01),
    "BatchNormalization axis 2": lambda: layers.BatchNormalization(axis=2, scale=False),
    "BatchNormalization frozen": lambda: layers.BatchNormalization(trainable=False, center=False),
    "BatchNormalization renorm": lambda: layers.BatchNormalization(renorm=True),
    "LayerNormalization": lambda: layers.LayerNormalization(epsilon=0.01),
    "LayerNormalization without": lambda: layers.LayerNormalization(scale=False, center=False),
    "LayerNormalization beta": lambda: layers.LayerNormalization(scale=False, axis=[2]),
    "LayerNormalization rms": lambda: layers.LayerNormalization(rms_scaling=True),
    "Normalization adapted": layers.Normalization,
    "Normalization inverted": lambda: layers.Normalization(invert=True),
    "Normalization of all": lambda: layers.Normalization(axis=None),
    "Normalization given": lambda: layers.Normalization(mean=[1, 2, 3], variance=[0, 1, 4]),
    "Normalization one number": lambda: layers.Normalization(mean=1.5, variance=4.0, invert=True),
    "Rescaling": lambda: layers.Rescaling(0.5, offset=1),
    "Rescaling vectors": lambda: layers.Rescaling(
        np.array([1.0, 2.0, 3.0]), offset=np.array([0.5, 0.0, 1.0])
    ),
    "Masking again": lambda: layers.Masking(0.5),
}


@pytest.mark.parametrize("name", POINTWISE)
def test_pointwise_layers(name, tmp_path):
    """Each stateless layer computes what Keras's does, and lets the mask through as it does."""
    inputs = masked_inputs()
    inputs[3, 2] = 0.5
    lstm = layers.LSTM(3, return_sequences=True)
    check_parity(sequential(layers.Masking(), POINTWISE[name](), lstm), tmp_path, inputs)


def test_layers_behind_the_last_step(tmp_path):
    """Behind the last LSTM an axis of 1 is the features', and PReLU has a slope for each."""
    head = [
        layers.LayerNormalization(axis=1),
        layers.BatchNormalization(axis=1),
        layers.Normalization(axis=1),
        layers.PReLU(),
        layers.Dense(4),
        layers.Softmax(axis=1),
    ]
    check_parity(sequential(layers.Masking(), layers.LSTM(4), *head), tmp_path)


@pytest.mark.parametrize("mask_zero", [False, True])
@pytest.mark.parametrize("is_functional", [False, True])
def test_embedding(mask_zero, is_functional, tmp_path):
    """Integers go through the table; zeros are masked if the layer says so."""
    ids = np.random.default_rng(0).integers(0, 4, (4, TIME))
    ids[2] = 0
    chain = [
        layers.Dropout(0.1),
        layers.Embedding(4, 5, mask_zero=mask_zero),
        layers.LSTM(3, return_sequences=True),
        layers.LSTM(2, return_sequences=True),
    ]
    if is_functional:
        inputs = outputs = keras.Input((None,), dtype="int32")
        for layer in chain[1:]:
            outputs = layer(outputs)
        model = keras.Model(inputs, outputs)
    else:
        model = keras.Sequential([keras.Input((None,)), *chain])
    network = check_parity(model, tmp_path, ids, is_compiled=True)
    assert (network.input_size, network.vocabulary) == (1, 4)
