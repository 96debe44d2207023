"""The weights of Keras's older HDF5 layout: a group for each layer, its weights listed by name.

Owns that layout, from Keras 1 to what Keras 3 still writes under the name `.h5`. Knows no layer's
arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lstm_core.errors import SpecError
from lstm_core.formats.hdf5 import VariableStore
from lstm_core.formats.keras_config import LayerConfig
from lstm_core.formats.tensors import Float32, StoredTensor
from lstm_core.formats.variables import NamedVariables

Listed = Sequence[tuple[str, StoredTensor]]

_ARRAYS_PER_LSTM = 12
"""In Keras 1: kernel, recurrent kernel and bias of a gate, then of the next."""
_KERAS_1_GATES = {"i": 0, "f": 2, "c": 1, "o": 3}
"""The number of each gate in Keras 1, in the order of `spec.GATE_ORDER`."""


@dataclass(frozen=True, slots=True)
class LegacyWeights:
    """The weights of a whole model.

    Attributes:
        store: The file.
        root: The group that has a group for each layer; empty where that is the file itself.
        version: Of the Keras that wrote it.
        model: The model's name, empty where that is not known.
    """

    store: VariableStore
    root: str
    version: str
    model: str = ""

    def place(self, layer: LayerConfig) -> NamedVariables:
        """Return a layer's variables.

        Raises:
            SpecError: The list of them cannot be read.
        """
        listed = self._listed(layer)
        if len(layer.names) > 1:
            listed = belonging(listed, layer.names, self.model)
        if self.version.startswith("1.") and layer.kind in {"LSTM", "Bidirectional"}:
            listed = _with_joined_gates(listed)
        return NamedVariables(layer=layer.name, listed=listed)

    def _listed(self, layer: LayerConfig) -> Listed:
        group = f"{self.root}/{layer.names[0]}"
        if not self.store.has(group):
            return []
        try:
            names = self.store.names(group, "weight_names") or []
            return [
                (name.removesuffix(":0"), self.store.stored(f"{group}/{name}")) for name in names
            ]
        except KeyError as error:
            raise SpecError(layer.name, f"its weights are missing: no {error.args[0]}") from None
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise SpecError(layer.name, f"its weights cannot be read: {error}") from error


def belonging(listed: Listed, names: Sequence[str], model: str) -> Listed:
    """Return those of a model's variables that belong to one layer of it.

    Args:
        listed: The variables of a whole model.
        names: The names of the models in that one that the layer is in, and its own.
        model: The name of the whole model. Not every release puts the names of models into those
            of variables, but none puts other layers' names there.
    """
    around, own = {model, *names[:-1]}, names[-1]
    chosen = []
    for name, stored in listed:
        parts = name.split("/")
        if own in parts and around.issuperset(parts[: parts.index(own)]):
            chosen.append((name, stored))
    return chosen


def _with_joined_gates(listed: Listed) -> Listed:
    """Return the variables of LSTMs of Keras 1 as Keras 2 has them."""
    if len(listed) % _ARRAYS_PER_LSTM:
        return listed
    joined = []
    for start in range(0, len(listed), _ARRAYS_PER_LSTM):
        owner = listed[start][0].replace("/", "_")
        for index, name in enumerate(("kernel", "recurrent_kernel", "bias")):
            gates = [listed[start + 3 * gate + index][1] for gate in _KERAS_1_GATES.values()]
            joined.append((f"{owner}/{name}", _side_by_side(gates)))
    return joined


def _side_by_side(parts: Sequence[StoredTensor]) -> StoredTensor:
    def load() -> Float32:
        return np.concatenate([part.load() for part in parts], axis=-1)

    shape = parts[0].shape
    is_even = all(part.shape == shape for part in parts) and shape
    joined = (*shape[:-1], len(parts) * shape[-1]) if is_even else ()
    return StoredTensor(shape=joined, dtype=parts[0].dtype, load=load)
