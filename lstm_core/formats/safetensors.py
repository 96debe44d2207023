"""The safetensors container: a JSON header and raw numbers, read with bounds, and written.

Owns the layout and its safety: the header is checked before an array is touched, and an array is
read when it is asked for. Knows no layer. Read here and not by the `safetensors` package, which
gives no metadata of bytes, and reads every array of a file where few are wanted.

References:
    https://github.com/huggingface/safetensors, "Format".
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, TypeGuard

import numpy as np
import numpy.typing as npt

from lstm_core.errors import FormatError
from lstm_core.formats.tensors import Float32, StoredTensor, to_float32

Json = Any
"""What `json.loads` gives, not checked yet."""

MAX_HEADER_BYTES = 4 << 20
"""Python takes about twenty times as much memory for it. A network of 10,000 arrays has 1 MB."""
LENGTH_BYTES = 8

_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8,
    "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "C64": 64,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
}  # fmt: skip
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_ALIGNMENT = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorFile:
    """What a safetensors file holds.

    Attributes:
        tensors: Its arrays by name, in the order in which they lie in the file.
        metadata: Its text entries.
    """

    tensors: dict[str, StoredTensor]
    metadata: dict[str, str]


@contextmanager
def open_safetensors(path: str | os.PathLike[str]) -> Iterator[TensorFile]:
    """Open a safetensors file.

    Yields:
        What it holds, whose arrays can be read until the context ends.

    Raises:
        FormatError: It cannot be read, or is damaged.
    """
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - closed below; only opening may fail here
    except OSError as error:
        raise FormatError(os.fspath(path), [f"cannot be read: {error.strerror}"]) from error
    with file:
        try:
            contents = _read_header(file)
        except (OSError, ValueError, RecursionError) as error:
            problem = f"is a damaged safetensors file: {error}"
            raise FormatError(os.fspath(path), [problem]) from error
        yield contents


def is_safetensors(_path: Path, start: bytes) -> bool:
    """Whether a file begins as a safetensors file does: a possible length, and a JSON object."""
    size = int.from_bytes(start[:LENGTH_BYTES], "little")
    return 2 <= size < 1 << 32 and start[LENGTH_BYTES : LENGTH_BYTES + 1] == b"{"


def _read_header(file: BinaryIO) -> TensorFile:
    file_bytes = os.fstat(file.fileno()).st_size
    size = int.from_bytes(file.read(LENGTH_BYTES), "little")
    if size > file_bytes - LENGTH_BYTES:
        raise ValueError(f"{file_bytes} bytes are not its whole header")
    if size > MAX_HEADER_BYTES:
        raise ValueError(f"its header takes {size} bytes, more than the {MAX_HEADER_BYTES} allowed")
    begin = LENGTH_BYTES + size
    entries = json.loads(file.read(size), object_pairs_hook=_without_duplicates)
    if not isinstance(entries, dict):
        raise ValueError("its header is no JSON object")  # noqa: TRY004 - the file is at fault
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("its metadata are not texts by name")
    places = {name: _place(name, entry) for name, entry in entries.items()}
    places = dict(sorted(places.items(), key=lambda item: item[1].begin))
    end = 0
    for name, place in places.items():
        # No gaps and no overlaps, so that the arrays take no more memory than the file.
        if place.begin != end:
            raise ValueError(f"{name:.80} begins at byte {place.begin} of the data, not at {end}")
        end = place.end
    if end != file_bytes - begin:
        raise ValueError(f"its arrays take {end} bytes, but {file_bytes - begin} are there")
    tensors = {name: _stored(file, begin, place) for name, place in places.items()}
    return TensorFile(tensors=tensors, metadata=metadata)


def _without_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("its header names something twice")
    return entries


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an array lies: its dtype, its shape, and its first and last byte in the data."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def _place(name: str, entry: Json) -> _Place:
    shape = entry.get("shape") if isinstance(entry, dict) else None
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"its entry {name:.80} does not tell a shape and a place")
    dtype = entry.get("dtype")
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise ValueError(f"{name:.80} has the unknown dtype {dtype!r:.80}")
    begin, end = offsets
    bits = math.prod(shape) * _BITS[dtype]
    if end - begin != bits // 8 or bits % 8:
        raise ValueError(
            f"{name:.80} has {end - begin} bytes, which are no {dtype} of shape {shape!s:.80}"
        )
    return _Place(_DTYPES.get(dtype, dtype), tuple(shape), begin, end)


def _are_sizes(value: Json) -> TypeGuard[list[int]]:
    is_list = isinstance(value, list) and len(value) <= 64
    return is_list and all(type(size) is int and 0 <= size < 1 << 63 for size in value)


def _stored(file: BinaryIO, begin: int, place: _Place) -> StoredTensor:
    def load() -> Float32:
        file.seek(begin + place.begin)
        data = file.read(place.end - place.begin)
        return to_float32(data, place.dtype).reshape(place.shape)

    return StoredTensor(shape=place.shape, dtype=place.dtype, load=load)


def write_safetensors(
    file: IO[bytes], arrays: Mapping[str, npt.NDArray[np.float32]], metadata: Mapping[str, str]
) -> None:
    """Write arrays as float32, in the order given, and texts by name."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, array in arrays.items():
        begin, end = end, end + 4 * array.size
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    file.write(len(text).to_bytes(LENGTH_BYTES, "little") + text)
    for array in arrays.values():
        file.write(np.asarray(array, "<f4", order="C").tobytes())
