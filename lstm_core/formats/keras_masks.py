"""Where Keras's masks come from: those that a graph hands on, and those that are made there.

Keras 3 writes the operations that compute a mask into the graph, and passes what they give to the
layers as the argument `mask`. A network makes masks by itself, so they must be the same. Knows no
network.

A mask of Keras 3 is live where some value is not some number, for any of several values: a set of
such comparisons. None is no mask.
"""

from __future__ import annotations

from collections.abc import Sequence

from lstm_core.formats.keras_config import Json, LayerConfig

Mask = frozenset[tuple[int, float | str | None]] | None
"""Comparisons: the number of a value, and what its features are compared with."""

EVERYWHERE: Mask = frozenset({(-1, None)})
_OPERATIONS = "keras.src.ops.numpy."


def is_operation(kind: str) -> bool:
    """Whether a kind is an operation of Keras 3, and no layer; no mask passes it."""
    return kind.startswith("keras.src.ops.")


def mask_behind(layer: LayerConfig, takes: Sequence[int], masks: Sequence[Mask]) -> Mask:
    """Return the mask that Keras 3 hands on behind a layer.

    Args:
        layer: The layer, or the operation.
        takes: The numbers of the values that it takes.
        masks: Those of these values.
    """
    if is_operation(layer.kind) or not takes:
        return None
    if layer.kind == "Masking":
        return frozenset({(takes[0], _hashable(layer.config.get("mask_value")))})
    if layer.kind == "Embedding" and layer.config.get("mask_zero") is True:
        return frozenset({(takes[0], 0)})
    if all(mask is None for mask in masks):
        return None
    if layer.kind != "Concatenate" and None in masks:
        return None
    return _either([EVERYWHERE if mask is None else mask for mask in masks])


def mask_made(
    layer: LayerConfig, arguments: Sequence[Json], values: Sequence[int | None], made: list[Mask]
) -> Mask:
    """Return the mask that an operation computes, or None if that is none.

    Args:
        layer: The operation.
        arguments: Its arguments by position; anything stands for those that are tensors.
        values: The numbers of the tensors, None for what are masks only.
        made: The masks that these tensors are.
    """
    if not layer.kind.startswith(_OPERATIONS):
        return None
    name = layer.kind.removeprefix(_OPERATIONS)
    if name == "NotEqual" and len(arguments) == 2 and len(values) == 1 and values[0] is not None:
        return frozenset({(values[0], _hashable(arguments[1]))})
    if name == "ZerosLike":
        return frozenset()
    if name == "OnesLike":
        return EVERYWHERE
    is_last_axis = layer.config.get("axis") == -1
    is_known = name == "LogicalOr" or (
        is_last_axis
        and (
            (name == "Any" and not layer.config.get("keepdims"))
            or name in ("Concatenate", "ExpandDims")
        )
    )
    return _either(made) if is_known else None


def _either(masks: Sequence[Mask]) -> Mask:
    """Return where any of some masks is live; None if one of them is no mask."""
    joined: set[tuple[int, float | str | None]] = set()
    for mask in masks:
        if mask is None:
            return None
        joined |= mask
    assert EVERYWHERE is not None
    return EVERYWHERE if joined & EVERYWHERE else frozenset(joined)


def _hashable(value: Json) -> float | str:
    return value if isinstance(value, int | float) else repr(value)
