"""The three members of a `.keras` file, read with bounds and without following links.

Owns the zip and HDF5 safety: sizes are checked before memory is taken, and nothing outside the file
is opened. Knows no layer, but names the one that asks when its variables cannot be had.
"""

from __future__ import annotations

import io
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

import h5py
import numpy as np
import numpy.typing as npt

from lstm_core.errors import FormatError, SpecError, WeightsError

Float32 = npt.NDArray[np.float32]

MAX_METADATA_BYTES = 1 << 20
MAX_CONFIG_BYTES = 16 << 20
MAX_EXPANSION = 16
"""How many times its place in the file an array or the weights member may take in memory. Keras
stores both uncompressed; trained float weights hardly compress."""
MIN_BOUND_BYTES = 1 << 20
"""Below this no expansion is a danger."""

_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_FLOAT_BYTES = (2, 4, 8)


class VariableStore:
    """The HDF5 file inside the archive. Reads at most a bounded number of bytes in all."""

    def __init__(self, file: h5py.File, member_bytes: int) -> None:
        """Take an open file.

        Args:
            file: Owned by the caller, who closes it.
            member_bytes: Size of the HDF5 file.
        """
        self._file = file
        self._bytes_left = max(MIN_BOUND_BYTES, MAX_EXPANSION * member_bytes)

    def dataset(self, path: str) -> h5py.Dataset:
        """Return the dataset at a path of hard links.

        Raises:
            KeyError: There is none.
            ValueError: It is a link, or its data are elsewhere.
        """
        found: Any = self._file
        for part in path.split("/"):
            link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
            if link is None:
                raise KeyError(path)
            if not isinstance(link, h5py.HardLink):
                problem = f"{part} of {path} is a link, which is not followed"
                raise ValueError(problem)  # noqa: TRY004 - the file is at fault, not a caller
            found = found[part]
        if not isinstance(found, h5py.Dataset):
            raise KeyError(path)
        if found.external or found.is_virtual:
            raise ValueError(f"{path} keeps its data in other files, which are not opened")
        return found

    def read(self, dataset: h5py.Dataset) -> Float32:
        """Return a floating dataset as float32, bfloat16 included.

        Raises:
            ValueError: It holds something else, or claims more bytes than the file can hold.
        """
        dtype = dataset.dtype
        is_bfloat16 = dtype == np.dtype("V2") and dataset.attrs.get("dtype") == "bfloat16"
        if not is_bfloat16 and (dtype.kind != "f" or dtype.itemsize not in _FLOAT_BYTES):
            raise ValueError(f"holds {dtype}, not real numbers")
        self._bytes_left -= dataset.size * dtype.itemsize
        if self._bytes_left < 0:
            raise ValueError("claims more bytes than the file can hold")
        array = np.asarray(dataset[()])
        if is_bfloat16:
            # bfloat16 is the upper half of a float32.
            return (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(array, np.float32)


@dataclass(frozen=True, slots=True)
class Variables:
    """One layer's place in a store.

    Attributes:
        store: The store.
        layer: The layer's name, for messages.
        group: Path of its HDF5 group.
    """

    store: VariableStore
    layer: str
    group: str

    def child(self, name: str) -> Variables:
        """Return the place of a part of the layer, such as its cell."""
        return Variables(self.store, self.layer, f"{self.group}/{name}")

    def read(self, index: int, name: str, shape: tuple[int | None, ...]) -> Float32:
        """Return variable number `index` of the layer.

        Args:
            index: Its number.
            name: What it is, for messages.
            shape: What it shall have, None where any size will do.

        Returns:
            float32, C-contiguous, all finite.

        Raises:
            SpecError: It is missing, cannot be read, is not finite or has another shape.
        """
        path = f"{self.group}/vars/{index}"
        try:
            dataset = self.store.dataset(path)
            self._check_shape(name, dataset.shape, shape)
            array = self.store.read(dataset)
        except KeyError:
            raise SpecError(self.layer, f"its {name} is missing: no {path}") from None
        except WeightsError as error:
            raise SpecError(self.layer, str(error)) from error
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise SpecError(self.layer, f"its {name} at {path} cannot be read: {error}") from error
        if not np.isfinite(array).all():
            raise SpecError(self.layer, f"its {name} has values that are not finite in float32")
        return array

    def _check_shape(
        self, name: str, actual: tuple[int, ...], shape: tuple[int | None, ...]
    ) -> None:
        fits = len(actual) == len(shape) and all(
            want is None or want == have for want, have in zip(shape, actual, strict=True)
        )
        if not fits:
            padded = zip(shape, (*actual, *[0] * len(shape)), strict=False)
            expected = tuple(have if want is None else want for want, have in padded)
            raise WeightsError(name, expected, actual)


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
    """Open a `.keras` file of Keras 3.

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
    weights = data["model.weights.h5"]
    try:
        file = h5py.File(io.BytesIO(weights), "r")
    except (OSError, RuntimeError, ValueError) as error:
        problem = f"model.weights.h5 is damaged: {error}"
        raise FormatError(name, [problem], f"Keras {version}") from error
    with file:
        yield Archive(name, version, config, VariableStore(file, len(weights)))


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
    only = "only .keras files of Keras 3 are read"
    try:
        if Path(path).is_dir():
            is_saved_model = (Path(path) / "saved_model.pb").exists()
            what = "a TensorFlow SavedModel" if is_saved_model else "a directory"
            raise FormatError(path, [f"is {what}; {only}"])
        with Path(path).open("rb") as file:
            start = file.read(len(_HDF5_SIGNATURE))
    except FileNotFoundError as error:
        raise FormatError(path, ["there is no such file"]) from error
    except OSError as error:
        raise FormatError(path, [f"cannot be read: {error.strerror}"]) from error
    if start == _HDF5_SIGNATURE:
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
    return archive.read(info)


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
    if not version.startswith("3."):
        raise FormatError(path, [f"was written by Keras {version}; only files of Keras 3 are read"])
    return version
