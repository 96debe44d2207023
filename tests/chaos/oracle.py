"""What one uninterrupted run of a model gives, in float64, from the weights in its file.

Knows the chain of the bundled vowels model, and nothing of the service or of `lstm_core`.
"""

import json
import zipfile
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

MODEL_FILE = Path(__file__).parents[2] / "service" / "bundled" / "vowels.keras"
_CHAIN = ["InputLayer", "Masking", "Normalization", "GaussianNoise", "LSTM", "Dropout", "Dense"]
_SMALLEST_DEVIATION = 1e-7
"""Keras's, where a feature never varies."""


class Carry(NamedTuple):
    """Where a run is.

    Attributes:
        h: `(units,)` float64.
        c: `(units,)` float64.
    """

    h: np.ndarray
    c: np.ndarray


class Oracle:
    """The model.

    Attributes:
        input_size: Features of a time step.
    """

    def __init__(self, path=MODEL_FILE):
        """Read a model's file.

        Raises:
            ValueError: It is another chain of layers than this knows.
        """
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            weights = BytesIO(archive.read("model.weights.h5"))
        chain = [layer["class_name"] for layer in config["config"]["layers"]]
        if chain != _CHAIN:
            raise ValueError(f"expected a chain of {_CHAIN}, got {chain}")
        with h5py.File(weights) as file:
            self._mean, variance = _read(file, "normalization", 2)
            self._kernel, self._recurrent, self._bias = _read(file, "lstm", 3)
            self._dense, self._dense_bias = _read(file, "dense", 2)
        self._deviation = np.maximum(np.sqrt(variance), _SMALLEST_DEVIATION)
        self.input_size = len(self._kernel)
        self._units = len(self._recurrent)

    def begin(self):
        """Return where a session begins."""
        return Carry(np.zeros(self._units), np.zeros(self._units))

    def advance(self, carry, inputs, mask=None):
        """Take time steps.

        Args:
            carry: Where the run is.
            inputs: `(time, input_size)` float32.
            mask: `(time,)` bool, true where a step is live; None means everywhere. The first step
                of a session must be live.

        Returns:
            The outputs, `(time, output_size)` float64, and where the run is then.
        """
        projected = (inputs.astype(np.float64) - self._mean) / self._deviation @ self._kernel
        projected += self._bias
        hidden = []
        h, c = carry
        for index, step in enumerate(projected):
            if mask is None or mask[index]:
                gates = (step + h @ self._recurrent).reshape(4, -1)
                i, f, _, o = 1 / (1 + np.exp(-gates))
                c = f * c + i * np.tanh(gates[2])
                h = o * np.tanh(c)
            # A masked step repeats the output, which is that of the same h.
            hidden.append(h)
        return _softmax(np.array(hidden) @ self._dense + self._dense_bias), Carry(h, c)


def _read(file, layer, count):
    """Return the first variables of a layer, in float64."""
    return [file[f"layers/{layer}/vars/{n}"][()].astype(np.float64) for n in range(count)]


def _softmax(x):
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)
