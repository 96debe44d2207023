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
from lstm_core.network import Network, Recurrent
from lstm_core.runtime.arguments import check_arguments
from lstm_core.runtime.base import Advanced
from lstm_core.runtime.chain import behind_last, is_pointwise, lstms, mask_behind
from lstm_core.runtime.whole import RunWhole, WholeSequences

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]


class NumpyStack:
    """A network over an arena that it reads and writes.

    Attributes:
        predict: Whole sequences, on scratch of their own, so that they may run beside `advance`.
    """

    def __init__(self, network: Network, rows: Float32, has_output: Bool) -> None:
        """Pack the weights.

        Args:
            network: The network.
            rows: `(slots, state_size)` float32.
            has_output: `(slots, recurrent layers)` bool.
        """
        self._network = network
        self._rows = rows
        self._has_output = has_output
        self._kernels = {
            layer: NumpyLSTM(layer.spec, layer.weights) for layer in lstms(network.layers)
        }
        self.predict = WholeSequences(
            network.layers,
            {layer: _from_zeros(layer, kernel) for layer, kernel in self._kernels.items()},
            {},
        )

    def over(self, rows: Float32, has_output: Bool) -> NumpyStack:
        """Return the same over another arena, which may run beside this one; see `__init__`."""
        twin = copy(self)
        kernels = {layer: kernel.with_own_scratch() for layer, kernel in self._kernels.items()}
        vars(twin).update(_rows=rows, _has_output=has_output, _kernels=kernels)
        return twin

    def behind(self, h: Float32) -> Float32:
        """Run the layers behind the last LSTM, on any thread.

        Args:
            h: `(batch, time, features)` float32, what that LSTM gives.
        """
        for layer in behind_last(self._network.layers):
            h = layer(h)
        return h

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
        """Run the stack, every layer over all the time steps; `rows` and `has_output` in place."""
        given = mask
        offset = 0
        index = 0
        for layer in self._network.layers:
            if isinstance(layer, Recurrent):
                begin_c = offset + layer.spec.output_size
                end = begin_c + layer.spec.units
                y = np.zeros((*x.shape[:2], layer.spec.output_size), np.float32)
                self._kernels[layer].run(
                    x,
                    y,
                    h=rows[:, offset:begin_c],
                    c=rows[:, begin_c:end],
                    active=active,
                    mask=mask,
                    has_output=has_output[:, index],
                )
                if layer.zero_output_for_mask and mask is not None:
                    y *= mask[..., None]
                offset = end
                index += 1
                x = y
                # The layers behind the last time axis answer every step as if it were the last.
                mask = mask if layer.return_sequences else None
            elif is_pointwise(layer):
                mask = mask_behind(layer, x, mask, given)
                x = layer(x)
        return x


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
