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
from lstm_core.network import Layer, Network, Recurrent
from lstm_core.pointwise import Pointwise
from lstm_core.runtime.base import Advanced
from lstm_core.runtime.chain import (
    behind_last,
    cut,
    is_pointwise,
    lstms,
    makes_mask,
    mask_behind,
    with_activations,
)
from lstm_core.runtime.native_layers import recipes_of
from lstm_core.runtime.numpy_stack import finite_rows
from lstm_core.runtime.whole import RunWhole, WholeSequences

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Packed = dict[Layer, list[native.Layer]]
Pointwises = dict[Layer, Callable[[Float32], Float32]]


def stack_obstacles(network: Network) -> list[str]:
    """Name what stands in the way of running a network's recurrent layers in C."""
    if network.streaming_obstacles:
        return []
    layers = with_activations(network.layers, native.ACTIVATIONS)
    recipes = recipes_of(layers, network.input_size)
    chain = cut(layers, recipes)
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
    """A network over an arena that it reads and writes.

    Attributes:
        advance: Does as `CpuRuntime.advance`.
        predict: Whole sequences, on scratch of their own, so that they may run beside `advance`.
    """

    def __init__(
        self,
        network: Network,
        rows: Float32,
        has_output: Bool,
        instruction_set: str,
        num_threads: int = 1,
    ) -> None:
        """Pack the weights, once for both.

        Args:
            network: One that nothing stands in the way of.
            rows: `(slots, state_size)` float32.
            has_output: `(slots, recurrent layers)` bool.
            instruction_set: One of `native.instruction_sets()`.
            num_threads: The most that the rows of a long call are shared out over.
        """
        layers = with_activations(network.layers, native.ACTIVATIONS)
        recipes = recipes_of(layers, network.input_size)
        self._packed: Packed = {
            layer: [pack(instruction_set) for pack in recipe] for layer, recipe in recipes.items()
        }
        self.predict = WholeSequences(
            layers,
            {
                layer: _from_zeros(layer, self._packed[layer], num_threads)
                for layer in lstms(layers)
            },
            _stateless(layers, self._packed),
        )
        self._num_threads = num_threads
        self._behind = behind_last(layers)
        self._chain = None if network.streaming_obstacles else cut(layers, recipes)
        self._set_arena(rows, has_output)

    def over(self, rows: Float32, has_output: Bool) -> NativeStack:
        """Return the same over another arena, which may run beside this one; see `__init__`."""
        twin = copy(self)
        twin._set_arena(rows, has_output)  # noqa: SLF001 - of its own class
        return twin

    def behind(self, h: Float32) -> Float32:
        """Run the layers behind the last LSTM, to the bits of `advance`; on any thread.

        Args:
            h: `(batch, time, features)` float32, what that LSTM gives.
        """
        ends = _stateless(self._behind, self._packed)
        for layer in self._behind:
            h = ends.get(layer, layer)(h)
        return h

    def _set_arena(self, rows: Float32, has_output: Bool) -> None:
        chain, packed = self._chain, self._packed
        if chain is None:
            return
        stack = [part for layer in chain.stack for part in packed[layer]]
        runner = native.runner(stack, rows, has_output, self._num_threads, results=Advanced)
        self.advance: Callable[..., Advanced] = runner.advance
        if chain.leading or chain.trailing:
            ends = _stateless((*chain.leading, *chain.trailing), packed)
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


def _stateless(layers: Sequence[Layer], packed: Packed) -> Pointwises:
    """Return what runs each of the layers without a state that run in C."""
    return {
        layer: _run_all_steps(packed[layer])
        for layer in layers
        if is_pointwise(layer) and layer in packed
    }


def _run_all_steps(packed: Sequence[native.Layer]) -> Callable[[Float32], Float32]:
    runner = native.stateless_runner(packed)

    def run(x: Float32) -> Float32:
        y = runner.advance(None, None, x.reshape(1, -1, x.shape[-1]), None, None)[0]
        return y.reshape(*x.shape[:-1], -1)

    return run
