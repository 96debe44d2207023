"""Where the kernels run: in the event loop, or on a thread of their own, by measured cost.

Owns the threads. Knows arrays and slots, no session and no request.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import perf_counter

import numpy as np

from lstm_core.runtime.cpu import Advanced, CpuRuntime
from service.domain import Bool, Float32
from service.histograms import Histogram

_CALL_BOUNDS_S = (5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
_MAX_PREDICT_CELLS = 4_000_000
"""Most values of one layer's outputs that `predict` computes at a time: 16 MB."""


class Compute:
    """A runtime's two operations, off the event loop where they would hold it up.

    Attributes:
        kernel_s: Time spent in `advance` so far.
        call_s: How often a call of it took how long.
    """

    def __init__(self, runtime: CpuRuntime, name: str, inline_us: float) -> None:
        """Set the threads up.

        Args:
            runtime: Nobody else calls its `advance` and `predict`.
            name: Of the model, for the threads' names.
            inline_us: An `advance` that is expected to take longer leaves the event loop.
        """
        self.kernel_s = 0.0
        self.call_s = Histogram(_CALL_BOUNDS_S)
        self._runtime = runtime
        self._inline_us = inline_us
        self._us_per_step: dict[int, float] = {}
        self._advance_thread = ThreadPoolExecutor(1, f"advance-{name}")
        self._predict_thread = ThreadPoolExecutor(1, f"predict-{name}")

    async def advance(
        self,
        from_slots: list[int],
        to_slots: list[int],
        inputs: Float32,
        lengths: list[int],
        mask: Bool | None,
    ) -> Advanced:
        """Call `CpuRuntime.advance`; one call at a time."""
        call = partial(self._runtime.advance, from_slots, to_slots, inputs, lengths, mask)
        # The time of a step grows with the rows, slower than they do: one estimate a power of two.
        size = len(lengths).bit_length()
        num_times = inputs.shape[1]
        known_us = self._us_per_step.get(size)
        began = perf_counter()
        if known_us is not None and known_us * num_times <= self._inline_us:
            advanced = call()
        else:
            loop = asyncio.get_running_loop()
            advanced = await loop.run_in_executor(self._advance_thread, call)
        took_s = perf_counter() - began
        self.kernel_s += took_s
        self.call_s.observe(took_s)
        us = took_s * 1e6 / num_times
        self._us_per_step[size] = us if known_us is None else 0.9 * known_us + 0.1 * us
        return advanced

    async def predict(self, inputs: Float32, mask: Bool | None) -> Float32:
        """Call `CpuRuntime.predict` on its thread, in slices of the batch that bound the memory.

        A cancelled call that waits for the thread does not run; one that runs ends with its slice.
        """
        is_wanted = threading.Event()
        is_wanted.set()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(
                self._predict_thread, self._predict, inputs, mask, is_wanted
            )
        except asyncio.CancelledError:
            is_wanted.clear()
            raise

    def close(self) -> None:
        """End the threads, those that run with the slice that they are at."""
        self._advance_thread.shutdown(wait=False)
        self._predict_thread.shutdown(wait=False)

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
