"""Reads a whole model in HDF5 (`model.save("….h5")`) of Keras 1, 2 and 3 and of tf_keras.

The numbers are those of tf_keras 2.21, or of Keras 3.15 for its own files; the layers of Keras 1
and of TensorFlow 1 compute what their configs say, `hard_sigmoid` as it was then.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lstm_core.errors import FormatError
from lstm_core.formats.hdf5 import SIGNATURE, VariableStore, open_hdf5
from lstm_core.formats.keras_json import parse_config
from lstm_core.formats.keras_legacy_weights import LegacyWeights
from lstm_core.formats.keras_network import build_network
from lstm_core.network import Network

_OLDEST = "1.0"
"""Files that do not tell the version are of Keras 1."""


def is_keras_h5(path: Path, start: bytes) -> bool:
    """Return whether a path is an HDF5 file with a model's configuration in it, be it damaged.

    Args:
        path: The path.
        start: The file's first bytes, `b""` for what is no file.
    """
    if not start.startswith(SIGNATURE):
        return False
    try:
        with open_hdf5(str(path)) as store:
            return store.text("", "model_config") is not None
    except ValueError:
        return True


def read_keras_h5(path: str | os.PathLike[str]) -> Network:
    """Read a model, Sequential or functional.

    Args:
        path: A file that `model.save("….h5")` wrote. No code in it is run.

    Returns:
        The network, its weights float32.

    Raises:
        FormatError: There is no such file, it is another format or damaged, or it holds something
            that cannot be served; then `problems` names every such layer and why.
    """
    name = os.fspath(path)
    with open_hdf5(name) as store:
        model, version = _config(name, store)
        config = model.get("config")
        own_name = str(config.get("name")) if isinstance(config, dict) else ""
        weights = LegacyWeights(store, "model_weights", version, own_name)
        return build_network(name, model, version, weights.place)


def _config(path: str, store: VariableStore) -> tuple[dict[str, Any], str]:
    """Return the model's configuration and the version of Keras that wrote it.

    Raises:
        FormatError: There is none.
    """
    try:
        text = store.text("", "model_config")
        version = store.text("", "keras_version") or _OLDEST
        model = None if text is None else parse_config(text)
    except (OSError, RuntimeError, ValueError, TypeError, RecursionError) as error:
        raise FormatError(path, [f"its model_config cannot be read: {error}"]) from error
    if text is None:
        raise FormatError(path, ["has no model_config: it holds no model, mere weights at most"])
    if not isinstance(model, dict):
        raise FormatError(path, ["its model_config is no JSON object"])
    return model, version
