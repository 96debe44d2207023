"""The network that the benchmarks serve, 32 inputs -> LSTM of 128 units -> Dense of 8, as a file.

Written as Keras 3 would write it, so that it needs no TensorFlow and is served like any other.
"""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from lstm_core import equations
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights, initialize

INPUT_SIZE, UNITS, OUTPUT_SIZE = 32, 128, 8
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrays:
    """The network's weights, all float32.

    Attributes:
        kernel: `(INPUT_SIZE, 4 * UNITS)`, gates in Keras's order.
        recurrent_kernel: `(UNITS, 4 * UNITS)`, likewise.
        bias: `(4 * UNITS,)`, likewise.
        head_kernel: `(UNITS, OUTPUT_SIZE)`.
        head_bias: `(OUTPUT_SIZE,)`.
    """

    kernel: Float32
    recurrent_kernel: Float32
    bias: Float32
    head_kernel: Float32
    head_bias: Float32


def read_arrays(path: str | Path) -> Arrays:
    """Read the weights from the file that `write_bench_model` wrote."""
    with (
        zipfile.ZipFile(path) as archive,
        h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file,
    ):
        lstm, head = file["layers/lstm/cell/vars"], file["layers/dense/vars"]
        return Arrays(
            kernel=lstm["0"][()],
            recurrent_kernel=lstm["1"][()],
            bias=lstm["2"][()],
            head_kernel=head["0"][()],
            head_bias=head["1"][()],
        )


def expected_outputs(path: Path, inputs: Float32) -> npt.NDArray[np.float64]:
    """Return what the equations of the LSTM give from zeros, in float64.

    Args:
        path: Of the model's file.
        inputs: `(time, INPUT_SIZE)`.

    Returns:
        `(time, OUTPUT_SIZE)` float64.
    """
    arrays = read_arrays(path)
    spec = LSTMSpec(input_size=INPUT_SIZE, units=UNITS)
    weights = LSTMWeights(
        kernel=arrays.kernel, recurrent_kernel=arrays.recurrent_kernel, bias=arrays.bias
    )
    h, c = np.zeros((1, UNITS)), np.zeros((1, UNITS))
    outputs = np.empty((len(inputs), OUTPUT_SIZE))
    for t, x in enumerate(inputs):
        h, c = equations.step(spec, weights, x[None], h=h, c=c)
        outputs[t] = h[0] @ arrays.head_kernel + arrays.head_bias
    return outputs


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
