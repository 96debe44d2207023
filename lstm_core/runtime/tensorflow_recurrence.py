"""One recurrent Keras layer with its state from outside: rows in, rows out.

Owns how each kind of layer keeps its state and which kernel runs it. Knows no graph and no arena.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from lstm_core.dispatch import Candidate, Dispatch, Hardware, LayerOptions, dispatch_layer
from lstm_core.kernels import block, cudnn
from lstm_core.kernels import tensorflow as generic

Tensor: TypeAlias = Any
Layer: TypeAlias = Any

OWN_LAYERS = ("lstm_core>LSTM", "lstm_core>LSTMV1", "lstm_core>CuDNNLSTM")
"""Our layers that are run here, by the names that Keras has registered them under."""
_KERNELS = {"block": block.sequence, "cudnn": cudnn.sequence, "tensorflow": generic.sequence}
_CELL_ROLES: dict[type, tuple[str, ...]] = {
    keras.layers.LSTMCell: ("h", "c"),
    keras.layers.GRUCell: ("h",),
    keras.layers.SimpleRNNCell: ("h",),
}
"""Cells whose output is their first state."""
_OUTPUT = "output"
"""The role of what is kept beside the states of other cells."""


class Taken(NamedTuple):
    """What some time steps gave.

    Attributes:
        outputs: `(batch, time, output_size)`.
        states: Each `(batch, size)`, after the last step.
    """

    outputs: Tensor
    states: Sequence[Tensor]


class _Given(NamedTuple):
    """What a kernel runs on.

    Attributes:
        x: `(batch, time, features)`.
        states: Each `(batch, size)`.
        last_output: `(batch, output_size)`, that of the last live step; zeros if there was none.
        live: `(batch, time)` bool, true where a step is live; None means everywhere.
        is_step: Whether there is one time step, which needs no loop.
    """

    x: Tensor
    states: Sequence[Tensor]
    last_output: Tensor
    live: Tensor | None
    is_step: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StateVector:
    """One vector of a layer's state.

    Attributes:
        layer: The layer's name, or a name for one cell of it.
        role: `h` or `c`, or for cells that nobody knows `state` and `output`.
        size: Its length.
    """

    layer: str
    role: str
    size: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Recurrence:
    """A layer that takes its state from whoever calls it.

    Attributes:
        layer: The layer, whose own arguments say what of the outputs goes on.
        vectors: The state's, in Keras's order.
        output_size: Length of an output.
        num_flags: Flags beside its state: one a cell.
        dispatch: Which kernel runs it, and why.
    """

    layer: Layer
    vectors: tuple[StateVector, ...]
    output_size: int
    num_flags: int
    dispatch: Dispatch
    output_at: int
    run: Callable[[_Given], Taken]

    @property
    def state_size(self) -> int:
        """The length of its part of a row."""
        return sum(vector.size for vector in self.vectors)

    def last_output(self, row: Tensor, flags: Tensor) -> Tensor:
        """Return what the layer gave for the last live step.

        Args:
            row: `(batch, state_size)` float32, its part of the rows.
            flags: `(batch, num_flags)` bool, its part of the flags.

        Returns:
            `(batch, output_size)` float32; zeros where there was no live step.
        """
        output = self._split(row)[self.output_at]
        return tf.where(flags[:, -1:], output, tf.zeros_like(output))

    def take(
        self, x: Tensor, row: Tensor, flags: Tensor, live: Tensor | None, *, is_step: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Take every time step.

        A masked step keeps the state, and repeats the last live step's output.

        Args:
            x: `(batch, time, features)`, of any floating dtype; time at least 1.
            row: `(batch, state_size)` float32, its part of the rows.
            flags: `(batch, num_flags)` bool, its part of the flags: whether there was a live step.
            live: `(batch, time)` bool, true where a step is live; None means everywhere.
            is_step: Whether time is 1.

        Returns:
            Outputs `(batch, time, output_size)` in the layer's compute dtype, and the new row and
            flags.
        """
        last_output = self.last_output(row, flags)
        taken = self.run(_Given(x, self._split(row), last_output, live, is_step))
        after = tf.concat([tf.cast(state, tf.float32) for state in taken.states], axis=1)
        if live is None:
            return taken.outputs, after, tf.ones_like(flags)
        return taken.outputs, after, flags | tf.reduce_any(live, axis=1, keepdims=True)

    def states(self, row: Tensor) -> list[Tensor]:
        """Return the states `(batch, size)` that the layer's row has, as Keras returns them."""
        return [
            tf.cast(state, self.layer.compute_dtype)
            for state, vector in zip(self._split(row), self.vectors, strict=True)
            if vector.role != _OUTPUT
        ]

    def _split(self, row: Tensor) -> list[Tensor]:
        return tf.split(row, [vector.size for vector in self.vectors], axis=1)


def is_recurrent(operation: Any) -> bool:
    """Tell whether an operation keeps a state from one time step to the next."""
    return (
        isinstance(operation, keras.layers.RNN | keras.layers.Bidirectional)
        or keras.saving.get_registered_name(type(operation)) in OWN_LAYERS
    )


def recurrence_obstacle(layer: Layer, rank: int) -> str | None:
    """Say what of a recurrent layer's configuration keeps it from streaming.

    Args:
        layer: The layer.
        rank: Of its inputs.
    """
    if isinstance(layer, keras.layers.Bidirectional):
        return "runs in both directions, so it needs the whole sequence at once"
    if layer.go_backwards:
        return "runs backwards, so it needs the whole sequence at once"
    if getattr(layer, "time_major", False):
        return "has time_major=True, which puts time before the batch"
    if rank != 3:
        return f"takes inputs of rank {rank}; the states of (batch, time, features) are kept"
    return None


def recurrence_of(layer: Layer, name: str, output_size: int, num_gpus: int) -> Recurrence:
    """Return a built recurrent layer that `recurrence_obstacle` has nothing against.

    Args:
        layer: The layer.
        name: For its state; no other has it.
        output_size: Length of an output.
        num_gpus: GPUs that TensorFlow sees.
    """
    if isinstance(layer, keras.layers.RNN):
        if type(layer.cell) is keras.layers.LSTMCell:
            cell = layer.cell
            weights = [cell.kernel, cell.recurrent_kernel, *([cell.bias] if cell.use_bias else [])]
            return _lstm(layer, name, cell, [w.numpy() for w in weights], num_gpus)
        return _of_cells(layer, name, output_size, num_gpus)
    get_weights = getattr(layer, "lstm_weights", layer.get_weights)
    return _lstm(layer, name, layer, get_weights(), num_gpus)


def _lstm(
    layer: Layer, name: str, options: Any, arrays: Sequence[Any], num_gpus: int
) -> Recurrence:
    """Return an LSTM on our own kernels.

    Args:
        layer: The layer.
        name: For its state.
        options: What has its `units`, activations and `use_bias`.
        arrays: Kernel, recurrent kernel and, if it has one, bias, in Keras's layout.
        num_gpus: GPUs that TensorFlow sees.
    """
    dtype, state_dtype = layer.compute_dtype, layer.variable_dtype
    kernel, recurrent_kernel, *bias = [tf.constant(np.asarray(a), dtype) for a in arrays]
    weights = generic.Weights(
        kernel=kernel, recurrent_kernel=recurrent_kernel, bias=bias[0] if bias else None
    )
    dispatch = _dispatch_lstm(layer, options, num_gpus)
    zero_output = bool(layer.zero_output_for_mask)

    def run(given: _Given) -> Taken:
        x = tf.transpose(tf.cast(given.x, dtype), (1, 0, 2))
        live = None if given.live is None else tf.transpose(given.live)
        result = _run_lstm(
            dispatch,
            weights,
            generic.Options(
                activation=options.activation,
                recurrent_activation=options.recurrent_activation,
                zero_output_for_mask=zero_output,
                unroll=given.is_step,
            ),
            x,
            live,
            [tf.cast(state, state_dtype) for state in given.states],
        )
        outputs = tf.transpose(result.outputs, (1, 0, 2))
        if given.live is not None and not zero_output:
            has_output = tf.cumsum(tf.cast(given.live, tf.int32), axis=1)[..., None] > 0
            last_output = tf.cast(given.last_output, outputs.dtype)[:, None]
            outputs = tf.where(has_output, outputs, last_output)
        return Taken(tf.cast(outputs, dtype), (result.h, result.c))

    return Recurrence(
        layer=layer,
        vectors=tuple(
            StateVector(layer=name, role=role, size=options.units) for role in ("h", "c")
        ),
        output_size=options.units,
        num_flags=1,
        dispatch=dispatch,
        output_at=0,
        run=run,
    )


def _run_lstm(
    dispatch: Dispatch,
    weights: generic.Weights,
    options: generic.Options,
    x: Tensor,
    live: Tensor | None,
    states: Sequence[Tensor],
) -> generic.Result:
    def run(kernel: str) -> tuple[Tensor, ...]:
        result = _KERNELS[kernel](weights, options, x, h=states[0], c=states[1], mask=live)
        return result.outputs, result.last_output, result.h, result.c

    if options.unroll:
        # One step: a few operations, where a fused one would have to prepare its operands first.
        fields = run("tensorflow")
    elif dispatch.fallback is None:
        fields = run(dispatch.kernel)
    else:
        fallback = dispatch.fallback
        fields = tf.cond(cudnn.takes(x, live), lambda: run(dispatch.kernel), lambda: run(fallback))
    outputs, last_output, h, c = fields
    return generic.Result(outputs=outputs, last_output=last_output, h=h, c=c)


def _dispatch_lstm(layer: Layer, options: Any, num_gpus: int) -> Dispatch:
    asked = LayerOptions(
        activation=_activation_name(options.activation),
        recurrent_activation=_activation_name(options.recurrent_activation),
        use_bias=bool(options.use_bias),
        # What a layer was trained on does not bind who serves it.
        use_cudnn="auto",
    )
    fused = block.obstacles(
        activation=asked.activation,
        recurrent_activation=asked.recurrent_activation,
        compute_dtype=layer.compute_dtype,
        variable_dtype=layer.variable_dtype,
        num_gpus=num_gpus,
    )
    return dispatch_layer(
        asked,
        Hardware(num_gpus=num_gpus),
        layer_name=layer.name,
        others=(Candidate(kernel="block", obstacles=fused),),
    )


def _activation_name(function: Callable[..., Any]) -> str:
    """Return an activation's name; another function that has a known one's name gets none."""
    name = str(getattr(function, "__name__", type(function).__name__))
    if name in ("tanh", "sigmoid") and function is not keras.activations.get(name):
        return f"a {name} of its own"
    return name


def _of_cells(layer: Layer, name: str, output_size: int, num_gpus: int) -> Recurrence:
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
        vectors.append(StateVector(layer=cell_names[-1], role=_OUTPUT, size=output_size))
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
            reason=f"its own cell ({kinds}) takes each time step; the kernels here are LSTMs",
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


def _cell_kernel(layer: Layer, num_states: int) -> Callable[[_Given], Taken]:
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

    def run(given: _Given) -> Taken:
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
