"""The weights of TensorFlow 1's `rnn_cell`: one kernel, gates in another order, peepholes apart.

Owns that layout. Does not know where the arrays come from: a checkpoint or a Keras file.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from lstm_core.errors import SpecError
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights, reorder_gates

Float32 = npt.NDArray[np.float32]

GATE_ORDER = "icfo"
"""Along the kernel's columns: input, cell candidate, forget, output."""

PEEPHOLES = ("w_i_diag", "w_f_diag", "w_o_diag")
"""The names of the diagonals, in the order of `LSTMWeights.peepholes`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CellOptions:
    """What a cell's weights do not tell.

    Attributes:
        forget_bias: Added to the forget gate's input.
        activation: A name in `spec.ACTIVATIONS`.
        cell_clip: As `LSTMSpec` has it.
        projection_clip: As `LSTMSpec` has it.
    """

    forget_bias: float
    activation: str = "tanh"
    cell_clip: float | None = None
    projection_clip: float | None = None


def cell_of(
    name: str,
    options: CellOptions,
    *,
    kernel: Float32,
    bias: Float32,
    peepholes: Float32 | None = None,
    projection: Float32 | None = None,
) -> tuple[LSTMSpec, LSTMWeights]:
    """Return one cell as the kernels take it.

    Args:
        name: The layer's name, for messages.
        options: What the weights do not tell.
        kernel: `(input_size + output_size, 4 * units)`.
        bias: `(4 * units,)`.
        peepholes: `(3, units)` in the order of `PEEPHOLES`.
        projection: `(units, projection_size)`.

    Raises:
        SpecError: Shapes do not fit together, or an option makes no sense.
    """
    units = bias.shape[0] // 4
    output_size = units if projection is None else projection.shape[1]
    input_size = kernel.shape[0] - output_size
    if kernel.shape[1] != 4 * units or bias.shape[0] != 4 * units or input_size < 1:
        problem = f"its kernel {kernel.shape} does not fit its bias {bias.shape}"
        raise SpecError(name, problem + f" and its output of {output_size}")
    for what, array, shape in (
        ("peepholes", peepholes, (3, units)),
        ("projection", projection, (units, output_size)),
    ):
        if array is not None and array.shape != shape:
            raise SpecError(name, f"its {what} have shape {array.shape}, expected {shape}")
    try:
        spec = LSTMSpec(
            input_size=input_size,
            units=units,
            activation=options.activation,
            use_peepholes=peepholes is not None,
            projection_size=None if projection is None else output_size,
            cell_clip=options.cell_clip,
            projection_clip=None if projection is None else options.projection_clip,
            forget_bias=options.forget_bias,
        )
    except SpecError as error:
        raise SpecError(name, str(error)) from error
    kernel = reorder_gates(kernel, GATE_ORDER)
    weights = LSTMWeights(
        kernel=kernel[:input_size],
        recurrent_kernel=kernel[input_size:],
        bias=reorder_gates(bias, GATE_ORDER),
        peepholes=peepholes,
        projection=projection,
    )
    return spec, weights.astype(np.float32)
