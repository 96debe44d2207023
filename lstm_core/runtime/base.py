"""What every runtime offers, and what it says of the network that it runs.

Knows no network's inside and no device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from lstm_core.dispatch import Dispatch
from lstm_core.network import StatePart, TensorPart

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.intp]
Staged: TypeAlias = Any
"""What a tick needs, on the device; only the runtime that put it there knows what it is."""

ZERO_SLOT = 0
"""The slot whose row is zeros, where every new session starts from. Nobody writes to it."""


class Advanced(NamedTuple):
    """What one `advance` gave, row by row.

    Attributes:
        outputs: `(batch, time, output_size)` float32; zeros beyond a row's length.
        rows: `(batch, state_size)` float32, the new states, as they are in the arena.
        has_output: `(batch, num_recurrent)` bool, the new flags, likewise.
        is_state_finite: `(batch,)` bool, not to be written to: others may have the same array.
        is_output_finite: Likewise.
    """

    outputs: Float32
    rows: Float32
    has_output: Bool
    is_state_finite: Bool
    is_output_finite: Bool


class LayerReport(NamedTuple):
    """A layer of a network, for people.

    Attributes:
        name: Its name in the file.
        kind: Its class.
        output_size: Values that it gives for a time step.
        dispatch: What runs it, for a recurrent layer; else None.
    """

    name: str
    kind: str
    output_size: int
    dispatch: Dispatch | None


class ServedNetwork(Protocol):
    """What sessions and transports see of a network. See `network.Network` for the meanings."""

    @property
    def name(self) -> str:
        """The model's name in its file."""
        ...

    @property
    def input_size(self) -> int:
        """Values of one time step, those of all inputs side by side."""
        ...

    @property
    def output_size(self) -> int:
        """Outputs of one time step, those of all outputs side by side."""
        ...

    @property
    def inputs(self) -> Sequence[TensorPart]:
        """Where each of the file's inputs lies in a step's `input_size` values."""
        ...

    @property
    def outputs(self) -> Sequence[TensorPart]:
        """Where each of the file's outputs lies in a step's `output_size` values."""
        ...

    @property
    def widest(self) -> int:
        """The most values that a layer gives for a time step."""
        ...

    @property
    def returns_sequences(self) -> bool:
        """Whether `predict` gives a time axis."""
        ...

    @property
    def vocabulary(self) -> int | None:
        """Inputs are one integer a step in [0, vocabulary); None where they are not."""
        ...

    @property
    def state_layout(self) -> tuple[StatePart, ...]:
        """The parts of a state row."""
        ...

    @property
    def state_size(self) -> int:
        """The length of a state row."""
        ...

    @property
    def num_recurrent(self) -> int:
        """Flags beside a state row: one for each recurrent layer that keeps a state."""
        ...

    @property
    def streaming_obstacles(self) -> list[str]:
        """One sentence for each layer that needs the whole sequence at once."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hexadecimal, of the inference configuration and the weights."""
        ...


class Runtime(Protocol):
    """A network with an arena. See `runtime.cpu.CpuRuntime` for what each method promises.

    One thread at a time, but for `predict` and `forecast`, which may each run on one of their own.
    """

    @property
    def kind(self) -> str:
        """Its name among the runtimes: `cpu` or `tensorflow`."""
        ...

    @property
    def network(self) -> ServedNetwork:
        """What it runs."""
        ...

    @property
    def layers(self) -> Sequence[LayerReport]:
        """The network's layers, with what was chosen to run them."""
        ...

    @property
    def capacity(self) -> int:
        """Slots, the zero slot not counted."""
        ...

    @property
    def num_free(self) -> int:
        """How many slots are free."""
        ...

    @property
    def num_traces(self) -> int:
        """How many graphs have been made; stays the same once all sorts of calls were seen."""
        ...

    def allocate(self) -> int:
        """Take a free slot; IndexError if there is none."""
        ...

    def allocate_many(self, num_slots: int) -> list[int]:
        """Take so many free slots, all or none; IndexError if there are not so many."""
        ...

    def free(self, slot: int) -> None:
        """Give a slot back."""
        ...

    def read(self, slot: int) -> tuple[Float32, Bool]:
        """Return copies of a slot's row and flags."""
        ...

    def write(self, slot: int, row: npt.ArrayLike, has_output: npt.ArrayLike) -> None:
        """Copy a row and its flags into a slot."""
        ...

    def advance(
        self,
        from_slots: Sequence[int],
        to_slots: Sequence[int],
        inputs: Float32,
        lengths: Sequence[int] | None,
        mask: Bool | None = None,
    ) -> Advanced:
        """Take each row's next time steps, from one slot to another."""
        ...

    def forecast(
        self,
        row: Float32,
        has_output: Bool,
        first_input: Float32 | None,
        feedback: Indices,
        num_steps: int,
    ) -> Iterator[Float32]:
        """Run a state on, each step's outputs fed back as the next one's inputs."""
        ...

    def predict(self, inputs: Float32, mask: Bool | None = None) -> Float32:
        """Run whole sequences from zero states."""
        ...


@runtime_checkable
class DeviceRuntime(Runtime, Protocol):
    """A runtime whose rows are on a device, which takes its time to copy what it is given."""

    def stage(
        self,
        from_slots: Sequence[int],
        to_slots: Sequence[int],
        inputs: Float32,
        lengths: Sequence[int] | None,
        mask: Bool | None = None,
    ) -> Staged:
        """Check what `advance` is called with, and copy it to the device, for `run`.

        Touches no row, and may run on a thread of its own beside everything else.
        """
        ...

    def run(self, staged: Staged) -> Advanced:
        """Do the rest of an `advance`."""
        ...

    def write_many(self, slots: Sequence[int], rows: Float32, has_output: Bool) -> None:
        """Copy rows `(batch, state_size)` and their flags `(batch, num_recurrent)` into slots."""
        ...
