"""One LSTM of Keras, tf_keras or this package: from its config and variables to spec and weights.

Owns what each class's arguments and variables mean. Knows no wrapper and no sequence.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from lstm_core.errors import SpecError
from lstm_core.formats.keras_config import LayerConfig, activation_name, number
from lstm_core.formats.rnn_cell import PEEPHOLES, CellOptions, cell_of
from lstm_core.formats.variables import Variables
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights

Float32 = npt.NDArray[np.float32]
Cell = tuple[LSTMSpec, LSTMWeights]

V1_LAYERS = frozenset({"lstm_core>LSTMV1", "lstm_core>LSTMTF14"})
CUDNN_LAYERS = frozenset({"CuDNNLSTM", "lstm_core>CuDNNLSTM"})
OWN_LAYERS = V1_LAYERS | {"lstm_core>LSTM"}
"""Layers of this package with the arguments of Keras's, and their variables on themselves."""

RNN_CELLS = frozenset(
    {"lstm_core>LSTMCell", "lstm_core>LSTMBlockCell", "lstm_core>CudnnCompatibleLSTMCell"}
)
CELLS = RNN_CELLS | {"LSTMCell"}
"""What `RNN` and `StackedRNNCells` may hold."""

_V1_NAMES = {"hard_sigmoid": "hard_sigmoid_v1", "hard_sigmoid_v3": "hard_sigmoid"}
"""What the older layers of this package call the functions that Keras 3 calls otherwise."""


def read_cell(cell: LayerConfig, variables: Variables, features: int | None) -> Cell:
    """Read one LSTM.

    Args:
        cell: Of a layer that is an LSTM, or of a cell.
        variables: Its place.
        features: What comes in, None where that is not known.

    Raises:
        SpecError: An argument or a variable cannot be served.
    """
    if cell.kind in CUDNN_LAYERS:
        return _cudnn_lstm(cell, variables, features)
    if cell.kind in RNN_CELLS:
        return _rnn_cell(cell, variables, features)
    return _lstm(cell, variables, features)


def _lstm(cell: LayerConfig, variables: Variables, features: int | None) -> Cell:
    units = cell.integer("units")
    use_bias = cell.flag("use_bias", default=True)
    default = "hard_sigmoid_v1" if cell.kind in V1_LAYERS else "sigmoid"
    kernel = variables.read(0, "kernel", (features, 4 * units))
    weights = LSTMWeights(
        kernel=kernel,
        recurrent_kernel=variables.read(1, "recurrent_kernel", (units, 4 * units)),
        bias=variables.read(2, "bias", (4 * units,)) if use_bias else None,
    )
    activation = _activation(cell, "activation", "tanh")
    recurrent_activation = _activation(cell, "recurrent_activation", default)
    try:
        spec = LSTMSpec(
            input_size=kernel.shape[0],
            units=units,
            activation=activation,
            recurrent_activation=recurrent_activation,
            use_bias=use_bias,
        )
    except SpecError as error:
        raise SpecError(cell.name, str(error)) from error
    return spec, weights


def _activation(cell: LayerConfig, field: str, default: str) -> str:
    value = cell.config.get(field, default)
    if cell.kind in V1_LAYERS | RNN_CELLS and isinstance(value, str):
        value = _V1_NAMES.get(value, value)
    return activation_name(cell, value)


def _cudnn_lstm(cell: LayerConfig, variables: Variables, features: int | None) -> Cell:
    """Read an LSTM whose weights lie as cuDNN wants them.

    Each gate's part of the kernel, read row by row, is cuDNN's matrix `(units, features)`; each
    gate's part of the recurrent kernel is transposed; the bias has two halves that are added.
    """
    units = cell.integer("units")
    kernel = variables.read(0, "kernel", (features, 4 * units))
    recurrent_kernel = variables.read(1, "recurrent_kernel", (units, 4 * units))
    bias = variables.read(2, "bias", (8 * units,))
    weights = LSTMWeights(
        kernel=np.hstack([gate.reshape(units, -1).T for gate in np.hsplit(kernel, 4)]),
        recurrent_kernel=np.hstack([gate.T for gate in np.hsplit(recurrent_kernel, 4)]),
        bias=bias[: 4 * units] + bias[4 * units :],
    )
    return LSTMSpec(input_size=kernel.shape[0], units=units), weights.astype(np.float32)


def _rnn_cell(cell: LayerConfig, variables: Variables, features: int | None) -> Cell:
    units = cell.integer("num_units")
    output_size = units if cell.config.get("num_proj") is None else cell.integer("num_proj")
    has_forget_bias = cell.kind != "lstm_core>CudnnCompatibleLSTMCell"
    argument = "use_peephole" if cell.kind == "lstm_core>LSTMBlockCell" else "use_peepholes"
    use_peepholes = cell.flag(argument, default=False)
    size = None if features is None else features + output_size
    kernel = variables.read(0, "kernel", (size, 4 * units))
    bias = variables.read(1, "bias", (4 * units,))
    diagonals: dict[str, Float32] = {}
    if use_peepholes:
        # They are made in another order than the kernels take them in.
        for index, name in enumerate(("w_f_diag", "w_i_diag", "w_o_diag")):
            diagonals[name] = variables.read(2 + index, name, (units,))
    projection = None
    if cell.config.get("num_proj") is not None:
        index = 2 + len(diagonals)
        projection = variables.read(index, "projection_kernel", (units, output_size))
    options = CellOptions(
        forget_bias=_number_or_none(cell, "forget_bias") or 0.0 if has_forget_bias else 0.0,
        activation=_activation(cell, "activation", "tanh"),
        cell_clip=_number_or_none(cell, "cell_clip"),
        projection_clip=_number_or_none(cell, "proj_clip"),
    )
    return cell_of(
        cell.name,
        options,
        kernel=kernel,
        bias=bias,
        peepholes=np.stack([diagonals[name] for name in PEEPHOLES]) if use_peepholes else None,
        projection=projection,
    )


def _number_or_none(cell: LayerConfig, field: str) -> float | None:
    value = cell.config.get(field)
    return None if value is None else number(cell, field, value)
