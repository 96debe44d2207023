"""PyTorch's modules, by the parameters of a state dict: from them to the layers of a network.

Owns what each module's parameters are called and mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from lstm_core.errors import SpecError
from lstm_core.formats.torch_state import StateDict, is_lstm_key
from lstm_core.network import Bidirectional, Layer, Recurrent
from lstm_core.pointwise import FUNCTIONS, Activation, Dense, Embedding, LayerNormalization
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights

Json = Any
"""What `json.loads` gives, not checked yet."""

_FUNCTIONS = FUNCTIONS - {"hard_sigmoid_v1"}
_PARAMETERS = {
    "leaky_relu": {"negative_slope": 0.01},
    "elu": {"alpha": 1.0},
    "celu": {"alpha": 1.0},
}
"""The parameters of functions, with PyTorch's defaults, which are not all Keras's."""
_GATES = {1: "an Elman RNN", 3: "a GRU"}
"""What another recurrent module is, by its number of gates."""
_BIASES = ("bias_ih", "bias_hh")
_LARGEST = float(np.finfo(np.float32).max)


def _lstm(state: StateDict, module: str, options: dict[str, Json]) -> list[Layer]:
    return_sequences = options.pop("return_sequences", True)
    if not isinstance(return_sequences, bool):
        raise SpecError(module, "return_sequences must be true or false")
    _refuse_options(module, options)
    names = state.modules.get(module, [])
    if not any(map(is_lstm_key, names)):
        raise SpecError(module, f"is no LSTM of the file; those are {state.lstms()!s:.200}")
    if "weight_ih" in names:
        suffixes = [""]
    else:
        num_layers = sum(name.startswith("weight_ih_l") and "_r" not in name for name in names)
        suffixes = [f"_l{index}" for index in range(num_layers)]
    layers: list[Layer] = []
    features: int | None = None
    for suffix in suffixes:
        name = f"{module or 'lstm'}.{suffix[1:]}" if len(suffixes) > 1 else module or "lstm"
        is_sequence = return_sequences or suffix != suffixes[-1]
        layer = _layer(state, module, name, suffix, features, return_sequences=is_sequence)
        features = layer.output_size(input_size_of(layer))
        layers.append(layer)
    return layers


def _layer(
    state: StateDict,
    module: str,
    name: str,
    suffix: str,
    features: int | None,
    *,
    return_sequences: bool,
) -> Recurrent | Bidirectional:
    forward = _direction(state, module, name, suffix, features)
    if f"weight_ih{suffix}_reverse" not in state.modules[module]:
        spec, weights = forward
        return Recurrent(name=name, spec=spec, weights=weights, return_sequences=return_sequences)
    backward = _direction(state, module, name, f"{suffix}_reverse", features)
    directions = [
        Recurrent(
            name=f"{name}/{direction}",
            spec=spec,
            weights=weights,
            return_sequences=return_sequences,
            go_backwards=direction == "backward",
            # As Keras's `Bidirectional`; PyTorch has no masks.
            zero_output_for_mask=return_sequences,
        )
        for direction, (spec, weights) in (("forward", forward), ("backward", backward))
    ]
    return Bidirectional(name=name, forward=directions[0], backward=directions[1])


def _direction(
    state: StateDict, module: str, name: str, suffix: str, features: int | None
) -> tuple[LSTMSpec, LSTMWeights]:
    names = state.modules[module]
    has_projection = f"weight_hr{suffix}" in names
    which = f"weight_{'hr' if has_projection else 'hh'}{suffix}"
    if len(state.shape(module, which)) != 2 or 0 in state.shape(module, which):
        state.read(module, which, (None, None))  # which raises an error
    units = state.shape(module, which)[-1]
    rows = (state.shape(module, f"weight_ih{suffix}") or (0,))[0]
    if rows % units == 0 and rows // units in _GATES:
        raise SpecError(name, f"is {_GATES[rows // units]}, not an LSTM")
    projection_size = state.shape(module, which)[0] if has_projection else None
    outputs = units if projection_size is None else projection_size
    kernel = state.read(module, f"weight_ih{suffix}", (4 * units, features)).T
    recurrent_kernel = state.read(module, f"weight_hh{suffix}", (4 * units, outputs)).T
    use_bias = f"bias_ih{suffix}" in names or f"bias_hh{suffix}" in names
    bias = None
    if use_bias:
        halves = [state.read(module, f"{half}{suffix}", (4 * units,)) for half in _BIASES]
        bias = halves[0] + halves[1]
    projection = None
    if has_projection:
        projection = state.read(module, which, (outputs, units)).T
    spec = LSTMSpec(
        input_size=kernel.shape[0],
        units=units,
        use_bias=use_bias,
        projection_size=projection_size,
    )
    weights = LSTMWeights(
        kernel=kernel, recurrent_kernel=recurrent_kernel, bias=bias, projection=projection
    )
    return spec, weights.astype(np.float32)


def _linear(state: StateDict, module: str, options: dict[str, Json]) -> list[Layer]:
    _refuse_options(module, options)
    weight = state.read(module, "weight", (None, None))
    bias = None
    if "bias" in state.modules[module]:
        bias = state.read(module, "bias", weight.shape[:1])
    return [Dense(name=module or "linear", kernel=np.ascontiguousarray(weight.T), bias=bias)]


def _embedding(state: StateDict, module: str, options: dict[str, Json]) -> list[Layer]:
    _refuse_options(module, options)
    table = state.read(module, "weight", (None, None))
    return [Embedding(name=module or "embedding", table=table, mask_zero=False)]


def _layer_norm(state: StateDict, module: str, options: dict[str, Json]) -> list[Layer]:
    epsilon = _number(module, "epsilon", options.pop("epsilon", 1e-5))
    _refuse_options(module, options)
    gamma = state.read(module, "weight", (None,))
    beta = None
    if "bias" in state.modules[module]:
        beta = state.read(module, "bias", gamma.shape)
    return [
        LayerNormalization(name=module or "layer_norm", gamma=gamma, beta=beta, epsilon=epsilon)
    ]


def _activation(_state: StateDict, function: str, options: dict[str, Json]) -> list[Layer]:
    if function not in _FUNCTIONS:
        raise SpecError(
            "activation", f"{function!r:.80} is none of {', '.join(sorted(_FUNCTIONS))}"
        )
    parameters = {
        name: _number(function, name, options.pop(name, default))
        for name, default in _PARAMETERS.get(function, {}).items()
    }
    _refuse_options(function, options)
    return [Activation(name=function, function=function, parameters=parameters)]


def _number(name: str, field: str, value: Json) -> float:
    # As a comparison, since an integer of JSON may be larger than any float.
    if type(value) not in (int, float) or not abs(value) <= _LARGEST:
        raise SpecError(name, f"{field} must be a finite number")
    return float(value)


def _refuse_options(name: str, options: Mapping[str, Json]) -> None:
    if options:
        raise SpecError(name, f"has unknown options {sorted(options)!s:.80}")


def input_size_of(layer: Layer) -> int:
    """Return how many features a layer takes, which not every layer tells.

    Raises:
        SpecError: It does not.
    """
    match layer:
        case Recurrent():
            return layer.spec.input_size
        case Bidirectional():
            return layer.forward.spec.input_size
        case Dense():
            return int(layer.kernel.shape[0])
        case LayerNormalization() if layer.gamma is not None:
            return int(layer.gamma.shape[0])
        case Embedding():
            return 1
        case _:
            raise SpecError(layer.name, "cannot be the first layer, since it does not tell a size")


Reader = Callable[[StateDict, str, dict[str, Json]], list[Layer]]

READERS: dict[str, Reader] = {
    "lstm": _lstm,
    "linear": _linear,
    "embedding": _embedding,
    "layer_norm": _layer_norm,
    "activation": _activation,
}
"""The reader of each kind of entry in a document."""
