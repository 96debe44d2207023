"""The checkpoints of TensorFlow from 0.12 on: `PREFIX.index` and `PREFIX.data-…`, read without it.

Owns where each tensor is and how it is stored. Does not know what the tensors are for.

References:
    `tensorflow/core/protobuf/tensor_bundle.proto`; `tensorflow/core/util/tensor_bundle`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path

from lstm_core.errors import FormatError
from lstm_core.formats.crc32c import crc32c, unmasked
from lstm_core.formats.protobuf import Message, varint
from lstm_core.formats.tensorflow_parts import Extents, extents_of, joined
from lstm_core.formats.tensorflow_table import entries
from lstm_core.formats.tensors import FLOATING_BYTES, Float32, StoredTensor, to_float32

MAX_INDEX_BYTES = 16 << 20
MAX_TEXT_BYTES = 64 << 20
"""Of a tensor that is one text, such as the graph of objects."""
MAX_READS = 4
"""How many times its size a checkpoint's data may be read in all."""

_SLICE_START, _SLICE_NAME_END = b"\0", b"\0\1"
"""Of the key of a slice, around the name of its tensor."""
DTYPES = {1: "float32", 2: "float64", 7: "string", 14: "bfloat16", 19: "float16"}
"""The names of TensorFlow's types, by their numbers; those that hold no weights left out."""


def checkpoint_prefix(path: Path) -> Path:
    """Return what the names of a checkpoint's files begin with, of that or of its index."""
    return path.with_suffix("") if path.suffix == ".index" else path


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """One entry of the index.

    Attributes:
        dtype: Its dtype's name.
        shape: Its shape.
        shard: In which of the data files.
        offset: Where it begins there.
        num_bytes: Its size there.
        checksum: Of its bytes.
        slices: Where its slices are, which are entries of their own; none where it is whole.
    """

    dtype: str
    shape: tuple[int, ...]
    shard: int
    offset: int
    num_bytes: int
    checksum: int
    slices: tuple[Extents, ...]


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
        self._slices: dict[str, list[Tensor]] = {}
        index = prefix.with_name(f"{prefix.name}.index")
        try:
            if index.stat().st_size > MAX_INDEX_BYTES:
                raise ValueError(f"has more than {MAX_INDEX_BYTES} bytes")  # noqa: TRY301
            self._num_shards = self._read_index(memoryview(index.read_bytes()))
            sizes = self._shard_sizes()
        except OSError as error:
            raise FormatError(error.filename or str(index), [f"{error.strerror}"]) from error
        except ValueError as error:
            raise FormatError(str(index), [str(error)]) from error
        for name, tensor in self._listed():
            if tensor.offset + tensor.num_bytes > sizes[tensor.shard]:
                problem = f"is cut off, or its index damaged: {name} lies behind its end"
                raise FormatError(str(self._shard(tensor.shard)), [problem])
        self._bytes_left = MAX_READS * sum(sizes.values())

    def _read_index(self, table: memoryview) -> int:
        """Read every entry, and return the number of data files."""
        num_shards = 0
        for key, value in entries(table):
            message = Message(value)
            if key.startswith(_SLICE_START):
                # Where it is follows in the key, in a code that sorts as the places do.
                owner = key[1:].partition(_SLICE_NAME_END)[0].decode("utf-8", "replace")
                self._slices.setdefault(owner, []).append(_tensor(message))
                continue
            if key:
                self.tensors[key.decode("utf-8", "replace")] = _tensor(message)
                continue
            num_shards = message.integer(1)
            if message.integer(2) != 0:
                raise ValueError("was written on a big-endian machine, which is not read")
        if num_shards < 1:
            raise ValueError(f"tells of {num_shards} data files")
        return num_shards

    def _shard_sizes(self) -> dict[int, int]:
        """Return the bytes of each data file that a tensor is in."""
        used = {tensor.shard for _, tensor in self._listed()}
        if used and max(used) >= self._num_shards:
            raise ValueError("is damaged: a tensor is in a data file that there is not")
        return {shard: self._shard(shard).stat().st_size for shard in used}

    def _listed(self) -> list[tuple[str, Tensor]]:
        """Return every tensor, and every slice under the name of its tensor."""
        slices = [(name, each) for name, found in self._slices.items() for each in found]
        return [*self.tensors.items(), *slices]

    def _shard(self, shard: int) -> Path:
        name = f"{self.prefix.name}.data-{shard:05d}-of-{self._num_shards:05d}"
        return self.prefix.with_name(name)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of each tensor of real numbers."""
        return {
            name: tensor.shape
            for name, tensor in self.tensors.items()
            if tensor.dtype in FLOATING_BYTES
        }

    def stored(self, name: str) -> StoredTensor:
        """Return a tensor of real numbers.

        Raises:
            KeyError: There is none of that name.
        """
        tensor = self.tensors.get(name)
        if tensor is None:
            raise KeyError(name)

        def load() -> Float32:
            if not tensor.slices:
                return self._numbers(name, tensor)
            found = self._slices.get(name, [])
            if len(found) != len(tensor.slices):
                raise ValueError(f"{name} has {len(found)} of its {len(tensor.slices)} slices")
            places = zip(sorted(tensor.slices), found, strict=True)
            return joined(
                name,
                tensor.shape,
                [(place, partial(self._numbers, name, each)) for place, each in places],
            )

        return StoredTensor(shape=tensor.shape, dtype=tensor.dtype, load=load)

    def _numbers(self, name: str, tensor: Tensor) -> Float32:
        if prod(tensor.shape) * FLOATING_BYTES.get(tensor.dtype, 0) != tensor.num_bytes:
            raise ValueError(f"{name} has another size than its shape {tensor.shape}")
        return to_float32(self._bytes(name, tensor), tensor.dtype).reshape(tensor.shape)

    def text(self, name: str) -> bytes:
        """Return a tensor that is one text.

        Raises:
            KeyError: There is none of that name.
            ValueError: It is something else, too long or damaged.
        """
        tensor = self.tensors[name]
        if tensor.dtype != "string" or tensor.shape or tensor.num_bytes > MAX_TEXT_BYTES:
            raise ValueError(f"{name} is not one text, or too long")
        # The length, its checksum, then the text. The checksum of the whole is another one, of the
        # text and its length in another form, and is left alone.
        data = memoryview(self._bytes(name, tensor, is_checked=False))
        size, at = varint(data, 0)
        if at + 4 + size != len(data):
            raise ValueError(f"{name} is damaged")
        return bytes(data[at + 4 :])

    def _bytes(self, name: str, tensor: Tensor, *, is_checked: bool = True) -> bytes:
        path = self._shard(tensor.shard)
        self._bytes_left -= tensor.num_bytes
        if self._bytes_left < 0:
            raise ValueError(f"{name} claims more bytes than the checkpoint can hold")
        with path.open("rb") as file:
            file.seek(tensor.offset)
            data = file.read(tensor.num_bytes)
        if is_checked and crc32c(data) != unmasked(tensor.checksum):
            raise ValueError(f"{path} is damaged: the checksum of {name} is wrong")
        return data


def shape_of(message: Message | None) -> tuple[int, ...]:
    """Return a shape as TensorFlow writes it; ValueError if a part of it is not known."""
    shape = () if message is None else tuple(dim.integer(1) for dim in message.messages(2))
    if any(size < 0 for size in shape):
        raise ValueError("is damaged: a shape is not known")
    return shape


def _tensor(message: Message) -> Tensor:
    numbers = {field: message.integer(field) for field in (1, 3, 4, 5)}
    if any(number < 0 for number in numbers.values()):
        raise ValueError("is damaged: an entry makes no sense")
    return Tensor(
        dtype=DTYPES.get(numbers[1], "no real numbers"),
        shape=shape_of(message.message(2)),
        shard=numbers[3],
        offset=numbers[4],
        num_bytes=numbers[5],
        checksum=int.from_bytes((message.blobs(6) or [memoryview(b"")])[-1], "little"),
        slices=tuple(extents_of(each) for each in message.messages(7)),
    )
