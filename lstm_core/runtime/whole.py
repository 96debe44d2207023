"""Whole sequences from zero states, layer by layer, on whichever kernel: `predict`.

Knows what the layers of a network make of each other's outputs. Knows no arena.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from lstm_core.network import Bidirectional, Layer, Recurrent
from lstm_core.runtime.chain import is_pointwise, mask_behind

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

RunWhole = Callable[[Float32, Bool | None], Float32]
"""`(batch, time, input_size)` and a mask `(batch, time)` to `(batch, time, output_size)`, zero
outputs where the layer asks for them."""


class WholeSequences:
    """A chain of layers with a kernel for each."""

    def __init__(
        self,
        layers: Sequence[Layer],
        recurrent: Mapping[Recurrent, RunWhole],
        pointwise: Mapping[Layer, Callable[[Float32], Float32]],
    ) -> None:
        """Bring layers and kernels together.

        Args:
            layers: The chain.
            recurrent: What runs each LSTM, those inside `Bidirectional` too, in time's order.
            pointwise: What runs other layers, where that is not the layer itself.
        """
        self._layers = layers
        self._recurrent = recurrent
        self._pointwise = pointwise

    def __call__(self, x: Float32, mask: Bool | None) -> Float32:
        """Run `(batch, time, input_size)`; without time where no sequences are returned."""
        given = mask
        for layer in self._layers:
            if is_pointwise(layer):
                mask = mask_behind(layer, x, mask, given)
                x = self._pointwise.get(layer, layer)(x)
            elif isinstance(layer, Bidirectional):
                x = self._run_both(layer, x, mask)
                mask = mask if layer.return_sequences else None
            elif isinstance(layer, Recurrent):
                x = self._run(layer, x, mask)
                mask = mask if layer.return_sequences else None
        return x

    def _run_both(self, layer: Bidirectional, x: Float32, mask: Bool | None) -> Float32:
        forward = self._run(layer.forward, x, mask)
        backward = self._run(layer.backward, x, mask)
        if layer.return_sequences:
            backward = backward[:, ::-1]
        match layer.merge_mode:
            case "concat":
                return np.concatenate([forward, backward], axis=-1)
            case "sum":
                return forward + backward
            case "mul":
                return forward * backward
            case _:
                return (forward + backward) * np.float32(0.5)

    def _run(self, layer: Recurrent, x: Float32, mask: Bool | None) -> Float32:
        if layer.go_backwards:
            x = x[:, ::-1]
            mask = None if mask is None else mask[:, ::-1]
        outputs = self._recurrent[layer](x, mask)
        return outputs if layer.return_sequences else outputs[:, -1]
