"""The heaps in which HDF5 keeps strings of any length, checked before its library walks them.

The library (1.14 at least) trusts the sizes in them: damaged ones make it run for ever, or read
what is not its own, and end the process. Knows nothing else of HDF5; whether an attribute refers to
its strings as it should is not checked here.

References:
    HDF5 File Format Specification, "Disk Format: Level 1E - Global Heap".
"""

from __future__ import annotations

import mmap

_START = b"GCOL\x01"
_HEADER_BYTES = 16
"""Of a heap, and of each object in it: number, references, 4 bytes of nothing, 8 of its size."""
_LENGTHS_AT = {0: 14, 1: 14, 2: 10, 3: 10}
"""Where each version of the superblock tells how many bytes a length has."""


def check_heaps(content: bytes | mmap.mmap) -> None:
    """Refuse a file with a heap that is damaged.

    Args:
        content: The whole file, which begins with HDF5's signature.

    Raises:
        ValueError: A heap is damaged, or lengths have other than the 8 bytes that Keras writes.
    """
    lengths_at = _LENGTHS_AT.get(content[8]) if len(content) > 8 else None
    if lengths_at is None or content[lengths_at : lengths_at + 1] != b"\x08":
        raise ValueError("its superblock is not as Keras writes it")
    at = content.find(_START)
    while at >= 0:
        _check_heap(content, at)
        at = content.find(_START, at + 1)


def _check_heap(content: bytes | mmap.mmap, begin: int) -> None:
    end = begin + _number(content, begin + 8)
    at = begin + _HEADER_BYTES
    if not at <= end <= len(content):
        raise ValueError(f"its heap at byte {begin} is damaged")
    while at + _HEADER_BYTES <= end:
        size = _number(content, at + 8)
        is_free = content[at : at + 2] == b"\0\0"
        # What is free counts its header, and an object's bytes end at a multiple of 8.
        at += size if is_free else _HEADER_BYTES + (size + 7) // 8 * 8
        if at > end or (is_free and not size):
            raise ValueError(f"its heap at byte {begin} is damaged")


def _number(content: bytes | mmap.mmap, at: int) -> int:
    return int.from_bytes(content[at : at + 8], "little")
