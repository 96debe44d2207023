"""A graph of layers, cut to chains that one kernel takes at once.

Decides nothing about kernels and runs none.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

from lstm_core.network import Layer, Recurrent
from lstm_core.pointwise import makes_mask
from lstm_core.runtime.plan import Plan, Step, count_uses


@dataclass(slots=True, eq=False)
class Segment:
    """Layers on the kernel, each of which takes what only the one before it gives.

    Attributes:
        layers: The chain.
        recurrent: The numbers of its recurrent layers among those of the network, one after the
            other: so its state is one part of a row.
    """

    layers: list[Layer] = field(default_factory=list)
    recurrent: list[int] = field(default_factory=list)

    def append(self, layer: Layer, number: int | None) -> None:
        """Put a layer to the end; `number` is None where it is not recurrent."""
        self.layers.append(layer)
        if number is not None:
            self.recurrent.append(number)


def cut_graph(plan: Plan[Layer], on_kernel: Container[Layer]) -> Plan[Layer | Segment]:
    """Return a plan of segments, and of what stands between them.

    What makes a mask stays alone, since the kernel keeps the caller's mask and knows no other.

    Args:
        plan: Of the layers of a network that streams.
        on_kernel: Layers that the kernel runs, all recurrent ones among them.
    """
    num_inputs = len(plan.inputs)
    uses = count_uses(plan)
    steps: list[Step[Layer | Segment]] = []
    numbers = list(range(num_inputs))
    num_recurrent = 0
    for step in plan.steps:
        layer = step.part
        takes = tuple(numbers[value] for value in step.takes)
        own = num_recurrent if isinstance(layer, Recurrent) else None
        num_recurrent += own is not None
        if layer not in on_kernel or makes_mask(layer):
            steps.append(Step(part=layer, takes=takes))
            numbers.append(num_inputs + len(steps) - 1)
            continue
        before = steps[takes[0] - num_inputs].part if takes[0] >= num_inputs else None
        is_next = isinstance(before, Segment) and (
            own is None or not before.recurrent or before.recurrent[-1] == own - 1
        )
        if isinstance(before, Segment) and is_next and uses[step.takes[0]] == 1:
            before.append(layer, own)
            numbers.append(takes[0])
            continue
        segment = Segment()
        segment.append(layer, own)
        steps.append(Step(part=segment, takes=takes))
        numbers.append(num_inputs + len(steps) - 1)
    return Plan.of(plan.inputs, steps, [numbers[value] for value in plan.outputs])
