"""A network on the native kernel: steps of rows in an arena, and whole sequences.

The recurrent layers and nearly all others run in C; the few that do not, before and behind the
stack, in NumPy, each time step on its own. So every output depends on its own row alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

import numpy as np
import numpy.typing as npt

from lstm_core.kernels import native
from lstm_core.network import Network, Recurrent
from lstm_core.pointwise import Pointwise, makes_mask
from lstm_core.runtime.arena import Arena
from lstm_core.runtime.base import Advanced
from lstm_core.runtime.chain import cut, lstms
from lstm_core.runtime.native_graph import AdvanceGraph, arena_of
from lstm_core.runtime.native_layers import recipes_of
from lstm_core.runtime.native_packed import Packed, Pointwises, stateless
from lstm_core.runtime.numpy_stack import finite_rows
from lstm_core.runtime.plan import (
    is_pointwise,
    mask_behind,
    plan_of,
    tail_of,
    with_activations,
)
from lstm_core.runtime.segments import cut_graph
from lstm_core.runtime.whole import RunWhole, WholeSequences

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]


def stack_obstacles(network: Network) -> list[str]:
    """Name what stands in the way of running a network's recurrent layers in C."""
    if network.streaming_obstacles or not network.is_chain:
        return []
    plan = with_activations(plan_of(network), native.ACTIVATIONS)
    recipes = recipes_of(plan)
    chain = cut(plan.parts, recipes)
    obstacles = [
        f"{type(layer).__name__} {layer.name} stands between recurrent layers"
        for layer in chain.stack
        if layer not in recipes
    ]
    # The kernel keeps the caller's mask, and could not tell one that NumPy made from it.
    before = [layer.name for layer in chain.leading if makes_mask(layer)]
    return obstacles + [
        f"{layer.name} replaces the mask of {before[-1]}, which runs on NumPy"
        for layer in chain.stack
        if before and makes_mask(layer)
    ]


class NativeStack:
    """A network over an arena of its own.

    Attributes:
        arena: What it reads and writes.
        advance: Does as `CpuRuntime.advance`.
        predict: Whole sequences, on scratch of their own, so that they may run beside `advance`.
    """

    def __init__(
        self, network: Network, num_slots: int, instruction_set: str, num_threads: int = 1
    ) -> None:
        """Pack the weights, once for both, and reserve the arena.

        Args:
            network: One that nothing stands in the way of.
            num_slots: Of the arena.
            instruction_set: One of `native.instruction_sets()`.
            num_threads: The most that the rows of a long call are shared out over.
        """
        self._network = network
        self._plan = with_activations(plan_of(network), native.ACTIVATIONS)
        self._recipes = recipes_of(self._plan)
        self._packed: Packed = {
            layer: [pack(instruction_set) for pack in recipe]
            for layer, recipe in self._recipes.items()
        }
        layers = self._plan.parts
        self.predict = WholeSequences(
            network,
            self._plan,
            {
                layer: _from_zeros(layer, self._packed[layer], num_threads)
                for layer in lstms(layers)
            },
            stateless(layers, self._packed),
        )
        self._num_threads = num_threads
        self._tail = None if network.streaming_obstacles else tail_of(self._plan, network)
        self._set_arena(num_slots)

    def over(self, num_slots: int) -> NativeStack:
        """Return the same over another arena, which may run beside this one."""
        twin = copy(self)
        twin._set_arena(num_slots)  # noqa: SLF001 - of its own class
        return twin

    def behind(self, row: Float32, has_output: Bool) -> Float32 | None:
        """Do as `NumpyStack.behind`, to the bits of `advance`."""
        if self._tail is None:
            return None
        return self._tail.run(row, has_output, stateless(self._tail.plan.parts, self._packed))

    def _set_arena(self, num_slots: int) -> None:
        network, packed = self._network, self._packed
        self.arena = Arena(num_slots, [(network.state_size, network.num_recurrent)])
        self.advance: Callable[..., Advanced]
        if network.streaming_obstacles:
            return
        if not network.is_chain:
            graph = cut_graph(self._plan, self._recipes)
            alone = stateless([part for part in graph.parts if is_pointwise(part)], packed)
            self.arena = arena_of(graph, network, num_slots)
            self.advance = AdvanceGraph(
                graph, network, packed, alone, self.arena, self._num_threads
            )
            return
        chain = cut(self._plan.parts, self._recipes)
        stack = [part for layer in chain.stack for part in packed[layer]]
        runner = native.runner(stack, *self.arena.blocks[0], self._num_threads, results=Advanced)
        self.advance = runner.advance
        if chain.leading or chain.trailing:
            ends = stateless((*chain.leading, *chain.trailing), packed)
            self.advance = _Advance(chain.leading, runner, chain.trailing, ends)


class _Advance:
    """The stack's `advance` between layers that run in NumPy."""

    def __init__(
        self,
        leading: Sequence[Pointwise],
        runner: native.Runner[Advanced],
        trailing: Sequence[Pointwise],
        pointwise: Pointwises,
    ) -> None:
        self._leading = leading
        self._runner = runner
        self._trailing = trailing
        self._pointwise = pointwise

    def __call__(
        self,
        from_slots: native.Numbers | None,
        to_slots: native.Numbers | None,
        inputs: Float32,
        lengths: native.Numbers | None,
        mask: Bool | None,
    ) -> Advanced:
        given = mask
        x = inputs
        with np.errstate(all="ignore"):
            for layer in self._leading:
                mask = mask_behind(layer, x, mask, given)
                x = self._pointwise.get(layer, layer)(x)
        advanced = self._runner.advance(from_slots, to_slots, x, lengths, mask)
        if not self._trailing:
            return advanced
        outputs = advanced.outputs
        # What overflows is told by the finiteness of the row.
        with np.errstate(all="ignore"):
            for layer in self._trailing:
                outputs = self._pointwise.get(layer, layer)(outputs)
        if lengths is not None:
            for row, length in enumerate(lengths):
                outputs[row, length:] = 0
        is_output_finite = finite_rows(outputs.reshape(len(outputs), -1))
        return advanced._replace(outputs=outputs, is_output_finite=is_output_finite)


def _from_zeros(layer: Recurrent, packed: Sequence[native.Layer], num_threads: int) -> RunWhole:
    state_size = layer.spec.output_size + layer.spec.units
    runner = native.stateless_runner(packed, state_size, 1, num_threads)

    def run(x: Float32, mask: Bool | None) -> Float32:
        return runner.advance(None, None, x, None, mask)[0]

    return run
