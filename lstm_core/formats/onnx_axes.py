"""The axes of the values in a graph, followed through transpositions and reshapes by what they are.

An axis is a tuple of atoms, the axes that it was made of: `Reshape` of `(time, direction, batch,
features)` to three axes gives one that is `(direction, features)`. An axis of size 1 that stands
for nothing is the empty tuple. Knows no operator and no layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from lstm_core.errors import SpecError

STAND_INS = (1009, 1013)
"""For sizes that are not fixed: primes, so that no other size is taken for them."""


class Atom(NamedTuple):
    """An axis as it came into being.

    Attributes:
        kind: `features`; of the graph's input `input 0` and `input 1`, which are `time` and `batch`
            behind the first LSTM; and `direction`.
        size: Its length; where the graph leaves it open, a number that stands for it.
    """

    kind: str
    size: int


Axis = tuple[Atom, ...]
Axes = tuple[Axis, ...]


def sizes(axes: Axes) -> tuple[int, ...]:
    """Return the length of each axis."""
    return tuple(math.prod(atom.size for atom in axis) for axis in axes)


def kinds(axis: Axis) -> list[str]:
    """Return what an axis is made of, single directions left out."""
    return [atom.kind for atom in axis if not (atom.kind == "direction" and atom.size == 1)]


def at(axes: Sequence[object], index: int) -> int:
    """Return an axis's number, counted from the end where it is negative.

    Raises:
        SpecError: There is none.
    """
    if not -len(axes) <= index < len(axes):
        raise SpecError("axis", f"there is no axis {index} of {len(axes)}")
    return index % len(axes)


def transposed(axes: Axes, order: Sequence[int]) -> Axes:
    """Return the axes in another order; SpecError if it is no permutation."""
    if sorted(order) != list(range(len(axes))):
        raise SpecError("perm", f"{list(order)!s:.80} is no order of {len(axes)} axes")
    return tuple(axes[index] for index in order)


def squeezed(axes: Axes, indices: Sequence[int] | None) -> Axes:
    """Return the axes without those named, or without all of size 1.

    Raises:
        SpecError: One is longer than 1.
    """
    lengths = sizes(axes)
    if indices is None:
        gone = {index for index, size in enumerate(lengths) if size == 1}
    else:
        gone = {at(axes, index) for index in indices}
    if any(lengths[index] != 1 for index in gone):
        raise SpecError("axes", f"those of size {lengths} cannot be squeezed at {sorted(gone)}")
    return tuple(axis for index, axis in enumerate(axes) if index not in gone)


def unsqueezed(axes: Axes, indices: Sequence[int]) -> Axes:
    """Return the axes with new ones of size 1 at these places of the result."""
    rank = len(axes) + len(indices)
    if len(indices) > 64 or not all(-rank <= index < rank for index in indices):
        raise SpecError("axes", "has places that are not there")
    new = {index % rank for index in indices}
    rest = iter(axes)
    return tuple(() if index in new else next(rest, ()) for index in range(rank))


def reshaped(axes: Axes, shape: Sequence[int], *, keeps_zero: bool = False) -> Axes:
    """Return the axes merged, or parted as they had been merged.

    Args:
        axes: The axes.
        shape: The lengths wanted; 0 takes that of the axis at the same place, -1 what is left.
        keeps_zero: Whether 0 means none (`allowzero`).

    Raises:
        SpecError: An axis would be cut, or the lengths do not fit.
    """
    before = sizes(axes)
    wanted = [
        before[index] if size == 0 and not keeps_zero and index < len(before) else size
        for index, size in enumerate(shape)
    ]
    total = math.prod(before)
    if wanted.count(-1) == 1 and (rest := math.prod(s for s in wanted if s != -1)):
        wanted[wanted.index(-1)] = total // rest
    if math.prod(wanted) != total or min(wanted, default=1) < 1:
        raise SpecError("shape", f"{before} cannot become {tuple(shape)!s:.80}")
    atoms = [atom for axis in axes for atom in axis]
    made: list[Axis] = []
    for size in wanted:
        axis: list[Atom] = []
        while math.prod(atom.size for atom in axis) < size and atoms:
            axis.append(atoms.pop(0))
        if size == 1 and atoms and atoms[0].size == 1:
            axis.append(atoms.pop(0))
        if math.prod(atom.size for atom in axis) != size:
            raise SpecError("shape", f"{before} to {tuple(shape)!s:.80} cuts an axis in two")
        made.append(tuple(axis))
    if atoms and made:
        made[-1] += tuple(atoms)
    return tuple(made)
