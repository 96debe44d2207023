"""A chain of layers, cut to what one kernel takes; and the LSTMs among layers.

Decides nothing about kernels and runs none.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

from lstm_core.network import Bidirectional, Layer, Recurrent
from lstm_core.pointwise import Pointwise
from lstm_core.runtime.plan import is_pointwise
from lstm_core.spec import LSTMSpec


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


def lstms(layers: Sequence[Layer]) -> list[Recurrent]:
    """Return every LSTM among layers, those inside `Bidirectional` too."""
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
