"""A model file of any format into a network: the reader is chosen by what the file holds.

Owns which formats there are and how each is known. Knows nothing of what is inside them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lstm_core.errors import FormatError
from lstm_core.formats.keras import read_keras
from lstm_core.formats.keras_checkpoint import is_keras_checkpoint, read_keras_checkpoint
from lstm_core.formats.keras_h5 import is_keras_h5, read_keras_h5
from lstm_core.formats.keras_weights import is_keras_weights, read_keras_weights
from lstm_core.formats.network_file import is_network_file, read_network_file
from lstm_core.formats.onnx import read_onnx
from lstm_core.formats.onnx_model import is_onnx
from lstm_core.formats.safetensors import is_safetensors
from lstm_core.formats.saved_model import is_saved_model, read_saved_model
from lstm_core.formats.tf1_checkpoint import is_tf1_checkpoint, read_tf1_checkpoint
from lstm_core.formats.torch import read_torch, read_torch_safetensors
from lstm_core.formats.torch_archive import is_torch
from lstm_core.network import Network

START_BYTES = 4096
"""How much of a file's start tells its format."""

Sniff = Callable[[Path, bytes], bool]
"""Whether a path is of a format. It is given the file's first bytes, `b""` for what is no file: a
directory, or the common beginning of several files' names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A file format.

    Attributes:
        name: What messages call it.
        is_at: Whether a path is of it. Reads little, and raises nothing but OSError.
        read: Reads it, or raises FormatError with what stands in the way.
    """

    name: str
    is_at: Sniff
    read: Callable[[str | os.PathLike[str]], Network]


def _is_zip(_path: Path, start: bytes) -> bool:
    return start.startswith(b"PK")


FORMATS = (
    Format(name="a network as safetensors", is_at=is_network_file, read=read_network_file),
    Format(name="a PyTorch safetensors", is_at=is_safetensors, read=read_torch_safetensors),
    Format(name="a PyTorch file", is_at=is_torch, read=read_torch),
    Format(name="a .keras file", is_at=_is_zip, read=read_keras),
    Format(name="a .h5 file of Keras", is_at=is_keras_h5, read=read_keras_h5),
    Format(name="a .weights.h5 of Keras", is_at=is_keras_weights, read=read_keras_weights),
    Format(name="a SavedModel", is_at=is_saved_model, read=read_saved_model),
    Format(name="a checkpoint of Keras 2", is_at=is_keras_checkpoint, read=read_keras_checkpoint),
    Format(name="a TensorFlow 1 checkpoint", is_at=is_tf1_checkpoint, read=read_tf1_checkpoint),
    Format(name="an ONNX file", is_at=is_onnx, read=read_onnx),
)
"""Every format that is read, in the order in which they are asked: those that are surest of a file
first."""


def format_at(path: str | os.PathLike[str]) -> Format:
    """Return the format of a file or directory.

    Raises:
        FormatError: There is no such file, it cannot be read, or no format is known of it.
    """
    place = _named(path)
    try:
        start = b""
        if place.is_file():
            with place.open("rb") as file:
                start = file.read(START_BYTES)
        for known in FORMATS:
            if place.name and known.is_at(place, start):
                return known
        exists = place.exists()
    except OSError as error:
        raise FormatError(str(place), [f"cannot be read: {error.strerror}"]) from error
    if not exists:
        raise FormatError(str(place), ["there is no such file"])
    read = ", ".join(known.name for known in FORMATS)
    raise FormatError(str(place), [f"is of no format that is read here; those are: {read}"])


def read_network(path: str | os.PathLike[str]) -> Network:
    """Read a model.

    Args:
        path: A file, or what else the format has: a directory, or a prefix of files' names. Its
            name decides nothing. No code in it is run.

    Returns:
        The network, its weights float32.

    Raises:
        FormatError: There is no such file, it is of no known format, it is damaged, or it holds
            something that cannot be served; then `problems` names every such part and why.
    """
    return format_at(path).read(_named(path))


def _named(path: str | os.PathLike[str]) -> Path:
    """Return a path whose last part is a name, which it is not in `.` and `..`.

    Files beside a model are found by its name.
    """
    place = Path(path)
    return place.resolve() if place.name in {"", ".."} else place
