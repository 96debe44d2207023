"""One recurrent layer with its state from outside: rows in, rows out.

Owns what a step's mask does to outputs and flags. Knows no kernel, no graph and no arena.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from lstm_core.dispatch import Dispatch

Tensor: TypeAlias = Any  # TensorFlow and Keras ship no types.
Layer: TypeAlias = Any

OUTPUT_ROLE = "output"
"""Of what is kept beside the states of a cell whose output is none of them."""


class Given(NamedTuple):
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


class Taken(NamedTuple):
    """What some time steps gave.

    Attributes:
        outputs: `(batch, time, output_size)`.
        states: Each `(batch, size)`, after the last step.
    """

    outputs: Tensor
    states: Sequence[Tensor]


class StateVector(NamedTuple):
    """One vector of a layer's state.

    Attributes:
        layer: The layer's name, or a name for one cell of it.
        role: `h` or `c`; of cells that nobody knows `state_0` and so on, then `OUTPUT_ROLE`.
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
        output_at: Which of the vectors is the last live step's output.
        run: The kernel.
        step_on_cudnn: Takes one step of at least one row on cuDNN; None where that cannot.
    """

    layer: Layer
    vectors: tuple[StateVector, ...]
    output_size: int
    num_flags: int
    dispatch: Dispatch
    output_at: int
    run: Callable[[Given], Taken]
    step_on_cudnn: Callable[[Given], Taken] | None = None

    @property
    def state_size(self) -> int:
        """The length of its part of a row."""
        return sum(vector.size for vector in self.vectors)

    def with_steps_on_cudnn(self) -> Recurrence:
        """Return the same for single steps only, on cuDNN where they can run there."""
        return self if self.step_on_cudnn is None else replace(self, run=self.step_on_cudnn)

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
        taken = self.run(Given(x, self._split(row), last_output, live, is_step))
        after = tf.concat([tf.cast(state, tf.float32) for state in taken.states], axis=1)
        if live is None:
            return taken.outputs, after, tf.ones_like(flags)
        return taken.outputs, after, flags | tf.reduce_any(live, axis=1, keepdims=True)

    def take_singly(self, x: Tensor, row: Tensor, flags: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take live time steps one after another, each as a step alone; see `take`."""
        steps = []
        for t in range(x.shape[1]):
            step, row, flags = self.take(x[:, t : t + 1], row, flags, None, is_step=True)
            steps.append(step)
        return tf.concat(steps, axis=1), row, flags

    def states(self, row: Tensor) -> list[Tensor]:
        """Return the states `(batch, size)` that the layer's row has, as Keras returns them."""
        return [
            tf.cast(state, self.layer.compute_dtype)
            for state, vector in zip(self._split(row), self.vectors, strict=True)
            if vector.role != OUTPUT_ROLE
        ]

    def _split(self, row: Tensor) -> list[Tensor]:
        return tf.split(row, [vector.size for vector in self.vectors], axis=1)
