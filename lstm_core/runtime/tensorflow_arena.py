"""State rows on TensorFlow's device, and the graphs that take them on, a tick a call.

Owns the rows, and how a tick travels: one array to the device, one back. Knows no free slot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

from lstm_core.errors import DeviceMemoryError
from lstm_core.runtime.arguments import Checked
from lstm_core.runtime.base import ZERO_SLOT, Advanced, Bool, Float32, Indices
from lstm_core.runtime.tensorflow_model import StatefulModel
from lstm_core.runtime.tensorflow_steps import CUDNN, PLAIN, XLA, Run, StepGraphs

Tensor: TypeAlias = Any

MAX_CAPACITY = (1 << 24) - 2
"""Slots travel with the inputs, as float32."""
_BEYOND, _MASKED, _LIVE = 0.0, 1.0, 2.0
"""What a time step of a row is: behind its end, masked, or live."""

_NO_MEMORY = "Dst tensor is not initialized"


class Graphs:
    """Makes graphs for a device, and counts how often that happened.

    Attributes:
        device: By TensorFlow's name.
        num_traces: Graphs made so far.
    """

    def __init__(self, device: str) -> None:
        """Begin with none."""
        self.device = device
        self.num_traces = 0

    def make(
        self, call: Callable[..., Any], *signature: tf.TensorSpec, is_compiled: bool = False
    ) -> Any:
        """Return a function that is a graph once it is called; for XLA if it shall be compiled."""

        def traced(*arguments: Tensor) -> Any:
            self.num_traces += 1
            with tf.device(self.device):
                return call(*arguments)

        return tf.function(
            traced, input_signature=signature, autograph=False, jit_compile=is_compiled or None
        )


class Staged(NamedTuple):
    """A tick whose inputs are on the device.

    Attributes:
        graph: What takes it.
        packed: `(rows, width)` float32, a tensor; see `DeviceArena._tick`. Rows beyond `batch` are
            filling.
        batch: Rows that are wanted.
        time: The most time steps of one.
    """

    graph: Run
    packed: Tensor
    batch: int
    time: int


class DeviceArena:
    """The rows of a model's sessions, which stay on the device.

    Attributes:
        steps: The graphs of single steps, and which of them takes which ticks.
    """

    def __init__(
        self,
        model: StatefulModel,
        graphs: Graphs,
        capacity: int,
        step_graphs: Mapping[int, str] | None,
    ) -> None:
        """Reserve the rows, and make the graphs.

        Args:
            model: It streams.
            graphs: Makes them.
            capacity: Slots, the zero slot not counted.
            step_graphs: As `chosen` of `StepGraphs`.

        Raises:
            ValueError: There are too many slots, or there is no such graph.
            DeviceMemoryError: They, or the steps that choose a graph, do not fit into the device's
                memory.
        """
        if capacity > MAX_CAPACITY:
            raise ValueError(f"an arena has at most {MAX_CAPACITY} slots, not {capacity}")
        self._model = model
        # A row's flags are kept behind it, as numbers: one gather and one scatter for both.
        width = model.state_size + model.num_recurrent
        what = f"an arena of {capacity} rows of {4 * width} bytes"
        with memory_watched(what), tf.device(graphs.device):
            # Behind the slots is one that nobody reads.
            self._rows = tf.Variable(tf.zeros((capacity + 2, width)), trainable=False)
        # Not by the variable's value, for which a variable that is scattered to is copied whole.
        self._read = graphs.make(
            self._gather, tf.TensorSpec((1,), tf.int32)
        ).get_concrete_function()
        self._write = graphs.make(
            self._scatter, tf.TensorSpec((None,), tf.int32), tf.TensorSpec((None, width))
        ).get_concrete_function()
        self._take_sequences = graphs.make(
            self._tick_of_sequences, tf.TensorSpec((None, None))
        ).get_concrete_function()
        self._device = graphs.device
        with memory_watched("the steps that choose a graph"), tf.device(self._device):
            self.steps = self._make_step_graphs(graphs, capacity, step_graphs)

    def read(self, slot: int) -> tuple[Float32, Bool]:
        """Return copies of a slot's row `(state_size,)` and flags `(num_recurrent,)`."""
        both = np.asarray(self._read(tf.constant([slot], tf.int32)))[0]
        size = self._model.state_size
        return both[:size].copy(), both[size:] != 0

    def write_many(self, slots: Sequence[int], rows: Float32, has_output: Bool) -> None:
        """Copy rows `(batch, state_size)` and flags `(batch, num_recurrent)` into slots.

        Raises:
            DeviceMemoryError: The device has no memory for it. Other slots are as they were.
        """
        both = np.concatenate([rows, has_output.astype(np.float32)], axis=1)
        with memory_watched(f"{len(both)} rows of sessions that come back"):
            self._write(tf.constant(slots, tf.int32), tf.constant(both))

    def stage(self, checked: Checked, inputs: Float32, mask: Bool | None) -> Staged:
        """Pack what a tick needs, and copy it to the device.

        Raises:
            DeviceMemoryError: The device has no memory for it.
        """
        batch, time, size = inputs.shape
        is_step = time == 1 and mask is None
        packed = np.empty((batch, 2 + time * size + (0 if is_step else time)), np.float32)
        packed[:, 0] = checked.from_slots
        packed[:, 1] = checked.to_slots
        packed[:, 2 : 2 + time * size] = inputs.reshape(batch, -1)
        if is_step:
            graph, packed = self.steps.prepare(packed)
        else:
            graph = self._take_sequences
            packed[:, 2 + time * size :] = _step_kinds(batch, time, checked.lengths, mask)
        with memory_watched(_told(batch, time)), tf.device(self._device):
            return Staged(graph, tf.constant(packed), batch, time)

    def run(self, staged: Staged) -> Advanced:
        """Take each row's next time steps.

        Raises:
            DeviceMemoryError: The device has no memory for it. All slots but those written to are
                as they were.
        """
        graph, packed, batch, time = staged
        with memory_watched(_told(batch, time)):
            return self._unpacked(np.asarray(graph(packed))[:batch], time)

    def _make_step_graphs(
        self, graphs: Graphs, capacity: int, chosen: Mapping[int, str] | None
    ) -> StepGraphs:
        """Make graphs of a live step of each row of `(batch, width)`: slots, then the inputs."""
        width = 2 + self._model.input_size
        filling = np.zeros(width, np.float32)
        filling[:2] = ZERO_SLOT, capacity + 1

        def make(model: StatefulModel, *, is_compiled: bool = False) -> Any:
            return graphs.make(
                lambda packed: self._tick(model, packed, packed[:, None, 2:], None, None),
                tf.TensorSpec((None, width)),
                is_compiled=is_compiled,
            )

        on_cudnn = self._model.with_steps_on_cudnn()
        runs = {PLAIN: make(self._model).get_concrete_function()}
        if on_cudnn is not None:
            runs[CUDNN] = make(on_cudnn).get_concrete_function()
        runs[XLA] = make(self._model, is_compiled=True)
        return StepGraphs(runs, filling, chosen)

    def _tick_of_sequences(self, packed: Tensor) -> Tensor:
        """Take up to `time` steps of each row of `(batch, 2 + time * (input_size + 1))`.

        Behind the slots are the inputs, step by step, then for each step what it is.
        """
        size = self._model.input_size
        time = (tf.shape(packed)[1] - 2) // (size + 1)
        x = tf.reshape(packed[:, 2 : 2 + time * size], (-1, time, size))
        kinds = packed[:, 2 + time * size :]
        return self._tick(self._model, packed, x, kinds == _LIVE, kinds != _BEYOND)

    def _tick(
        self,
        model: StatefulModel,
        packed: Tensor,
        x: Tensor,
        live: Tensor | None,
        is_within: Tensor | None,
    ) -> Tensor:
        """Gather, take steps, scatter; see `_unpacked` for what is returned."""
        from_slots, to_slots = (tf.cast(packed[:, at], tf.int32) for at in (0, 1))
        state_size = model.state_size
        both = self._gather(from_slots)
        outputs, rows, flags = model.take(x, both[:, :state_size], both[:, state_size:] != 0, live)
        if is_within is not None:
            outputs = tf.where(is_within[..., None], outputs, tf.zeros_like(outputs))
        outputs = tf.reshape(outputs, (tf.shape(packed)[0], -1))
        both = tf.concat([rows, tf.cast(flags, tf.float32)], axis=1)
        self._scatter(to_slots, both)
        are_finite = [
            tf.reduce_all(tf.math.is_finite(part), axis=1, keepdims=True)
            for part in (rows, outputs)
        ]
        return tf.concat([*(tf.cast(part, tf.float32) for part in are_finite), both, outputs], 1)

    def _gather(self, slots: Tensor) -> Tensor:
        return tf.raw_ops.ResourceGather(
            resource=self._rows.handle, indices=slots, dtype=tf.float32
        )

    def _scatter(self, slots: Tensor, both: Tensor) -> None:
        tf.raw_ops.ResourceScatterUpdate(resource=self._rows.handle, indices=slots, updates=both)

    def _unpacked(self, packed: Float32, time: int) -> Advanced:
        """Return the parts of `(batch, 2 + state_size + num_recurrent + time * output_size)`."""
        model = self._model
        flags_at = 2 + model.state_size
        outputs_at = flags_at + model.num_recurrent
        return Advanced(
            outputs=packed[:, outputs_at:].reshape(len(packed), time, model.output_size),
            rows=packed[:, 2:flags_at],
            has_output=packed[:, flags_at:outputs_at] != 0,
            is_state_finite=packed[:, 0] != 0,
            is_output_finite=packed[:, 1] != 0,
        )


def _step_kinds(batch: int, time: int, lengths: Indices | None, mask: Bool | None) -> Float32:
    """Return `(batch, time)` float32, what each time step is."""
    kinds = np.full((batch, time), _LIVE, np.float32)
    if mask is not None:
        kinds[~mask] = _MASKED
    if lengths is not None:
        kinds[np.arange(time) >= lengths[:, None]] = _BEYOND
    return kinds


def _told(batch: int, time: int) -> str:
    return f"{batch} rows of {time} time steps"


@contextmanager
def memory_watched(what: str) -> Iterator[None]:
    """Say what the device had no memory for.

    Raises:
        DeviceMemoryError: It had none.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise DeviceMemoryError(what) from error
    except tf.errors.InternalError as error:
        # What a copy to a GPU without memory says; tensorflow/tensorflow issue 7025.
        if _NO_MEMORY not in str(error):
            raise
        raise DeviceMemoryError(what) from error
