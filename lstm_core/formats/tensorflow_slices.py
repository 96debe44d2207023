"""The checkpoints of TensorFlow before 0.12, one file each (`SaverDef.V1`), read without it.

Owns where each tensor is and how it is stored. Does not know what the tensors are for.

References:
    `tensorflow/core/util/saved_tensor_slice.proto`, `tensorflow/core/framework/tensor.proto`.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from lstm_core.errors import FormatError
from lstm_core.formats.protobuf import Message
from lstm_core.formats.tensorflow_bundle import DTYPES, shape_of
from lstm_core.formats.tensorflow_parts import Extents, extents_of, joined
from lstm_core.formats.tensorflow_table import entries
from lstm_core.formats.tensors import FLOATING_BYTES, Float32, StoredTensor, to_float32

_FIELDS = {"float32": 5, "float64": 6}
"""Of a tensor's numbers, by their dtype; 16-bit numbers are integers in field 13."""


class SliceFile:
    """A checkpoint, its tensors found, their numbers on disk.

    Attributes:
        path: The file.
        shapes: The shape of each tensor of real numbers that is there.
    """

    def __init__(self, path: Path) -> None:
        """Look through the whole file.

        Raises:
            FormatError: It is no such file, or damaged.
        """
        self.path = path
        self._values: dict[str, list[tuple[Extents, memoryview]]] = {}
        self._types: dict[str, tuple[str, tuple[int, ...]]] = {}
        try:
            with path.open("rb") as file:
                table = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            for key, value in entries(table):
                message = Message(value)
                if key:
                    self._add_slice(message)
                else:
                    self._add_shapes(message)
        except OSError as error:
            raise FormatError(str(path), [f"cannot be read: {error.strerror}"]) from error
        except ValueError as error:
            raise FormatError(str(path), [str(error)]) from error
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: shape
            for name, (dtype, shape) in self._types.items()
            if dtype in FLOATING_BYTES and name in self._values
        }

    def _add_shapes(self, message: Message) -> None:
        for meta in message.messages(1):
            for tensor in meta.messages(1):
                dtype = DTYPES.get(tensor.integer(3), "no real numbers")
                self._types[tensor.text(1)] = (dtype, shape_of(tensor.message(2)))

    def _add_slice(self, message: Message) -> None:
        for data in message.messages(2):
            place = data.message(2)
            extents = () if place is None else extents_of(place)
            found = [(extents, tensor) for tensor in data.blobs(3)]
            self._values.setdefault(data.text(1), []).extend(found)

    def stored(self, name: str) -> StoredTensor:
        """Return a tensor of real numbers.

        Raises:
            KeyError: There is none of that name.
        """
        dtype, shape = self._types[name]
        values = self._values[name]

        def load() -> Float32:
            slices = [
                (extents, partial(_numbers, dtype, Message(each))) for extents, each in values
            ]
            return joined(name, shape, slices)

        return StoredTensor(shape=shape, dtype=dtype, load=load)


def _numbers(dtype: str, tensor: Message) -> Float32:
    """Return a tensor's numbers, `(size,)`; ValueError if they are damaged."""
    if dtype in _FIELDS:
        # One to a chunk, or many: both are allowed.
        return to_float32(b"".join(tensor.blobs(_FIELDS[dtype])), dtype)
    halves = np.array(tensor.integers(13), np.int64)
    return to_float32(halves.astype("<u2").tobytes(), dtype)
