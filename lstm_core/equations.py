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
        outputs: `(batch, time, output_size)` float64, in the order of processing.
        last_output: `(batch, output_size)` float64, zeros where there was no step.
        h: `(batch, output_size)` float64, the hidden state after the last step.
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
        h: `(batch, output_size)`, the hidden state before the step.
        c: `(batch, units)`, the cell state before the step.

    Returns:
        The hidden state `(batch, output_size)` and the cell state `(batch, units)` after the step,
        float64.

    References:
        Hochreiter and Schmidhuber 1997; with the forget gate of Gers et al. 1999; peepholes,
        clipping and projection as `tf.compat.v1.nn.rnn_cell.LSTMCell` has them (Sak et al. 2014);
        `gate_clip` as ONNX Runtime has it.
    """
    activate = activation(spec.activation)
    recurrent_activate = activation(spec.recurrent_activation)
    w = weights.astype(np.float64)
    z = x.astype(np.float64) @ w.kernel + h.astype(np.float64) @ w.recurrent_kernel
    if w.bias is not None:
        z = z + w.bias
    z_i, z_f, z_c, z_o = np.split(z, 4, axis=-1)
    z_f = z_f + spec.forget_bias
    if w.peepholes is not None:
        z_i = z_i + w.peepholes[0] * c
        z_f = z_f + w.peepholes[1] * c
    i = recurrent_activate(_clip(z_i, spec.gate_clip))
    f = recurrent_activate(_clip(z_f, spec.gate_clip))
    c_next = _clip(f * c + i * activate(_clip(z_c, spec.gate_clip)), spec.cell_clip)
    if w.peepholes is not None:
        z_o = z_o + w.peepholes[2] * c_next
    o = recurrent_activate(_clip(z_o, spec.gate_clip))
    h_next = o * activate(c_next)
    if w.projection is not None:
        h_next = _clip(h_next @ w.projection, spec.projection_clip)
    return h_next, c_next


def _clip(x: Float64, limit: float | None) -> Float64:
    return x if limit is None else np.clip(x, -limit, limit)


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
        h: `(batch, output_size)`, the first hidden state; None means zeros.
        c: `(batch, units)`, the first cell state; None means zeros.
        mask: `(batch, time)`, true where a step is live; None means everywhere.
        go_backwards: Process the time steps from the last to the first.
        zero_output_for_mask: Give zeros for masked steps.
    """
    batch, time, _ = inputs.shape
    h_t = np.zeros((batch, spec.output_size)) if h is None else h.astype(np.float64)
    c_t = np.zeros((batch, spec.units)) if c is None else c.astype(np.float64)
    live = np.ones((batch, time), bool) if mask is None else mask.astype(bool)
    outputs = np.zeros((batch, time, spec.output_size))
    carried = np.zeros((batch, spec.output_size))
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
