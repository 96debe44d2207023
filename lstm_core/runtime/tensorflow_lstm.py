"""An LSTM layer of Keras or of ours on our own kernels, its state from outside.

Knows no graph and no arena.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from lstm_core.dispatch import Candidate, Dispatch, Hardware, dispatch_layer
from lstm_core.kernels import block, cudnn
from lstm_core.kernels import tensorflow as generic
from lstm_core.runtime.tensorflow_cudnn import one_step, options_of, run_chosen
from lstm_core.runtime.tensorflow_recurrence import Given, Recurrence, StateVector, Taken

Tensor: TypeAlias = Any
Layer: TypeAlias = Any

_Kernel: TypeAlias = Callable[..., generic.Result]


def recurrence_of_lstm(
    layer: Layer,
    name: str,
    options: Any,
    arrays: Sequence[Any],
    num_gpus: int,
    obstacles: Sequence[str],
) -> Recurrence:
    """Return an LSTM on our own kernels.

    Args:
        layer: The layer.
        name: For its state.
        options: What has its `units`, activations and `use_bias`.
        arrays: Kernel, recurrent kernel and, if it has one, bias, in Keras's layout.
        num_gpus: GPUs that TensorFlow sees.
        obstacles: What else keeps it off cuDNN.
    """
    dtype, state_dtype = layer.compute_dtype, layer.variable_dtype
    kernel, recurrent_kernel, *bias = [tf.constant(np.asarray(a), dtype) for a in arrays]
    weights = generic.Weights(
        kernel=kernel, recurrent_kernel=recurrent_kernel, bias=bias[0] if bias else None
    )
    dispatch = _dispatch_lstm(layer, options, num_gpus, obstacles)
    kernels: dict[str, _Kernel] = {"block": block.sequence, "tensorflow": generic.sequence}
    if dispatch.kernel == "cudnn":
        # Packed once: in a graph it would cost a step several times what it reads of the weights.
        params = cudnn.pack(weights, cudnn.gate_order())
        kernels["cudnn"] = partial(cudnn.sequence, params=params, is_training=False)
    zero_output = bool(layer.zero_output_for_mask)

    def take(given: Given, dispatch: Dispatch) -> Taken:
        x = tf.transpose(tf.cast(given.x, dtype), (1, 0, 2))
        live = None if given.live is None else tf.transpose(given.live)
        outputs, h, c = _run_lstm(
            kernels,
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
        outputs = tf.transpose(outputs, (1, 0, 2))
        if not zero_output:
            outputs = _with_last_output(outputs, given)
        return Taken(tf.cast(outputs, dtype), (h, c))

    # A step has data that cuDNN takes.
    always = replace(dispatch, fallback=None)

    def step_on_cudnn(given: Given) -> Taken:
        return one_step(lambda step: take(step, always), given, zero_output=zero_output)

    return Recurrence(
        layer=layer,
        vectors=tuple(
            StateVector(layer=name, role=role, size=options.units) for role in ("h", "c")
        ),
        output_size=options.units,
        num_flags=1,
        dispatch=dispatch,
        output_at=0,
        run=lambda given: take(given, dispatch),
        step_on_cudnn=step_on_cudnn if dispatch.kernel == "cudnn" else None,
    )


def _run_lstm(
    kernels: Mapping[str, _Kernel],
    dispatch: Dispatch,
    weights: generic.Weights,
    options: generic.Options,
    x: Tensor,
    live: Tensor | None,
    states: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return outputs `(time, batch, units)`, h and c from the kernel that the data ask for."""

    def run(kernel: str) -> tuple[Tensor, Tensor, Tensor]:
        result = kernels[kernel](weights, options, x, h=states[0], c=states[1], mask=live)
        return result.outputs, result.h, result.c

    if options.unroll:
        # One step: a few operations, where a fused one would have to prepare its operands first.
        return run("tensorflow")
    chosen: tuple[Tensor, Tensor, Tensor] = run_chosen(dispatch, x, live, run)
    return chosen


def _with_last_output(outputs: Any, given: Given) -> Any:
    """Return `(batch, time, units)` outputs, the last one before them where none was live yet."""
    if given.live is None:
        return outputs
    has_output = tf.cumsum(tf.cast(given.live, tf.int32), axis=1)[..., None] > 0
    last_output = tf.cast(given.last_output, outputs.dtype)[:, None]
    return tf.where(has_output, outputs, last_output)


def _dispatch_lstm(layer: Layer, options: Any, num_gpus: int, obstacles: Sequence[str]) -> Dispatch:
    asked = options_of(options)
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
        obstacles=obstacles,
        others=(Candidate(kernel="block", obstacles=fused),),
    )
