"""Checks of the numbers that callers hand to layers and cells, with messages that name them.

Knows Python's numbers. Knows no tensors, no layer and no kernel.
"""

from __future__ import annotations

import math
from typing import Any


def as_integer(value: Any) -> int | None:
    """Return a whole number of any type as an integer; None for what is none."""
    if isinstance(value, bool | str | bytes):
        return None
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if number == value else None


def checked_size(name: str, size: Any) -> int:
    """Return a number of units, of layers or of projections.

    Raises:
        ValueError: It is not a positive integer.
    """
    number = as_integer(size)
    if number is None or number < 1:
        raise ValueError(f"{name} must be a positive integer, not {size!r}")
    return number


def checked_number(name: str, value: Any, expected: str = "a number") -> float:
    """Return a number as a float.

    Args:
        name: Of the argument.
        value: What came.
        expected: In words, for the message.

    Raises:
        ValueError: It is none.
    """
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if math.isnan(number):
        raise ValueError(f"{name} must be {expected}, not {value!r}")
    return number


def checked_rate(name: str, rate: Any) -> float:
    """Return a fraction to drop, moved into 0 to 1, as every release does.

    Raises:
        ValueError: It is not a number.
    """
    return min(1.0, max(0.0, checked_number(name, rate, "a number from 0 to 1")))


def checked_clip(name: str, limit: Any) -> float | None:
    """Return a limit of absolute values, or None.

    Raises:
        ValueError: It is not a positive number.
    """
    if limit is None:
        return None
    number = checked_number(name, limit)
    if not number > 0:
        raise ValueError(f"{name} must be positive, or None for no clipping, not {limit!r}")
    return number
