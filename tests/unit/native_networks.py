"""Networks for the tests of the native kernel, and runtimes on each instruction set."""

import itertools

import numpy as np
from hypothesis import strategies as st

from lstm_core import equations
from lstm_core.kernels import native
from lstm_core.network import Layer, Network, Recurrent
from lstm_core.pointwise import Dense
from lstm_core.runtime.cpu import CpuRuntime
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights

INSTRUCTION_SETS = native.instruction_sets()

SHAPES = st.fixed_dictionaries(
    {
        "sizes": st.lists(st.integers(1, 70), min_size=2, max_size=4),
        "use_bias": st.booleans(),
        "head": st.sampled_from([None, "linear", "relu", "sigmoid", "tanh", "softmax", "softplus"]),
        "zero_output_for_mask": st.booleans(),
        "seed": st.integers(0, 2**32 - 1),
    }
)
"""Of networks: input size, then the units of each LSTM; the head's activation, of which NumPy runs
`softplus`, or no head."""


def network(*, sizes, use_bias, head, zero_output_for_mask, seed):
    """Return a stack of LSTMs, the weights of each so small that the sums stay near 1."""
    random = np.random.default_rng(seed)

    def draw(*shape):
        return random.uniform(-1, 1, shape).astype(np.float32) / np.float32(np.sqrt(shape[0]))

    layers: list[Layer] = []
    for index, (inputs, units) in enumerate(itertools.pairwise(sizes)):
        spec = LSTMSpec(input_size=inputs, units=units, use_bias=use_bias)
        weights = LSTMWeights(
            kernel=draw(inputs, 4 * units),
            recurrent_kernel=draw(units, 4 * units),
            bias=draw(4 * units) if use_bias else None,
        )
        layers.append(
            Recurrent(
                name=f"lstm{index}",
                spec=spec,
                weights=weights,
                zero_output_for_mask=zero_output_for_mask,
            )
        )
    if head is not None:
        bias = draw(5) if use_bias else None
        layers.append(Dense(name="head", kernel=draw(sizes[-1], 5), bias=bias, activation=head))
    return Network("n", sizes[0], tuple(layers))


def runtime(net, capacity, instruction_set):
    """Return a runtime on the native kernel, and on no other."""
    made = CpuRuntime(net, capacity, instruction_sets=[instruction_set])
    assert {"native"} == {dispatch.kernel for dispatch in made.dispatches.values()}
    return made


def reference(net, inputs, mask=None):
    """Return a network's outputs and, for each LSTM, h and c, in float64."""
    x = inputs.astype(np.float64)
    states = []
    for layer in net.layers:
        if isinstance(layer, Recurrent):
            zero = layer.zero_output_for_mask
            result = equations.sequence(
                layer.spec, layer.weights, x, mask=mask, zero_output_for_mask=zero
            )
            x = result.outputs
            states += [result.h, result.c]
        else:
            wide = Dense(
                name=layer.name,
                kernel=layer.kernel.astype(np.float64),
                bias=None if layer.bias is None else layer.bias.astype(np.float64),
                activation=layer.activation,
            )
            x = wide(x)
    return x, np.concatenate(states, axis=1)
