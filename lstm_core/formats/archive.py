"""The three members of a `.keras` file, read with bounds.

Owns the zip's safety: sizes are checked before memory is taken. Knows no layer.
"""

from __future__ import annotations

import copy
import json
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lstm_core.errors import FormatError
from lstm_core.formats.hdf5 import (
    MAX_EXPANSION,
    MIN_BOUND_BYTES,
    SIGNATURE,
    VariableStore,
    open_hdf5,
)

MAX_METADATA_BYTES = 1 << 20
MAX_CONFIG_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Archive:
    """What a `.keras` file holds.

    Attributes:
        path: The file, as it was named.
        keras_version: Of the Keras that wrote it.
        config: The model's serialised form.
        store: Its variables.
    """

    path: str
    keras_version: str
    config: dict[str, Any]
    store: VariableStore


@contextmanager
def open_archive(path: str | os.PathLike[str]) -> Iterator[Archive]:
    """Open a `.keras` file of Keras 3 or tf_keras.

    Args:
        path: The file.

    Yields:
        The archive, whose store can be read until the context ends.

    Raises:
        FormatError: There is no such file, it is another format, or it is damaged.
    """
    name = os.fspath(path)
    data = _read_members(name)
    version = _keras_version(name, _json(name, "metadata.json", data["metadata.json"]))
    config = _json(name, "config.json", data["config.json"])
    with open_hdf5(name, data["model.weights.h5"]) as store:
        yield Archive(name, version, config, store)


def _read_members(path: str) -> dict[str, bytes]:
    bounds = {"metadata.json": MAX_METADATA_BYTES, "config.json": MAX_CONFIG_BYTES}
    _refuse_other_formats(path)
    try:
        size = Path(path).stat().st_size
        bounds["model.weights.h5"] = max(MIN_BOUND_BYTES, MAX_EXPANSION * size)
        with zipfile.ZipFile(path) as archive:
            return {member: _read(path, archive, member, bounds[member]) for member in bounds}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(path, [f"is a damaged .keras file: {error}"]) from error


def _refuse_other_formats(path: str) -> None:
    """Say what it is instead, where that is easy to see."""
    only = "this reads .keras files"
    try:
        if Path(path).is_dir():
            is_saved_model = (Path(path) / "saved_model.pb").exists()
            what = "a TensorFlow SavedModel" if is_saved_model else "a directory"
            raise FormatError(path, [f"is {what}; {only}"])
        with Path(path).open("rb") as file:
            start = file.read(len(SIGNATURE))
    except FileNotFoundError as error:
        raise FormatError(path, ["there is no such file"]) from error
    except OSError as error:
        raise FormatError(path, [f"cannot be read: {error.strerror}"]) from error
    if start == SIGNATURE:
        raise FormatError(path, [f"is an HDF5 file (a legacy .h5 model or mere weights); {only}"])
    if not start.startswith(b"PK"):
        raise FormatError(path, [f"is not a zip archive; {only}"])


def _read(path: str, archive: zipfile.ZipFile, member: str, bound: int) -> bytes:
    try:
        info = archive.getinfo(member)
    except KeyError:
        raise FormatError(path, [f"is not a .keras file: it has no {member}"]) from None
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise FormatError(path, [f"{member} is packed in a way that Keras never uses"])
    if info.file_size > bound:
        problem = f"{member} unpacks to {info.file_size} bytes, more than the {bound} allowed"
        raise FormatError(path, [problem])
    # One byte more than it tells, since `zipfile` unpacks all that is there whatever a file tells.
    asked = copy.copy(info)
    asked.file_size += 1
    with archive.open(asked) as packed:
        data = packed.read(asked.file_size)
    if len(data) != info.file_size:
        raise FormatError(path, [f"{member} is not of the {info.file_size} bytes that it tells"])
    return data


def _json(path: str, member: str, data: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise FormatError(path, [f"{member} is not valid JSON: {error}"]) from error
    if not isinstance(parsed, dict):
        raise FormatError(path, [f"{member} holds no JSON object"])
    return parsed


def _keras_version(path: str, metadata: dict[str, Any]) -> str:
    version = metadata.get("keras_version")
    if not isinstance(version, str) or not re.match(r"\d+\.", version):
        raise FormatError(path, ["metadata.json does not tell the version of Keras"])
    if not version.startswith(("2.", "3.")):
        problem = f"was written by Keras {version}; files of Keras 2 and 3 are read"
        raise FormatError(path, [problem])
    return version
