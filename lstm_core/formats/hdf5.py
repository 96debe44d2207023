"""An HDF5 file of arrays, read with bounds and without following links.

Owns the HDF5 safety: sizes are checked before memory is taken, and nothing outside the file is
opened. Does not know what the arrays are.
"""

from __future__ import annotations

import io
import math
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from lstm_core.errors import FormatError
from lstm_core.formats.hdf5_heaps import check_heaps
from lstm_core.formats.tensors import Float32, StoredTensor, to_float32

MAX_EXPANSION = 16
"""How many times its place in the file an array may take in memory. Keras stores arrays
uncompressed; trained float weights hardly compress."""
MIN_BOUND_BYTES = 1 << 20
"""Below this no expansion is a danger."""
MAX_TEXT_BYTES = 16 << 20
"""Of an attribute: a model's configuration at most."""
MAX_NAMES_BYTES = 1 << 28
"""What an attribute's names may take where each of them is as long as the file. They may all be one
string of the file, so that only the product bounds them."""

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""How an HDF5 file begins."""

_FLOAT_BYTES = (2, 4, 8)


class VariableStore:
    """An open HDF5 file. Reads at most a bounded number of bytes of arrays in all."""

    def __init__(self, file: h5py.File, file_bytes: int) -> None:
        """Take an open file.

        Args:
            file: Owned by the caller, who closes it.
            file_bytes: Size of the HDF5 file.
        """
        self._file = file
        self._file_bytes = file_bytes
        self._bytes_left = max(MIN_BOUND_BYTES, MAX_EXPANSION * file_bytes)

    def dataset(self, path: str) -> h5py.Dataset:
        """Return the dataset at a path of hard links.

        Raises:
            KeyError: There is none.
            ValueError: It is damaged or a link, or its data are elsewhere.
        """
        found = self._object(path)
        if not isinstance(found, h5py.Dataset):
            raise KeyError(path)
        if found.external or found.is_virtual:
            raise ValueError(f"{path} keeps its data in other files, which are not opened")
        return found

    def has(self, path: str) -> bool:
        """Return whether there is anything at a path, be it damaged or a link, which has errors."""
        try:
            self._object(path)
        except KeyError:
            return False
        except ValueError:
            return True
        return True

    def _object(self, path: str) -> h5py.Group | h5py.Dataset:
        found: Any = self._file
        for part in filter(None, path.split("/")):
            try:
                link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
                inner = found[part] if isinstance(link, h5py.HardLink) else None
            except (KeyError, OSError, RuntimeError) as error:
                raise ValueError(f"{part} of {path} is damaged: {error}") from error
            if link is None:
                raise KeyError(path)
            if inner is None:
                raise ValueError(f"{part} of {path} is a link, which is not followed")
            found = inner
        return found

    def text(self, path: str, name: str) -> str | None:
        """Return an attribute that is one string, or None where there is none.

        Raises:
            ValueError: It is something else, or too long.
        """
        return self._text(self._object(path), name)

    def _text(self, owner: h5py.Group | h5py.Dataset, name: str) -> str | None:
        value = self._attribute(owner, name)
        if value is None:
            return None
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.reshape(-1)[0]
        if isinstance(value, bytes):
            value = value.decode("utf-8")
        if not isinstance(value, str):
            raise ValueError(f"attribute {name} holds no text")  # noqa: TRY004 - the file's fault
        return value

    def names(self, path: str, name: str) -> list[str] | None:
        """Return an attribute that is a list of strings, or None where there is none.

        Keras cuts what is too long for one attribute into `name0`, `name1` and so on.

        Raises:
            ValueError: It is something else, or too long.
        """
        owner = self._object(path)
        values = self._attribute(owner, name)
        if values is None:
            pieces: list[Any] = []
            while (piece := self._attribute(owner, f"{name}{len(pieces)}")) is not None:
                pieces.append(np.asarray(piece))
            if not pieces:
                return None
            values = np.concatenate(pieces)
        return [
            each.decode("utf-8") if isinstance(each, bytes) else str(each)
            for each in np.asarray(values).reshape(-1)
        ]

    def _attribute(self, owner: h5py.Group | h5py.Dataset, name: str) -> object:
        try:
            attributes = owner.attrs
            if name not in attributes:
                return None
            attribute = attributes.get_id(name)
            num_values = int(np.prod(attribute.shape, dtype=object))
            is_text = h5py.check_string_dtype(attribute.dtype) is not None
            if num_values == 0:  # which h5py writes as numbers
                return np.empty(0, object)
            if not is_text:
                # Not even read: a damaged type of another kind ends the process in the library.
                raise ValueError(f"attribute {name} holds no text")
            num_bytes = num_values * self._file_bytes
            is_long = num_values * attribute.dtype.itemsize > MAX_TEXT_BYTES
            if not is_long and num_bytes <= max(MAX_NAMES_BYTES, 256 * self._file_bytes):
                return attributes[name]
        except (KeyError, OSError, RuntimeError, TypeError) as error:
            raise ValueError(f"attribute {name} is damaged: {error}") from error
        raise ValueError(f"attribute {name} is too long")

    def read(self, dataset: h5py.Dataset) -> Float32:
        """Return a floating dataset as float32, bfloat16 included.

        Raises:
            ValueError: It holds something else, or claims more bytes than the file can hold.
        """
        dtype = dataset.dtype
        is_bfloat16 = dtype == np.dtype("V2") and self._text(dataset, "dtype") == "bfloat16"
        if not is_bfloat16 and (dtype.kind != "f" or dtype.itemsize not in _FLOAT_BYTES):
            raise ValueError(f"holds {dtype}, not real numbers")
        # What is cut into chunks is unpacked by whole chunks, which may be larger than the array.
        num_values = max(dataset.size, math.prod(dataset.chunks or ()))
        self._bytes_left -= num_values * dtype.itemsize
        if self._bytes_left < 0:
            raise ValueError("claims more bytes than the file can hold")
        array = np.asarray(dataset[()])
        if is_bfloat16:
            return to_float32(array.tobytes(), "bfloat16").reshape(array.shape)
        with np.errstate(over="ignore"):
            return np.ascontiguousarray(array, np.float32)

    def stored(self, path: str) -> StoredTensor:
        """Return the array at a path.

        Raises:
            KeyError: There is none.
            ValueError: It is a link, or its data are elsewhere.
        """
        dataset = self.dataset(path)

        def load() -> Float32:
            try:
                return self.read(dataset)
            except ValueError as error:
                raise ValueError(f"{path} {error}") from error

        return StoredTensor(shape=dataset.shape, dtype=str(dataset.dtype), load=load)


def _check(content: bytes | mmap.mmap) -> None:
    if content[: len(SIGNATURE)] != SIGNATURE:
        raise ValueError("it does not begin as one")
    check_heaps(content)


@contextmanager
def open_hdf5(path: str, data: bytes | None = None) -> Iterator[VariableStore]:
    """Open an HDF5 file.

    Args:
        path: The file, or what messages shall name.
        data: Its content where it is no file of its own.

    Yields:
        The store, which can be read until the context ends.

    Raises:
        FormatError: It is damaged, or no regular file.
    """
    what = "is a damaged HDF5 file" if data is None else "model.weights.h5 is damaged"
    try:
        if data is None and not Path(path).is_file():
            raise FormatError(path, ["is not a file"])
        size = Path(path).stat().st_size if data is None else len(data)
        if data is None:
            with (
                Path(path).open("rb") as opened,
                mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
            ):
                _check(content)
        else:
            _check(data)
        file = h5py.File(path if data is None else io.BytesIO(data), "r")
    except (OSError, RuntimeError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(path, [f"{what}: {error}"]) from error
    with file:
        yield VariableStore(file, size)
