"""Where values that come from the sequences meet, and the graph of layers that comes of it.

While a graph is read, each value has the layers that it went through; behind a junction these begin
anew. Owns which values can be joined, and how their layers are wired in the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lstm_core.errors import SpecError
from lstm_core.formats.onnx_axes import Atom, Axes, Axis, kinds, sizes
from lstm_core.formats.onnx_model import Node
from lstm_core.formats.onnx_values import Entry, Junction, Sequences
from lstm_core.merge import Merge
from lstm_core.network import Layer, Recurrent
from lstm_core.pointwise import LastStep
from lstm_core.wiring import Wiring

MERGES = {
    "Add": "add",
    "Concat": "concatenate",
    "Div": "divide",
    "Max": "maximum",
    "Min": "minimum",
    "Mul": "multiply",
    "Sub": "subtract",
}


def met(node: Node, values: Sequence[Sequences]) -> Sequences:
    """Return what an operator of `MERGES` makes of several values.

    Args:
        node: The operator's node.
        values: What it takes, in its order.

    Raises:
        SpecError: They do not lie alike, or one is not all of a layer.
    """
    for value in values:
        value.check_whole()
        value.whole_layers()
        if value.is_integer:
            raise SpecError(node.name, f"is a {node.operator} of integers")
    merge = Merge(name=node.name, operation=MERGES[node.operator])
    size = merge.output_size(*(value.features for value in values))
    leading = [_same(node, axes) for axes in zip(*(_leading(v) for v in values), strict=False)]
    if len({len(value.axes) for value in values}) > 1:
        raise SpecError(node.name, "joins values of different numbers of axes")
    axes: Axes = (*leading, (Atom("features", size),))
    return Sequences(axes=axes, layers=(Junction(merge=merge, sources=tuple(values)),))


def _leading(value: Sequences) -> Axes:
    return value.axes[:-1]


def _same(node: Node, axes: Sequence[Axis]) -> Axis:
    """Return an axis of several values, under the name that an LSTM has given it in one of them."""
    named = [axis for axis in axes if not any(kind.startswith("input") for kind in kinds(axis))]
    are_named_alike = len({tuple(kinds(axis)) for axis in named}) <= 1
    if not are_named_alike or len(set(sizes(tuple(axes)))) > 1:
        raise SpecError(node.name, "joins values whose axes are not in the same order")
    return named[0] if named else axes[0]


def wired(
    entries: Sequence[Entry], outputs: Sequence[tuple[str, Sequences]]
) -> tuple[tuple[Layer, ...], Wiring]:
    """Return the layers that outputs went through, each once, and what each takes.

    Args:
        entries: The inputs, in their order.
        outputs: The outputs, by name.

    Raises:
        SpecError: One is a part of a function that is not known.
    """
    weaving = _Weaving(len(entries), _lstms([value for _, value in outputs]))
    values = tuple((name, weaving.value_of(output)) for name, output in outputs)
    inputs = tuple((entry.name, entry.features) for entry in entries)
    return tuple(weaving.layers), Wiring(inputs=inputs, takes=tuple(weaving.takes), outputs=values)


def _lstms(outputs: Sequence[Sequences]) -> dict[int, Recurrent]:
    """Return one form of each LSTM by its weights: that with all time steps, where both are used.

    A graph may take all of an LSTM's time steps at one place and the last at another.
    """
    found: dict[int, Recurrent] = {}
    met: set[int] = set()
    waiting = list(outputs)
    while waiting:
        for link in waiting.pop().layers:
            if isinstance(link, Junction) and id(link) not in met:
                met.add(id(link))
                waiting += link.sources
            elif isinstance(link, Recurrent):
                known = found.setdefault(id(link.weights), link)
                if link.return_sequences and not known.return_sequences:
                    found[id(link.weights)] = link
    return found


@dataclass(slots=True)
class _Weaving:
    """The layers so far.

    Attributes:
        num_inputs: The first values.
        lstms: The form of each LSTM, by its weights.
    """

    num_inputs: int
    lstms: dict[int, Recurrent]
    layers: list[Layer] = field(default_factory=list)
    takes: list[tuple[int, ...]] = field(default_factory=list)
    known: dict[tuple[tuple[int, ...], int], int] = field(default_factory=dict)
    junctions: dict[int, int] = field(default_factory=dict)
    last_steps: dict[int, LastStep] = field(default_factory=dict)

    def value_of(self, output: Sequences) -> int:
        """Return the number of a value, after all that it needs."""
        waiting = [output]
        while waiting:
            first = waiting[-1].layers[0]
            if isinstance(first, Junction) and id(first) not in self.junctions:
                missing = [each for each in first.sources if not self._is_known(each)]
                if missing:
                    waiting += missing
                    continue
                takes = tuple(self._through(each) for each in first.sources)
                self.junctions[id(first)] = self._put(first.merge, takes)
            waiting.pop()
        return self._through(output)

    def _is_known(self, value: Sequences) -> bool:
        first = value.layers[0]
        return not isinstance(first, Junction) or id(first) in self.junctions

    def _through(self, value: Sequences) -> int:
        """Return the number of a value whose junction is known."""
        number = 0
        for link in value.whole_layers():
            if isinstance(link, Entry):
                number = link.number
            elif isinstance(link, Junction):
                number = self.junctions[id(link)]
            elif isinstance(link, Recurrent):
                number = self._put_lstm(link, number)
            else:
                number = self._put(link, (number,))
        return number

    def _put_lstm(self, layer: Recurrent, value: int) -> int:
        whole = self.lstms[id(layer.weights)]
        number = self._put(whole, (value,))
        if whole.return_sequences == layer.return_sequences:
            return number
        last = self.last_steps.setdefault(number, LastStep(name=f"{layer.name}/last"))
        return self._put(last, (number,))

    def _put(self, layer: Layer, takes: tuple[int, ...]) -> int:
        key = (takes, id(layer))
        if key not in self.known:
            self.layers.append(layer)
            self.takes.append(takes)
            self.known[key] = self.num_inputs + len(self.layers) - 1
        return self.known[key]
