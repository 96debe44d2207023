"""A graph of layers on the native kernel: steps of rows in an arena.

Segments run in C, each over its part of the rows; what joins them, and the few layers that are not
in C, in NumPy, each value of a time step on its own. So every output depends on its own row alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from lstm_core.kernels import native
from lstm_core.network import Layer, Network
from lstm_core.runtime.arena import Arena
from lstm_core.runtime.arguments import check_arguments
from lstm_core.runtime.base import Advanced, Indices
from lstm_core.runtime.native_packed import Packed, Pointwises, run_all_steps
from lstm_core.runtime.numpy_stack import finite_rows
from lstm_core.runtime.plan import Plan, run_plan, side_by_side
from lstm_core.runtime.segments import Segment

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]


def arena_of(plan: Plan[Layer | Segment], network: Network, num_slots: int) -> Arena:
    """Return an arena with a block for each segment that keeps a state, in the row's order."""
    sizes = [layer.spec.output_size + layer.spec.units for layer in network.recurrent]
    return Arena(
        num_slots,
        [
            (sum(sizes[number] for number in segment.recurrent), len(segment.recurrent))
            for segment in _with_state(plan)
        ],
    )


def _with_state(plan: Plan[Layer | Segment]) -> list[Segment]:
    """Return the segments that keep a state, in the order of a row."""
    segments = [part for part in plan.parts if isinstance(part, Segment) and part.recurrent]
    return sorted(segments, key=lambda segment: segment.recurrent[0])


class AdvanceGraph:
    """`advance` of a graph."""

    def __init__(
        self,
        plan: Plan[Layer | Segment],
        network: Network,
        packed: Packed,
        pointwise: Pointwises,
        arena: Arena,
        num_threads: int,
    ) -> None:
        """Make a runner for each segment.

        Args:
            plan: Of `cut_graph`.
            network: The network.
            packed: Its layers that run in C.
            pointwise: What runs layers without a state alone, where that is not the layer itself.
            arena: Of `arena_of`.
            num_threads: The most that the rows of a long call are shared out over.
        """
        self._plan = plan
        self._pointwise = pointwise
        self._input_size = network.input_size
        self._num_slots = len(arena.blocks[0].rows)
        self._stateful: dict[Segment, native.Runner[Advanced]] = {}
        for segment, block in zip(_with_state(plan), arena.blocks, strict=True):
            parts = [part for layer in segment.layers for part in packed[layer]]
            self._stateful[segment] = native.runner(parts, *block, num_threads, results=Advanced)
        self._stateless = {
            segment: run_all_steps([part for layer in segment.layers for part in packed[layer]])
            for segment in plan.parts
            if isinstance(segment, Segment) and not segment.recurrent
        }

    def __call__(
        self,
        from_slots: Sequence[int],
        to_slots: Sequence[int],
        inputs: Float32,
        lengths: Sequence[int] | None,
        mask: Bool | None,
    ) -> Advanced:
        """Do as `CpuRuntime.advance`.

        Raises:
            IndexError, OverflowError, TypeError, ValueError: As `check_arguments`.
        """
        checked = check_arguments(
            from_slots,
            to_slots,
            inputs,
            lengths,
            mask,
            num_slots=self._num_slots,
            input_size=self._input_size,
        )
        advanced: dict[Segment, Advanced] = {}

        def run(part: Layer | Segment, x: Float32, mask: Bool | None) -> Float32:
            assert isinstance(part, Segment)
            if part in self._stateless:
                return self._stateless[part](x)
            runner = self._stateful[part]
            advanced[part] = runner.advance(
                checked.from_slots, checked.to_slots, x, checked.lengths, mask
            )
            return advanced[part].outputs

        # What overflows is told by the finiteness of the row.
        with np.errstate(all="ignore"):
            outputs = side_by_side(run_plan(self._plan, inputs, mask, run, self._pointwise))
        return _joined(outputs, [advanced[segment] for segment in self._stateful], checked.lengths)


def _joined(outputs: Float32, parts: Sequence[Advanced], lengths: Indices | None) -> Advanced:
    """Return one answer of those of all segments with a state.

    Args:
        outputs: `(batch, time, output_size)` float32, zeroed beyond the lengths.
        parts: In the order of a row.
        lengths: `(batch,)`, or None.
    """
    if lengths is not None:
        for row, length in enumerate(lengths):
            outputs[row, length:] = 0
    return Advanced(
        outputs=outputs,
        rows=np.concatenate([part.rows for part in parts], axis=1),
        has_output=np.concatenate([part.has_output for part in parts], axis=1),
        is_state_finite=np.logical_and.reduce([part.is_state_finite for part in parts]),
        is_output_finite=finite_rows(outputs.reshape(len(outputs), -1)),
    )
