"""An `LSTMCell` as `LSTMSpec` and `LSTMWeights`, which `equations` and the runtimes take, and back.

Knows layouts and names. Knows no arithmetic.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from lstm_core.errors import SpecError
from lstm_core.layers.arguments import activation_name
from lstm_core.layers.variable_scopes import ScopedVariables
from lstm_core.spec import GATE_ORDER, LSTMSpec
from lstm_core.weights import LSTMWeights, reorder_gates

_ORDER = "icfo"
"""Input, candidate (TensorFlow 1 says `j`), forget, output."""


class CoreCell(ScopedVariables):
    """Mixin of a cell: its configuration and its weights in this library's own terms."""

    num_units: int
    num_proj: int | None
    use_peepholes: bool
    cell_clip: float | None
    proj_clip: float | None
    forget_bias: float
    activation: Any
    kernel: Any
    bias: Any
    w_f_diag: Any
    w_i_diag: Any
    w_o_diag: Any
    projection_kernel: Any

    @property
    def spec(self) -> LSTMSpec:
        """The configuration as inference sees it.

        Raises:
            SpecError: The cell is not built, or its activation is not in `spec.ACTIVATIONS`.
        """
        if not self.built:
            raise SpecError("input_size", f"cell {self.name} is not built, so it is not known yet")
        return LSTMSpec(
            input_size=int(self.kernel.shape[0]) - (self.num_proj or self.num_units),
            units=self.num_units,
            activation=activation_name(self.activation, "activation"),
            use_peepholes=self.use_peepholes,
            projection_size=self.num_proj,
            cell_clip=self.cell_clip,
            projection_clip=None if self.num_proj is None else self.proj_clip,
            forget_bias=self.forget_bias,
        )

    @classmethod
    def from_spec(cls, spec: LSTMSpec, **kwargs: Any) -> Self:
        """Return a cell with the configuration of `spec`, not built yet.

        Args:
            spec: Of an LSTM whose gates are sigmoids. Without a bias its cell has one of zeros.
            **kwargs: The cell's other arguments.

        Raises:
            SpecError: The gates have another activation, which this cell does not have.
        """
        if spec.recurrent_activation != "sigmoid":
            problem = f"must be sigmoid for an LSTMCell, not {spec.recurrent_activation}"
            raise SpecError("recurrent_activation", problem)
        name = spec.activation
        make: Any = cls  # This mixin has no arguments of its own.
        return make(
            spec.units,
            use_peepholes=spec.use_peepholes,
            cell_clip=spec.cell_clip,
            num_proj=spec.projection_size,
            proj_clip=None if spec.projection_size is None else spec.projection_clip,
            forget_bias=spec.forget_bias,
            # What a spec calls hard_sigmoid is Keras 3's; here that name means Keras 2's.
            activation="hard_sigmoid_v3" if name == "hard_sigmoid" else name,
            **kwargs,
        )

    def get_core_weights(self) -> LSTMWeights:
        """Return the weights, gates in `spec.GATE_ORDER`.

        The forget bias is `spec`'s and no part of them.

        Raises:
            SpecError: As `spec`.
        """
        features = self.spec.input_size
        tensors = [self.kernel, self.bias]
        if self.spec.use_peepholes:
            tensors += [self.w_i_diag, self.w_f_diag, self.w_o_diag]
        if self.spec.projection_size is not None:
            tensors.append(self.projection_kernel)
        kernel, bias, *rest = self._values(tensors)
        kernel = reorder_gates(kernel, _ORDER)
        return LSTMWeights(
            kernel=kernel[:features],
            recurrent_kernel=kernel[features:],
            bias=reorder_gates(bias, _ORDER),
            peepholes=np.stack(rest[:3]) if self.spec.use_peepholes else None,
            projection=None if self.spec.projection_size is None else rest[-1],
        )

    def set_core_weights(self, weights: LSTMWeights) -> None:
        """Set the weights of a built cell from those of an LSTM with the same `spec`.

        Args:
            weights: Gates in `spec.GATE_ORDER`. No bias means zeros.

        Raises:
            SpecError: As `spec`.
            WeightsError: A shape does not fit.
            ValueError: As `set_weights`.
        """
        spec = self.spec
        bias = np.zeros(4 * spec.units) if weights.bias is None else weights.bias
        LSTMWeights(
            kernel=weights.kernel,
            recurrent_kernel=weights.recurrent_kernel,
            bias=bias,
            peepholes=weights.peepholes,
            projection=weights.projection,
        ).check(spec)
        kernel = np.concatenate([weights.kernel, weights.recurrent_kernel])
        arrays = [reorder_gates(array, GATE_ORDER, _ORDER) for array in (kernel, bias)]
        if weights.peepholes is not None:
            i, f, o = weights.peepholes
            arrays += [f, i, o]
        if weights.projection is not None:
            arrays.append(weights.projection)
        self.set_weights(arrays)
