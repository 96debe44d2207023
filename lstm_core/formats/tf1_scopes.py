"""Which variables of a TensorFlow 1 checkpoint make up which layer, by their scopes.

Owns the names that `rnn_cell`, contrib's cells and `dense` gave their variables. Knows no numbers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Shapes = Mapping[str, tuple[int, ...]]

CELL_NAMES = (
    "basic_lstm_cell",
    "cudnn_compatible_lstm_cell",
    "lstm_block_cell",
    "lstm_cell",
    "lstm_fused_cell",
)
KERNELS, BIASES = ("kernel", "weights"), ("bias", "biases")
"""What a cell's or a dense layer's variables are called, and were before TensorFlow 1.2."""

_CELL = re.compile(rf"(lstm|{'|'.join(CELL_NAMES)})(_\d+)?")
_CELL_PARTS = ("w_i_diag", "w_f_diag", "w_o_diag", "projection/kernel", "projection/weights")
_NUMBERED = re.compile(r"cell_(\d+)$")
_DIRECTION = re.compile(r"(.*?)/?\b(fw|bw)/(.*)")
_INSIDE = re.compile(r"_cell(_\d+)?(/|$)|(^|/)(rnn(_\d+)?|fw|bw)/[^/]*$")
"""Of scopes that are inside a recurrent network, and so of no dense layer behind it."""
OPAQUE = re.compile(r"(.*/)?opaque_kernel$")
"""The one buffer of contrib's `CudnnLSTM`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """One layer.

    Attributes:
        name: The layer's scope: where its variables are, or what both its directions' share.
        cells: The scopes of its cells: none for a dense layer, one, or forward and backward.
    """

    name: str
    cells: tuple[str, ...] = ()


def is_cell(scope: str) -> bool:
    """Return whether a scope is that of an LSTM cell."""
    return _CELL.fullmatch(scope.rpartition("/")[2]) is not None


def find_layers(shapes: Shapes) -> tuple[list[Scope], list[str]]:
    """Return the layers from input to output, and what stands in the way of knowing them.

    Args:
        shapes: Of every variable by its name.
    """
    scopes = {name.rpartition("/")[0] for name, shape in shapes.items() if _is_kernel(name, shape)}
    cells = [scope for scope in scopes if is_cell(scope)]
    # A projection is a part of its cell, not a dense layer.
    dense = [
        scope for scope in scopes if not is_cell(scope) and not is_cell(scope.rpartition("/")[0])
    ]
    layers, problems = _recurrent(cells)
    others = [scope for scope in dense if _INSIDE.search(scope)]
    problems += [f"{scope}: is no LSTM cell that is known here" for scope in sorted(others)]
    used = [*cells, *dense]
    problems += [f"{name}: is of no layer that is known here" for name in _strays(shapes, used)]
    if len(dense) > 1 and not all(re.search(r"dense(_\d+)?$", scope) for scope in dense):
        problems.append(f"the order of {', '.join(sorted(dense))} is not known: name it in layers")
    return [*layers, *(Scope(name=scope) for scope in sorted(dense, key=natural))], problems


def named_layers(names: Sequence[str], shapes: Shapes) -> tuple[list[Scope], list[str]]:
    """Return the layers of these scopes, and a sentence for each that there is not."""
    layers, problems = [], []
    for name in names:
        inside = [
            scope
            for scope in {each.rpartition("/")[0] for each in shapes}
            if (scope == name or scope.startswith(f"{name}/")) and is_cell(scope)
        ]
        if inside:
            found, wrong = _recurrent(inside)
            layers += found
            problems += wrong
        elif any(f"{name}/{kernel}" in shapes for kernel in KERNELS):
            layers.append(Scope(name=name))
        else:
            problems.append(f"{name}: there is no such layer")
    return layers, problems


def natural(scope: str) -> list[tuple[str, int]]:
    """Return a key that sorts `dense_10` behind `dense_9`, and `dense` before both."""
    return [
        (match[1], int(match[2] or 0))
        for part in scope.split("/")
        if (match := re.fullmatch(r"(.*?)(?:_(\d+))?", part)) is not None
    ]


def _is_kernel(name: str, shape: tuple[int, ...]) -> bool:
    return name.rpartition("/")[2] in KERNELS and len(shape) == 2


def _recurrent(cells: Iterable[str]) -> tuple[list[Scope], list[str]]:
    """Return the recurrent layers of these cells, from input to output."""
    directions: dict[str, dict[str, str]] = {}
    for cell in sorted(cells, key=natural):
        match = _DIRECTION.fullmatch(cell)
        name = f"{match[1]}/{match[3]}".strip("/") if match else cell
        directions.setdefault(name, {})[match[2] if match else ""] = cell
    layers, problems = [], []
    for name, found in directions.items():
        if set(found) == {""}:
            layers.append(Scope(name=name, cells=(found[""],)))
        elif set(found) == {"fw", "bw"}:
            layers.append(Scope(name=name, cells=(found["fw"], found["bw"])))
        else:
            problems.append(f"{name}: has one direction of two, or cells beside them")
    if sum("/fw/multi_rnn_cell/" in f"/{layer.cells[0]}" for layer in layers) > 1:
        problems.append("several cells run in each of two directions, which is not served")
    stacks = {_stack(layer.name) for layer in layers}
    if len(stacks) > 1:
        listed = ", ".join(sorted(stacks, key=natural))
        problems.append(f"the order of {listed} is not known: name it in layers")
    return layers, problems


def _stack(name: str) -> str:
    """Return the scope of the stack that a cell is in: what its numbered cells share."""
    parts = name.split("/")
    at = next((i for i, part in enumerate(parts) if _NUMBERED.match(part)), len(parts) - 1)
    return "/".join(parts[:at])


def _strays(shapes: Shapes, scopes: Sequence[str]) -> list[str]:
    """Return the variables that belong to no layer and to no optimizer."""
    leaves = [*KERNELS, *BIASES, *_CELL_PARTS]
    used = {f"{scope}/{leaf}" for scope in scopes for leaf in leaves} & set(shapes)
    return [
        name
        for name, shape in sorted(shapes.items())
        if shape
        and name not in used
        and not OPAQUE.match(name)
        # Optimizers keep theirs behind the name of the variable: `dense/kernel/Adam`.
        and not any(f"{each}/" in name for each in used)
    ]
