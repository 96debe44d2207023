"""What `torch.save` of PyTorch before 1.6 wrote: pickles, and storages behind them.

Owns the order in which they lie. Runs no code: see `torch_pickle`. Knows no layer.

References:
    PyTorch, torch/serialization.py (`_legacy_save`).
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from lstm_core.formats.torch_pickle import MAX_PICKLE_BYTES, Unpickler, Value
from lstm_core.formats.torch_storages import Storage, StorageReader

_START = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""The pickle of a magic number."""
_PROTOCOL = 1001
_SIZE_BYTES = 8


def is_legacy(path: Path) -> bool:
    """Whether a file begins as such files do."""
    with path.open("rb") as file:
        return file.read(len(_START)) == _START


class LegacyFile(StorageReader):
    """One file, open for reading bytes until its tensors are no longer needed."""

    def __init__(self, file: BinaryIO) -> None:
        """Begin; nothing is read yet."""
        self._file_bytes = os.fstat(file.fileno()).st_size
        super().__init__(self._file_bytes)
        self._file = file
        self._told: dict[str, Storage] = {}
        self._places: dict[str, int] = {}

    def load(self) -> Value:
        """Return the object that was saved; ValueError if it is damaged, or asks for code."""
        head = io.BytesIO(self._file.read(MAX_PICKLE_BYTES))
        head.seek(len(_START))
        protocol, system = (self._unpickled(head) for _ in range(2))
        if protocol != _PROTOCOL or not isinstance(system, dict):
            raise ValueError(f"is of another protocol than {_PROTOCOL}")
        if system.get("little_endian") is not True:
            raise ValueError("is of numbers that are not little-endian")
        saved = self._unpickled(head)
        keys = self._unpickled(head)
        is_list = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
        if not is_list or sorted(keys) != sorted(self._told):
            raise ValueError("has other storages than its tensors are in")
        self._find(keys, head.tell())
        return saved

    def _unpickled(self, head: BinaryIO) -> Value:
        return Unpickler(self.names(), self._address).load(head)

    def _address(self, address: Sequence[Value]) -> Storage:
        storage = self.storage(address)
        if self._told.setdefault(storage.key, storage) != storage:
            raise ValueError(f"tells of two storages of the key {storage.key:.80}")
        return storage

    def _find(self, keys: list[str], at: int) -> None:
        """Find the storages, which lie behind each other with their sizes before them."""
        for key in keys:
            storage = self._told[key]
            self._file.seek(at)
            size = int.from_bytes(self._file.read(_SIZE_BYTES), "little")
            self._places[key] = at + _SIZE_BYTES
            at += _SIZE_BYTES + size * storage.dtype.item_bytes
            if size != storage.num_items or at > self._file_bytes:
                raise ValueError(f"has a storage {key:.80} of {size} numbers, or is cut off")

    def _bytes_of(self, storage: Storage) -> bytes:
        self._file.seek(self._places[storage.key])
        return self._file.read(storage.num_items * storage.dtype.item_bytes)
