"""The arena of state rows on TensorFlow's device, and `advance`, the one operation on it.

Owns every session's row by slot, and the graphs that run. Knows no session, as `runtime.cpu`, which
it answers as.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lstm_core.errors import (
    DeviceMemoryError,
    InputRangeError,
    MissingFirstInputError,
    NotStreamableError,
    SequenceLengthError,
)
from lstm_core.runtime.base import (
    ZERO_SLOT,
    Advanced,
    Bool,
    Float32,
    Indices,
    LayerReport,
    ServedNetwork,
)
from lstm_core.runtime.forecast import HELD, run_on
from lstm_core.runtime.tensorflow_model import StatefulModel

Tensor: TypeAlias = Any

MAX_CAPACITY = (1 << 24) - 2
"""Slots travel with the inputs, as float32."""
_BEYOND, _MASKED, _LIVE = 0.0, 1.0, 2.0
"""What a time step of a row is: behind its end, masked, or live."""


class TensorFlowRuntime:
    """A Keras model with an arena. One thread at a time, but for `predict` and `forecast`.

    A tick is one call of one graph: one array goes to the device, one comes back, and the states
    stay there. Two graphs of open sizes are made at the start, one for single steps and one for
    everything else; `predict` and forecasts make theirs when they are first asked for.

    Attributes:
        kind: Its name among the runtimes.
        network: What it runs.
        capacity: Slots, the zero slot not counted.
        device: Where it runs, by TensorFlow's name.
        num_traces: Graphs made so far.
    """

    kind = "tensorflow"

    def __init__(
        self, model: keras.Model, capacity: int, *, like: ServedNetwork | None = None
    ) -> None:
        """Look into the model, reserve the arena, and make the graphs of steps and sequences.

        Args:
            model: A functional or Sequential model of Keras 3; it belongs to this runtime.
            capacity: Slots, the zero slot not counted, at most `MAX_CAPACITY`.
            like: As for `StatefulModel`.

        Raises:
            SpecError: The model cannot be served.
            ValueError: There are too many slots.
            DeviceMemoryError: The arena does not fit into the device's memory.
        """
        if capacity > MAX_CAPACITY:
            raise ValueError(f"an arena has at most {MAX_CAPACITY} slots, not {capacity}")
        gpus = tf.config.get_visible_devices("GPU")
        self.device = "GPU:0" if gpus else "CPU:0"
        self.num_traces = 0
        self.capacity = capacity
        with tf.device(self.device):
            self.network = StatefulModel(model, len(gpus), like)
            # A row's flags are kept behind it, as numbers: one gather and one scatter for both.
            width = self.network.state_size + self.network.num_recurrent
            with _memory_watched(f"an arena of {capacity} rows of {4 * width} bytes"):
                self._rows = tf.Variable(tf.zeros((capacity + 1, width)), trainable=False)
        self._free = list(range(capacity, ZERO_SLOT, -1))
        self._make_graphs()

    @property
    def layers(self) -> list[LayerReport]:
        """The layers of the model, with the kernel chosen for each recurrent one."""
        return self.network.layers

    @property
    def num_free(self) -> int:
        """How many slots are free."""
        return len(self._free)

    def allocate(self) -> int:
        """Take a free slot. Its row holds anything.

        Raises:
            IndexError: None is free.
        """
        return self._free.pop()

    def free(self, slot: int) -> None:
        """Give a slot back; the zero slot stays where it is."""
        if slot != ZERO_SLOT:
            self._free.append(slot)

    def read(self, slot: int) -> tuple[Float32, Bool]:
        """Return copies of a slot's row `(state_size,)` and flags `(num_recurrent,)`."""
        both = self._rows[slot].numpy()
        size = self.network.state_size
        return both[:size].copy(), both[size:] != 0

    def write(self, slot: int, row: npt.ArrayLike, has_output: npt.ArrayLike) -> None:
        """Copy a row `(state_size,)` and its flags `(num_recurrent,)` into a slot."""
        both = np.concatenate([np.asarray(row, np.float32), np.asarray(has_output, np.float32)])
        self._write(np.int32(slot), both)

    def advance(
        self,
        from_slots: Sequence[int],
        to_slots: Sequence[int],
        inputs: Float32,
        lengths: Sequence[int] | None,
        mask: Bool | None = None,
    ) -> Advanced:
        """Take each row's next time steps, from one slot to another: see `CpuRuntime.advance`.

        Raises:
            NotStreamableError: A layer needs the whole sequence at once.
            InputRangeError: An input is none of the integers that the model takes.
            DeviceMemoryError: The device has no memory for it; the slots that were read, and those
                of all other rows, are as they were.
        """
        if self.network.streaming_obstacles:
            raise NotStreamableError(self.network.streaming_obstacles)
        self._check_integers(inputs)
        batch, time, size = inputs.shape
        is_step = time == 1 and mask is None
        packed = np.empty((batch, 2 + time * size + (0 if is_step else time)), np.float32)
        packed[:, 0] = from_slots
        packed[:, 1] = to_slots
        packed[:, 2 : 2 + time * size] = inputs.reshape(batch, -1)
        if not is_step:
            packed[:, 2 + time * size :] = _step_kinds(batch, time, lengths, mask)
        advance = self._advance_step if is_step else self._advance_steps
        with _memory_watched(f"{batch} rows of {time} time steps"):
            return self._unpacked(advance(tf.constant(packed)).numpy(), time)

    def forecast(
        self,
        row: Float32,
        has_output: Bool,
        first_input: Float32 | None,
        feedback: Indices,
        num_steps: int,
    ) -> Iterator[Float32]:
        """Run a state on, its outputs fed back as inputs: see `CpuRuntime.forecast`.

        Raises:
            NotStreamableError: A layer needs the whole sequence at once.
            MissingFirstInputError: There is nothing to begin with: no last output, or one that the
                states alone do not tell.
        """

        def step(x: Float32) -> Float32:
            self._check_integers(x)
            with _memory_watched("one time step"):
                outputs, rows, flags = self._step_alone(x[None, None], row[None], has_output[None])
            row[:], has_output[:] = rows[0], flags[0]
            return np.asarray(outputs[0, 0])

        if self.network.streaming_obstacles:
            raise NotStreamableError(self.network.streaming_obstacles)
        if first_input is None:
            first_input = self._last_fed(row, has_output, feedback)
        return run_on(self.network, step, first_input, feedback, num_steps)

    def predict(self, inputs: Float32, mask: Bool | None = None) -> Float32:
        """Run whole sequences from zero states, as Keras would: see `CpuRuntime.predict`.

        Raises:
            InputRangeError: An input is none of the integers that the model takes.
            SequenceLengthError: The model takes another number of time steps only.
            DeviceMemoryError: The device has no memory for it.
        """
        self._check_integers(inputs)
        length = self.network.length
        if length not in (None, inputs.shape[1]):
            raise SequenceLengthError(expected=length, actual=inputs.shape[1])
        with _memory_watched(f"{len(inputs)} sequences of {inputs.shape[1]} time steps"):
            given = tf.constant(inputs, tf.float32)
            if mask is None:
                outputs = self._predict(given)
            else:
                outputs = self._predict_masked(given, tf.constant(mask))
            return np.asarray(outputs)

    def _make_graphs(self) -> None:
        network = self.network
        size = network.input_size

        def graph(call: Callable[..., Any], *signature: tf.TensorSpec) -> Any:
            def traced(*arguments: Tensor) -> Any:
                self.num_traces += 1
                with tf.device(self.device):
                    return call(*arguments)

            return tf.function(traced, input_signature=signature, autograph=False)

        self._predict = graph(
            lambda x: network.predict(x, None), tf.TensorSpec((None, network.length, size))
        )
        self._predict_masked = graph(
            network.predict,
            tf.TensorSpec((None, network.length, size)),
            tf.TensorSpec((None, network.length), tf.bool),
        )
        rows = tf.TensorSpec((None, network.state_size))
        flags = tf.TensorSpec((None, network.num_recurrent), tf.bool)
        self._write = graph(
            self._write_row,
            tf.TensorSpec((), tf.int32),
            tf.TensorSpec((network.state_size + network.num_recurrent,)),
        )
        self._step_alone = graph(
            lambda x, rows, flags: network.take(x, rows, flags, None),
            tf.TensorSpec((None, 1, size)),
            rows,
            flags,
        )
        self._last_outputs = graph(network.last_outputs, rows, flags)
        self._write.get_concrete_function()
        if network.streaming_obstacles:
            self._predict.get_concrete_function()
            return
        self._advance_step = graph(
            self._tick_of_steps, tf.TensorSpec((None, 2 + size))
        ).get_concrete_function()
        self._advance_steps = graph(
            self._tick_of_sequences, tf.TensorSpec((None, None))
        ).get_concrete_function()

    def _write_row(self, slot: Tensor, both: Tensor) -> None:
        self._scatter(slot[None], both[None])

    def _tick_of_steps(self, packed: Tensor) -> Tensor:
        """Take a live step of each row of `(batch, 2 + input_size)`: slots, then the inputs."""
        return self._tick(packed, packed[:, None, 2:], live=None, is_within=None)

    def _tick_of_sequences(self, packed: Tensor) -> Tensor:
        """Take up to `time` steps of each row of `(batch, 2 + time * (input_size + 1))`.

        Behind the slots are the inputs, step by step, then for each step what it is.
        """
        size = self.network.input_size
        time = (tf.shape(packed)[1] - 2) // (size + 1)
        x = tf.reshape(packed[:, 2 : 2 + time * size], (-1, time, size))
        kinds = packed[:, 2 + time * size :]
        return self._tick(packed, x, live=kinds == _LIVE, is_within=kinds != _BEYOND)

    def _tick(
        self, packed: Tensor, x: Tensor, live: Tensor | None, is_within: Tensor | None
    ) -> Tensor:
        """Gather, take steps, scatter; see `_unpacked` for what is returned."""
        from_slots, to_slots = (tf.cast(packed[:, at], tf.int32) for at in (0, 1))
        state_size = self.network.state_size
        both = tf.raw_ops.ResourceGather(
            resource=self._rows.handle, indices=from_slots, dtype=tf.float32
        )
        outputs, rows, flags = self.network.take(
            x, both[:, :state_size], both[:, state_size:] != 0, live
        )
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

    def _scatter(self, slots: Tensor, both: Tensor) -> None:
        tf.raw_ops.ResourceScatterUpdate(resource=self._rows.handle, indices=slots, updates=both)

    def _unpacked(self, packed: Float32, time: int) -> Advanced:
        """Return the parts of `(batch, 2 + state_size + num_recurrent + time * output_size)`."""
        network = self.network
        flags_at = 2 + network.state_size
        outputs_at = flags_at + network.num_recurrent
        return Advanced(
            outputs=packed[:, outputs_at:].reshape(len(packed), time, network.output_size),
            rows=packed[:, 2:flags_at],
            has_output=packed[:, flags_at:outputs_at] != 0,
            is_state_finite=packed[:, 0] != 0,
            is_output_finite=packed[:, 1] != 0,
        )

    def _check_integers(self, inputs: Float32) -> None:
        """Look at the inputs that are embedded: a GPU gives zeros for what is no row of a table."""
        for part in self.network.inputs:
            if part.vocabulary is not None:
                values = inputs[..., part.offset : part.offset + part.size]
                if not are_tokens(values, part.vocabulary):
                    raise InputRangeError(part.name, part.vocabulary)

    def _last_fed(self, row: Float32, has_output: Bool, feedback: Indices) -> Float32:
        """Return `(input_size,)` float32: what a state's last output feeds."""
        outputs = self._last_outputs(row[None], has_output[None]) if has_output.all() else None
        if outputs is None or (feedback == HELD).any():
            raise MissingFirstInputError
        return np.asarray(outputs)[0, 0][feedback]


def are_tokens(values: Float32, vocabulary: int) -> bool:
    """Tell whether all of `(...)` float32 are integers in [0, vocabulary)."""
    return bool(((values >= 0) & (values < vocabulary) & (values == np.trunc(values))).all())


def _step_kinds(batch: int, time: int, lengths: Sequence[int] | None, mask: Bool | None) -> Float32:
    """Return `(batch, time)` float32, what each time step is."""
    kinds = np.full((batch, time), _LIVE, np.float32)
    if mask is not None:
        kinds[~mask] = _MASKED
    if lengths is not None:
        kinds[np.arange(time) >= np.asarray(lengths)[:, None]] = _BEYOND
    return kinds


@contextmanager
def _memory_watched(what: str) -> Iterator[None]:
    """Say what the device had no memory for.

    Raises:
        DeviceMemoryError: It had none.
    """
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise DeviceMemoryError(what) from error
