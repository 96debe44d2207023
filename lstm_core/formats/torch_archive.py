"""What `torch.save` wrote, read without PyTorch: a zip archive of a pickle and of raw storages.

Owns the archive's members and their bounds. Runs no code: see `torch_pickle`. Knows no layer.

References:
    PyTorch, torch/serialization.py (`_save`).
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lstm_core.errors import FormatError
from lstm_core.formats.torch_legacy import LegacyFile, is_legacy
from lstm_core.formats.torch_pickle import MAX_PICKLE_BYTES, RefusedNameError, Unpickler, Value
from lstm_core.formats.torch_script import ScriptNames
from lstm_core.formats.torch_storages import Storage, StorageReader

_SAVE_STATE = "save its state instead: torch.save(model.state_dict(), path)"


def is_torch(path: Path, start: bytes) -> bool:
    """Whether a file is one of `torch.save`, or any other pickle."""
    if start.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, ValueError, RuntimeError):
            return False
        return any(name.endswith("/data.pkl") for name in names)
    return len(start) > 2 and start[0] == 0x80 and 2 <= start[1] <= 5


@contextmanager
def open_torch(path: str | os.PathLike[str]) -> Iterator[Value]:
    """Open a file of `torch.save`.

    Yields:
        The object that was saved: dictionaries (`Attributed` for ordered ones, and for the modules
        of a TorchScript program), lists, numbers, texts, and `StoredTensor`s that can be read until
        the context ends.

    Raises:
        FormatError: It cannot be read, is damaged, is of another kind, or asks for code.
    """
    name = os.fspath(path)
    try:
        if is_legacy(Path(name)):
            with Path(name).open("rb") as stream:
                yield _loaded(name, "its content", LegacyFile(stream).load)
            return
        with _zip(name) as file:
            prefix = _prefix(name, file)
            archive = Archive(file, prefix, Path(name).stat().st_size)
            yield _loaded(name, "data.pkl", archive.load)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise FormatError(name, [f"is a damaged PyTorch file: {error}"]) from error


def _loaded(name: str, part: str, load: Callable[[], Value]) -> Value:
    try:
        return load()
    except RefusedNameError as error:
        problem = f"{error}; if it holds a whole module, {_SAVE_STATE}"
        raise FormatError(name, [problem]) from error
    except ValueError as error:
        raise FormatError(name, [f"{part} {error}"]) from error


def _zip(name: str) -> zipfile.ZipFile:
    with Path(name).open("rb") as file:
        start = file.read(2)
    if not start.startswith(b"PK"):
        problem = "is a bare pickle, which is never run; " + _SAVE_STATE
        raise FormatError(name, [problem])
    return zipfile.ZipFile(name)


def _prefix(name: str, file: zipfile.ZipFile) -> str:
    members = file.namelist()
    pickles = [member for member in members if member.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise FormatError(name, [f"is a damaged PyTorch file: it has {len(pickles)} data.pkl"])
    return pickles[0].removesuffix("data.pkl")


class Archive(StorageReader):
    """The zip archive of one file."""

    def __init__(self, file: zipfile.ZipFile, prefix: str, file_bytes: int) -> None:
        """Tell what the names of its members begin with, and its size."""
        super().__init__(file_bytes)
        self._file = file
        self._prefix = prefix
        # Members may overlap; read in all they are no more than the file.
        self._bytes_left = file_bytes

    def load(self) -> Value:
        """Return the object that was saved; ValueError if it is damaged, or asks for code."""
        self._check_byte_order()
        pickle = self.member("data.pkl", MAX_PICKLE_BYTES)
        names = ScriptNames(self.names()) if self._has("constants.pkl") else self.names()
        return Unpickler(names, self.storage).load(io.BytesIO(pickle))

    def _check_byte_order(self) -> None:
        if self._has("byteorder") and self.member("byteorder", 16) != b"little":
            raise ValueError("is of numbers that are not little-endian")

    def _has(self, member: str) -> bool:
        return self._prefix + member in self._file.NameToInfo

    def member_bytes(self, member: str) -> int:
        """Return the size of a member, 0 where there is none."""
        return self._file.getinfo(self._prefix + member).file_size if self._has(member) else 0

    def member(self, member: str, max_bytes: int) -> bytes:
        """Return a member of at most so many bytes; ValueError if it is missing or packed."""
        if not self._has(member):
            raise ValueError(f"lacks {member}")
        info = self._file.getinfo(self._prefix + member)
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{member} is compressed, which PyTorch never does")
        if info.file_size > max_bytes:
            raise ValueError(f"{member} takes {info.file_size} bytes of the {max_bytes} allowed")
        return self._file.read(info)

    def _bytes_of(self, storage: Storage) -> bytes:
        data = self.member(f"data/{storage.key}", self._bytes_left)
        self._bytes_left -= len(data)
        return data
