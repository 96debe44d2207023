"""The weights of one LSTM: their container, their initialisation, and the layouts of others.

Knows shapes and gate orders. Knows no file format and no framework.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_core.errors import WeightsError
from lstm_core.spec import GATE_ORDER, LSTMSpec

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LSTMWeights:
    """One LSTM's weights, gates in `spec.GATE_ORDER` along the last axis.

    Attributes:
        kernel: `(input_size, 4 * units)` floating.
        recurrent_kernel: `(output_size, 4 * units)` floating.
        bias: `(4 * units,)` floating, or None where the spec has no bias.
        peepholes: `(3, units)` floating, of the input, forget and output gate; or None.
        projection: `(units, projection_size)` floating, or None.
    """

    kernel: Array
    recurrent_kernel: Array
    bias: Array | None
    peepholes: Array | None = None
    projection: Array | None = None

    def check(self, spec: LSTMSpec) -> None:
        """Compare every shape with what `spec` asks for.

        Raises:
            WeightsError: A shape differs, or a bias is missing or too many.
        """
        expected: dict[str, tuple[int, ...]] = {
            "kernel": (spec.input_size, 4 * spec.units),
            "recurrent_kernel": (spec.output_size, 4 * spec.units),
            "bias": (4 * spec.units,) if spec.use_bias else (),
            "peepholes": (3, spec.units) if spec.use_peepholes else (),
            "projection": ()
            if spec.projection_size is None
            else (spec.units, spec.projection_size),
        }
        for name, shape in expected.items():
            array = getattr(self, name)
            actual = () if array is None else array.shape
            if actual != shape:
                raise WeightsError(name, shape, actual)

    def astype(self, dtype: npt.DTypeLike) -> LSTMWeights:
        """Return the same weights in another floating dtype, C-contiguous."""

        def cast(array: Array | None) -> Array | None:
            return None if array is None else np.ascontiguousarray(array, dtype)

        return LSTMWeights(
            kernel=np.ascontiguousarray(self.kernel, dtype),
            recurrent_kernel=np.ascontiguousarray(self.recurrent_kernel, dtype),
            bias=cast(self.bias),
            peepholes=cast(self.peepholes),
            projection=cast(self.projection),
        )

    def with_forget_bias(self, forget_bias: float) -> LSTMWeights:
        """Return the same weights with a number added to the forget gate's bias."""
        if forget_bias == 0:
            return self
        columns = self.kernel.shape[1]
        bias = np.zeros(columns, self.kernel.dtype) if self.bias is None else self.bias.copy()
        bias[columns // 4 : columns // 2] += forget_bias
        return replace(self, bias=bias)


def initialize(spec: LSTMSpec, seed: int) -> LSTMWeights:
    """Draw weights as Keras's defaults do: Glorot-uniform kernel, orthogonal recurrent kernel.

    The bias is zero but for the forget gate's ones (`unit_forget_bias`), and zero throughout where
    the spec adds a forget bias of its own. Peepholes and projection are Glorot-uniform, as
    `rnn_cell.LSTMCell` draws them. The numbers are not those that either draws from the same seed.

    Args:
        spec: Sizes, and which weights there are.
        seed: Of NumPy's default generator.

    Returns:
        float32 weights.

    References:
        Glorot and Bengio 2010; Saxe et al. 2014; Jozefowicz et al. 2015 (forget bias).
    """
    random = np.random.default_rng(seed)

    def glorot(shape: tuple[int, ...], fans: int) -> Array:
        limit = np.sqrt(6 / fans)
        return random.uniform(-limit, limit, shape)

    kernel = glorot((spec.input_size, 4 * spec.units), spec.input_size + 4 * spec.units)
    sizes = (4 * spec.units, spec.output_size)
    q, r = np.linalg.qr(random.standard_normal((max(sizes), min(sizes))))
    orthogonal = q * np.sign(np.diagonal(r))
    bias = np.zeros(4 * spec.units)
    if spec.forget_bias == 0:
        bias[spec.units : 2 * spec.units] = 1
    peepholes = glorot((3, spec.units), 2 * spec.units) if spec.use_peepholes else None
    projection = None
    if spec.projection_size is not None:
        shape = (spec.units, spec.projection_size)
        projection = glorot(shape, sum(shape))
    weights = LSTMWeights(
        kernel=kernel,
        recurrent_kernel=orthogonal.T if sizes[0] >= sizes[1] else orthogonal,
        bias=bias if spec.use_bias else None,
        peepholes=peepholes,
        projection=projection,
    )
    return weights.astype(np.float32)


def reorder_gates(array: Array, order: str, to: str = GATE_ORDER) -> Array:
    """Return `array` with the gates along its last axis in another order.

    Args:
        array: `(..., 4 * units)`.
        order: The order that it has, a permutation of `ifco`. Other systems call the cell
            candidate `g` or `j`.
        to: The order wanted.

    Raises:
        ValueError: `order` or `to` is not a permutation of `ifco`.
    """
    if sorted(order) != sorted(GATE_ORDER) or sorted(to) != sorted(GATE_ORDER):
        raise ValueError(
            f"gate orders are permutations of {GATE_ORDER!r}, not {order!r} and {to!r}"
        )
    gates = dict(zip(order, np.split(array, 4, axis=-1), strict=True))
    return np.concatenate([gates[gate] for gate in to], axis=-1)
