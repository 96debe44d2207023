"""The checkpoints of TensorFlow from 0.12 on: `PREFIX.index` and `PREFIX.data-…`, read without it.

Owns where each tensor is and how it is stored. Does not know what the tensors are for.

References:
    `tensorflow/core/protobuf/tensor_bundle.proto`; `tensorflow/core/util/tensor_bundle`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lstm_core.errors import FormatError
from lstm_core.formats.crc32c import crc32c, unmasked
from lstm_core.formats.protobuf import chunks, integer, parse, signed, varint
from lstm_core.formats.tensorflow_table import entries
from lstm_core.formats.variables import Float32, Stored, as_float32, bfloat16_as_float32

MAX_INDEX_BYTES = 16 << 20
MAX_TEXT_BYTES = 64 << 20
"""Of a tensor that is one text, such as the graph of objects."""
MAX_READS = 4
"""How many times its size a checkpoint's data may be read in all."""

BFLOAT16, STRING = 14, 7
FLOATS: dict[int, type[np.generic]] = {
    1: np.float32,
    2: np.float64,
    19: np.float16,
    BFLOAT16: np.uint16,
}
"""Of the numbers of TensorFlow's types."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One entry of the index.

    Attributes:
        dtype: The number of its type.
        shape: Its shape.
        shard: In which of the data files.
        offset: Where it begins there.
        num_bytes: Its size there.
        checksum: Of its bytes.
        is_cut: Whether it is kept in slices.
    """

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    num_bytes: int
    checksum: int
    is_cut: bool


class Bundle:
    """A checkpoint, its index read, its data on disk.

    Attributes:
        prefix: What the names of its files begin with.
        tensors: Every tensor by its name.
    """

    def __init__(self, prefix: Path) -> None:
        """Read the index.

        Raises:
            FormatError: A file is missing or damaged.
        """
        self.prefix = prefix
        self.tensors: dict[str, Tensor] = {}
        index = prefix.with_name(f"{prefix.name}.index")
        try:
            if index.stat().st_size > MAX_INDEX_BYTES:
                raise ValueError(f"has more than {MAX_INDEX_BYTES} bytes")  # noqa: TRY301
            self._shards = self._read_index(memoryview(index.read_bytes()))
            self._bytes_left = MAX_READS * sum(shard.stat().st_size for shard in self._shards)
        except OSError as error:
            raise FormatError(error.filename or str(index), [f"{error.strerror}"]) from error
        except ValueError as error:
            raise FormatError(str(index), [str(error)]) from error

    def _read_index(self, table: memoryview) -> list[Path]:
        num_shards = 0
        for key, value in entries(table):
            message = parse(value)
            if key:
                self.tensors[key.decode("utf-8", "replace")] = _tensor(value)
                continue
            num_shards = integer(message, 1)
            if integer(message, 2) != 0:
                raise ValueError("was written on a big-endian machine, which is not read")
        name = self.prefix.name
        if not 0 < num_shards <= len(table):
            raise ValueError(f"tells of {num_shards} data files")
        used = {tensor.shard for tensor in self.tensors.values()}
        if used and max(used) >= num_shards:
            raise ValueError("is damaged: a tensor is in a data file that there is not")
        self._num_shards = num_shards
        return [self._shard(name, shard) for shard in sorted(used)]

    def _shard(self, name: str, shard: int) -> Path:
        return self.prefix.with_name(f"{name}.data-{shard:05d}-of-{self._num_shards:05d}")

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each tensor of real numbers."""
        return {
            name: tensor.shape for name, tensor in self.tensors.items() if tensor.dtype in FLOATS
        }

    def stored(self, name: str) -> Stored:
        """Return a tensor of real numbers.

        Raises:
            KeyError: There is none of that name.
        """
        tensor = self.tensors.get(name)
        if tensor is None:
            raise KeyError(name)

        def load() -> Float32:
            dtype = FLOATS.get(tensor.dtype)
            if dtype is None:
                raise ValueError(f"{name} holds no real numbers")
            if tensor.is_cut:
                raise ValueError(f"{name} is cut into slices, which are not put together here")
            if prod(tensor.shape) * np.dtype(dtype).itemsize != tensor.num_bytes:
                raise ValueError(f"{name} has another size than its shape {tensor.shape}")
            flat: Any = np.frombuffer(self._bytes(name, tensor), dtype)
            real = bfloat16_as_float32(flat) if tensor.dtype == BFLOAT16 else as_float32(flat)
            return real.reshape(tensor.shape)

        return Stored(shape=tensor.shape, load=load)

    def text(self, name: str) -> bytes:
        """Return a tensor that is one text.

        Raises:
            KeyError: There is none of that name.
            ValueError: It is something else, too long or damaged.
        """
        tensor = self.tensors[name]
        if tensor.dtype != STRING or tensor.shape or tensor.num_bytes > MAX_TEXT_BYTES:
            raise ValueError(f"{name} is not one text, or too long")
        # The length, its checksum, then the text. The checksum of the whole is another one, of the
        # text and its length in another form, and is left alone.
        data = memoryview(self._bytes(name, tensor, is_checked=False))
        size, at = varint(data, 0)
        if at + 4 + size != len(data):
            raise ValueError(f"{name} is damaged")
        return bytes(data[at + 4 :])

    def _bytes(self, name: str, tensor: Tensor, *, is_checked: bool = True) -> bytes:
        path = self._shard(self.prefix.name, tensor.shard)
        self._bytes_left -= tensor.num_bytes
        if self._bytes_left < 0:
            raise ValueError(f"{name} claims more bytes than the checkpoint can hold")
        with path.open("rb") as file:
            file.seek(tensor.offset)
            data = file.read(tensor.num_bytes)
        if len(data) != tensor.num_bytes:
            raise ValueError(f"{path} is cut off: {name} lies behind its end")
        if is_checked and crc32c(data) != unmasked(tensor.checksum):
            raise ValueError(f"{path} is damaged: the checksum of {name} is wrong")
        return data


def shape_of(message: memoryview) -> tuple[int, ...]:
    """Return a shape as TensorFlow writes it; ValueError if a part of it is not known."""
    shape = tuple(signed(integer(parse(dim), 1)) for dim in chunks(parse(message), 2))
    if any(size < 0 for size in shape):
        raise ValueError("is damaged: a shape is not known")
    return shape


def _tensor(value: memoryview) -> Tensor:
    message = parse(value)
    shape = chunks(message, 2)
    checksum = message.get(6, [b"\0\0\0\0"])[-1]
    numbers = {field: integer(message, field) for field in (1, 3, 4, 5)}
    if any(signed(number) < 0 for number in numbers.values()) or isinstance(checksum, int):
        raise ValueError("is damaged: an entry makes no sense")
    return Tensor(
        dtype=numbers[1],
        shape=shape_of(shape[-1]) if shape else (),
        shard=numbers[3],
        offset=numbers[4],
        num_bytes=numbers[5],
        checksum=int.from_bytes(checksum, "little"),
        is_cut=bool(message.get(7)),
    )
