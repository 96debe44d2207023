"""The network that the benchmarks serve, 32 inputs -> LSTM of 128 units -> Dense of 8, as a file.

Written as Keras 3 would write it, so that it needs no TensorFlow and is served like any other.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lstm_core.spec import LSTMSpec
from lstm_core.weights import initialize

INPUT_SIZE, UNITS, OUTPUT_SIZE = 32, 128, 8


def write_bench_model(path: Path) -> None:
    """Write the network with random weights, the same each time."""

    def layer(class_name: str, **config: Any) -> dict[str, Any]:
        return {
            "module": "keras.layers",
            "class_name": class_name,
            "config": config,
            "registered_name": None,
        }

    layers = [
        layer("InputLayer", name="input", batch_shape=[None, None, INPUT_SIZE], dtype="float32"),
        layer("LSTM", name="lstm", units=UNITS, return_sequences=True),
        layer("Dense", name="head", units=OUTPUT_SIZE),
    ]
    model = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": "bench", "layers": layers},
    }
    lstm = initialize(LSTMSpec(input_size=INPUT_SIZE, units=UNITS), seed=0)
    head = np.random.default_rng(1).uniform(-0.1, 0.1, (UNITS, OUTPUT_SIZE)).astype(np.float32)
    variables = {
        "layers/lstm/cell/vars": (lstm.kernel, lstm.recurrent_kernel, lstm.bias),
        "layers/dense/vars": (head, np.zeros(OUTPUT_SIZE, np.float32)),
    }
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        for group, arrays in variables.items():
            for index, array in enumerate(arrays):
                file[f"{group}/{index}"] = array
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.0.0"}))
        archive.writestr("config.json", json.dumps(model))
        archive.writestr("model.weights.h5", weights.getvalue())
