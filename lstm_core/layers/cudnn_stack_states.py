"""The first states of `CudnnLSTM`: all layers and directions in one tensor.

Knows shapes and dtypes. Knows no layer's weights and no kernel.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import tensorflow as tf

from lstm_core.layers.arguments import as_numbers, check_initial_state_shapes

Tensor: TypeAlias = Any


def first_states(
    initial_state: Any,
    inputs: Tensor,
    size: tuple[int, int],
    *,
    time_major: bool,
    layer_name: str,
) -> tuple[Tensor, Tensor]:
    """Return h and c in the dtype of the inputs, each `(num_layers * num_dirs, batch, num_units)`.

    Args:
        initial_state: As `CudnnLSTM.call` takes it; None means zeros.
        inputs: `(time, batch, features)`.
        size: `num_layers * num_dirs`, and `num_units`.
        time_major: Of `initial_state`.
        layer_name: For messages.

    Raises:
        TypeError: `initial_state` is neither tuple nor list.
        ValueError: It is not two, or they have another shape or hold no real numbers. In a graph
            that does not know the sizes, running it raises `tf.errors.InvalidArgumentError`.
    """
    (num_states, units), batch = size, inputs.shape[1]
    if initial_state is None:
        zeros = tf.zeros((num_states, tf.shape(inputs)[1], units), inputs.dtype)
        return zeros, zeros
    if not isinstance(initial_state, list | tuple):
        raise TypeError(
            f"Invalid initial_state type: {type(initial_state).__name__}, expecting tuple: "
            f"layer {layer_name} takes (h, c)"
        )
    subject = f"the initial_state of layer {layer_name}"
    states = [as_numbers(state, subject) for state in initial_state]
    # A tensor of unknown rank has its rank checked when it runs.
    states = [tf.ensure_shape(s, (None, None, None)) if s.shape.rank is None else s for s in states]
    expected = (num_states, batch, units) if time_major else (batch, num_states, units)
    check_initial_state_shapes([tuple(s.shape) for s in states], expected, layer_name)
    h, c = (tf.cast(state, inputs.dtype) for state in states)
    if not time_major:
        h, c = tf.transpose(h, (1, 0, 2)), tf.transpose(c, (1, 0, 2))
    return _with_sizes_of(inputs, h, size), _with_sizes_of(inputs, c, size)


def _with_sizes_of(inputs: Tensor, state: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a time-major state as it is, made to fail when it runs if it does not fit."""
    (num_states, units), batch = size, inputs.shape[1]
    if state.shape.is_fully_defined() and batch is not None:
        return state
    # As in `arguments`: joining no columns compares the rows, also under XLA, and the op's name
    # stands in the message.
    name = "initial_state_must_have_the_batch_size_of_the_inputs"
    no_columns = tf.zeros((num_states, tf.shape(inputs)[1], 0), state.dtype)
    state = tf.concat([no_columns, state], -1, name)
    return tf.ensure_shape(state, (num_states, batch, units))
