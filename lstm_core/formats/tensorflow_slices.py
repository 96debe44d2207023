"""The checkpoints of TensorFlow before 0.12, one file each (`SaverDef.V1`), read without it.

Owns where each tensor is and how it is stored. Does not know what the tensors are for.

References:
    `tensorflow/core/util/saved_tensor_slice.proto`, `tensorflow/core/framework/tensor.proto`.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lstm_core.errors import FormatError
from lstm_core.formats.protobuf import Message, chunks, integer, parse, text, varint
from lstm_core.formats.tensorflow_bundle import BFLOAT16, FLOATS, shape_of
from lstm_core.formats.tensorflow_table import entries
from lstm_core.formats.variables import Float32, Stored, as_float32, bfloat16_as_float32

_PACKED_FIELDS: dict[int, int] = {1: 5, 2: 6}
"""Of a tensor's numbers, by the number of its type; each 16-bit number is a varint in field 13."""
_HALVES_FIELD = 13


class SliceFile:
    """A checkpoint, its tensors found, their numbers on disk.

    Attributes:
        path: The file.
        shapes: The shape of each tensor of real numbers.
    """

    def __init__(self, path: Path) -> None:
        """Look through the whole file.

        Raises:
            FormatError: It is no such file, or damaged.
        """
        self.path = path
        self._values: dict[str, Message] = {}
        self._types: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._cut: set[str] = set()
        try:
            with path.open("rb") as file:
                table = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            for key, value in entries(table):
                message = parse(value)
                if key:
                    self._add_slice(message)
                else:
                    self._add_shapes(message)
        except OSError as error:
            raise FormatError(str(path), [f"cannot be read: {error.strerror}"]) from error
        except ValueError as error:
            raise FormatError(str(path), [str(error)]) from error
        self.shapes: Mapping[str, tuple[int, ...]] = {
            name: shape for name, (dtype, shape) in self._types.items() if dtype in FLOATS
        }

    def _add_shapes(self, message: Message) -> None:
        for meta in chunks(message, 1):
            for tensor in chunks(parse(meta), 1):
                fields = parse(tensor)
                shape = chunks(fields, 2)
                name = text(fields, 1)
                self._types[name] = (integer(fields, 3), shape_of(shape[-1]) if shape else ())

    def _add_slice(self, message: Message) -> None:
        for data in chunks(message, 2):
            fields = parse(data)
            name = text(fields, 1)
            if name in self._values:
                self._cut.add(name)
            for tensor in chunks(fields, 3):
                self._values[name] = parse(tensor)

    def stored(self, name: str) -> Stored:
        """Return a tensor of real numbers.

        Raises:
            KeyError: There is none of that name.
        """
        dtype, shape = self._types[name]
        values = self._values[name]

        def load() -> Float32:
            if dtype not in FLOATS:
                raise ValueError(f"{name} holds no real numbers")
            if name in self._cut:
                raise ValueError(f"{name} is cut into slices, which are not put together here")
            flat = _numbers(dtype, values)
            if flat.size != prod(shape):
                raise ValueError(f"{name} has another size than its shape {shape}")
            return flat.reshape(shape)

        return Stored(shape=shape, load=load)


def _numbers(dtype: int, tensor: Message) -> Float32:
    """Return a tensor's numbers, `(size,)`; ValueError if they are damaged."""
    if dtype in _PACKED_FIELDS:
        # One to a chunk, or many: both are allowed.
        data = b"".join(chunks(tensor, _PACKED_FIELDS[dtype]))
        return as_float32(np.frombuffer(data, FLOATS[dtype]))
    halves: list[int] = []
    for packed in chunks(tensor, _HALVES_FIELD):
        at = 0
        while at < len(packed):
            half, at = varint(packed, at)
            halves.append(half & 0xFFFF)
    bits: Any = np.array(halves, np.uint16)
    return bfloat16_as_float32(bits) if dtype == BFLOAT16 else as_float32(bits.view(np.float16))
