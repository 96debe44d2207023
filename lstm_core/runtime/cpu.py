"""The arena of state rows in memory, and `advance`, the one operation on it, without TensorFlow.

Owns every session's row by slot. Knows no session, no client and no position: whose slot is whose,
and when a slot is free, is the caller's business, but for the free list itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lstm_core.dispatch import Dispatch, dispatch_runtime
from lstm_core.errors import NotStreamableError
from lstm_core.kernels.numpy import NumpyLSTM, limit_blas_threads
from lstm_core.network import Bidirectional, Layer, Network, Recurrent
from lstm_core.pointwise import Embedding, Masking
from lstm_core.spec import LSTMSpec

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

ZERO_SLOT = 0
"""The slot whose row is zeros, where every new session starts from. Nobody writes to it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Advanced:
    """What one `advance` gave, row by row.

    Attributes:
        outputs: `(batch, time, output_size)` float32; zeros beyond a row's length.
        rows: `(batch, state_size)` float32, the new states, as they are in the arena.
        has_output: `(batch, recurrent layers)` bool, the new flags, likewise.
        is_state_finite: `(batch,)` bool.
        is_output_finite: `(batch,)` bool.
    """

    outputs: Float32
    rows: Float32
    has_output: Bool
    is_state_finite: Bool
    is_output_finite: Bool


class CpuRuntime:
    """A network with an arena. One thread at a time, but for `predict`, which is on its own.

    A flag for each recurrent layer stands beside every row: whether the layer has had a live step
    since its state was set. A masked step repeats the last output only then, else it gives zeros.

    Attributes:
        network: What it runs.
        capacity: Slots, the zero slot not counted.
        dispatches: The kernel chosen for each recurrent layer, with the reason; for a bidirectional
            one, the kernel of both its directions.
    """

    def __init__(self, network: Network, capacity: int) -> None:
        """Pack the weights and reserve the arena.

        Args:
            network: The network.
            capacity: Slots, the zero slot not counted. Memory is touched as slots are first used.
        """
        limit_blas_threads(1)
        self.network = network
        self._kernels = {layer: NumpyLSTM(layer.spec, layer.weights) for layer in _lstms(network)}
        self._predict_kernels = {
            layer: kernel.with_own_scratch() for layer, kernel in self._kernels.items()
        }
        self.dispatches: dict[Layer, Dispatch] = {
            layer: dispatch_runtime(_spec(layer))
            for layer in network.layers
            if isinstance(layer, Recurrent | Bidirectional)
        }
        self._rows: Float32 = np.zeros((capacity + 1, network.state_size), np.float32)
        self._has_output: Bool = np.zeros((capacity + 1, len(network.recurrent)), np.bool_)
        self.capacity = capacity
        self._free = list(range(capacity, ZERO_SLOT, -1))

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
        """Return copies of a slot's row `(state_size,)` and flags `(recurrent layers,)`."""
        return self._rows[slot].copy(), self._has_output[slot].copy()

    def write(self, slot: int, row: npt.ArrayLike, has_output: npt.ArrayLike) -> None:
        """Copy a row `(state_size,)` and its flags `(recurrent layers,)` into a slot."""
        self._rows[slot] = row
        self._has_output[slot] = has_output

    def advance(
        self,
        from_slots: Sequence[int],
        to_slots: Sequence[int],
        inputs: Float32,
        lengths: Sequence[int],
        mask: Bool | None = None,
    ) -> Advanced:
        """Take each row's next time steps, from one slot to another.

        The slots that are read stay as they are.

        Args:
            from_slots: `(batch,)`, where each state is.
            to_slots: `(batch,)`, all different and none in `from_slots`: where it shall be.
            inputs: `(batch, time, input_size)` float32.
            lengths: `(batch,)`, each row's number of steps, 1 to `time`.
            mask: `(batch, time)` bool, true where a step is live; None means everywhere.

        Raises:
            NotStreamableError: A layer needs the whole sequence at once.
        """
        if self.network.streaming_obstacles:
            raise NotStreamableError(self.network.streaming_obstacles)
        time = inputs.shape[1]
        if min(lengths) == time:
            order = None
            active = [len(lengths)] * time
        else:
            order = np.argsort(lengths, kind="stable")[::-1]
            active = (np.asarray(lengths)[:, None] > np.arange(time)).sum(axis=0).tolist()
            inputs = inputs[order]
            mask = None if mask is None else mask[order]
        sources = np.asarray(from_slots) if order is None else np.asarray(from_slots)[order]
        rows = self._rows[sources]
        has_output = self._has_output[sources]
        # Saturated gates overflow by design; what went wrong is told by the finiteness of the row.
        with np.errstate(all="ignore"):
            outputs = self._stream(inputs, rows, has_output, active, mask)
        if order is not None:
            for t in range(min(lengths), time):
                outputs[active[t] :, t] = 0
            back = np.argsort(order)
            outputs, rows, has_output = outputs[back], rows[back], has_output[back]
        self._rows[to_slots] = rows
        self._has_output[to_slots] = has_output
        return Advanced(
            outputs=outputs,
            rows=rows,
            has_output=has_output,
            is_state_finite=_finite_rows(rows),
            is_output_finite=_finite_rows(outputs.reshape(len(rows), -1)),
        )

    def _stream(
        self, x: Float32, rows: Float32, has_output: Bool, active: list[int], mask: Bool | None
    ) -> Float32:
        """Run the stack, every layer over all the time steps; `rows` and `has_output` in place."""
        given = mask
        offset = 0
        index = 0
        for layer in self.network.layers:
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
            else:
                assert not isinstance(layer, Bidirectional)
                if isinstance(layer, Masking | Embedding):
                    mask = _source_mask(layer, x, mask, given)
                x = layer(x)
        return x

    def predict(self, inputs: Float32, mask: Bool | None = None) -> Float32:
        """Run whole sequences from zero states, as the file's own framework would.

        May run on a thread of its own, beside `advance`, but not beside another `predict`.

        Args:
            inputs: `(batch, time, input_size)` float32.
            mask: `(batch, time)` bool, true where a step is live; None means everywhere.

        Returns:
            `(batch, time, output_size)` float32, or `(batch, output_size)` where the network
            returns no sequences.
        """
        with np.errstate(all="ignore"):
            return self._whole(inputs, mask)

    def _whole(self, x: Float32, mask: Bool | None) -> Float32:
        given = mask
        for layer in self.network.layers:
            if isinstance(layer, Recurrent | Bidirectional):
                x = self._predict_recurrent(layer, x, mask)
                mask = mask if layer.return_sequences else None
            else:
                if isinstance(layer, Masking | Embedding):
                    mask = _source_mask(layer, x, mask, given)
                x = layer(x)
        return x

    def _predict_recurrent(
        self, layer: Recurrent | Bidirectional, x: Float32, mask: Bool | None
    ) -> Float32:
        if isinstance(layer, Recurrent):
            return self._run_from_zeros(layer, x, mask)
        forward = self._run_from_zeros(layer.forward, x, mask)
        backward = self._run_from_zeros(layer.backward, x, mask)
        if layer.return_sequences:
            backward = backward[:, ::-1]
        match layer.merge_mode:
            case "concat":
                return np.concatenate([forward, backward], axis=-1)
            case "sum":
                return forward + backward
            case "mul":
                return forward * backward
            case _:
                return (forward + backward) * np.float32(0.5)

    def _run_from_zeros(self, layer: Recurrent, x: Float32, mask: Bool | None) -> Float32:
        batch, time, _ = x.shape
        if layer.go_backwards:
            x = x[:, ::-1]
            mask = None if mask is None else mask[:, ::-1]
        outputs = np.zeros((batch, time, layer.spec.output_size), np.float32)
        self._predict_kernels[layer].run(
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
        return outputs if layer.return_sequences else outputs[:, -1]


def _spec(layer: Recurrent | Bidirectional) -> LSTMSpec:
    return layer.forward.spec if isinstance(layer, Bidirectional) else layer.spec


def _lstms(network: Network) -> list[Recurrent]:
    """Return every LSTM of a network, those inside `Bidirectional` too."""
    found: list[Recurrent] = []
    for layer in network.layers:
        if isinstance(layer, Bidirectional):
            found += [layer.forward, layer.backward]
        elif isinstance(layer, Recurrent):
            found.append(layer)
    return found


def _source_mask(
    layer: Masking | Embedding, x: Float32, mask: Bool | None, given: Bool | None
) -> Bool | None:
    """Return the mask behind a layer that makes one.

    As in Keras it replaces the mask of such a layer before it, but not the one `given` by the
    caller, which Keras's models have no place for: a step is live if both say so.
    """
    if isinstance(layer, Embedding) and not layer.mask_zero:
        return mask
    live = layer.live(x)
    return live if given is None else live & given


def _finite_rows(rows: Float32) -> Bool:
    """Return `(batch,)`, whether all of each row is finite."""
    return np.asarray(np.isfinite(rows).all(axis=1))
