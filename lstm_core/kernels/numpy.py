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
from lstm_core.spec import GATE_ORDER, LSTMSpec
from lstm_core.weights import LSTMWeights, reorder_gates

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

# Gates in this order keep the three that share an activation side by side.
_PACKED_ORDER = "ifoc"
_MINUS_ONE = np.float32(-1)


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
        operand: `(n, input_size + output_size [+ 1])`: x, h and the bias's one, side by side.
        x: `(n, input_size)` of it.
        h: `(n, output_size)` of it.
        gates: `(n, 4 * units)`: what the product gives, then the gates in packed order.
        sigmoids: `(n, 3 * units)` of it: input, forget and output gate.
        input_forget: `(n, 2 * units)` of it.
        i: `(n, units)` of it, and so on for `f`, `o` and `candidate`.
        h_next: `(n, units)`, and `c_next`: the new state before a mask has its say.
        projected: `(n, output_size)`, `h_next` projected, where there is a projection.
    """

    operand: Float32
    x: Float32
    h: Float32
    gates: Float32
    sigmoids: Float32
    input_forget: Float32
    i: Float32
    f: Float32
    o: Float32
    candidate: Float32
    h_next: Float32
    c_next: Float32
    projected: Float32


@dataclass(frozen=True, slots=True, eq=False)
class _Extensions:
    """The weights that only peepholes and projections have, float32.

    Attributes:
        peepholes: `(3, units)`, of the input, forget and output gate, with their sign turned where
            the gates' is; or None.
        projection: `(units, projection_size)`, or None.
    """

    peepholes: Float32 | None
    projection: Float32 | None


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
        bias = weights.with_forget_bias(spec.forget_bias).bias
        if bias is not None:
            rows.append(bias[None])
        packed = reorder_gates(np.concatenate(rows), GATE_ORDER, _PACKED_ORDER)
        if spec.recurrent_activation == "sigmoid":
            # So that the product gives the exponents of 1 / (1 + exp(-z)) as they are.
            packed[:, : 3 * spec.units] *= _MINUS_ONE
        self.spec = spec
        self._packed = np.ascontiguousarray(packed, np.float32)
        self._extensions = _extensions(spec, weights)
        self._reset_scratch(1)

    def with_own_scratch(self) -> NumpyLSTM:
        """Return a kernel for another thread, with the same packed weights."""
        twin = object.__new__(NumpyLSTM)
        twin.spec = self.spec
        twin._packed = self._packed
        twin._extensions = self._extensions
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
            outputs: `(batch, time, output_size)` float32, written where a row has a step.
            h: `(batch, output_size)` float32, overwritten with the state after each row's last
                step.
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
        if self._extensions is not None:
            s.h[...] = self._extended_step(x, c, s, self._extensions)
            c[...] = s.c_next
            output[...] = s.h
            return
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
        if self._extensions is not None:
            h_next = self._extended_step(x, c, s, self._extensions)
        else:
            h_next = self._masked_plain_step(x, c, s)
        is_live = live[:, None]
        np.copyto(c, s.c_next, where=is_live)
        np.copyto(s.h, h_next, where=is_live)
        np.logical_or(has_output, live, out=has_output)
        np.multiply(s.h, has_output[:, None], out=output)

    def _masked_plain_step(self, x: Float32, c: Float32, s: _Scratch) -> Float32:
        """Fill `s.c_next`, and return the new `h`, from the state as it stands."""
        self._gates(x, s)
        np.multiply(s.f, c, out=s.c_next)
        np.multiply(s.i, s.candidate, out=s.candidate)
        np.add(s.c_next, s.candidate, out=s.c_next)
        self._activate_state(s.c_next, s.h_next)
        return np.multiply(s.o, s.h_next, out=s.h_next)

    def _extended_step(self, x: Float32, c: Float32, s: _Scratch, w: _Extensions) -> Float32:
        """Do as `_masked_plain_step`, with peepholes, clips and projection."""
        s.x[...] = x
        np.dot(s.operand, self._packed, out=s.gates)
        if w.peepholes is not None:
            s.i[...] += w.peepholes[0] * c
            s.f[...] += w.peepholes[1] * c
        _clip(s.input_forget, self.spec.gate_clip)
        _clip(s.candidate, self.spec.gate_clip)
        self._activate_gates(s.input_forget)
        self._activate_state(s.candidate, s.candidate)
        np.multiply(s.f, c, out=s.c_next)
        np.multiply(s.i, s.candidate, out=s.candidate)
        np.add(s.c_next, s.candidate, out=s.c_next)
        _clip(s.c_next, self.spec.cell_clip)
        if w.peepholes is not None:
            s.o[...] += w.peepholes[2] * s.c_next
        _clip(s.o, self.spec.gate_clip)
        self._activate_gates(s.o)
        self._activate_state(s.c_next, s.h_next)
        np.multiply(s.o, s.h_next, out=s.h_next)
        if w.projection is None:
            return s.h_next
        np.dot(s.h_next, w.projection, out=s.projected)
        _clip(s.projected, self.spec.projection_clip)
        return s.projected

    def _gates(self, x: Float32, s: _Scratch) -> None:
        s.x[...] = x
        np.dot(s.operand, self._packed, out=s.gates)
        _clip(s.gates, self.spec.gate_clip)
        self._activate_gates(s.sigmoids)
        self._activate_state(s.candidate, s.candidate)

    def _activate_gates(self, z: Float32) -> None:
        """Activate gates in place; those of a sigmoid come with their sign turned."""
        if self.spec.recurrent_activation == "sigmoid":
            np.exp(z, out=z)
            np.add(z, 1, out=z)
            np.reciprocal(z, out=z)
        else:
            z[...] = activation(self.spec.recurrent_activation)(z)

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
        self._projected: Any = np.empty((capacity, self.spec.output_size), np.float32)
        self._views: dict[int, _Scratch] = {}

    def _scratch(self, n: int) -> _Scratch:
        # Made once for each number of rows: the views cost as much as the arithmetic of a row.
        views = self._views.get(n)
        if views is None:
            inputs, units = self.spec.input_size, self.spec.units
            operand, gates = self._operand[:n], self._gates_buffer[:n]
            i, f, o, candidate = (gates[:, g * units : (g + 1) * units] for g in range(4))
            views = self._views[n] = _Scratch(
                operand=operand,
                x=operand[:, :inputs],
                h=operand[:, inputs : inputs + self.spec.output_size],
                gates=gates,
                sigmoids=gates[:, : 3 * units],
                input_forget=gates[:, : 2 * units],
                i=i,
                f=f,
                o=o,
                candidate=candidate,
                h_next=self._next[0, :n],
                c_next=self._next[1, :n],
                projected=self._projected[:n],
            )
        return views


def _extensions(spec: LSTMSpec, weights: LSTMWeights) -> _Extensions | None:
    """Return what a plain LSTM does not have, or None for the spec of a plain one."""
    if not spec.use_peepholes and spec.projection_size is None and spec.cell_clip is None:
        return None
    w = weights.astype(np.float32)
    peepholes = w.peepholes
    if peepholes is not None and spec.recurrent_activation == "sigmoid":
        peepholes = peepholes * _MINUS_ONE
    return _Extensions(peepholes=peepholes, projection=w.projection)


def _clip(x: Float32, limit: float | None) -> None:
    if limit is not None:
        np.clip(x, -limit, limit, out=x)
