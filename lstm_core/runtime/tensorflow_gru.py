"""A GRU layer of Keras, its state from outside: sequences on cuDNN, or each step by its cell.

Knows no graph and no arena.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import tensorflow as tf

from lstm_core.dispatch import Hardware, dispatch_layer
from lstm_core.kernels import cudnn_gru, cudnn_gru_layout
from lstm_core.runtime.tensorflow_cells import recurrence_of_cells
from lstm_core.runtime.tensorflow_cudnn import one_step, options_of, run_chosen
from lstm_core.runtime.tensorflow_recurrence import Given, Recurrence, Taken

Tensor: TypeAlias = Any
Layer: TypeAlias = Any


def recurrence_of_gru(
    layer: Layer, name: str, num_gpus: int, obstacles: Sequence[str]
) -> Recurrence:
    """Return a layer whose one cell is Keras's GRU.

    Args:
        layer: The layer.
        name: For its state.
        num_gpus: GPUs that TensorFlow sees.
        obstacles: What else keeps it off cuDNN.
    """
    cell = layer.cell
    by_cell = recurrence_of_cells(layer, name, cell.units, num_gpus)
    # cuDNN resets what comes out of the product, and the first GRUs reset what goes in.
    own = [] if cell.reset_after else ["reset_after is off"]
    dispatch = dispatch_layer(
        options_of(cell),
        Hardware(num_gpus=num_gpus),
        layer_name=layer.name,
        obstacles=[*own, *obstacles],
    )
    if dispatch.kernel != "cudnn":
        return replace(by_cell, dispatch=dispatch)
    zero_output = bool(layer.zero_output_for_mask)
    dtype = layer.compute_dtype
    params = cudnn_gru_layout.pack(
        cell.kernel.numpy(),
        cell.recurrent_kernel.numpy(),
        cell.bias.numpy(),
        gate_order=cudnn_gru.gate_order(),
    )
    params = tf.constant(params, dtype)

    def on_cudnn(given: Given) -> Taken:
        outputs, h = cudnn_gru.sequence(
            params,
            _in_time(given.x, dtype),
            h=tf.cast(given.states[0], dtype),
            mask=None if given.live is None else tf.transpose(given.live),
            zero_output_for_mask=zero_output,
        )
        return Taken(tf.transpose(outputs, (1, 0, 2)), [h])

    def run(given: Given) -> Taken:
        if given.is_step:
            return by_cell.run(given)
        kernels = {"cudnn": on_cudnn, "tensorflow": by_cell.run}
        live = None if given.live is None else tf.transpose(given.live)
        x = _in_time(given.x, dtype)
        chosen: Taken = run_chosen(dispatch, x, live, lambda kernel: kernels[kernel](given))
        return chosen

    def step_on_cudnn(given: Given) -> Taken:
        return one_step(on_cudnn, given, zero_output=zero_output)

    return replace(by_cell, dispatch=dispatch, run=run, step_on_cudnn=step_on_cudnn)


def _in_time(x: Tensor, dtype: str) -> Tensor:
    """Return `(batch, time, features)` as `(time, batch, features)`."""
    return tf.transpose(tf.cast(x, dtype), (1, 0, 2))
