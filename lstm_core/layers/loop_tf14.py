"""The time loop of TensorFlow 1.4's recurrent layers, over whatever step the layer has.

Knows time, masks and a list of states, of which the first is the output. Knows no equations: a
subclass may bring another step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import tensorflow as tf

from lstm_core.kernels.tensorflow import by_step

Tensor: TypeAlias = Any
Step: TypeAlias = Callable[[Tensor, list[Any]], tuple[Tensor, list[Tensor]]]
"""Takes one time step's inputs and the states with the constants behind them; returns the output,
shaped like the first state, and the states."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """What a sequence gives.

    Attributes:
        outputs: `(time, batch, units)`, in the order of processing.
        last_output: `(batch, units)`.
        states: After the last step, each of the shape that it began with.
    """

    outputs: Tensor
    last_output: Tensor
    states: list[Tensor]


def repeat_step(
    step: Step,
    inputs: Tensor,
    states: Sequence[Tensor],
    constants: Sequence[Any],
    *,
    mask: Tensor | None,
    go_backwards: bool,
    unroll: bool,
) -> Result:
    """Take every time step of a batch of sequences.

    A masked step keeps the states. In the loop its output is the first state, which before the
    first live step is the h that the layer began with; unrolled it is the previous output, which
    then is zeros. That is how TensorFlow 1.4 had it; later releases repeat zeros in both. The last
    output of no steps at all is what stands before the first one.

    Args:
        step: Of the layer.
        inputs: `(time, batch, ...)`; unrolled, the time must be known.
        states: The first states, each `(batch, ...)`.
        constants: What the step gets behind the states, the same at every time.
        mask: `(time, batch)` bool, true where a step is live; None means everywhere.
        go_backwards: Process the time steps from the last to the first.
        unroll: Lay the steps out in the graph instead of looping.
    """

    def masked_step(
        x: Tensor, live: Tensor | None, idle_output: Tensor, states: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        output, after = step(x, [*states, *constants])
        if live is not None:
            output = tf.where(live[:, tf.newaxis], output, idle_output)
            after = [
                tf.where(live[:, tf.newaxis], new, old)
                for new, old in zip(after, states, strict=True)
            ]
        for new, old in zip(after, states, strict=True):
            new.set_shape(old.shape)
        output.set_shape(states[0].shape)
        return output, after

    states = list(states)
    if unroll:
        before = tf.zeros_like(states[0])
        return _unrolled(masked_step, inputs, before, states, mask, go_backwards)
    if inputs.shape[0] == 0:  # XLA cannot compile a loop over nothing.
        return _unrolled(masked_step, inputs, states[0], states, mask, go_backwards)
    return _looped(masked_step, inputs, states, mask, go_backwards)


_MaskedStep: TypeAlias = Callable[
    [Tensor, Tensor | None, Tensor, list[Tensor]], tuple[Tensor, list[Tensor]]
]


def _unrolled(
    step: _MaskedStep,
    inputs: Tensor,
    output_before: Tensor,
    states: list[Tensor],
    mask: Tensor | None,
    go_backwards: bool,
) -> Result:
    outputs = [output_before]
    time = inputs.shape[0]
    for t in reversed(range(time)) if go_backwards else range(time):
        output, states = step(inputs[t], None if mask is None else mask[t], outputs[-1], states)
        outputs.append(output)
    return Result(outputs=tf.stack(outputs)[1:], last_output=outputs[-1], states=states)


def _looped(
    step: _MaskedStep,
    inputs: Tensor,
    states: list[Tensor],
    mask: Tensor | None,
    go_backwards: bool,
) -> Result:
    time = num_slots = inputs.shape[0]
    if time is None:
        time = tf.shape(inputs)[0]
        num_slots = tf.maximum(time, 1)
    steps = by_step(inputs, num_slots)
    live = None if mask is None else by_step(mask, num_slots)
    # Slot 0 stands before the first step: an array without elements has no shape to stack.
    array = tf.TensorArray(
        states[0].dtype, time + 1, element_shape=states[0].shape, clear_after_read=False
    ).write(0, states[0])

    def body(t: Tensor, array: Tensor, output: Tensor, *states: Tensor) -> tuple[Any, ...]:
        at = time - 1 - t if go_backwards else t
        output, after = step(
            steps.read(at), None if live is None else live.read(at), states[0], list(states)
        )
        return t + 1, array.write(t + 1, output), output, *after

    _, array, last_output, *after = tf.while_loop(
        lambda t, *_: t < time,
        body,
        (tf.constant(0), array, states[0], *states),
        maximum_iterations=num_slots,
    )
    return Result(outputs=array.stack()[1:], last_output=last_output, states=list(after))
