"""Tensors of the Open Inference Protocol to float32 and back. Knows no transport and no model.

`BOOL`, integers of 8 and 16 bits, `FP16`, `BF16` and `FP32` are converted: float32 holds all their
values exactly. Integers of 32 and 64 bits and `FP64` are converted where float32 holds each value
that is given exactly, and refused else: no number is ever rounded in silence.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from math import prod
from struct import Struct
from struct import error as StructError  # noqa: N812 - as the class of an exception is called
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from service.domain import Float32
from service.transport.explain import describe, shorten, wrong

MAX_DIMENSIONS = 8
"""More dimensions than any tensor here has."""


class _Datatype(NamedTuple):
    """How one datatype is held.

    Attributes:
        dtype: The little-endian NumPy type of its bytes; of `BF16`, what holds the bits.
        kinds: What its values may be in JSON.
        is_exact: Whether float32 holds every value of it.
    """

    dtype: np.dtype[Any]
    kinds: frozenset[type]
    is_exact: bool


_TRUTH, _INTEGER, _REAL = frozenset({bool}), frozenset({int}), frozenset({int, float})
_DATATYPES = {
    "BOOL": _Datatype(np.dtype("?"), _TRUTH, is_exact=True),
    "INT8": _Datatype(np.dtype("i1"), _INTEGER, is_exact=True),
    "INT16": _Datatype(np.dtype("<i2"), _INTEGER, is_exact=True),
    "INT32": _Datatype(np.dtype("<i4"), _INTEGER, is_exact=False),
    "INT64": _Datatype(np.dtype("<i8"), _INTEGER, is_exact=False),
    "UINT8": _Datatype(np.dtype("u1"), _INTEGER, is_exact=True),
    "UINT16": _Datatype(np.dtype("<u2"), _INTEGER, is_exact=True),
    "UINT32": _Datatype(np.dtype("<u4"), _INTEGER, is_exact=False),
    "UINT64": _Datatype(np.dtype("<u8"), _INTEGER, is_exact=False),
    "FP16": _Datatype(np.dtype("<f2"), _REAL, is_exact=True),
    "BF16": _Datatype(np.dtype("<u2"), _REAL, is_exact=True),
    "FP32": _Datatype(np.dtype("<f4"), _REAL, is_exact=True),
    "FP64": _Datatype(np.dtype("<f8"), _REAL, is_exact=False),
}
_FLOAT32 = _DATATYPES["FP32"].dtype


class BinaryTensor:
    """A tensor that comes as bytes: what is said of it, checked once for all its values.

    Attributes:
        num_bytes: How many bytes it has.
    """

    __slots__ = ("_count", "_datatype", "_is_plain", "_kind", "_name", "_shape", "num_bytes")

    def __init__(self, name: str, datatype: str, shape: Sequence[int]) -> None:
        """Take what is said of it; see `from_bytes`.

        Raises:
            InvalidRequestError: There is no such datatype or shape.
        """
        self._kind = _find(name, datatype)
        self._count = _count(name, shape)
        self.num_bytes = self._count * self._kind.dtype.itemsize
        self._name = name
        self._datatype = datatype
        self._shape = tuple(shape)
        self._is_plain = datatype == "FP32" and sys.byteorder == "little"

    def read(self, data: bytes) -> Float32:
        """Return its values; see `from_bytes`."""
        if len(data) != self.num_bytes:
            expected = f"expected {self.num_bytes} bytes, {self._count} values of {self._datatype}"
            raise wrong((shorten(self._name),), f"{expected}, got {len(data)}")
        if self._is_plain:
            return np.ndarray(self._shape, _FLOAT32, data)
        values = np.frombuffer(data, self._kind.dtype)
        if self._datatype == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        elif self._datatype == "BOOL":
            # Any other byte than 0 is true, but NumPy takes it for its number.
            values = values.view(np.uint8) != 0
        return _float32(self._name, self._datatype, self._kind, values).reshape(self._shape)


def from_bytes(name: str, datatype: str, shape: Sequence[int], data: bytes) -> Float32:
    """Return the values of a binary tensor.

    Args:
        name: The tensor's, for what is said of it.
        datatype: As the protocol writes it.
        shape: As the request gives it.
        data: Little-endian, row-major.

    Returns:
        float32 of that shape, perhaps read-only.

    Raises:
        InvalidRequestError: It has no such values, or float32 cannot hold them.
    """
    return BinaryTensor(name, datatype, shape).read(data)


def from_values(
    name: str, datatype: str, shape: Sequence[int], values: Sequence[object]
) -> Float32:
    """Return the values of a tensor that is written out, nested as its shape or flat.

    Args:
        name: The tensor's, for what is said of it.
        datatype: As the protocol writes it.
        shape: As the request gives it.
        values: What JSON or a message of protobuf holds. Real numbers are rounded to the datatype:
            it says that they are of it.

    Returns:
        float32 of that shape, perhaps read-only.

    Raises:
        InvalidRequestError: It has no such values, or float32 cannot hold them.
    """
    kind = _find(name, datatype)
    count = _count(name, shape)
    if len(shape) > 1 and values and isinstance(values[0], list):
        values = _flatten(name, shape, values)
    if len(values) != count:
        expected = f"expected {count} values for the shape {list(shape)}, got {len(values)}"
        raise wrong((shorten(name),), expected)
    if not set(map(type, values)) <= kind.kinds:
        stray = next(value for value in values if type(value) not in kind.kinds)
        expected = " or ".join(sorted(each.__name__ for each in kind.kinds))
        raise wrong((shorten(name),), f"expected {expected} for {datatype}, got {describe(stray)}")
    if datatype == "FP32":
        try:
            packed = _packer(count).pack(*values)
        except (OverflowError, StructError):
            raise _beyond(name, datatype, values) from None
        return np.frombuffer(packed, np.float32).reshape(shape)
    return _from_others(name, datatype, kind, values).reshape(shape)


def to_bytes(values: Float32) -> bytes:
    """Return the bytes of an FP32 tensor: little-endian, row-major."""
    return values.astype(_FLOAT32, copy=False).tobytes()


def to_values(values: Float32) -> list[float]:
    """Return the numbers of an FP32 tensor, flat and row-major."""
    flat: list[float] = values.ravel().tolist()
    return flat


@lru_cache(maxsize=256)
def _packer(count: int) -> Struct:
    return Struct(f"={count}f")


def _find(name: str, datatype: str) -> _Datatype:
    kind = _DATATYPES.get(datatype)
    if kind is None:
        known = ", ".join(_DATATYPES)
        text = f"datatype {shorten(datatype)} is not served, as float32 cannot hold its values"
        raise wrong((shorten(name),), f"{text}; served are: {known}")
    return kind


def _count(name: str, shape: Sequence[int]) -> int:
    """Return how many values a tensor has.

    No dimension is 0, so that each is at most the number of values: a shape that fits its values is
    one that NumPy can hold.

    Raises:
        InvalidRequestError: A dimension is less than 1, or there are too many.
    """
    if len(shape) > MAX_DIMENSIONS or min(shape, default=1) < 1:
        text = f"expected a shape of at most {MAX_DIMENSIONS} dimensions, each at least 1"
        raise wrong((shorten(name),), f"{text}, got {shorten(str(list(shape[:20])))}")
    return prod(shape)


def _flatten(name: str, shape: Sequence[int], values: Sequence[Any]) -> Sequence[object]:
    """Return nested lists of a shape as a flat one."""
    expected = shape[0]
    for inner in shape[1:]:
        are_lists = all(isinstance(each, list) and len(each) == inner for each in values)
        if len(values) != expected or not are_lists:
            text = f"expected lists nested as the shape {list(shape)} says, or a flat one"
            raise wrong((shorten(name),), text)
        values = list(chain.from_iterable(values))
        expected *= inner
    return values


def _from_others(
    name: str, datatype: str, kind: _Datatype, values: Sequence[Any]
) -> npt.NDArray[np.float32]:
    """Return values of other datatypes than FP32."""
    if datatype == "BF16":
        return _round_to_bf16(name, values)
    try:
        with np.errstate(over="raise"):
            held = np.array(values, kind.dtype)
    except (OverflowError, FloatingPointError):
        raise _beyond(name, datatype, values) from None
    return _float32(name, datatype, kind, held)


def _round_to_bf16(name: str, values: Sequence[Any]) -> Float32:
    """Round real numbers to the nearest of those whose last 16 bits are zero in float32."""
    try:
        bits = np.frombuffer(_packer(len(values)).pack(*values), np.uint32)
    except (OverflowError, StructError):
        raise _beyond(name, "BF16", values) from None
    # Half of the last bit that stays, a little less where that one is 0: ties go to the even one.
    rounded = (bits + 0x7FFF + (bits >> 16 & 1)) & np.uint32(0xFFFF0000)
    result = rounded.view(np.float32)
    if not np.isfinite(result).all():
        raise _beyond(name, "BF16", values)
    return result


def _float32(
    name: str, datatype: str, kind: _Datatype, values: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    """Convert values that NumPy holds.

    Raises:
        InvalidRequestError: One of them is no number of float32.
    """
    with np.errstate(over="ignore"):
        converted = values.astype(np.float32, copy=False)
    if not kind.is_exact:
        # Compared as numbers of the wider type, which holds what float32 does; infinity for what
        # is beyond, and NaN is left to who looks for what is finite.
        with np.errstate(invalid="ignore"):
            back = converted.astype(values.dtype)
        is_same = (back == values) | (values != values)  # noqa: PLR0124 - NaN
        if values.dtype.kind in "iu":
            # What was rounded up to one more than the largest comes back as another number.
            is_same &= converted < 2.0 ** (8 * values.itemsize - (values.dtype.kind == "i"))
        if not is_same.all():
            value = values[int(np.argmin(is_same))].item()
            text = f"{describe(value)} of {datatype} is no number of float32, which the model takes"
            raise wrong((shorten(name),), f"{text}; send FP32 if it may be rounded")
    return converted


def _beyond(name: str, datatype: str, values: Sequence[Any]) -> Exception:
    worst = max(values, key=abs, default=0)
    text = f"expected values within {datatype}, got {describe(worst)}"
    return wrong((shorten(name),), text)
