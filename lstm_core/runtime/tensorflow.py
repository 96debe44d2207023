"""Any functional Keras model on TensorFlow, on a CPU or a GPU, answering as `runtime.cpu` does.

Owns which slots are free. Knows no session, no client and no position.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from lstm_core.errors import (
    MissingFirstInputError,
    NotStreamableError,
    SequenceLengthError,
)
from lstm_core.runtime.arguments import check_arguments, check_integers
from lstm_core.runtime.base import (
    Advanced,
    Bool,
    Float32,
    Indices,
    LayerReport,
    ServedNetwork,
)
from lstm_core.runtime.forecast import HELD, run_on
from lstm_core.runtime.slots import Slots
from lstm_core.runtime.tensorflow_arena import DeviceArena, Graphs, Staged, memory_watched
from lstm_core.runtime.tensorflow_model import StatefulModel
from lstm_core.runtime.tensorflow_steps import StepGraphs


class TensorFlowRuntime(Slots):
    """A Keras model with an arena. One thread at a time, but for `predict`, `forecast` and `stage`.

    A tick is one call of one graph: one array goes to the device, one comes back, and the states
    stay there. Graphs of open sizes are made at the start, for single steps and for everything
    else; `predict` and forecasts make theirs when they are first asked for.

    Attributes:
        kind: Its name among the runtimes.
        network: What it runs.
        capacity: Slots, the zero slot not counted.
        device: Where it runs, by TensorFlow's name.
    """

    kind = "tensorflow"

    def __init__(
        self,
        model: keras.Model,
        capacity: int,
        *,
        like: ServedNetwork | None = None,
        step_graphs: Mapping[int, str] | None = None,
    ) -> None:
        """Look into the model, reserve the arena, and make the graphs of steps and sequences.

        Args:
            model: A functional or Sequential model of Keras 3; it belongs to this runtime.
            capacity: Slots, the zero slot not counted.
            like: As for `StatefulModel`.
            step_graphs: Which graph takes ticks of single steps of up to so many rows: `plain`,
                `xla`, or `cudnn` where a layer can run there. None: the fastest by measure on a
                GPU, the plain one on a CPU, where XLA was measured to gain little.

        Raises:
            SpecError: The model cannot be served.
            ValueError: There are too many slots, or there is no such graph.
            DeviceMemoryError: The arena, or the trial of its graphs, does not fit into the device's
                memory.
        """
        gpus = tf.config.get_visible_devices("GPU")
        self._graphs = Graphs("GPU:0" if gpus else "CPU:0")
        self.device = self._graphs.device
        super().__init__(capacity)
        with tf.device(self.device):
            self.network = StatefulModel(model, len(gpus), like)
        self._arena: DeviceArena | None = None
        if not self.network.streaming_obstacles:
            chosen = {} if step_graphs is None and not gpus else step_graphs
            self._arena = DeviceArena(self.network, self._graphs, capacity, chosen)
        self._make_graphs()

    @property
    def layers(self) -> list[LayerReport]:
        """The layers of the model, with the kernel chosen for each recurrent one."""
        return self.network.layers

    @property
    def steps(self) -> StepGraphs | None:
        """What takes single steps, and why; None where a layer needs the whole sequence at once."""
        return None if self._arena is None else self._arena.steps

    @property
    def num_traces(self) -> int:
        """How many graphs were made so far."""
        return self._graphs.num_traces

    def read(self, slot: int) -> tuple[Float32, Bool]:
        """Return copies of a slot's row `(state_size,)` and flags `(num_recurrent,)`.

        Raises:
            NotStreamableError: A layer needs the whole sequence at once.
        """
        return self._streaming().read(slot)

    def write(self, slot: int, row: npt.ArrayLike, has_output: npt.ArrayLike) -> None:
        """Copy a row `(state_size,)` and its flags `(num_recurrent,)` into a slot.

        Raises:
            NotStreamableError: A layer needs the whole sequence at once.
        """
        row, has_output = np.asarray(row, np.float32), np.asarray(has_output, np.bool_)
        self.write_many([slot], row[None], has_output[None])

    def write_many(self, slots: Sequence[int], rows: Float32, has_output: Bool) -> None:
        """Copy rows `(batch, state_size)` and flags `(batch, num_recurrent)` into slots.

        Raises:
            NotStreamableError: A layer needs the whole sequence at once.
            DeviceMemoryError: The device has no memory for it. Other slots are as they were.
        """
        self._streaming().write_many(slots, rows, has_output)

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
            NotStreamableError, InputRangeError, DeviceMemoryError: As `stage` and `run`.
            IndexError, OverflowError, TypeError, ValueError: As `check_arguments`.
        """
        return self.run(self.stage(from_slots, to_slots, inputs, lengths, mask))

    def stage(
        self,
        from_slots: Sequence[int],
        to_slots: Sequence[int],
        inputs: Float32,
        lengths: Sequence[int] | None,
        mask: Bool | None = None,
    ) -> Staged:
        """Check what `advance` is called with, and copy it to the device.

        Touches no row, and may run on a thread of its own beside everything else.

        Raises:
            NotStreamableError: A layer needs the whole sequence at once.
            InputRangeError: An input is none of the integers that the model takes.
            DeviceMemoryError: The device has no memory for it.
            IndexError, OverflowError, TypeError, ValueError: As `check_arguments`.
        """
        arena = self._streaming()
        checked = check_arguments(
            from_slots,
            to_slots,
            inputs,
            lengths,
            mask,
            num_slots=self.capacity + 1,
            input_size=self.network.input_size,
        )
        self._check_integers(inputs)
        return arena.stage(checked, inputs, mask)

    def run(self, staged: Staged) -> Advanced:
        """Take the time steps that were staged.

        Raises:
            DeviceMemoryError: The device has no memory for it. All slots but those of `to_slots`
                are as they were.
        """
        return self._streaming().run(staged)

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
            DeviceMemoryError: The device has no memory for it; a step raises it too.
        """

        def step(x: Float32) -> Float32:
            self._check_integers(x)
            with memory_watched("one time step"):
                outputs, rows, flags = self._step_alone(x[None, None], row[None], has_output[None])
            row[:], has_output[:] = rows[0], flags[0]
            return np.asarray(outputs[0, 0])

        self._streaming()
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
        with memory_watched(f"{len(inputs)} sequences of {inputs.shape[1]} time steps"):
            given = tf.constant(inputs, tf.float32)
            if mask is None:
                outputs = self._predict(given)
            else:
                outputs = self._predict_masked(given, tf.constant(mask))
            return np.asarray(outputs)

    def _make_graphs(self) -> None:
        network, make = self.network, self._graphs.make
        inputs = tf.TensorSpec((None, network.length, network.input_size))
        mask = tf.TensorSpec((None, network.length), tf.bool)
        rows = tf.TensorSpec((None, network.state_size))
        flags = tf.TensorSpec((None, network.num_recurrent), tf.bool)
        step = tf.TensorSpec((None, 1, network.input_size))
        self._predict = make(lambda x: network.predict(x, None), inputs)
        self._predict_masked = make(network.predict, inputs, mask)
        self._step_alone = make(
            lambda x, rows, flags: network.take(x, rows, flags, None), step, rows, flags
        )
        self._last_outputs = make(network.last_outputs, rows, flags)

    def _streaming(self) -> DeviceArena:
        if self._arena is None:
            raise NotStreamableError(self.network.streaming_obstacles)
        return self._arena

    def _check_integers(self, inputs: Float32) -> None:
        """Look at the inputs that are embedded: a GPU gives zeros for what is no row of a table."""
        check_integers(self.network.inputs, inputs)

    def _last_fed(self, row: Float32, has_output: Bool, feedback: Indices) -> Float32:
        """Return `(input_size,)` float32: what a state's last output feeds."""
        if not has_output.all() or (feedback == HELD).any():
            raise MissingFirstInputError
        with memory_watched("the last outputs of a state"):
            outputs = self._last_outputs(row[None], has_output[None])
            if outputs is None:
                raise MissingFirstInputError
            return np.asarray(outputs)[0, 0][feedback]
