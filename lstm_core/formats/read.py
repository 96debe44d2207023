"""A model file of any format into a network: the reader is chosen by what the file holds.

Owns which formats there are, and the first bytes of their files. Knows nothing of what is inside
them. A reader is imported for a file that may be its own, so that a server loads the few that its
models need.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lstm_core.errors import FormatError
from lstm_core.network import Network

START_BYTES = 4096
"""How much of a file's start tells its format."""

Sniff = Callable[[Path, bytes], bool]
"""Whether a path is of a format. It is given the file's first bytes, `b""` for what is no file: a
directory, or the common beginning of several files' names. It reads little, and raises nothing but
OSError."""
Read = Callable[[str | os.PathLike[str]], Network]
"""Reads a file, or raises FormatError with what stands in the way."""

_ANY = re.compile(b"")
_NO_FILE = re.compile(rb"\Z")
_HDF5 = re.compile(rb"\x89HDF\r\n\x1a\n")
_OTHER_ZIP = re.compile(rb"PK(?!.{28}metadata\.json)", re.DOTALL)
"""What Keras puts first into its own zip archives is in none of PyTorch's."""
_PICKLE_OR_ZIP = re.compile(rb"\x80|" + _OTHER_ZIP.pattern, re.DOTALL)
_NODE = re.compile(rb"\n")
_PROTOBUF = re.compile(rb"\x08")
_SAFETENSORS = re.compile(rb".{8}\{", re.DOTALL)
_ZIP = re.compile(rb"PK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """A file format.

    Attributes:
        name: What messages call it.
        start: What the first bytes of its files match, and those of other files may.
        reader: Imports what reads it, and returns how a file is known and how it is read.
    """

    name: str
    start: re.Pattern[bytes]
    reader: Callable[[], tuple[Sniff, Read]]


def _network_file() -> tuple[Sniff, Read]:
    from lstm_core.formats.network_file import is_network_file, read_network_file

    return is_network_file, read_network_file


def _torch_safetensors() -> tuple[Sniff, Read]:
    from lstm_core.formats.safetensors import is_safetensors
    from lstm_core.formats.torch import read_torch_safetensors

    return is_safetensors, read_torch_safetensors


def _torch() -> tuple[Sniff, Read]:
    from lstm_core.formats.torch import read_torch
    from lstm_core.formats.torch_archive import is_torch

    return is_torch, read_torch


def _torch_export() -> tuple[Sniff, Read]:
    from lstm_core.formats.torch_export import is_torch_export, read_torch_export

    return is_torch_export, read_torch_export


def _keras() -> tuple[Sniff, Read]:
    from lstm_core.formats.keras import read_keras

    return lambda _path, _start: True, read_keras


def _keras_h5() -> tuple[Sniff, Read]:
    from lstm_core.formats.keras_h5 import is_keras_h5, read_keras_h5

    return is_keras_h5, read_keras_h5


def _keras_weights() -> tuple[Sniff, Read]:
    from lstm_core.formats.keras_weights import is_keras_weights, read_keras_weights

    return is_keras_weights, read_keras_weights


def _saved_model() -> tuple[Sniff, Read]:
    from lstm_core.formats.saved_model import is_saved_model, read_saved_model

    return is_saved_model, read_saved_model


def _onnx() -> tuple[Sniff, Read]:
    from lstm_core.formats.onnx import read_onnx
    from lstm_core.formats.onnx_model import is_onnx

    return is_onnx, read_onnx


def _frozen_graph() -> tuple[Sniff, Read]:
    from lstm_core.formats.frozen_graph import read_frozen_graph
    from lstm_core.formats.frozen_graph_nodes import is_frozen_graph

    return is_frozen_graph, read_frozen_graph


def _keras_checkpoint() -> tuple[Sniff, Read]:
    from lstm_core.formats.keras_checkpoint import is_keras_checkpoint, read_keras_checkpoint

    return is_keras_checkpoint, read_keras_checkpoint


def _tf1_checkpoint() -> tuple[Sniff, Read]:
    from lstm_core.formats.tf1_checkpoint import is_tf1_checkpoint, read_tf1_checkpoint

    return is_tf1_checkpoint, read_tf1_checkpoint


FORMATS = (
    Format(name="a network as safetensors", start=_SAFETENSORS, reader=_network_file),
    Format(name="a PyTorch safetensors", start=_SAFETENSORS, reader=_torch_safetensors),
    Format(name="a PyTorch file", start=_PICKLE_OR_ZIP, reader=_torch),
    Format(name="a program of torch.export", start=_OTHER_ZIP, reader=_torch_export),
    Format(name="a .keras file", start=_ZIP, reader=_keras),
    Format(name="a .h5 file of Keras", start=_HDF5, reader=_keras_h5),
    Format(name="a .weights.h5 of Keras", start=_HDF5, reader=_keras_weights),
    Format(name="a SavedModel", start=_NO_FILE, reader=_saved_model),
    Format(name="an ONNX file", start=_PROTOBUF, reader=_onnx),
    Format(name="a frozen graph of TensorFlow", start=_NODE, reader=_frozen_graph),
    Format(name="a checkpoint of Keras 2", start=_ANY, reader=_keras_checkpoint),
    Format(name="a TensorFlow 1 checkpoint", start=_ANY, reader=_tf1_checkpoint),
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
            if place.name and known.start.match(start):
                is_at, _ = known.reader()
                if is_at(place, start):
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
    _, read = format_at(path).reader()
    return read(_named(path))


def _named(path: str | os.PathLike[str]) -> Path:
    """Return a path whose last part is a name, which it is not in `.` and `..`.

    Files beside a model are found by its name.
    """
    place = Path(path)
    return place.resolve() if place.name in {"", ".."} else place
