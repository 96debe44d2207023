"""A network's chain of layers, cut to what one kernel takes; and where its masks come from.

Decides nothing about kernels and runs none.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

import numpy as np
import numpy.typing as npt

from lstm_core.network import Bidirectional, Layer, Recurrent
from lstm_core.pointwise import Activation, Dense, Embedding, Masking, Pointwise
from lstm_core.spec import LSTMSpec

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """A chain that streams, cut in three.

    Attributes:
        leading: Layers without a state, before the stack.
        stack: From the first recurrent layer to the last, with the layers right before and behind
            them that run on the same kernel.
        trailing: Layers without a state, behind the stack.
    """

    leading: tuple[Pointwise, ...]
    stack: tuple[Layer, ...]
    trailing: tuple[Pointwise, ...]


def cut(layers: Sequence[Layer], on_kernel: Container[Layer]) -> Chain:
    """Cut a chain around its recurrent layers, of which it has at least one.

    Args:
        layers: The chain.
        on_kernel: Layers without a state that the kernel of the recurrent ones runs too.
    """
    recurrent = [index for index, layer in enumerate(layers) if isinstance(layer, Recurrent)]
    begin, end = recurrent[0], recurrent[-1] + 1
    while begin > 0 and layers[begin - 1] in on_kernel:
        begin -= 1
    while end < len(layers) and layers[end] in on_kernel:
        end += 1
    return Chain(
        leading=tuple(layer for layer in layers[:begin] if is_pointwise(layer)),
        stack=tuple(layers[begin:end]),
        trailing=tuple(layer for layer in layers[end:] if is_pointwise(layer)),
    )


def with_activations(layers: Sequence[Layer], known: Sequence[str]) -> tuple[Layer, ...]:
    """Return the same chain where every `Dense` ends in an activation of `known`, or in none.

    Another activation becomes a layer of its own, and one of `known` that is a layer of its own
    becomes a part of the linear `Dense` before it.
    """
    chain: list[Layer] = []
    for layer in layers:
        last = chain[-1] if chain else None
        if isinstance(layer, Dense) and layer.activation not in known:
            chain.append(replace(layer, activation="linear"))
            chain.append(Activation(name=layer.name, function=layer.activation))
        elif (
            isinstance(layer, Activation)
            and isinstance(last, Dense)
            and last.activation == "linear"
            and layer.function in known
            and not layer.parameters
        ):
            chain[-1] = replace(last, activation=layer.function)
        else:
            chain.append(layer)
    return tuple(chain)


def is_pointwise(layer: Layer) -> TypeGuard[Pointwise]:
    """Whether a layer keeps no state."""
    return not isinstance(layer, Recurrent | Bidirectional)


def behind_last(layers: Sequence[Layer]) -> tuple[Pointwise, ...]:
    """Return the layers behind the last recurrent one, of a chain that streams."""
    tail: list[Pointwise] = []
    for layer in layers:
        if is_pointwise(layer):
            tail.append(layer)
        else:
            tail.clear()
    return tuple(tail)


def lstms(layers: Sequence[Layer]) -> list[Recurrent]:
    """Return every LSTM of a chain, those inside `Bidirectional` too."""
    found: list[Recurrent] = []
    for layer in layers:
        if isinstance(layer, Bidirectional):
            found += [layer.forward, layer.backward]
        elif isinstance(layer, Recurrent):
            found.append(layer)
    return found


def specs_of(layer: Recurrent | Bidirectional) -> list[LSTMSpec]:
    """Return the configuration of a layer, of a bidirectional one those of both directions."""
    return [lstm.spec for lstm in lstms([layer])]


def makes_mask(layer: Layer) -> TypeGuard[Masking | Embedding]:
    """Whether a layer says which time steps are live."""
    return isinstance(layer, Masking) or (isinstance(layer, Embedding) and layer.mask_zero)


def mask_behind(layer: Layer, x: Float32, mask: Bool | None, given: Bool | None) -> Bool | None:
    """Return the mask behind a layer without a state.

    As in Keras that of a layer that makes one replaces the mask of such a layer before it, but not
    the one `given` by the caller, which Keras's models have no place for: a step is live if both
    say so.

    Args:
        layer: The layer.
        x: `(batch, time, features)`, what it is given.
        mask: `(batch, time)` bool, that before it.
        given: `(batch, time)` bool, the caller's.
    """
    if makes_mask(layer):
        live = layer.live(x)
        return live if given is None else live & given
    return mask
