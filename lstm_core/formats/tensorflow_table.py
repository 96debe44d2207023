"""The sorted table of keys and values that TensorFlow keeps its checkpoints in.

Owns blocks, their checksums and the keys' prefixes. Does not know what the values are.

References:
    `tensorflow/core/lib/io/table_format.txt`, which is LevelDB's.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from lstm_core.formats.crc32c import crc32c, unmasked
from lstm_core.formats.protobuf import varint

_MAGIC = 0xDB4775248B80FB57
_FOOTER_BYTES = 48
_TRAILER_BYTES = 5
MAX_ENTRIES = 100_000
"""Of a table, and blocks: many times what a recurrent model has."""
MAX_KEY_BYTES = 64 << 20
"""Of all keys. Each may repeat the one before it, which takes no bytes in the file."""


def is_table(end: bytes) -> bool:
    """Return whether a file that ends so is a table."""
    return len(end) >= 8 and struct.unpack("<Q", end[-8:])[0] == _MAGIC


def entries(table: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Yield every key and its value. Values are not copied.

    Raises:
        ValueError: The data are no table, cut off or damaged.
    """
    if len(table) < _FOOTER_BYTES or not is_table(bytes(table[-8:])):
        raise ValueError("is no table of TensorFlow, or cut off")
    footer = table[-_FOOTER_BYTES:]
    _, at = varint(footer, 0)
    _, at = varint(footer, at)
    num_entries, bytes_left, key_bytes_left = 0, len(table), MAX_KEY_BYTES
    for num_blocks, (_, handle) in enumerate(_block(table, footer[at:])):
        # A block may be named more than once, which no writer does.
        bytes_left -= _size(handle)
        if num_blocks == MAX_ENTRIES or bytes_left < 0:
            raise ValueError("claims more blocks than a checkpoint has")
        for key, value in _block(table, handle):
            num_entries += 1
            key_bytes_left -= len(key)
            if num_entries > MAX_ENTRIES or key_bytes_left < 0:
                raise ValueError("claims more entries than a checkpoint has")
            yield key, value


def _size(handle: memoryview) -> int:
    _, at = varint(handle, 0)
    return varint(handle, at)[0]


def _block(table: memoryview, handle: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    offset, at = varint(handle, 0)
    size, _ = varint(handle, at)
    if offset + size + _TRAILER_BYTES > len(table):
        raise ValueError("is cut off or damaged: a block lies outside the file")
    kind, stored = struct.unpack("<BI", table[offset + size : offset + size + _TRAILER_BYTES])
    if crc32c(table[offset : offset + size + 1]) != unmasked(stored):
        raise ValueError("is damaged: a block's checksum is wrong")
    if kind != 0:
        raise ValueError("is compressed, which TensorFlow's checkpoints never are")
    yield from _pairs(table[offset : offset + size])


def _pairs(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    if len(block) < 4:
        raise ValueError("is damaged: a block is too short")
    (num_restarts,) = struct.unpack("<I", block[-4:])
    end = len(block) - 4 - 4 * num_restarts
    if end < 0:
        raise ValueError("is damaged: a block has no room for its restarts")
    data, at, key = block[:end], 0, b""
    while at < end:
        shared, at = varint(data, at)
        rest, at = varint(data, at)
        size, at = varint(data, at)
        if shared > len(key) or at + rest + size > end:
            raise ValueError("is damaged: an entry is longer than its block")
        key = key[:shared] + bytes(data[at : at + rest])
        yield key, data[at + rest : at + rest + size]
        at += rest + size
