"""Which Keras layers keep a state, and what keeps it from being taken step by step.

Knows no graph and no arena.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import keras

from lstm_core.runtime.tensorflow_cells import recurrence_of_cells
from lstm_core.runtime.tensorflow_cudnn import cudnn_fault
from lstm_core.runtime.tensorflow_gru import recurrence_of_gru
from lstm_core.runtime.tensorflow_lstm import recurrence_of_lstm
from lstm_core.runtime.tensorflow_recurrence import Recurrence

Tensor: TypeAlias = Any
Layer: TypeAlias = Any

OWN_LAYERS = ("lstm_core>LSTM", "lstm_core>LSTMV1", "lstm_core>CuDNNLSTM")
"""Our layers that are run here, by the names that Keras has registered them under."""


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


def recurrence_tried(
    layer: Layer, name: str, output_size: int, num_gpus: int, x: Tensor
) -> Recurrence:
    """Return `recurrence_of`, off cuDNN where that fails here or gives something else.

    Args:
        layer: As there, like the next three.
        name: Likewise.
        output_size: Likewise.
        num_gpus: Likewise.
        x: `(batch, time, features)`, some time steps to try it on.
    """
    recurrence = recurrence_of(layer, name, output_size, num_gpus)
    fault = cudnn_fault(recurrence, x)
    if fault is None:
        return recurrence
    return recurrence_of(layer, name, output_size, num_gpus, [fault])


def recurrence_of(
    layer: Layer, name: str, output_size: int, num_gpus: int, obstacles: Sequence[str] = ()
) -> Recurrence:
    """Return a built recurrent layer that `recurrence_obstacle` has nothing against.

    Args:
        layer: The layer.
        name: For its state; no other has it.
        output_size: Length of an output.
        num_gpus: GPUs that TensorFlow sees.
        obstacles: What else than its configuration and the hardware keeps it off cuDNN.
    """
    if isinstance(layer, keras.layers.RNN):
        if type(layer.cell) is keras.layers.LSTMCell:
            cell = layer.cell
            weights = [cell.kernel, cell.recurrent_kernel, *([cell.bias] if cell.use_bias else [])]
            arrays = [w.numpy() for w in weights]
            return recurrence_of_lstm(layer, name, cell, arrays, num_gpus, obstacles)
        if type(layer.cell) is keras.layers.GRUCell:
            return recurrence_of_gru(layer, name, num_gpus, obstacles)
        return recurrence_of_cells(layer, name, output_size, num_gpus)
    get_weights = getattr(layer, "lstm_weights", layer.get_weights)
    return recurrence_of_lstm(layer, name, layer, get_weights(), num_gpus, obstacles)


def outputs_both_ways(layer: Layer, recurrence: Recurrence, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return what a layer of Keras gives, and what its recurrence does, step by step from zeros.

    The two differ where a user's class has a call or a first state of its own.

    Args:
        layer: The layer.
        recurrence: What `recurrence_of` made of it.
        x: `(batch, time, features)`.

    Returns:
        Both `(batch, time, output_size)`, or without time where no sequences are returned.
    """
    rows = keras.ops.zeros((x.shape[0], recurrence.state_size))
    flags = keras.ops.zeros((x.shape[0], recurrence.num_flags), "bool")
    steps, _, _ = recurrence.take_singly(x, rows, flags)
    ours = steps if layer.return_sequences else steps[:, -1]
    return keras.tree.flatten(layer(x, training=False))[0], ours
