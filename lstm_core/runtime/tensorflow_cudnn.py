"""What LSTMs and GRUs share on cuDNN: its conditions, a trial, the way around it, single steps.

Nobody has run cuDNN's operation on a GPU yet, and a driver may have another version; so each layer
is tried on it when its model is opened. Knows no cell.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from lstm_core.dispatch import Dispatch, LayerOptions
from lstm_core.kernels import cudnn
from lstm_core.runtime.tensorflow_recurrence import Given, Recurrence, Taken
from lstm_core.runtime.tensorflow_trial import is_close

Tensor: TypeAlias = Any


def options_of(layer: Any) -> LayerOptions:
    """Return what decides the kernel of a layer or cell, which has activations and `use_bias`."""
    return LayerOptions(
        activation=_activation_name(layer.activation),
        recurrent_activation=_activation_name(layer.recurrent_activation),
        use_bias=bool(layer.use_bias),
        # What a layer was trained on does not bind who serves it.
        use_cudnn="auto",
    )


def cudnn_fault(recurrence: Recurrence, x: Tensor) -> str | None:
    """Try a layer on cuDNN, and say what is wrong with it there; None if nothing is.

    Args:
        recurrence: Of the layer.
        x: `(batch, time, features)`, neither of the first two 0.
    """
    if recurrence.step_on_cudnn is None:
        return None
    random = np.random.default_rng(0)
    row = tf.constant(random.normal(size=(x.shape[0], recurrence.state_size)), tf.float32)
    flags = tf.zeros((x.shape[0], recurrence.num_flags), tf.bool)
    try:
        outputs, after, _ = recurrence.take(x, row, flags, None, is_step=False)
        actual = [np.asarray(outputs), np.asarray(after)]
    except tf.errors.OpError as error:
        first_line = error.message.partition("\n")[0]
        return f"it fails here: {first_line}"
    *parts, _ = recurrence.take_singly(x, row, flags)
    # A row has 32 bits whatever a layer computes in.
    expected = [tf.cast(part, recurrence.layer.compute_dtype) for part in parts]
    if all(is_close(a, b) for a, b in zip(actual, expected, strict=True)):
        return None
    return "it gives something else here than TensorFlow operations"


def run_chosen(
    dispatch: Dispatch, x: Tensor, live: Tensor | None, run: Callable[[str], Any]
) -> Any:
    """Run the kernel that was chosen, or the one for data which that does not take.

    Args:
        dispatch: The choice.
        x: `(time, batch, features)`.
        live: `(time, batch)` bool, true where a step is live; None means everywhere.
        run: Runs the kernel of a name; the same tensors from each.
    """
    fallback = dispatch.fallback
    if fallback is None:
        return run(dispatch.kernel)
    return tf.cond(cudnn.takes(x, live), lambda: run(dispatch.kernel), lambda: run(fallback))


def one_step(run: Callable[[Given], Taken], given: Given, *, zero_output: bool) -> Taken:
    """Take one time step on cuDNN as a sequence of one.

    cuDNN takes no row without a live step, so masked ones run too, and are undone.

    Args:
        run: Takes a sequence of live steps there.
        given: One step of at least one row.
        zero_output: Whether a masked step gives zeros, instead of the last output.
    """
    taken = run(given._replace(live=None, is_step=False))
    if given.live is None:
        return taken
    is_live = given.live[:, :1]
    last_output = tf.cast(given.last_output, taken.outputs.dtype)
    idle = tf.zeros_like(last_output) if zero_output else last_output
    return Taken(
        tf.where(is_live[..., None], taken.outputs, idle[:, None]),
        [
            tf.where(is_live, after, tf.cast(before, after.dtype))
            for after, before in zip(taken.states, given.states, strict=True)
        ],
    )


def _activation_name(function: Callable[..., Any]) -> str:
    """Return an activation's name; another function that has a known one's name gets none."""
    name = str(getattr(function, "__name__", type(function).__name__))
    if name in ("tanh", "sigmoid") and function is not keras.activations.get(name):
        return f"a {name} of its own"
    return name
