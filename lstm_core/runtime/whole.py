"""Whole sequences from zero states, layer by layer, on whichever kernel: `predict`.

Knows what the layers of a network make of each other's outputs. Knows no arena.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from lstm_core.network import Bidirectional, Layer, Network, Recurrent
from lstm_core.pointwise import LastStep
from lstm_core.runtime.plan import Plan, run_plan, side_by_side

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

RunWhole = Callable[[Float32, Bool | None], Float32]
"""`(batch, time, input_size)` and a mask `(batch, time)` to `(batch, time, output_size)`, zero
outputs where the layer asks for them."""


class WholeSequences:
    """A network's layers with a kernel for each."""

    def __init__(
        self,
        network: Network,
        plan: Plan[Layer],
        recurrent: Mapping[Recurrent, RunWhole],
        pointwise: Mapping[Layer, Callable[[Float32], Float32]],
    ) -> None:
        """Bring layers and kernels together.

        Args:
            network: The network.
            plan: Runs its layers.
            recurrent: What runs each LSTM, those inside `Bidirectional` too, in time's order.
            pointwise: What runs other layers, where that is not the layer itself.
        """
        self._plan = plan
        self._has_time = [network.has_time[value] for _, value in network.wiring.outputs]
        # As sessions have it: what ends the time axis gives each step as if it were the last.
        self._keeps_time = network.returns_sequences and not network.streaming_obstacles
        self._recurrent = recurrent
        self._pointwise = dict(pointwise)
        if not self._keeps_time:
            last = (layer for layer in plan.parts if isinstance(layer, LastStep))
            self._pointwise.update(dict.fromkeys(last, lambda x: x[:, -1]))

    def __call__(self, x: Float32, mask: Bool | None) -> Float32:
        """Run `(batch, time, input_size)`; without time where no output has it.

        Where some have it, each of the others has a value for each step if the network streams,
        else the one of the last step at all of them.
        """
        outputs = run_plan(self._plan, x, mask, self._run_recurrent, self._pointwise)
        if any(self._has_time) and not self._keeps_time:
            outputs = [
                output if has_time else np.repeat(output[:, None], x.shape[1], axis=1)
                for output, has_time in zip(outputs, self._has_time, strict=True)
            ]
        return side_by_side(outputs)

    def _run_recurrent(self, layer: Layer, x: Float32, mask: Bool | None) -> Float32:
        if isinstance(layer, Bidirectional):
            return self._run_both(layer, x, mask)
        assert isinstance(layer, Recurrent)
        return self._run(layer, x, mask)

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
        return outputs if layer.return_sequences or self._keeps_time else outputs[:, -1]
