"""The mathematics of the LSTM, written to be read: the reference for every kernel.

NumPy in float64, one time step after another, one line an equation. No speed is sought here, and
nothing that serves requests uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_core.activations import activation
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """What a sequence gives.

    Attributes:
        outputs: `(batch, time, units)` float64, in the order of processing.
        last_output: `(batch, units)` float64, zeros where there was no step.
        h: `(batch, units)` float64, the hidden state after the last step.
        c: `(batch, units)` float64, the cell state after the last step.
    """

    outputs: Float64
    last_output: Float64
    h: Float64
    c: Float64


def step(
    spec: LSTMSpec, weights: LSTMWeights, x: Array, *, h: Array, c: Array
) -> tuple[Float64, Float64]:
    """Take one time step.

    Args:
        spec: The configuration.
        weights: The weights, gates in the order of `spec.GATE_ORDER`.
        x: `(batch, input_size)`.
        h: `(batch, units)`, the hidden state before the step.
        c: `(batch, units)`, the cell state before the step.

    Returns:
        The hidden and the cell state after the step, each `(batch, units)` float64.

    References:
        Hochreiter and Schmidhuber 1997; with the forget gate of Gers et al. 1999.
    """
    activate = activation(spec.activation)
    recurrent_activate = activation(spec.recurrent_activation)
    w = weights.astype(np.float64)
    z = x.astype(np.float64) @ w.kernel + h.astype(np.float64) @ w.recurrent_kernel
    if w.bias is not None:
        z = z + w.bias
    z_i, z_f, z_c, z_o = np.split(z, 4, axis=-1)
    i = recurrent_activate(z_i)
    f = recurrent_activate(z_f)
    o = recurrent_activate(z_o)
    c_next = f * c + i * activate(z_c)
    h_next = o * activate(c_next)
    return h_next, c_next


def sequence(
    spec: LSTMSpec,
    weights: LSTMWeights,
    inputs: Array,
    *,
    h: Array | None = None,
    c: Array | None = None,
    mask: Array | None = None,
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
) -> Result:
    """Take every time step of a batch of sequences.

    A masked step keeps `h` and `c` and repeats the previous output, which before the first live
    step is zeros and not `h`; with `zero_output_for_mask` its output is zeros.

    Args:
        spec: The configuration.
        weights: The weights.
        inputs: `(batch, time, input_size)`.
        h: `(batch, units)`, the first hidden state; None means zeros.
        c: `(batch, units)`, the first cell state; None means zeros.
        mask: `(batch, time)`, true where a step is live; None means everywhere.
        go_backwards: Process the time steps from the last to the first.
        zero_output_for_mask: Give zeros for masked steps.
    """
    batch, time, _ = inputs.shape
    h_t = np.zeros((batch, spec.units)) if h is None else h.astype(np.float64)
    c_t = np.zeros((batch, spec.units)) if c is None else c.astype(np.float64)
    live = np.ones((batch, time), bool) if mask is None else mask.astype(bool)
    outputs = np.zeros((batch, time, spec.units))
    carried = np.zeros((batch, spec.units))
    output = carried
    for processed, t in enumerate(reversed(range(time)) if go_backwards else range(time)):
        h_next, c_next = step(spec, weights, inputs[:, t], h=h_t, c=c_t)
        is_live = live[:, t, None]
        h_t = np.where(is_live, h_next, h_t)
        c_t = np.where(is_live, c_next, c_t)
        carried = np.where(is_live, h_next, carried)
        output = np.where(is_live, h_next, 0) if zero_output_for_mask else carried
        outputs[:, processed] = output
    return Result(outputs=outputs, last_output=output, h=h_t, c=c_t)
