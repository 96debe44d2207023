"""Tensors of the Open Inference Protocol to float32 and back. Knows no transport and no model.

What float32 holds exactly in every value (`BOOL`, integers of 8 and 16 bits, `FP16`, `BF16`, `FP32`)
is converted. Integers of 32 and 64 bits and `FP64` are converted where every value given is one that
float32 holds exactly, and refused else: no number is ever rounded in silence.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from service.domain import Float32
from service.errors import InvalidRequestError
from service.transport.explain import describe, shorten, wrong


class _Datatype(NamedTuple):
    """How one datatype is held.

    Attributes:
        dtype: The little-endian NumPy type of its bytes; of `BF16`, what holds the bits.
        types: What its values may be in JSON.
        is_exact: Whether float32 holds every value of it.
    """

    dtype: np.dtype[np.generic]
    types: frozenset[type]
    is_exact: bool


_INTEGER = frozenset({int})
_REAL = frozenset({int, float})
_DATATYPES = {
    "BOOL": _Datatype(np.dtype("?"), frozenset({bool}), is_exact=True),
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
    raise NotImplementedError


def from_values(
    name: str, datatype: str, shape: Sequence[int], values: Sequence[object]
) -> Float32:
    """Return the values of a tensor that is written out, nested as its shape or flat.

    Args:
        name: The tensor's, for what is said of it.
        datatype: As the protocol writes it.
        shape: As the request gives it.
        values: What JSON or a message of protobuf holds; real numbers are rounded to the datatype,
            as it says that they are of it.

    Returns:
        float32 of that shape, perhaps read-only.

    Raises:
        InvalidRequestError: It has no such values, or float32 cannot hold them.
    """
    raise NotImplementedError


def to_bytes(values: Float32) -> bytes:
    """Return the bytes of an FP32 tensor: little-endian, row-major."""
    return values.astype("<f4", copy=False).tobytes()


def to_values(values: Float32) -> list[float]:
    """Return the numbers of an FP32 tensor, flat and row-major."""
    flat: list[float] = values.ravel().tolist()
    return flat
