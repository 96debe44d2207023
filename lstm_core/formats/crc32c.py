"""CRC-32C (Castagnoli), by which TensorFlow's checkpoints tell that they are whole.

Knows no file. NumPy takes many parts of the data at once, since a byte at a time in Python would
take a second a megabyte.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

UInt32 = npt.NDArray[np.uint32]

_POLYNOMIAL = 0x82F63B78
_MASK_DELTA = 0xA282EAD8
_NUM_LANES = 4096
_BLOCK_BYTES = 256


def _make_table() -> UInt32:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


_TABLE = _make_table()
_NUMBERS: list[int] = _TABLE.tolist()
"""The same: NumPy is slow at one number at a time."""


def crc32c(data: bytes | memoryview) -> int:
    """Return the checksum of bytes."""
    if len(data) < _NUM_LANES:
        register = 0xFFFFFFFF
        for byte in bytes(data):
            register = _NUMBERS[(register ^ byte) & 0xFF] ^ (register >> 8)
        return register ^ 0xFFFFFFFF
    return _combined(*_lanes(np.frombuffer(data, np.uint8))) ^ 0xFFFFFFFF


def unmasked(stored: int) -> int:
    """Return the checksum that TensorFlow stored: it turns them, and adds a number."""
    turned = (stored - _MASK_DELTA) & 0xFFFFFFFF
    return ((turned >> 17) | (turned << 15)) & 0xFFFFFFFF


def _lanes(data: npt.NDArray[np.uint8]) -> tuple[UInt32, UInt32]:
    """Return the register of each of `_NUM_LANES` parts, and what a part of zeros does to each bit.

    Zeros before the data change nothing while the register is zero, and the ones that it begins
    with are the same as turning the first four bytes over.
    """
    length = -(-len(data) // _NUM_LANES)
    padding = length * _NUM_LANES - len(data)
    parts = np.concatenate([np.zeros(padding, np.uint8), data])
    parts[padding : padding + 4] ^= 0xFF
    parts = parts.reshape(_NUM_LANES, length)
    bits = np.left_shift(np.uint32(1), np.arange(32, dtype=np.uint32))
    registers = np.concatenate([np.zeros(_NUM_LANES, np.uint32), bits])
    for start in range(0, length, _BLOCK_BYTES):
        for column in np.ascontiguousarray(parts[:, start : start + _BLOCK_BYTES].T):
            registers[:_NUM_LANES] ^= column
            registers = _TABLE[registers & 0xFF] ^ (registers >> 8)
    return registers[:_NUM_LANES], registers[_NUM_LANES:]


def _combined(registers: UInt32, shift: UInt32) -> int:
    """Return the register of the whole from those of neighbouring parts of equal length."""
    while len(registers) > 1:
        registers = _shifted(registers[::2], shift) ^ registers[1::2]
        shift = _shifted(shift, shift)
    return int(registers[0])


def _shifted(registers: UInt32, shift: UInt32) -> UInt32:
    result = np.zeros_like(registers)
    for bit in range(32):
        result ^= np.where((registers >> np.uint32(bit)) & 1, shift[bit], np.uint32(0))
    return result
