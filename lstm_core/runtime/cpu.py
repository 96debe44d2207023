"""The arena of state rows in memory, and `advance`, the one operation on it, without TensorFlow.

Owns every session's row by slot. Knows no session, no client and no position: whose slot is whose,
and when a slot is free, is the caller's business, but for the free list itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NoReturn

import numpy as np
import numpy.typing as npt

from lstm_core.dispatch import Dispatch, dispatch_runtime
from lstm_core.errors import NotStreamableError, SpecError
from lstm_core.kernels import native
from lstm_core.kernels.numpy import limit_blas_threads
from lstm_core.merge import Merge
from lstm_core.network import Bidirectional, Layer, Network, Recurrent
from lstm_core.runtime.arguments import check_integers
from lstm_core.runtime.base import Advanced, Indices, LayerReport
from lstm_core.runtime.chain import specs_of
from lstm_core.runtime.forecast import first_of, run_on
from lstm_core.runtime.native_stack import NativeStack, stack_obstacles
from lstm_core.runtime.numpy_stack import NumpyStack
from lstm_core.runtime.slots import Slots

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]


class CpuRuntime(Slots):
    """A network with an arena. One thread at a time, but for `predict`, which is on its own.

    A flag for each recurrent layer stands beside every row: whether the layer has had a live step
    since its state was set. A masked step repeats the last output only then, else it gives zeros.

    Attributes:
        kind: Its name among the runtimes.
        network: What it runs.
        capacity: Slots, the zero slot not counted.
        num_traces: 0: there are no graphs.
        dispatches: The kernel chosen for each recurrent layer, with the reason; for a bidirectional
            one, the kernel of both its directions.
    """

    kind = "cpu"
    num_traces = 0

    def __init__(
        self,
        network: Network,
        capacity: int,
        *,
        instruction_sets: Sequence[str] | None = None,
        num_threads: int = 1,
        precision: native.Precision = "float32",
    ) -> None:
        """Pack the weights and reserve the arena.

        Args:
            network: The network.
            capacity: Slots, the zero slot not counted. Memory is touched as slots are first used.
            instruction_sets: Those that the native kernel may run on, the best first; None means
                all that this machine has, and none of them NumPy.
            num_threads: The most that the native kernel shares the rows of a long call out over;
                NumPy has one. The bits do not depend on it.
            precision: Of the LSTMs' products; see `native.Precision`. It decides where
                `instruction_sets` is None.

        Raises:
            SpecError: bfloat16 is asked for, and this machine or this network cannot have it.
        """
        limit_blas_threads(1)
        if instruction_sets is None:
            instruction_sets = native.instruction_sets(precision)
        self.network = network
        self.dispatches = _dispatch(network, instruction_sets)
        if precision == "bfloat16":
            _check_bfloat16(instruction_sets, self.dispatches.values())
        is_native = all(dispatch.kernel == "native" for dispatch in self.dispatches.values())
        self._stack: NativeStack | NumpyStack = (
            NativeStack(network, capacity + 1, instruction_sets[0], num_threads)
            if is_native
            else NumpyStack(network, capacity + 1)
        )
        self._advance: Callable[..., Advanced] = (
            _refusal(network.streaming_obstacles)
            if network.streaming_obstacles
            else self._stack.advance
        )
        # A chain's kernel looks at its numbers itself.
        self._embedded = () if network.is_chain else network.inputs
        super().__init__(capacity)
        # Where the state of a forecast is before and after a step.
        self._forecast_stack = self._stack.over(2)

    @property
    def layers(self) -> list[LayerReport]:
        """The layers, with the kernel chosen for each recurrent one."""
        network = self.network
        return [
            LayerReport(
                name=layer.name,
                kind=_kind(layer),
                output_size=output_size,
                dispatch=self.dispatches.get(layer),
            )
            for layer, output_size in zip(network.layers, network.output_sizes, strict=True)
        ]

    def read(self, slot: int) -> tuple[Float32, Bool]:
        """Return copies of a slot's row `(state_size,)` and flags `(recurrent layers,)`."""
        return self._stack.arena.read(slot)

    def write(self, slot: int, row: npt.ArrayLike, has_output: npt.ArrayLike) -> None:
        """Copy a row `(state_size,)` and its flags `(recurrent layers,)` into a slot."""
        self._stack.arena.write(slot, row, has_output)

    def advance(
        self,
        from_slots: Sequence[int],
        to_slots: Sequence[int],
        inputs: Float32,
        lengths: Sequence[int] | None,
        mask: Bool | None = None,
    ) -> Advanced:
        """Take each row's next time steps, from one slot to another.

        The slots that are read stay as they are.

        Args:
            from_slots: `(batch,)`, where each state is.
            to_slots: `(batch,)`, all different and none in `from_slots`: where it shall be. Not the
                zero slot.
            inputs: `(batch, time, input_size)` float32.
            lengths: `(batch,)`, each row's number of steps, 1 to `time`; None means `time` for all.
            mask: `(batch, time)` bool, true where a step is live; None means everywhere.

        Raises:
            NotStreamableError: A layer needs the whole sequence at once.
            InputRangeError: One of several inputs is none of the integers that it takes.
            IndexError, OverflowError, TypeError, ValueError: As `arguments.check_arguments`, on
                both kernels.
        """
        if self._embedded:
            check_integers(self._embedded, inputs)
        return self._advance(from_slots, to_slots, inputs, lengths, mask)

    def forecast(
        self,
        row: Float32,
        has_output: Bool,
        first_input: Float32 | None,
        feedback: Indices,
        num_steps: int,
    ) -> Iterator[Float32]:
        """Run a state on, each step's outputs fed back as the next one's inputs.

        May run on a thread of its own, beside `advance` and `predict`, but not beside another
        forecast's step; between two steps another forecast may have its turn.

        Args:
            row: `(state_size,)` float32, overwritten with the state after each step.
            has_output: `(recurrent layers,)` bool, overwritten likewise.
            first_input: `(input_size,)` float32, of the first step; None means what the state's
                last output feeds.
            feedback: `(input_size,)`, for each input the index of the output that feeds it, or
                `HELD`, which keeps its value of `first_input`.
            num_steps: How many steps, at least 1.

        Returns:
            The outputs of each step, `(output_size,)` float32, computed when they are asked for.

        Raises:
            NotStreamableError: A layer needs the whole sequence at once.
            MissingFirstInputError: There is nothing to begin with.
        """
        stack = self._forecast_stack

        def step(x: Float32) -> Float32:
            if self._embedded:
                check_integers(self._embedded, x)
            stack.arena.write(0, row, has_output)
            advanced = stack.advance([0], [1], x[None, None], None, None)
            row[:], has_output[:] = advanced.rows[0], advanced.has_output[0]
            outputs: Float32 = advanced.outputs[0, 0]
            return outputs

        if first_input is None:
            first_input = first_of(self.network, self._stack.behind, row, has_output, feedback)
        return run_on(self.network, step, first_input, feedback, num_steps)

    def predict(self, inputs: Float32, mask: Bool | None = None) -> Float32:
        """Run whole sequences from zero states, as the file's own framework would.

        May run on a thread of its own, beside `advance`, but not beside another `predict`.

        Args:
            inputs: `(batch, time, input_size)` float32.
            mask: `(batch, time)` bool, true where a step is live; None means everywhere.

        Returns:
            `(batch, time, output_size)` float32, or `(batch, output_size)` where the network
            returns no sequences.

        Raises:
            InputRangeError: One of several inputs is none of the integers that it takes.
        """
        if self._embedded:
            check_integers(self._embedded, inputs)
        with np.errstate(all="ignore"):
            return self._stack.predict(inputs, mask)


def _kind(layer: Layer) -> str:
    if isinstance(layer, Recurrent):
        return "LSTM"
    return layer.operation.capitalize() if isinstance(layer, Merge) else type(layer).__name__


def _refusal(obstacles: list[str]) -> Callable[..., NoReturn]:
    def refuse(*_: object) -> NoReturn:
        raise NotStreamableError(obstacles)

    return refuse


def _check_bfloat16(instruction_sets: Sequence[str], dispatches: Iterable[Dispatch]) -> None:
    wanted = "bfloat16 takes the native kernel on a processor with AVX512-BF16"
    if not instruction_sets:
        obstacle = (
            native.OBSTACLE or "this processor, or the compiler of the kernel, has not got it"
        )
        raise SpecError("precision", f"{wanted}, and here {obstacle}")
    for dispatch in dispatches:
        if dispatch.kernel != "native":
            raise SpecError("precision", f"{wanted}, and here {dispatch.reason}")


def _dispatch(network: Network, instruction_sets: Sequence[str]) -> dict[Layer, Dispatch]:
    """Choose one kernel for all of a network's recurrent layers, with the reason for each."""
    obstacles = stack_obstacles(network)
    if not instruction_sets and native.OBSTACLE is not None:
        obstacles.append(native.OBSTACLE)
    return {
        layer: dispatch_runtime(
            specs_of(layer)[0],
            instruction_set=instruction_sets[0] if instruction_sets else None,
            obstacles=obstacles,
        )
        for layer in network.layers
        if isinstance(layer, Recurrent | Bidirectional)
    }
