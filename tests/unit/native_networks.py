"""Networks for the tests of the native kernel, and runtimes on each instruction set."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from lstm_core import equations
from lstm_core.kernels import native
from lstm_core.network import Layer, Network, Recurrent
from lstm_core.pointwise import (
    Activation,
    Affine,
    Dense,
    LayerNormalization,
    Masking,
    Pointwise,
    PReLU,
)
from lstm_core.runtime.cpu import CpuRuntime
from lstm_core.spec import ACTIVATIONS, LSTMSpec
from lstm_core.weights import LSTMWeights

INSTRUCTION_SETS = native.instruction_sets()
each_set = pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)

OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "activation": st.sampled_from(sorted(ACTIVATIONS)),
        "recurrent_activation": st.sampled_from(sorted(ACTIVATIONS)),
        "use_peepholes": st.just(value=True),
        "projection_size": st.integers(1, 40),
        "projection_clip": st.floats(0.05, 1),
        "gate_clip": st.floats(0.05, 2),
        "cell_clip": st.floats(0.05, 2),
        "forget_bias": st.floats(-1, 1),
    },
)
"""Of `LSTMSpec`, for every LSTM of a network."""

FUNCTIONS: dict[str, tuple[str, dict[str, float]]] = {
    "leaky": ("leaky_relu", {"negative_slope": 0.3}),
    "relu": ("relu", {"negative_slope": 0.1, "max_value": 0.2, "threshold": 0.0}),
    "elu": ("elu", {"alpha": 0.7}),
    "gelu": ("gelu", {}),
    "softmax": ("softmax", {}),
}
STATELESS = (*FUNCTIONS, "affine", "rescaling", "slopes", "normalization", "rms", "masking")
"""Layers without a state that run in C."""


def stateless(kind: str, name: str, a: Any, b: Any) -> Pointwise:
    """Return a layer of `STATELESS`, from two vectors of as many features as it has."""
    match kind:
        case "affine" | "rescaling":
            if kind == "rescaling":
                a, b = a[0, ...], b[0, ...]
            return Affine(name=name, center=a, scale=b, offset=a)
        case "masking":
            return Masking(name=name, mask_value=0.0)
        case "slopes":
            return PReLU(name=name, alpha=a)
        case "normalization":
            return LayerNormalization(name=name, gamma=a, beta=b, epsilon=1e-2)
        case "rms":
            return LayerNormalization(
                name=name, gamma=None, beta=None, epsilon=1e-2, rms_scaling=True
            )
    function, parameters = FUNCTIONS[kind]
    return Activation(name=name, function=function, parameters=parameters)


SHAPES = st.fixed_dictionaries(
    {
        "sizes": st.lists(st.integers(1, 70), min_size=2, max_size=4),
        "use_bias": st.booleans(),
        "head": st.sampled_from(
            [None, "linear", "relu", "sigmoid", "tanh", "softmax", "softplus", "log_softmax"]
        ),
        "zero_output_for_mask": st.booleans(),
        "seed": st.integers(0, 2**32 - 1),
    },
    optional={
        "options": OPTIONS,
        "before": st.lists(st.sampled_from(STATELESS), max_size=2),
        "behind": st.lists(st.sampled_from(STATELESS), max_size=2),
    },
)
"""Of networks: input size, then the units of each LSTM; the head's activation, of which NumPy runs
`log_softmax`, or no head; and what stands before the first LSTM, and behind each."""


def network(
    *, sizes, use_bias, head, zero_output_for_mask, seed, options=None, before=(), behind=()
):
    """Return a stack of LSTMs, the weights of each so small that the sums stay near 1."""
    random = np.random.default_rng(seed)

    def draw(*shape):
        return random.uniform(-1, 1, shape).astype(np.float32) / np.float32(np.sqrt(shape[0]))

    def some(kinds, place, size):
        return [
            stateless(kind, f"{kind}{place}{at}", draw(1, size)[0], draw(1, size)[0])
            for at, kind in enumerate(kinds)
        ]

    size = sizes[0]
    layers: list[Layer] = [*some(before, "before", size)]
    for index, units in enumerate(sizes[1:]):
        spec = LSTMSpec(input_size=size, units=units, use_bias=use_bias, **(options or {}))
        size = spec.output_size
        weights = LSTMWeights(
            kernel=draw(spec.input_size, 4 * units),
            recurrent_kernel=draw(size, 4 * units),
            bias=draw(4 * units) if use_bias else None,
            peepholes=draw(3, units) if spec.use_peepholes else None,
            projection=None if spec.projection_size is None else draw(units, size),
        )
        layers.append(
            Recurrent(
                name=f"lstm{index}",
                spec=spec,
                weights=weights,
                zero_output_for_mask=zero_output_for_mask,
            )
        )
        layers += some(behind, index, size)
    if head is not None:
        bias = draw(5) if use_bias else None
        layers.append(Dense(name="head", kernel=draw(size, 5), bias=bias, activation=head))
    return Network("n", sizes[0], tuple(layers))


def runtime(net, capacity, instruction_set, **options):
    """Return a runtime on the native kernel, and on no other."""
    made = CpuRuntime(net, capacity, instruction_sets=[instruction_set], **options)
    assert {"native"} == {dispatch.kernel for dispatch in made.dispatches.values()}
    return made


def reference(net, inputs, mask=None):
    """Return a network's outputs and, for each LSTM, h and c, in float64."""
    given = True if mask is None else mask
    x = inputs.astype(np.float64)
    states = []
    with np.errstate(all="ignore"):
        for layer in net.layers:
            if isinstance(layer, Recurrent):
                zero = layer.zero_output_for_mask
                result = equations.sequence(
                    layer.spec, layer.weights, x, mask=mask, zero_output_for_mask=zero
                )
                x = result.outputs
                states += [result.h, result.c]
            else:
                if isinstance(layer, Masking) or getattr(layer, "mask_zero", False):
                    mask = layer.live(x) & given
                x = wide(layer)(x)
    return x, np.concatenate(states, axis=1)


def wide(layer):
    """Return a layer without a state with its weights in float64."""
    arrays = {
        field.name: getattr(layer, field.name).astype(np.float64)
        for field in dataclasses.fields(layer)
        if isinstance(getattr(layer, field.name), np.ndarray | np.floating)
    }
    return dataclasses.replace(layer, **arrays)


def assert_same_bits(expected, actual):
    """Tell zeros of different sign apart, and NaN of different kinds."""
    assert expected.shape == actual.shape
    assert expected.tobytes() == actual.tobytes()


def plain(sizes=(32, 48), head="linear"):
    """Return a network without anything special."""
    return network(sizes=list(sizes), use_bias=True, head=head, zero_output_for_mask=False, seed=1)
