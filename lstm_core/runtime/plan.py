"""What a runtime runs of a network, in which order: steps, and which values each of them takes.

Owns the walk over the values and their masks. Knows no arena, and of recurrent layers only that
the caller runs them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Generic, TypeGuard, TypeVar, get_args

import numpy as np
import numpy.typing as npt

from lstm_core.merge import Merge
from lstm_core.network import Bidirectional, Layer, Network, Recurrent, TensorPart
from lstm_core.pointwise import Activation, Dense, Pointwise, makes_mask

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
# A tuple, since to ask a union costs as much as a small layer.
_POINTWISE: tuple[type, ...] = get_args(Pointwise)
Part = TypeVar("Part")
"""What a step runs: a layer, or what the caller made of some."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step(Generic[Part]):
    """One part and the numbers of the values that it takes."""

    part: Part
    takes: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan(Generic[Part]):
    """Steps, in an order in which they can run. Values are numbered as in a `Wiring`.

    Attributes:
        inputs: Where each input lies in what the plan is given.
        steps: The steps.
        outputs: The numbers of the outputs' values.
        released: For each step, the values that nothing needs behind it.
    """

    inputs: tuple[TensorPart, ...]
    steps: tuple[Step[Part], ...]
    outputs: tuple[int, ...]
    released: tuple[tuple[int, ...], ...]

    @classmethod
    def of(
        cls, inputs: Sequence[TensorPart], steps: Sequence[Step[Part]], outputs: Sequence[int]
    ) -> Plan[Part]:
        """Return a plan that holds no value longer than it is needed."""
        last: dict[int, int] = {}
        for index, step in enumerate(steps):
            last.update(dict.fromkeys(step.takes, index))
        released: list[list[int]] = [[] for _ in steps]
        for value in last.keys() - set(outputs):
            released[last[value]].append(value)
        return cls(
            inputs=tuple(inputs),
            steps=tuple(steps),
            outputs=tuple(outputs),
            released=tuple(map(tuple, released)),
        )

    @property
    def parts(self) -> tuple[Part, ...]:
        """What the steps run."""
        return tuple(step.part for step in self.steps)

    def values_of(self, x: Float32) -> dict[int, Float32]:
        """Return the inputs' values by number, of `(..., features)` of all of them side by side."""
        if len(self.inputs) == 1 and self.inputs[0].size == x.shape[-1]:
            return {0: x}
        return {
            number: np.ascontiguousarray(x[..., part.offset : part.offset + part.size])
            for number, part in enumerate(self.inputs)
        }


def plan_of(network: Network) -> Plan[Layer]:
    """Return the plan that runs a network's layers one by one."""
    wiring = network.wiring
    steps = [
        Step(part=layer, takes=takes)
        for layer, takes in zip(network.layers, wiring.takes, strict=True)
    ]
    return Plan.of(network.inputs, steps, [value for _, value in wiring.outputs])


def run_plan(
    plan: Plan[Part],
    x: Float32,
    given: Bool | None,
    run_other: Callable[[Part, Float32, Bool | None], Float32],
    pointwise: Mapping[Layer, Callable[[Float32], Float32]],
) -> list[Float32]:
    """Run a plan over time steps.

    Args:
        plan: The plan.
        x: `(batch, time, features)` float32, the inputs side by side.
        given: `(batch, time)` bool, true where a step is live; None means everywhere.
        run_other: Runs what is neither pointwise nor a merge, given its value and that one's mask.
        pointwise: What runs pointwise layers, where that is not the layer itself.

    Returns:
        The value of each output.
    """
    values = plan.values_of(x)
    masks: dict[int, Bool | None] = dict.fromkeys(values, given)
    for number, (step, released) in enumerate(
        zip(plan.steps, plan.released, strict=True), len(values)
    ):
        part, first = step.part, step.takes[0]
        mask = masks[first]
        if isinstance(part, Merge):
            values[number] = part(*(values[value] for value in step.takes))
            mask = part.live([masks[value] for value in step.takes], given)
        elif is_pointwise(part):
            mask = mask_behind(part, values[first], mask, given)
            values[number] = pointwise.get(part, part)(values[first])
        else:
            values[number] = run_other(part, values[first], mask)
            if isinstance(part, Recurrent | Bidirectional) and not part.return_sequences:
                # The layers behind the last time axis answer every step as if it were the last.
                mask = None
        masks[number] = mask
        for value in released:
            del values[value], masks[value]
    return [values[value] for value in plan.outputs]


def side_by_side(outputs: Sequence[Float32]) -> Float32:
    """Return values `(..., features)` as one; the only one is given back as it is."""
    return outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """What outputs are made of the recurrent layers' own, where nothing else is needed for it.

    Attributes:
        plan: Its inputs are parts of a state row: the h of layers that outputs depend on.
        flags: The numbers of those layers among the recurrent ones.
    """

    plan: Plan[Layer]
    flags: tuple[int, ...]

    def run(
        self,
        row: Float32,
        has_output: Bool,
        pointwise: Mapping[Layer, Callable[[Float32], Float32]],
    ) -> Float32 | None:
        """Return the outputs of the last live step, or None where there was none.

        Args:
            row: `(state_size,)` float32.
            has_output: `(recurrent layers,)` bool.
            pointwise: As for `run_plan`.

        Returns:
            `(output_size,)` float32.
        """
        if not has_output[list(self.flags)].all():
            return None
        outputs = run_plan(self.plan, row[None, None].copy(), None, _run_nothing, pointwise)
        return side_by_side(outputs)[0, 0]


def _run_nothing(part: Layer, _x: Float32, _mask: Bool | None) -> Float32:
    raise TypeError(f"{part.name} keeps a state")


def tail_of(plan: Plan[Layer], network: Network) -> Tail | None:
    """Return the tail of a network; None where an output depends on inputs without a state between.

    Args:
        plan: Of its layers.
        network: One that streams.
    """
    num_inputs = len(plan.inputs)
    h_parts = iter([part for part in network.state_layout if part.role == "h"])
    h_of = {
        number: TensorPart(name=part.layer, offset=part.offset, size=part.size)
        for number, step in enumerate(plan.steps, num_inputs)
        if isinstance(step.part, Recurrent)
        for part in [next(h_parts)]
    }
    needed = set(plan.outputs)
    for number, step in reversed(list(enumerate(plan.steps, num_inputs))):
        if number in needed and number not in h_of:
            needed.update(step.takes)
    if any(value < num_inputs for value in needed):
        return None
    fed = [number for number in h_of if number in needed]
    numbers = {number: index for index, number in enumerate(fed)}
    steps: list[Step[Layer]] = []
    for number, step in enumerate(plan.steps, num_inputs):
        if number in needed and number not in h_of:
            numbers[number] = len(fed) + len(steps)
            steps.append(replace(step, takes=tuple(numbers[value] for value in step.takes)))
    outputs = [numbers[value] for value in plan.outputs]
    return Tail(
        plan=Plan.of([h_of[number] for number in fed], steps, outputs),
        flags=tuple(index for index, number in enumerate(h_of) if number in needed),
    )


def with_activations(plan: Plan[Layer], known: Container[str]) -> Plan[Layer]:
    """Return the same plan where every `Dense` ends in an activation of `known`, or in none.

    Another activation becomes a step of its own, and one of `known` that is a step of its own
    becomes a part of the linear `Dense` before it, where nothing else takes what that gives.
    """
    num_inputs = len(plan.inputs)
    uses = count_uses(plan)
    numbers = list(range(num_inputs))
    steps: list[Step[Layer]] = []

    def put(layer: Layer, takes: tuple[int, ...]) -> int:
        steps.append(Step(part=layer, takes=takes))
        return num_inputs + len(steps) - 1

    for step in plan.steps:
        layer = step.part
        takes = tuple(numbers[value] for value in step.takes)
        before = steps[takes[0] - num_inputs] if takes[0] >= num_inputs else None
        if isinstance(layer, Dense) and layer.activation not in known:
            linear = put(replace(layer, activation="linear"), takes)
            numbers.append(put(Activation(name=layer.name, function=layer.activation), (linear,)))
        elif (
            isinstance(layer, Activation)
            and before is not None
            and isinstance(before.part, Dense)
            and before.part.activation == "linear"
            and layer.function in known
            and not layer.parameters
            and uses[step.takes[0]] == 1
        ):
            fused = replace(before.part, activation=layer.function)
            steps[takes[0] - num_inputs] = replace(before, part=fused)
            numbers.append(takes[0])
        else:
            numbers.append(put(layer, takes))
    return Plan.of(plan.inputs, steps, [numbers[value] for value in plan.outputs])


def count_uses(plan: Plan[Part]) -> list[int]:
    """Return how many steps and outputs need each value."""
    uses = [0] * (len(plan.inputs) + len(plan.steps))
    for step in plan.steps:
        for value in step.takes:
            uses[value] += 1
    for value in plan.outputs:
        uses[value] += 1
    return uses


def is_pointwise(part: object) -> TypeGuard[Pointwise]:
    """Whether a part is a layer of one value that keeps no state."""
    return isinstance(part, _POINTWISE)


def mask_behind(layer: Pointwise, x: Float32, mask: Bool | None, given: Bool | None) -> Bool | None:
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
