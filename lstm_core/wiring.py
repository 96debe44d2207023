"""Which layer of a network takes what which one gives.

Owns the numbers of values, and that they make a graph without circles or loose ends. Knows no
layer's inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lstm_core.errors import SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """A directed graph of layers, in an order in which they can run.

    Values are numbered: first the inputs, then what each layer gives, in their order.

    Attributes:
        inputs: The name and the features of each input.
        takes: For each layer, the numbers of the values that it takes.
        outputs: The name of each output, and the number of its value.
    """

    inputs: tuple[tuple[str, int], ...]
    takes: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[str, int], ...]

    @property
    def is_chain(self) -> bool:
        """Whether each layer takes what the one before it gives, and nothing else is there."""
        last = len(self.takes)
        return (
            len(self.inputs) == 1
            and all(taken == (number,) for number, taken in enumerate(self.takes))
            and [value for _, value in self.outputs] == [last]
        )

    def check(self, layers: Sequence[str]) -> None:
        """Check that the numbers make a graph of so many layers.

        Args:
            layers: Their names.

        Raises:
            SpecError: A layer takes what does not come before it, a layer leads to no output, there
                are no inputs or no outputs, or two of them have the same name.
        """
        if len(layers) != len(self.takes):
            raise SpecError("layers", f"there are {len(layers)}, and {len(self.takes)} take values")
        for what, ends in (("inputs", self.inputs), ("outputs", self.outputs)):
            names = [name for name, _ in ends]
            if not names or len(set(names)) < len(names):
                raise SpecError(what, f"need names, each its own, not {names!s:.80}")
        num_inputs = len(self.inputs)
        for number, (name, taken) in enumerate(zip(layers, self.takes, strict=True), num_inputs):
            if not taken or not all(0 <= value < number for value in taken):
                raise SpecError(name, "does not take what an input or a layer before it gives")
        if not all(0 <= value < num_inputs + len(layers) for _, value in self.outputs):
            raise SpecError("outputs", "no layer gives one of them")
        used = {value for _, value in self.outputs}.union(*self.takes)
        for number, name in enumerate(layers, num_inputs):
            if number not in used:
                raise SpecError(name, "leads to no output")


def chain(input_name: str, input_size: int, num_layers: int, output_name: str) -> Wiring:
    """Return the wiring of layers each of which takes what the one before it gives."""
    return Wiring(
        inputs=((input_name, input_size),),
        takes=tuple((number,) for number in range(num_layers)),
        outputs=((output_name, num_layers),),
    )
