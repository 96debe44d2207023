"""A Keras layer over any cells (GRU, simple, stacked, a user's own), its state from outside.

Each time step is a call of the cell. Knows no graph and no arena.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import keras
import tensorflow as tf

from lstm_core.dispatch import Dispatch
from lstm_core.kernels import tensorflow as generic
from lstm_core.runtime.tensorflow_recurrence import (
    OUTPUT_ROLE,
    Given,
    Recurrence,
    StateVector,
    Taken,
)

Tensor: TypeAlias = Any
Layer: TypeAlias = Any

_CELL_ROLES: dict[type, tuple[str, ...]] = {
    keras.layers.LSTMCell: ("h", "c"),
    keras.layers.GRUCell: ("h",),
    keras.layers.SimpleRNNCell: ("h",),
}
"""Cells whose output is their first state."""


def recurrence_of_cells(layer: Layer, name: str, output_size: int, num_gpus: int) -> Recurrence:
    """Return a layer over any cells of Keras, each step of which is a call of its cell."""
    cells = list(getattr(layer.cell, "cells", [layer.cell]))
    vectors: list[StateVector] = []
    cell_names = [name] if len(cells) == 1 else _cell_names(name, cells)
    for cell, cell_name in zip(cells, cell_names, strict=True):
        sizes = keras.tree.flatten(cell.state_size)
        roles = _CELL_ROLES.get(type(cell), [f"state_{index}" for index in range(len(sizes))])
        vectors += [
            StateVector(layer=cell_name, role=role, size=int(size))
            for role, size in zip(roles, sizes, strict=True)
        ]
    num_states = len(vectors)
    last_states = len(keras.tree.flatten(cells[-1].state_size))
    output_at = num_states - last_states
    if type(cells[-1]) not in _CELL_ROLES:
        # A masked step repeats an output that no state tells, so it is kept like one.
        output_at = num_states
        vectors.append(StateVector(layer=cell_names[-1], role=OUTPUT_ROLE, size=output_size))
    run = _cell_kernel(layer, num_states)
    device = "gpu" if num_gpus else "cpu"
    kinds = ", ".join(type(cell).__name__ for cell in cells)
    return Recurrence(
        layer=layer,
        vectors=tuple(vectors),
        output_size=output_size,
        num_flags=len(cells),
        dispatch=Dispatch(
            kernel="tensorflow",
            device=device,
            reason=f"its own cell ({kinds}) takes each time step; no kernel here knows it",
        ),
        output_at=output_at,
        run=run,
    )


def _cell_names(name: str, cells: Sequence[Any]) -> list[str]:
    """Name stacked cells as their groups in a `.keras` file, which the other runtime does too."""
    names: list[str] = []
    for cell in cells:
        kind = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(cell).__name__)
        base = f"{name}/{kind.lower()}"
        num_same = sum(each == base or each.startswith(f"{base}_") for each in names)
        names.append(f"{base}_{num_same}" if num_same else base)
    return names


def _cell_kernel(layer: Layer, num_states: int) -> Callable[[Given], Taken]:
    """Return what runs a layer's cell over time.

    Args:
        layer: The layer.
        num_states: The cell's; a vector behind them is the last output.
    """
    cell, dtype = layer.cell, layer.compute_dtype
    structure = cell.state_size
    zero_output = bool(layer.zero_output_for_mask)

    def step(x: Tensor, is_live: Tensor | None, output: Tensor, states: Sequence[Tensor]) -> Any:
        given = (
            keras.tree.pack_sequence_as(structure, states)
            if keras.tree.is_nested(structure)
            else list(states)
        )
        next_output, next_states = cell(x, given, training=False)
        flat = keras.tree.flatten(next_states)
        if is_live is None:
            return next_output, next_output, flat
        kept = tf.where(is_live, next_output, output)
        shown = tf.where(is_live, next_output, tf.zeros_like(output)) if zero_output else kept
        after = [tf.where(is_live, new, old) for new, old in zip(flat, states, strict=True)]
        return shown, kept, after

    def run(given: Given) -> Taken:
        x = tf.cast(given.x, dtype)
        states = [tf.cast(state, dtype) for state in given.states[:num_states]]
        output = tf.cast(given.last_output, dtype)
        if given.is_step:
            is_live = None if given.live is None else given.live[:, :1]
            shown, output, states = step(x[:, 0], is_live, output, states)
            outputs = shown[:, None]
        else:
            outputs, output, states = _loop(step, x, given.live, output, states)
        extra = [output] if len(given.states) > num_states else []
        return Taken(outputs, [*states, *extra])

    return run


def _loop(
    step: Callable[..., Any],
    x: Tensor,
    live: Tensor | None,
    output: Tensor,
    states: Sequence[Tensor],
) -> tuple[Tensor, Tensor, list[Tensor]]:
    steps = generic.by_step(tf.transpose(x, (1, 0, 2)), tf.shape(x)[1])
    lives = None if live is None else generic.by_step(tf.transpose(live), tf.shape(x)[1])
    array = tf.TensorArray(output.dtype, tf.shape(x)[1], element_shape=output.shape)

    def body(t: Tensor, array: Any, output: Tensor, *states: Tensor) -> tuple[Any, ...]:
        is_live = None if lives is None else lives.read(t)[:, None]
        shown, output, after = step(steps.read(t), is_live, output, states)
        return t + 1, array.write(t, shown), output, *after

    time = tf.shape(x)[1]
    _, array, output, *after = tf.while_loop(
        lambda t, *_: t < time, body, (tf.constant(0), array, output, *states)
    )
    return tf.transpose(array.stack(), (1, 0, 2)), output, after
