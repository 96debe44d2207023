"""TensorFlow's checkpoints made by hand, so that they may hold what TensorFlow never writes."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

from lstm_core.formats.crc32c import crc32c

FIXTURES = Path(__file__).parent.parent / "fixtures" / "formats"
MAGIC = 0xDB4775248B80FB57


def varint(number: int) -> bytes:
    """Return a number as Protocol Buffers write it."""
    number &= (1 << 64) - 1
    groups = [number >> shift & 0x7F for shift in range(0, max(number.bit_length(), 1), 7)]
    return bytes([group | 0x80 for group in groups[:-1]] + groups[-1:])


def field(number: int, value: int | bytes) -> bytes:
    """Return one field of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def masked(data: bytes) -> int:
    """Return a checksum as TensorFlow stores it."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def block(pairs: list[tuple[bytes, bytes]], kind: int = 0, repeats: int = 0) -> bytes:
    """Return a block of a table with its trailer, its last key so many times again."""
    entries = b"".join(
        varint(0) + varint(len(key)) + varint(len(value)) + key + value for key, value in pairs
    )
    if repeats:
        entries += (varint(len(pairs[-1][0])) + varint(0) + varint(0)) * repeats
    data = entries + struct.pack("<II", 0, 1) + bytes([kind])
    return data + struct.pack("<I", masked(data))


def table(
    pairs: list[tuple[bytes, bytes]], *, kind: int = 0, times: int = 1, repeats: int = 0
) -> bytes:
    """Return a table of one block, which its index names so many times."""
    data = block(pairs, kind, repeats)
    handle = varint(0) + varint(len(data) - 5)
    index = block([(b"~", handle)] * times)
    footer = varint(0) + varint(0) + varint(len(data)) + varint(len(index) - 5)
    return data + index + footer.ljust(40, b"\0") + struct.pack("<Q", MAGIC)


def entry(
    data: bytes,
    shape: tuple[int, ...],
    *,
    dtype: int = 1,
    shard: int = 0,
    offset: int = 0,
    size: int | None = None,
    more: bytes = b"",
) -> bytes:
    """Return what an index says of a tensor."""
    dims = b"".join(field(2, field(1, each)) for each in shape)
    checksum = varint(6 << 3 | 5) + struct.pack("<I", masked(data))
    numbers = field(3, shard) + field(4, offset) + field(5, len(data) if size is None else size)
    return field(1, dtype) + field(2, dims) + numbers + checksum + more


def bundle(prefix: Path, entries: dict[str, bytes], data: bytes = b"", shards: int = 1) -> Path:
    """Write a checkpoint of one data file, and return its prefix."""
    pairs = [(b"", field(1, shards)), *((name.encode(), each) for name, each in entries.items())]
    prefix.with_name(f"{prefix.name}.index").write_bytes(table(pairs))
    prefix.with_name(f"{prefix.name}.data-00000-of-00001").write_bytes(data)
    return prefix


def copied(directory: str, name: str, target: Path) -> Path:
    """Copy the files of one fixture, and return the copy."""
    for source in (FIXTURES / directory).glob(f"{name}*"):
        if source.is_dir():
            shutil.copytree(source, target / source.name)
        elif source.suffix != ".npz":
            shutil.copy(source, target)
    return target / name
