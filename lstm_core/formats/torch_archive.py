"""What `torch.save` wrote, read without PyTorch: a zip archive of a pickle and of raw storages.

Owns how a tensor lies in its storage, and the bounds of both. Runs no code: see `torch_pickle`.
Knows no layer.

References:
    PyTorch, torch/serialization.py and torch/_utils.py (`_rebuild_tensor_v2`).
"""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lstm_core.errors import FormatError
from lstm_core.formats.tensors import FLOATING_BYTES, Float32, StoredTensor, to_float32
from lstm_core.formats.torch_pickle import Attributed, RefusedNameError, Unpickler, Value
from lstm_core.formats.torch_script import ScriptNames

MAX_PICKLE_BYTES = 16 << 20

_ELEMENTS = {
    "Double": ("float64", 8), "Float": ("float32", 4), "Half": ("float16", 2),
    "BFloat16": ("bfloat16", 2), "Long": ("int64", 8), "Int": ("int32", 4), "Short": ("int16", 2),
    "Char": ("int8", 1), "Byte": ("uint8", 1), "Bool": ("bool", 1),
}  # fmt: skip
"""The dtype of each storage class and the bytes of an element."""
_DTYPES = (*FLOATING_BYTES, "int64", "int32", "int16", "int8", "uint8", "bool")
_LEGACY_START = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")
"""A pickled magic number, with which PyTorch before 1.6 began."""
_SAVE_STATE = "save its state instead: torch.save(model.state_dict(), path)"


@dataclass(frozen=True, slots=True)
class _Dtype:
    """Stands for the class of a storage."""

    name: str
    item_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Storage:
    """A member of the archive that holds `num_items` numbers."""

    dtype: _Dtype
    member: str
    num_items: int


def is_torch(path: Path, start: bytes) -> bool:
    """Whether a file is one of `torch.save`, or any other pickle."""
    if start.startswith(b"PK"):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, ValueError, RuntimeError):
            return False
        return any(name.endswith(("/data.pkl", "/models/model.json")) for name in names)
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
        with _zip(name) as file:
            prefix = _prefix(name, file)
            archive = _Archive(file, prefix, Path(name).stat().st_size)
            yield archive.load(name)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError) as error:
        raise FormatError(name, [f"is a damaged PyTorch file: {error}"]) from error


def _zip(name: str) -> zipfile.ZipFile:
    with Path(name).open("rb") as file:
        start = file.read(len(_LEGACY_START))
    if start == _LEGACY_START:
        problem = "is in the format of PyTorch before 1.6; load it there and save it again"
        raise FormatError(name, [problem])
    if not start.startswith(b"PK"):
        problem = "is a bare pickle, which is never run; " + _SAVE_STATE
        raise FormatError(name, [problem])
    return zipfile.ZipFile(name)


def _prefix(name: str, file: zipfile.ZipFile) -> str:
    members = file.namelist()
    if any(member.endswith("/models/model.json") for member in members):
        problem = "is a program of torch.export; export it as ONNX, or save its state_dict()"
        raise FormatError(name, [problem])
    pickles = [member for member in members if member.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise FormatError(name, [f"is a damaged PyTorch file: it has {len(pickles)} data.pkl"])
    return pickles[0].removesuffix("data.pkl")


class _Archive:
    """The zip archive of one file."""

    def __init__(self, file: zipfile.ZipFile, prefix: str, file_bytes: int) -> None:
        self._file = file
        self._prefix = prefix
        self._storages: dict[str, bytes] = {}
        # Members may overlap; read in all they are no more than the file.
        self._bytes_left = file_bytes
        # Tensors may share a storage, but each that is loaded takes memory of its own.
        self._tensor_bytes_left = 2 * file_bytes

    def load(self, name: str) -> Value:
        try:
            self._check_byte_order()
            pickle = self._member("data.pkl", MAX_PICKLE_BYTES)
            return Unpickler(self._names(), self._storage).load(pickle)
        except RefusedNameError as error:
            problem = f"{error}; if it holds a whole module, {_SAVE_STATE}"
            raise FormatError(name, [problem]) from error
        except ValueError as error:
            raise FormatError(name, [f"data.pkl {error}"]) from error

    def _check_byte_order(self) -> None:
        if self._has("byteorder") and self._member("byteorder", 16) != b"little":
            raise ValueError("is of numbers that are not little-endian")

    def _names(self) -> dict[str, Value]:
        storages = {f"torch.{kind}Storage": _Dtype(*dtype) for kind, dtype in _ELEMENTS.items()}
        dtypes = {f"torch.{dtype}": dtype for dtype in _DTYPES}
        known: dict[str, Value] = {
            **storages,
            **dtypes,
            "collections.OrderedDict": Attributed,
            "torch._utils._rebuild_tensor_v2": self._tensor,
            "torch._utils._rebuild_parameter": _parameter,
        }
        return ScriptNames(known) if self._has("constants.pkl") else known

    def _has(self, member: str) -> bool:
        return self._prefix + member in self._file.NameToInfo

    def _member(self, member: str, max_bytes: int) -> bytes:
        if not self._has(member):
            raise ValueError(f"lacks {member}")
        info = self._file.getinfo(self._prefix + member)
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{member} is compressed, which PyTorch never does")
        if info.file_size > max_bytes:
            raise ValueError(f"{member} takes {info.file_size} bytes of the {max_bytes} allowed")
        return self._file.read(info)

    def _storage(self, address: Sequence[Value]) -> _Storage:
        kind, dtype, key, _, num_items = address if len(address) == 5 else (None,) * 5
        if kind != "storage" or not isinstance(dtype, _Dtype) or not isinstance(key, str):
            raise ValueError("refers to something that is no storage of numbers")
        if type(num_items) is not int or num_items < 0:
            raise ValueError(f"has a storage {key:.80} without a size")
        return _Storage(dtype=dtype, member=f"data/{key}", num_items=num_items)

    def _tensor(
        self, storage: Value, offset: Value, shape: Value, strides: Value, *_rest: Value
    ) -> StoredTensor:
        sizes = [offset, *shape, *strides]
        if not isinstance(storage, _Storage) or len(shape) != len(strides) or len(shape) > 64:
            raise ValueError("has a tensor without a storage or a shape")
        if not all(type(size) is int and 0 <= size < 1 << 63 for size in sizes):
            raise ValueError("has a tensor with sizes that are no natural numbers")
        num_items = math.prod(shape)
        last = sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        # The first keeps a tensor that repeats numbers from taking more memory than the file.
        if num_items > storage.num_items or (num_items and offset + last >= storage.num_items):
            raise ValueError(f"has a tensor of shape {shape!s:.80} that is larger than its storage")

        def load() -> Float32:
            if num_items == 0:
                return np.zeros(shape, np.float32)
            item_bytes = storage.dtype.item_bytes
            self._tensor_bytes_left -= num_items * item_bytes
            if self._tensor_bytes_left < 0:
                raise ValueError("has tensors that share their numbers too often")
            data = memoryview(self._read(storage))[offset * item_bytes :]
            flat = to_float32(data[: (last + 1) * item_bytes], storage.dtype.name)
            steps = [flat.itemsize * stride for stride in strides]
            view = np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False)
            return np.ascontiguousarray(view)

        return StoredTensor(shape=tuple(shape), dtype=storage.dtype.name, load=load)

    def _read(self, storage: _Storage) -> bytes:
        # Tensors that a GPU's LSTM had side by side share one storage.
        if storage.member not in self._storages:
            data = self._member(storage.member, self._bytes_left)
            self._bytes_left -= len(data)
            if len(data) != storage.num_items * storage.dtype.item_bytes:
                raise ValueError(f"{storage.member} has {len(data)} bytes")
            self._storages[storage.member] = data
        return self._storages[storage.member]


def _parameter(tensor: Value, *_rest: Value) -> StoredTensor:
    if not isinstance(tensor, StoredTensor):
        raise ValueError("has a parameter that is no tensor")  # noqa: TRY004 - the file is at fault
    return tensor
