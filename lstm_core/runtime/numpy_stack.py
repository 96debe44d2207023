"""A network on the NumPy kernel: steps of rows in an arena, and whole sequences.

Knows no slot's owner. Results agree within rounding, not to the bit, between batches of different
sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
import numpy.typing as npt

from lstm_core.kernels.numpy import NumpyLSTM
from lstm_core.network import Layer, Network, Recurrent
from lstm_core.runtime.arena import Arena
from lstm_core.runtime.arguments import check_arguments
from lstm_core.runtime.base import Advanced
from lstm_core.runtime.chain import lstms
from lstm_core.runtime.plan import plan_of, run_plan, side_by_side, tail_of
from lstm_core.runtime.whole import RunWhole, WholeSequences

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]


class NumpyStack:
    """A network over an arena of its own.

    Attributes:
        arena: What it reads and writes.
        predict: Whole sequences, on scratch of their own, so that they may run beside `advance`.
    """

    def __init__(self, network: Network, num_slots: int) -> None:
        """Pack the weights, and reserve an arena of so many slots."""
        self._network = network
        self._plan = plan_of(network)
        self._kernels = {
            layer: NumpyLSTM(layer.spec, layer.weights) for layer in lstms(network.layers)
        }
        self.predict = WholeSequences(
            network,
            self._plan,
            {layer: _from_zeros(layer, kernel) for layer, kernel in self._kernels.items()},
            {},
        )
        self._tail = None if network.streaming_obstacles else tail_of(self._plan, network)
        self._set_arena(num_slots)

    def over(self, num_slots: int) -> NumpyStack:
        """Return the same over another arena, which may run beside this one."""
        twin = copy(self)
        twin._kernels = {  # noqa: SLF001 - of its own class
            layer: kernel.with_own_scratch() for layer, kernel in self._kernels.items()
        }
        twin._set_arena(num_slots)  # noqa: SLF001 - likewise
        return twin

    def behind(self, row: Float32, has_output: Bool) -> Float32 | None:
        """Return the outputs of the last live step by the state alone; None where it cannot tell.

        It may run on any thread.

        Args:
            row: `(state_size,)` float32.
            has_output: `(recurrent layers,)` bool.

        Returns:
            `(output_size,)` float32.
        """
        return None if self._tail is None else self._tail.run(row, has_output, {})

    def _set_arena(self, num_slots: int) -> None:
        network = self._network
        self.arena = Arena(num_slots, [(network.state_size, network.num_recurrent)])
        ((self._rows, self._has_output),) = self.arena.blocks

    def advance(
        self,
        from_slots: Sequence[int],
        to_slots: Sequence[int],
        inputs: Float32,
        lengths: Sequence[int] | None,
        mask: Bool | None,
    ) -> Advanced:
        """Do as `CpuRuntime.advance`.

        Raises:
            IndexError, OverflowError, TypeError, ValueError: As `check_arguments`.
        """
        sources, targets, ends = check_arguments(
            from_slots,
            to_slots,
            inputs,
            lengths,
            mask,
            num_slots=len(self._rows),
            input_size=self._network.input_size,
        )
        time = inputs.shape[1]
        order = None
        active = [len(inputs)] * time
        if ends is not None and ends.min() < time:
            order = np.argsort(ends, kind="stable")[::-1]
            active = (ends[:, None] > np.arange(time)).sum(axis=0).tolist()
            inputs = inputs[order]
            mask = None if mask is None else mask[order]
            sources = sources[order]
        rows = self._rows.take(sources, axis=0)
        has_output = self._has_output.take(sources, axis=0)
        # Saturated gates overflow by design; what went wrong is told by the finiteness of the row.
        with np.errstate(all="ignore"):
            outputs = self._stream(inputs, rows, has_output, active, mask)
        if order is not None and ends is not None:
            for t in range(ends.min(), time):
                outputs[active[t] :, t] = 0
            back = np.argsort(order)
            outputs, rows, has_output = outputs[back], rows[back], has_output[back]
        self._rows[targets] = rows
        self._has_output[targets] = has_output
        is_output_finite = finite_rows(outputs.reshape(len(rows), -1))
        return Advanced(outputs, rows, has_output, finite_rows(rows), is_output_finite)

    def _stream(
        self, x: Float32, rows: Float32, has_output: Bool, active: list[int], mask: Bool | None
    ) -> Float32:
        """Run every layer over all the time steps; `rows` and `has_output` in place."""
        parts = iter(self._network.state_layout)
        flags = iter(range(self._network.num_recurrent))

        def run(layer: Layer, x: Float32, mask: Bool | None) -> Float32:
            assert isinstance(layer, Recurrent)
            h, c = next(parts), next(parts)
            y = np.zeros((*x.shape[:2], h.size), np.float32)
            self._kernels[layer].run(
                x,
                y,
                h=rows[:, h.offset : c.offset],
                c=rows[:, c.offset : c.offset + c.size],
                active=active,
                mask=mask,
                has_output=has_output[:, next(flags)],
            )
            if layer.zero_output_for_mask and mask is not None:
                y *= mask[..., None]
            return y

        return side_by_side(run_plan(self._plan, x, mask, run, {}))


def _from_zeros(layer: Recurrent, kernel: NumpyLSTM) -> RunWhole:
    kernel = kernel.with_own_scratch()

    def run(x: Float32, mask: Bool | None) -> Float32:
        batch, time, _ = x.shape
        outputs = np.zeros((batch, time, layer.spec.output_size), np.float32)
        kernel.run(
            x,
            outputs,
            h=np.zeros((batch, layer.spec.output_size), np.float32),
            c=np.zeros((batch, layer.spec.units), np.float32),
            active=[batch] * time,
            mask=mask,
            has_output=np.zeros(batch, np.bool_),
        )
        if layer.zero_output_for_mask and mask is not None:
            outputs *= mask[..., None]
        return outputs

    return run


def finite_rows(rows: Float32) -> Bool:
    """Return `(batch,)`, whether all of each row is finite."""
    return np.asarray(np.logical_and.reduce(np.isfinite(rows), axis=1))
