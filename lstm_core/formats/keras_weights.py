"""Reads weights without their model: `model.save_weights("….weights.h5")`, or `….h5`.

The model comes from a JSON file beside them, as `model.to_json()` writes it. For `NAME.weights.h5`
or `NAME.h5` it is `NAME.json`, else `config.json` in the same directory, which is also what a
`.keras` file unpacks to.
"""

from __future__ import annotations

import os
from pathlib import Path

from lstm_core.errors import FormatError
from lstm_core.formats.hdf5 import SIGNATURE, VariableStore, open_hdf5
from lstm_core.formats.keras_json import read_architecture
from lstm_core.formats.keras_legacy_weights import LegacyWeights
from lstm_core.formats.keras_network import Place, build_network
from lstm_core.formats.keras_numbered_weights import NumberedWeights, is_numbered
from lstm_core.network import Network


def is_keras_weights(_path: Path, start: bytes) -> bool:
    """Return whether a path is an HDF5 file, which is weights where it is no whole model.

    Args:
        start: The file's first bytes, `b""` for what is no file.
    """
    return start.startswith(SIGNATURE)


def read_keras_weights(path: str | os.PathLike[str]) -> Network:
    """Read a model from its weights and the JSON file beside them.

    Args:
        path: The file with the weights, of Keras 1, 2, 3 or tf_keras. No code in it is run.

    Returns:
        The network, its weights float32.

    Raises:
        FormatError: One of the files is missing, another format or damaged, or they hold something
            that cannot be served; then `problems` names every such layer and why.
    """
    name = os.fspath(path)
    with open_hdf5(name) as store:
        architecture = read_architecture(name, config_places(Path(path)))
        place = _place(name, store, architecture.version)
        return build_network(name, architecture.model, architecture.version, place)


def config_places(path: Path) -> list[Path]:
    """Return where the configuration of a file of weights is looked for."""
    stem = path.name.removesuffix(".h5").removesuffix(".weights")
    return [path.with_name(f"{stem}.json"), path.with_name("config.json")]


def _place(path: str, store: VariableStore, version: str) -> Place:
    """Return where each layer's variables are, in either layout.

    Args:
        path: The file, for messages.
        store: The file.
        version: Of the Keras that wrote the configuration.

    Raises:
        FormatError: It is neither.
    """
    try:
        if store.names("", "layer_names") is not None:
            return LegacyWeights(store, "", store.text("", "keras_version") or "1.0").place
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise FormatError(path, [f"its layer_names cannot be read: {error}"]) from error
    if is_numbered(store):
        return NumberedWeights(store, version).place
    raise FormatError(path, ["is an HDF5 file, but holds no weights as Keras lays them out"])
