"""The weights of Keras's `.keras` and `.weights.h5` files: numbered, in a group for each object.

Owns where Keras 3, tf_keras and Keras 2 from 2.12 on put that group. Knows no layer's arithmetic.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lstm_core.formats.hdf5 import VariableStore
from lstm_core.formats.keras_config import LayerConfig
from lstm_core.formats.tensors import StoredTensor
from lstm_core.formats.variables import Variables

_OLDER_ROOT = "_layer_checkpoint_dependencies"
"""What Keras 2.12 to 2.14 call the groups that are `layers` before and after."""
_COUNTED_TWICE = ("2.12", "2.13")
"""The versions that list a layer with weights twice, and so number every second one."""


@dataclass(frozen=True, slots=True)
class NumberedVariables(Variables):
    """A layer's variables: `GROUP/vars/0` and so on.

    Attributes:
        store: The store.
        layer: The layer's name, for messages.
        group: Path of its HDF5 group.
    """

    store: VariableStore
    layer: str
    group: str

    def child(self, part: str, index: int = 0) -> NumberedVariables:  # noqa: ARG002
        """Return the variables of a part: the group of that name."""
        return NumberedVariables(self.store, self.layer, f"{self.group}/{part}")

    def find(self, index: int, name: str) -> StoredTensor:  # noqa: ARG002
        """Return the variable of that number."""
        return self.store.stored(f"{self.group}/vars/{index}")


@dataclass(frozen=True, slots=True)
class NumberedWeights:
    """The weights of a whole model.

    Attributes:
        store: The file.
        version: Of the Keras that wrote it.
    """

    store: VariableStore
    version: str

    def place(self, layer: LayerConfig) -> NumberedVariables:
        """Return a layer's variables."""
        group = layer.group
        if self.store.has(_OLDER_ROOT):
            group = re.sub(r"\blayers/(.+?)(_\d+)?(?=/|$)", self._older, group)
        return NumberedVariables(self.store, layer.name, group)

    def _older(self, match: re.Match[str]) -> str:
        number = int((match[2] or "_0")[1:])
        if self.version.startswith(_COUNTED_TWICE):
            number *= 2
        return f"{_OLDER_ROOT}/{match[1]}" + (f"_{number}" if number else "")


def is_numbered(store: VariableStore) -> bool:
    """Return whether a file has weights of this layout."""
    return store.has("layers") or store.has(_OLDER_ROOT)
