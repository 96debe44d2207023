"""Tensors that TensorFlow keeps in slices, as it does with partitioned variables: put together.

Knows no file.

References:
    `tensorflow/core/framework/tensor_slice.proto`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from lstm_core.formats.protobuf import Message
from lstm_core.formats.tensors import Float32

Extents = tuple[tuple[int, int], ...]
"""Where a slice begins along each axis, and how long it is there; -1 is all of an axis."""


def extents_of(message: Message) -> Extents:
    """Return where a slice is."""
    return tuple(
        (each.integer(1), each.integer(2) if 2 in each.numbers() else -1)
        for each in message.messages(1)
    )


def joined(
    name: str, shape: tuple[int, ...], slices: Sequence[tuple[Extents, Callable[[], Float32]]]
) -> Float32:
    """Return a tensor.

    Args:
        name: Its name, for messages.
        shape: Its shape.
        slices: Where each slice is, and what reads its numbers, in any shape.

    Raises:
        ValueError: The slices are not, each once, all of it.
    """
    places = [_place(name, shape, extents) for extents, _ in slices]
    parts = [load() for _, load in slices]
    # Before memory is taken, which is then no more than the slices have taken.
    if sum(part.size for part in parts) != prod(shape):
        raise ValueError(f"{name} has slices that are not all of its shape {shape}")
    whole = np.zeros(shape, np.float32)
    is_there = np.zeros(shape, np.bool_)
    for place, part in zip(places, parts, strict=True):
        if part.size != whole[place].size or is_there[place].any():
            raise ValueError(f"{name} has slices of another size, or over each other")
        whole[place] = part.reshape(whole[place].shape)
        is_there[place] = True
    return whole


def _place(name: str, shape: tuple[int, ...], extents: Extents) -> tuple[slice, ...]:
    if len(extents) != len(shape):
        raise ValueError(f"{name} has a slice of {len(extents)} axes")
    place = []
    for size, (start, length) in zip(shape, extents, strict=True):
        end = size if length == -1 else start + length
        if not 0 <= start <= end <= size:
            raise ValueError(f"{name} has a slice that lies outside its shape {shape}")
        place.append(slice(start, end))
    return tuple(place)
