"""Where the kernels run: in the event loop, or on a thread of their own, by measured cost.

Owns the threads. Knows arrays and slots, no session and no request.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from time import perf_counter
from typing import Any, TypeVar, TypeVarTuple

import numpy as np

from lstm_core import errors as core_errors
from lstm_core.runtime.base import Advanced, DeviceRuntime, Runtime
from service.domain import Bool, Float32, ForecastRequest
from service.errors import (
    DeadlineExceededError,
    DeviceMemoryError,
    InvalidRequestError,
    Problem,
)
from service.histograms import Histogram, Tally

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

_Arguments = tuple[list[int], list[int], Float32, list[int], Bool | None]
_FORECAST_CHUNK_S = 0.000_5
"""How long a forecast computes before the interpreter's lock and the thread go to others."""
_CALL_BOUNDS_S = (5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_MAX_PREDICT_CELLS = 4_000_000
"""Most values of one layer's outputs that `predict` computes at a time: 16 MB."""


class Compute:
    """A runtime's operations, off the event loop where they would hold it up.

    Attributes:
        kernel_s: Time spent in `advance` so far.
        call_s: How often a call of it took how long.
        calls_s: The calls by the number of their rows, with their time in seconds.
    """

    def __init__(self, runtime: Runtime, name: str, inline_us: float) -> None:
        """Set the threads up.

        Args:
            runtime: Nobody else computes with it.
            name: Of the model, for the threads' names.
            inline_us: An `advance` that is expected to take longer leaves the event loop, and on a
                GPU each one does.
        """
        self.kernel_s = 0.0
        self.call_s = Histogram(_CALL_BOUNDS_S)
        self.calls_s: defaultdict[int, Tally] = defaultdict(Tally)
        self._runtime = runtime
        self._last_num_traces: int | None = None
        # TensorFlow waits ten seconds for a GPU's memory before it says that there is none.
        self._inline_us = 0.0 if _is_on_gpu(runtime) else inline_us
        self._us_per_step: dict[int, float] = {}
        self._device = runtime if isinstance(runtime, DeviceRuntime) else None
        # What the kernels' thread was asked for last, until it is known to be done.
        self._last_call: Future[Any] | None = None
        self._advance_thread = ThreadPoolExecutor(1, f"advance-{name}")
        self._stage_thread = ThreadPoolExecutor(1, f"stage-{name}")
        self._predict_thread = ThreadPoolExecutor(1, f"predict-{name}")
        self._forecast_thread = ThreadPoolExecutor(1, f"forecast-{name}")

    async def advance(
        self,
        from_slots: list[int],
        to_slots: list[int],
        inputs: Float32,
        lengths: list[int],
        mask: Bool | None,
    ) -> Advanced:
        """Call `Runtime.advance`; calls of several ticks run one after the other.

        While one runs on a device, the inputs of the next one are copied there.

        Raises:
            DeviceMemoryError: The device has no memory for it.
            InvalidRequestError: An input is none of its model's integers.
        """
        # The time of a step grows with the rows, slower than they do: one estimate a power of two.
        size = len(lengths).bit_length()
        num_times = inputs.shape[1]
        known_us = self._us_per_step.get(size)
        is_quick = known_us is not None and known_us * num_times <= self._inline_us
        with _TRANSLATED:
            if is_quick and self._last_call is None:
                began = perf_counter()
                advanced = self._runtime.advance(from_slots, to_slots, inputs, lengths, mask)
                took_s = perf_counter() - began
            else:
                call = self._prepared((from_slots, to_slots, inputs, lengths, mask))
                advanced, took_s = await self._on_thread(_timed, call)
        self.kernel_s += took_s
        self.call_s.observe(took_s)
        self.calls_s[len(lengths)].add(took_s)
        us = took_s * 1e6 / num_times
        self._us_per_step[size] = us if known_us is None else 0.9 * known_us + 0.1 * us
        return advanced

    def _prepared(self, arguments: _Arguments) -> Callable[[], Advanced]:
        """Return a call of `advance` for its thread, and begin what can be done meanwhile."""
        if self._device is None or self._last_call is None:
            return partial(self._runtime.advance, *arguments)
        run, staging = self._device.run, self._stage_thread.submit(self._device.stage, *arguments)
        return lambda: run(staging.result())

    async def write_many(self, slots: list[int], rows: Float32, has_output: Bool) -> None:
        """Call `DeviceRuntime.write_many` on the kernels' thread.

        Raises:
            DeviceMemoryError: The device has no memory for it.
        """
        assert self._device is not None, "rows are written at once"
        with _TRANSLATED:
            await self._on_thread(self._device.write_many, slots, rows, has_output)

    async def _on_thread(self, call: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
        self._last_call = waiting = self._advance_thread.submit(call, *arguments)
        try:
            # A cancelled caller takes no call out of the queue: when the last one ends, all have.
            return await asyncio.shield(asyncio.wrap_future(waiting))
        finally:
            if self._last_call is waiting and waiting.done():
                self._last_call = None

    @property
    def num_traces(self) -> int:
        """How many graphs the runtime has made."""
        last = self._last_num_traces
        return self._runtime.num_traces if last is None else last

    def steps_within(self, us: float, num_rows: int) -> int:
        """Return how many time steps of so many rows are expected to take so long, 0: not known."""
        us_per_step = self._us_per_step.get(num_rows.bit_length())
        return 0 if us_per_step is None else int(us / us_per_step)

    async def predict(
        self, inputs: Float32, mask: Bool | None, timeout_s: float | None = None
    ) -> Float32:
        """Call `Runtime.predict` on its thread, in slices of the batch that bound the memory.

        A cancelled call that waits for the thread does not run; one that runs ends with its slice.

        Raises:
            DeadlineExceededError: The thread had no time for it within so many seconds.
            DeviceMemoryError: The device has no memory for it.
            InvalidRequestError: The model takes another number of time steps, or an input is none
                of its integers.
        """
        is_wanted = threading.Event()
        is_wanted.set()
        waiting = self._predict_thread.submit(self._predict, inputs, mask, is_wanted)
        timer = None
        if timeout_s is not None:
            # Takes it out of the thread's queue, and does nothing to one that runs.
            timer = asyncio.get_running_loop().call_later(timeout_s, waiting.cancel)
        try:
            with _TRANSLATED:
                return await asyncio.wrap_future(waiting)
        except asyncio.CancelledError:
            is_wanted.clear()
            task = asyncio.current_task()
            if waiting.cancelled() and not (task is not None and task.cancelling()):
                raise DeadlineExceededError from None
            raise
        finally:
            if timer is not None:
                timer.cancel()

    async def forecast(
        self, request: ForecastRequest, row: Float32, has_output: Bool
    ) -> Float32 | None:
        """Call `Runtime.forecast` on its thread, where forecasts take turns.

        A cancelled call ends with the chunk that it is at.

        Args:
            request: Its session is of this runtime's network, and has an output where the first
                input is to come from it.
            row: `(state_size,)` float32, the session's; it is not changed.
            has_output: `(recurrent layers,)` bool, likewise.

        Returns:
            `(num_steps, output_size)` float32; None if a state or an output was not finite.
        """
        loop = asyncio.get_running_loop()
        row = row.copy()
        begin = partial(
            self._runtime.forecast,
            row,
            has_output.copy(),
            request.first_input,
            request.feedback,
            request.num_steps,
        )
        with _TRANSLATED:
            # What the last output feeds is computed here already.
            steps = await loop.run_in_executor(self._forecast_thread, begin)
        outputs = np.empty((request.num_steps, self._runtime.network.output_size), np.float32)
        num_done: int | None = 0
        # A chunk at a time: between two, other forecasts have the thread, and the event loop the
        # interpreter, which one that computes would keep for five milliseconds.
        while num_done is not None and num_done < request.num_steps:
            with _TRANSLATED:
                num_done = await loop.run_in_executor(
                    self._forecast_thread, _take_steps, steps, row, outputs, num_done
                )
        return None if num_done is None else outputs

    def close(self) -> None:
        """End the threads, those that run with the slice that they are at."""
        self._advance_thread.shutdown(wait=False)
        self._stage_thread.shutdown(wait=False)
        self._forecast_thread.shutdown(wait=False)
        self._predict_thread.shutdown(wait=False)

    def release(self) -> None:
        """Let go of the runtime once nothing computes any more; what was counted stays."""
        self._last_num_traces = self._runtime.num_traces
        del self._runtime, self._device

    def _predict(self, inputs: Float32, mask: Bool | None, is_wanted: threading.Event) -> Float32:
        widest = self._runtime.network.widest
        rows = max(1, _MAX_PREDICT_CELLS // (inputs.shape[1] * widest))
        slices = [slice(start, start + rows) for start in range(0, len(inputs), rows)]
        return np.concatenate(
            [
                self._runtime.predict(inputs[s], None if mask is None else mask[s])
                for s in slices
                if is_wanted.is_set()
            ]
        )


def _is_on_gpu(runtime: Runtime) -> bool:
    dispatches = [layer.dispatch for layer in runtime.layers]
    return any(dispatch is not None and dispatch.device == "gpu" for dispatch in dispatches)


class _Translated:
    """Turns the runtime's errors that a caller can do something about into the service's."""

    # Not a generator's context manager: that would cost each step of a lone client 1 us.
    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, core_errors.DeviceMemoryError):
            raise DeviceMemoryError(str(error)) from error
        if isinstance(
            error,
            core_errors.InputRangeError
            | core_errors.MissingFirstInputError
            | core_errors.SequenceLengthError,
        ):
            raise InvalidRequestError([Problem(("inputs",), str(error))]) from error


_TRANSLATED = _Translated()


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    """Return what a call gives, and how long it took in seconds."""
    began = perf_counter()
    result = call()
    return result, perf_counter() - began


def _take_steps(
    steps: Iterator[Float32], row: Float32, outputs: Float32, num_done: int
) -> int | None:
    """Take the steps of a forecast for a while.

    Args:
        steps: Those that are left.
        row: `(state_size,)` float32, where the state is after each.
        outputs: `(steps, output_size)` float32, written where a step was taken.
        num_done: Steps taken before.

    Returns:
        Steps taken so far; None if a state or an output was not finite.
    """
    ends_at = perf_counter() + _FORECAST_CHUNK_S
    for values in steps:
        outputs[num_done] = values
        num_done += 1
        if not (np.isfinite(values).all() and np.isfinite(row).all()):
            return None
        if perf_counter() > ends_at:
            break
    return num_done
