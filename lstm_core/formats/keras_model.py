"""Reads a `.keras` file of Keras 3 with Keras itself, for the runtime that runs any of its layers.

Custom layers must be registered before: see `keras.saving.register_keras_serializable`. No code in
the file is run, as Keras's safe mode refuses the layers that have some.
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from importlib import import_module
from typing import Any

import h5py

from lstm_core.errors import FormatError
from lstm_core.formats.archive import open_archive

_OWN_LAYERS = ("cudnn", "cudnn_stack", "fused", "keras_v1", "lstm", "recurrent_tf14", "rnn_cell")
"""Rooms of `lstm_core.layers`, which Keras knows the layers of once they are imported."""
_FAULTS = (
    AttributeError,
    ImportError,
    IndexError,
    KeyError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What Keras raises at a file that it cannot read."""


def read_keras_model(path: str | os.PathLike[str]) -> Any:
    """Read a model for inference.

    Args:
        path: A file that `model.save("….keras")` of Keras 3 wrote.

    Returns:
        The `keras.Model`, not compiled.

    Raises:
        FormatError: There is no such file, it is another format or damaged, it holds code, or Keras
            does not know something in it.
        ModuleNotFoundError: There is no TensorFlow, or no Keras.
    """
    with open_archive(path) as archive:  # sizes are bounded before Keras takes the memory
        name, writer = archive.path, f"Keras {archive.keras_version}"
    _refuse_links(name, writer)
    import keras

    for room in _OWN_LAYERS:
        import_module(f"lstm_core.layers.{room}")
    try:
        return keras.saving.load_model(name, compile=False, safe_mode=True)
    except _FAULTS as error:
        problem = f"Keras {keras.__version__} cannot read it: {_reason(error)}"
        raise FormatError(name, [problem], writer) from error


def _refuse_links(path: str, writer: str) -> None:
    """Refuse weights that lie in other files, or lead there: Keras would follow."""
    with (
        zipfile.ZipFile(path) as archive,
        archive.open("model.weights.h5") as member,
        h5py.File(io.BytesIO(member.read()), "r") as file,
    ):
        found: list[str] = []

        def look(name: str, link: Any) -> None:
            item = file[name] if isinstance(link, h5py.HardLink) else None
            is_elsewhere = isinstance(item, h5py.Dataset) and (item.external or item.is_virtual)
            if item is None or is_elsewhere:
                found.append(name)

        file.visititems_links(look)
    if found:
        problem = f"{found[0]} in model.weights.h5 leads elsewhere, which is not followed"
        raise FormatError(path, [problem], writer)


def _reason(error: BaseException) -> str:
    unknown = re.search(r"Could not locate \w+ '([^']*)'", str(error))
    if unknown is not None:
        return f"nothing is registered as {unknown[1]}; import the module that does it before"
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:400]
