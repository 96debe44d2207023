"""The tensors of a file of `torch.save`: how each lies in its storage, and the bounds of both.

Does not know how a file keeps its storages.

References:
    PyTorch, torch/_utils.py (`_rebuild_tensor_v2`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lstm_core.formats.tensors import FLOATING_BYTES, Float32, StoredTensor, to_float32
from lstm_core.formats.torch_pickle import Value, ordered

_ELEMENTS = {
    "Double": ("float64", 8), "Float": ("float32", 4), "Half": ("float16", 2),
    "BFloat16": ("bfloat16", 2), "Long": ("int64", 8), "Int": ("int32", 4), "Short": ("int16", 2),
    "Char": ("int8", 1), "Byte": ("uint8", 1), "Bool": ("bool", 1),
}  # fmt: skip
"""The dtype of each storage class and the bytes of an element."""
_DTYPES = (*FLOATING_BYTES, "int64", "int32", "int16", "int8", "uint8", "bool")


@dataclass(frozen=True, slots=True)
class Dtype:
    """Stands for the class of a storage."""

    name: str
    item_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """What holds `num_items` numbers, by its key in the file."""

    dtype: Dtype
    key: str
    num_items: int


class StorageReader(ABC):
    """What a pickle's tensors and storages become; the numbers are read when asked for."""

    def __init__(self, file_bytes: int) -> None:
        """Tell the size of the file, which bounds what may be taken from it."""
        self._storages: dict[str, bytes] = {}
        # Tensors may share a storage, but each that is loaded takes memory of its own.
        self._tensor_bytes_left = 2 * file_bytes

    @abstractmethod
    def _bytes_of(self, storage: Storage) -> bytes:
        """Return what a file has of a storage; ValueError where it has none."""

    def _read(self, storage: Storage) -> bytes:
        # Tensors that a GPU's LSTM had side by side share one storage.
        if storage.key not in self._storages:
            data = self._bytes_of(storage)
            if len(data) != storage.num_items * storage.dtype.item_bytes:
                raise ValueError(f"data/{storage.key} has {len(data)} bytes")
            self._storages[storage.key] = data
        return self._storages[storage.key]

    def names(self) -> dict[str, Value]:
        """Return what stands for each name that a pickle of tensors may ask for."""
        storages = {f"torch.{kind}Storage": Dtype(*dtype) for kind, dtype in _ELEMENTS.items()}
        dtypes = {f"torch.{dtype}": dtype for dtype in _DTYPES}
        return {
            **storages,
            **dtypes,
            "collections.OrderedDict": ordered,
            "torch._utils._rebuild_tensor": self.tensor,
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_parameter": _parameter,
        }

    def storage(self, address: Sequence[Value]) -> Storage:
        """Return what an address stands for; ValueError if it is no storage."""
        # Behind these PyTorch before 1.6 tells of a view, or None.
        whole = tuple(address[:5]) if address[5:] in ((), (None,)) else ()
        kind, dtype, key, _, num_items = whole if len(whole) == 5 else (None,) * 5
        if kind != "storage" or not isinstance(dtype, Dtype) or not isinstance(key, str):
            raise ValueError("refers to something that is no storage of numbers")
        if type(num_items) is not int or num_items < 0:
            raise ValueError(f"has a storage {key:.80} without a size")
        return Storage(dtype=dtype, key=key, num_items=num_items)

    def tensor(
        self, storage: Value, offset: Value, shape: Value, strides: Value, *_rest: Value
    ) -> StoredTensor:
        """Return a tensor; ValueError if it does not lie in its storage.

        Args:
            storage: The `Storage`.
            offset: Where its first number is.
            shape: Its sizes.
            strides: How many numbers there are from one to the next, along each axis.
        """
        # As tuples: a list could grow behind these checks, while the rest of the pickle is read.
        shape, strides = tuple(shape), tuple(strides)
        sizes = [offset, *shape, *strides]
        if not isinstance(storage, Storage) or len(shape) != len(strides) or len(shape) > 64:
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

        return StoredTensor(shape=shape, dtype=storage.dtype.name, load=load)


def _parameter(tensor: Value, *_rest: Value) -> StoredTensor:
    if not isinstance(tensor, StoredTensor):
        raise ValueError("has a parameter that is no tensor")  # noqa: TRY004 - the file is at fault
    return tensor
