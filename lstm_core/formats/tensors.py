"""Arrays that lie in a file until they are asked for, and float32 out of what is stored there.

Knows the numbers' layouts. Knows no file and no layer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lstm_core.errors import SpecError, WeightsError

Float32 = npt.NDArray[np.float32]

FLOATING_BYTES = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}
"""The dtypes that weights may have, and the bytes of a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """An array of a file.

    Attributes:
        shape: Its shape, which its place in the file was compared with.
        dtype: Its dtype's name, one of `FLOATING_BYTES` or another.
        load: Reads it as float32, C-contiguous, of `shape`; ValueError or OSError where that fails.
    """

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], Float32]


Tensors = Mapping[str, StoredTensor]


def to_float32(data: bytes | memoryview, dtype: str) -> Float32:
    """Return little-endian numbers as `(n,)` float32.

    Raises:
        ValueError: They are no real numbers, or `data` is no whole number of them.
    """
    if dtype not in FLOATING_BYTES:
        raise ValueError(f"holds {dtype}, not real numbers")
    if dtype == "bfloat16":
        # bfloat16 is the upper half of a float32.
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):
        return np.frombuffer(data, f"<f{FLOATING_BYTES[dtype]}").astype(np.float32)


def read_weight(
    tensors: Tensors, key: str, layer: str, name: str, shape: tuple[int | None, ...]
) -> Float32:
    """Return a layer's array.

    Args:
        tensors: The file's.
        key: Which of them.
        layer: The layer's name, for messages.
        name: What the array is, for messages.
        shape: What it shall have, None where any size of at least 1 will do.

    Returns:
        float32, C-contiguous, all finite.

    Raises:
        SpecError: It is missing, cannot be read, is not finite or has another shape.
    """
    tensor = tensors.get(key)
    if tensor is None:
        raise SpecError(layer, f"its {name} is missing: no {key}")
    fits = len(tensor.shape) == len(shape) and all(
        have > 0 and want in (None, have) for want, have in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        padded = zip(shape, (*tensor.shape, *[0] * len(shape)), strict=False)
        expected = tuple((have or 1) if want is None else want for want, have in padded)
        raise SpecError(layer, str(WeightsError(f"{name} ({key})", expected, tensor.shape)))
    try:
        array = tensor.load()
    except (OSError, ValueError) as error:
        raise SpecError(layer, f"its {name} at {key} cannot be read: {error}") from error
    if not np.isfinite(array).all():
        raise SpecError(layer, f"its {name} has values that are not finite in float32")
    return array
