"""TensorFlow's loops of LSTM cells, in a graph that is followed as ONNX's are, into layers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lstm_core.errors import SpecError
from lstm_core.formats.onnx_axes import Atom, sizes
from lstm_core.formats.onnx_lstm import time_and_batch
from lstm_core.formats.onnx_model import Node
from lstm_core.formats.onnx_values import MAX_LAYERS, Sequences, Value, without_sequences
from lstm_core.formats.rnn_cell import CellOptions, cell_of
from lstm_core.formats.tensors import Float32
from lstm_core.network import Recurrent

CELL = "tensorflow.LSTMCell"
"""Takes sequences, time first, then kernel, bias, three peepholes and projection, of which those
may be left out; its attribute `options` is `CellOptions`. Gives h of all steps and of the last."""

STEPS = "tensorflow.steps"
"""Takes sequences, time first, and integers: each the number of their time steps, or the places of
all in order. Gives the sequences."""

_RANKS = {"kernel": 2, "bias": 1, "w_i": 1, "w_f": 1, "w_o": 1, "projection": 2}


def read_rnn_cell(node: Node, inputs: Sequence[Value | None]) -> list[Value]:
    """Return what a cell gives.

    Raises:
        SpecError: Its constants do not fit together, or what it takes is no sequence.
    """
    options = node.attributes.get("options")
    x = inputs[0] if inputs else None
    if not isinstance(options, CellOptions) or not isinstance(x, Sequences):
        raise SpecError(node.name, "takes what does not come from the graph's input")
    x.check_whole()
    if len(x.layers) >= MAX_LAYERS:
        raise SpecError(node.name, f"is behind more than {MAX_LAYERS} layers")
    time, batch = time_and_batch(node, x, is_batch_first=False)
    given = dict(zip(_RANKS, [*inputs[1:], *[None] * len(_RANKS)], strict=False))
    arrays = {name: _stored(node, name, value) for name, value in given.items()}
    kernel, bias = arrays["kernel"], arrays["bias"]
    if kernel is None or bias is None:
        raise SpecError(node.name, "lacks its kernel or its bias")
    peepholes = [array for name, array in arrays.items() if name[0] == "w" and array is not None]
    if len({array.shape for array in peepholes}) > 1:
        raise SpecError(node.name, "its peepholes differ in length")
    spec, weights = cell_of(
        node.name,
        options,
        kernel=kernel,
        bias=bias,
        peepholes=np.stack(peepholes) if peepholes else None,
        projection=arrays["projection"],
    )
    if spec.input_size != x.features:
        raise SpecError(node.name, f"takes {spec.input_size} features, but gets {x.features}")
    layer = Recurrent(name=node.name, spec=spec, weights=weights)
    features = (Atom("features", spec.output_size),)
    before = x.whole_layers()
    sequence = Sequences(axes=(time, batch, features), layers=(*before, layer))
    last = Sequences(
        axes=(batch, features), layers=(*before, without_sequences(layer)), is_state=True
    )
    return [sequence, last]


def read_steps(node: Node, inputs: Sequence[Value | None]) -> list[Value]:
    """Return the sequences that a loop takes.

    Raises:
        SpecError: It does not run once for each time step, in their order.
    """
    x = inputs[0] if inputs else None
    if not isinstance(x, Sequences) or not x.axes:
        raise SpecError(node.name, "takes what does not come from the graph's input")
    num_steps = sizes(x.axes)[0]
    for told in inputs[1:]:
        if not isinstance(told, np.ndarray) or told.dtype.kind != "i":
            raise SpecError(node.name, "runs as often as the values themselves tell")
        expected = np.arange(num_steps) if told.ndim else np.array(num_steps)
        if not np.array_equal(told, expected):
            raise SpecError(node.name, "does not run once for each time step, in their order")
    return [x]


def _stored(node: Node, name: str, value: Value | None) -> Float32 | None:
    if value is None:
        return None
    if (
        not isinstance(value, np.ndarray)
        or value.dtype != np.float32
        or not np.isfinite(value).all()
    ):
        raise SpecError(node.name, f"its {name} is not stored as real, finite numbers")
    if value.ndim != _RANKS[name] or not value.size:
        raise SpecError(node.name, f"its {name} has the shape {value.shape}")
    return value
