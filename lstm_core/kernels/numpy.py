"""The LSTM on NumPy: one BLAS product a time step, everything else in place.

Owns its packed weights and its scratch. Knows no session, no slot and no network. NumPy's BLAS
may round a product differently for another number of rows, so results agree within rounding, not
to the bit, between batches of different sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from lstm_core.activations import activation
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights, reorder_gates

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

# Gates in this order keep the three that share an activation side by side.
_PACKED_ORDER = "ifoc"


def limit_blas_threads(num_threads: int) -> None:
    """Fix the number of threads of NumPy's BLAS, for the whole process.

    The products of one step are too small to gain from threads, and another number of threads may
    round differently.
    """
    threadpool_limits(limits=num_threads, user_api="blas")


@dataclass(frozen=True, slots=True, eq=False)
class _Scratch:
    """Views of the scratch buffers for one number of rows, `n`.

    Attributes:
        operand: `(n, input_size + units [+ 1])`: x, h and the bias's one, side by side.
        x: `(n, input_size)` of it.
        h: `(n, units)` of it.
        gates: `(n, 4 * units)`: what the product gives, then the gates in packed order.
        sigmoids: `(n, 3 * units)` of it: input, forget and output gate.
        i: `(n, units)` of it, and so on for `f`, `o` and `candidate`.
        h_next: `(n, units)`, and `c_next`: the new state before a mask has its say.
    """

    operand: Float32
    x: Float32
    h: Float32
    gates: Float32
    sigmoids: Float32
    i: Float32
    f: Float32
    o: Float32
    candidate: Float32
    h_next: Float32
    c_next: Float32


class NumpyLSTM:
    """One LSTM's kernel. Not safe for use by two threads at once: see `with_own_scratch`."""

    def __init__(self, spec: LSTMSpec, weights: LSTMWeights) -> None:
        """Pack the weights as float32.

        Args:
            spec: The configuration.
            weights: The weights, gates in the order of `spec.GATE_ORDER`.

        Raises:
            WeightsError: The weights do not fit the spec.
        """
        weights.check(spec)
        rows = [weights.kernel, weights.recurrent_kernel]
        if weights.bias is not None:
            rows.append(weights.bias[None])
        packed = reorder_gates(np.concatenate(rows), "ifco", _PACKED_ORDER)
        self.spec = spec
        self._packed = np.ascontiguousarray(packed, np.float32)
        self._reset_scratch(1)

    def with_own_scratch(self) -> NumpyLSTM:
        """Return a kernel for another thread, with the same packed weights."""
        twin = object.__new__(NumpyLSTM)
        twin.spec = self.spec
        twin._packed = self._packed
        twin._reset_scratch(1)
        return twin

    def run(
        self,
        inputs: Float32,
        outputs: Float32,
        *,
        h: Float32,
        c: Float32,
        active: Sequence[int],
        has_output: Bool,
        mask: Bool | None = None,
    ) -> None:
        """Take the time steps of a batch of rows, the state in place.

        A masked step keeps the row's state and repeats its last output; `has_output` tells whether
        there was one.

        NumPy's warnings are the caller's: saturated gates overflow by design.

        Args:
            inputs: `(batch, time, input_size)` float32.
            outputs: `(batch, time, units)` float32, written where a row has a step.
            h: `(batch, units)` float32, overwritten with the state after each row's last step.
            c: `(batch, units)` float32, likewise.
            active: `(time,)`, how many rows have a step at each time: the first `active[t]`. Never
                rising, so rows are sorted from the longest to the shortest.
            has_output: `(batch,)` bool, overwritten: whether the row has had a live step.
            mask: `(batch, time)` bool, true where a step is live; None means everywhere.
        """
        batch, time, _ = inputs.shape
        if batch > self._capacity:
            self._reset_scratch(1 << (batch - 1).bit_length())
        everything = self._scratch(batch)
        everything.h[...] = h
        for t in range(time):
            n = active[t]
            live = None if mask is None else mask[:n, t]
            if live is None or live.all():
                self._step(inputs[:n, t], outputs[:n, t], c[:n], self._scratch(n))
                has_output[:n] = True
            else:
                self._masked_step(
                    inputs[:n, t], outputs[:n, t], c[:n], self._scratch(n), live, has_output[:n]
                )
        h[...] = everything.h

    def _step(self, x: Float32, output: Float32, c: Float32, s: _Scratch) -> None:
        self._gates(x, s)
        np.multiply(s.f, c, out=c)
        np.multiply(s.i, s.candidate, out=s.candidate)
        np.add(c, s.candidate, out=c)
        self._activate_state(c, s.h_next)
        np.multiply(s.o, s.h_next, out=s.h)
        output[...] = s.h

    def _masked_step(
        self, x: Float32, output: Float32, c: Float32, s: _Scratch, live: Bool, has_output: Bool
    ) -> None:
        self._gates(x, s)
        np.multiply(s.f, c, out=s.c_next)
        np.multiply(s.i, s.candidate, out=s.candidate)
        np.add(s.c_next, s.candidate, out=s.c_next)
        self._activate_state(s.c_next, s.h_next)
        np.multiply(s.o, s.h_next, out=s.h_next)
        is_live = live[:, None]
        np.copyto(c, s.c_next, where=is_live)
        np.copyto(s.h, s.h_next, where=is_live)
        np.logical_or(has_output, live, out=has_output)
        np.multiply(s.h, has_output[:, None], out=output)

    def _gates(self, x: Float32, s: _Scratch) -> None:
        s.x[...] = x
        np.dot(s.operand, self._packed, out=s.gates)
        if self.spec.recurrent_activation == "sigmoid":
            np.negative(s.sigmoids, out=s.sigmoids)
            np.exp(s.sigmoids, out=s.sigmoids)
            np.add(s.sigmoids, 1, out=s.sigmoids)
            np.reciprocal(s.sigmoids, out=s.sigmoids)
        else:
            s.sigmoids[...] = activation(self.spec.recurrent_activation)(s.sigmoids)
        self._activate_state(s.candidate, s.candidate)

    def _activate_state(self, x: Float32, out: Float32) -> None:
        if self.spec.activation == "tanh":
            np.tanh(x, out=out)
        else:
            out[...] = activation(self.spec.activation)(x)

    def _reset_scratch(self, capacity: int) -> None:
        width, columns = self._packed.shape
        self._capacity = capacity
        self._operand: Any = np.ones((capacity, width), np.float32)
        self._gates_buffer: Any = np.empty((capacity, columns), np.float32)
        self._next: Any = np.empty((2, capacity, self.spec.units), np.float32)
        self._views: dict[int, _Scratch] = {}

    def _scratch(self, n: int) -> _Scratch:
        # Made once for each number of rows: eleven views cost as much as the arithmetic of a row.
        views = self._views.get(n)
        if views is None:
            inputs, units = self.spec.input_size, self.spec.units
            operand, gates = self._operand[:n], self._gates_buffer[:n]
            i, f, o, candidate = (gates[:, g * units : (g + 1) * units] for g in range(4))
            views = self._views[n] = _Scratch(
                operand=operand,
                x=operand[:, :inputs],
                h=operand[:, inputs : inputs + units],
                gates=gates,
                sigmoids=gates[:, : 3 * units],
                i=i,
                f=f,
                o=o,
                candidate=candidate,
                h_next=self._next[0, :n],
                c_next=self._next[1, :n],
            )
        return views
