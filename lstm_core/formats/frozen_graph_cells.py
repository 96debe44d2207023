"""The LSTM cells of `rnn_cell` in the loops of a frozen graph.

A cell is known by what its nodes compute from the last step's states to the next ones, not by their
names. Owns that arithmetic. Knows no layer.

References:
    TensorFlow 1.15, `rnn_cell_impl.py` (`LSTMCell.call`).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from lstm_core.errors import SpecError
from lstm_core.formats.frozen_graph_nodes import TfGraph, TfNode
from lstm_core.formats.rnn_cell import CellOptions

_ACTIVATIONS = {
    "Elu": "elu", "Relu": "relu", "Relu6": "relu6", "Selu": "selu", "Sigmoid": "sigmoid",
    "Softplus": "softplus", "Softsign": "softsign", "Tanh": "tanh",
}  # fmt: skip
_ADD = frozenset({"Add", "AddV2"})
_INPUT, _CANDIDATE, _FORGET, _OUTPUT = range(4)
"""The parts of the split, in TensorFlow's order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of a loop.

    Attributes:
        name: The scope of its kernel.
        takes: What it takes each step: the loop's input, or what the cell below it gives.
        gives: What it gives each step, its h.
        kernel: The name of the constant.
        bias: The name of the constant.
        peepholes: The names of the input, forget and output gate's, or none.
        projection: The name of the constant, or None.
        options: What the constants do not tell.
    """

    name: str
    takes: str
    gives: str
    kernel: str
    bias: str
    peepholes: tuple[str, ...]
    projection: str | None
    options: CellOptions


class CellMatcher:
    """Follows one cell from what it gives back to what it takes."""

    def __init__(self, graph: TfGraph, loop: TfNode) -> None:
        """Begin.

        Args:
            graph: The graph.
            loop: What the loop gives, for messages.
        """
        self._graph = graph
        self._loop = loop

    def cell(self, given: str) -> Cell:
        """Return the cell that gives this.

        Raises:
            SpecError: It is computed in another way.
        """
        inner, projection_clip = self._clipped(given)
        projection = None
        if inner.operator == "MatMul":
            projection = self._constant(inner.input(1))
            inner = self._graph.node(inner.input(0))
        elif projection_clip is not None:
            raise self._unknown("it limits what it gives, which is no projection")
        output, squashed = self._factors(inner)
        state = self._graph.source(squashed.input(0))
        total, cell_clip = self._clipped(state)
        kept, added = self._terms(total)
        forget, previous = self._factors_of_state(kept)
        entrance, candidate = self._factors(added)
        gates = [
            self._gate(each.input(0), index, where)
            for each, index, where in (
                (entrance, _INPUT, previous),
                (forget, _FORGET, previous),
                (output, _OUTPUT, state),
            )
        ]
        product, bias = self._split(candidate, [split for split, _, _ in gates])
        taken, before, kernel = self._product(product)
        if self._kept(previous) != state or self._kept(before) != given:
            raise self._unknown("its states are not those of the step before")
        activation = _ACTIVATIONS.get(squashed.operator)
        if activation is None or candidate.operator != squashed.operator:
            raise self._unknown(f"its activation is a {squashed.operator}")
        peepholes = [name for _, _, name in gates if name is not None]
        if len(peepholes) not in (0, 3) or gates[0][1] or gates[2][1]:
            raise self._unknown("its gates differ in what is added to them")
        return Cell(
            name=kernel.rpartition("/")[0] or kernel,
            takes=taken,
            gives=given,
            kernel=kernel,
            bias=bias,
            peepholes=tuple(peepholes),
            projection=projection,
            options=CellOptions(
                forget_bias=gates[1][1],
                activation=activation,
                cell_clip=cell_clip,
                projection_clip=projection_clip,
            ),
        )

    def _unknown(self, problem: str) -> SpecError:
        return SpecError(
            self._loop.name,
            f"is of a loop that runs no LSTMCell of rnn_cell: {problem}. Of a Keras layer keep the"
            " model's own file, and convert that",
        )

    def _clipped(self, reference: str) -> tuple[TfNode, float | None]:
        """Return what is limited to a number and its negative, and that number, or None."""
        node = self._graph.node(reference)
        if node.operator != "Maximum":
            return node, None
        below = self._graph.node(node.input(0))
        lowest, highest = self._number(node.input(1)), self._number(below.input(1))
        if below.operator != "Minimum" or lowest != -highest:
            raise self._unknown("it has limits that are not a number and its negative")
        return self._graph.node(below.input(0)), highest

    def _factors(self, product: TfNode) -> tuple[TfNode, TfNode]:
        """Return the gate and the other factor of a product."""
        if product.operator != "Mul":
            problem = f"{product.name} is a {product.operator}"
            if product.operator in {"Select", "SelectV2", "Switch"}:
                problem = (
                    "it has sequence_length or dropout; freeze it without, since sessions have"
                    " lengths of their own"
                )
            raise self._unknown(problem)
        first, second = (self._graph.node(product.input(index)) for index in (0, 1))
        is_second = first.operator != "Sigmoid" or self._is_gate(second)
        if is_second and second.operator == "Sigmoid":
            first, second = second, first
        if first.operator != "Sigmoid":
            raise self._unknown(f"{product.name} is no product with a gate")
        return first, second

    def _is_gate(self, node: TfNode) -> bool:
        """Whether a sigmoid is of the output gate, and not of the cell state."""
        if node.operator != "Sigmoid":
            return False
        before = self._graph.node(node.input(0))
        if before.operator in _ADD:
            before = self._graph.node(before.input(0))
        return before.operator == "Split"

    def _terms(self, total: TfNode) -> tuple[TfNode, TfNode]:
        """Return what is kept of the cell state, and what is added to it."""
        if total.operator not in _ADD:
            raise self._unknown(f"{total.name} is a {total.operator}")
        terms = [self._graph.node(total.input(index)) for index in (0, 1)]
        kept = [
            term
            for term in terms
            if any(self._graph.node(each).operator == "Switch" for each in term.inputs)
        ]
        if len(kept) != 1:
            raise self._unknown("its state is no sum of the last one and something new")
        return kept[0], terms[0] if terms[1] is kept[0] else terms[1]

    def _factors_of_state(self, kept: TfNode) -> tuple[TfNode, str]:
        references = [self._graph.source(each) for each in kept.inputs]
        is_first = self._graph.node(references[0]).operator == "Switch"
        previous, gate = references if is_first else references[::-1]
        if kept.operator != "Mul" or self._graph.node(gate).operator != "Sigmoid":
            raise self._unknown(f"{kept.name} is no product with a gate")
        return self._graph.node(gate), previous

    def _gate(self, reference: str, index: int, state: str) -> tuple[str, float, str | None]:
        """Return the split that a gate takes a part of, what is added to it, and its peephole."""
        waiting, split, bias, peephole = [reference], None, 0.0, None
        while waiting:
            source = self._graph.source(waiting.pop())
            node = self._graph.node(source)
            if node.operator in _ADD and len(waiting) < 4:
                waiting += node.inputs[:2]
            elif node.operator == "Split" and split is None:
                split = node.name
                if source.partition(":")[2] != ("" if index == 0 else str(index)):
                    raise self._unknown("its gates are in another order")
            elif node.operator == "Mul" and peephole is None:
                peephole = self._peephole(node, state)
            else:
                bias += self._number(source)
        if split is None:
            raise self._unknown("it has a gate that no kernel is multiplied for")
        return split, bias, peephole

    def _peephole(self, product: TfNode, state: str) -> str:
        sources = [self._graph.source(each) for each in product.inputs]
        if state not in sources or len(sources) != 2:
            raise self._unknown("it has a peephole of another state")
        return self._constant(sources[0] if sources[1] == state else sources[1])

    def _split(self, candidate: TfNode, splits: list[str]) -> tuple[TfNode, str]:
        """Return the product that all gates are parts of, and its bias."""
        source = self._graph.source(candidate.input(0))
        name, _, index = source.partition(":")
        node = self._graph.nodes[name]
        if {*splits, name} != {name} or index != str(_CANDIDATE) or node.operator != "Split":
            raise self._unknown("its gates are not parts of one product")
        if self._number(node.input(0)) not in (1, -1):
            raise self._unknown("its gates are not parts of the features")
        summed = self._graph.node(node.input(1))
        if summed.operator not in {"BiasAdd", *_ADD} or node.number("num_split") != 4:
            raise self._unknown(f"{summed.name} is a {summed.operator}")
        return self._graph.node(summed.input(0)), self._constant(summed.input(1))

    def _product(self, product: TfNode) -> tuple[str, str, str]:
        """Return what a cell takes, its last h, and its kernel."""
        joined = self._graph.node(product.input(0))
        is_turned = product.number("transpose_a", 5) or product.number("transpose_b", 5)
        if product.operator != "MatMul" or is_turned or joined.operator != "ConcatV2":
            raise self._unknown(f"{product.name} is a {product.operator}")
        taken, before = (self._graph.source(joined.input(index)) for index in (0, 1))
        if len(joined.inputs) != 3 or self._number(joined.inputs[2]) not in (1, -1):
            raise self._unknown(f"{joined.name} joins something else than an input and a state")
        return taken, before, self._constant(product.input(1))

    def _kept(self, previous: str) -> str:
        """Return what a loop computes of what it takes from the step before; it begins with 0."""
        node = self._graph.node(previous)
        merge = self._graph.node(node.input(0)) if node.operator == "Switch" else node
        if merge.operator != "Merge" or previous.partition(":")[2] != "1":
            raise self._unknown(f"{node.name} is no state")
        entered = self._graph.node(merge.input(0))
        first = self._graph.node(entered.input(0)) if entered.operator == "Enter" else entered
        is_zero = first.operator == "Placeholder"
        if first.operator == "Fill":
            is_zero = self._number(first.input(1)) == 0
        elif first.operator == "Const":
            is_zero = self._graph.is_zeros(first)
        if not is_zero:
            raise self._unknown("it begins with states that are neither zeros nor an input")
        return next_step(self._graph, merge)

    def _constant(self, reference: str) -> str:
        node = self._graph.node(reference)
        if node.operator == "Enter":
            node = self._graph.node(node.input(0))
        if not self._graph.is_stored(node):
            raise self._unknown(f"{node.name} is a {node.operator}, and not stored in the file")
        return node.name

    def _number(self, reference: str) -> float:
        node = self._graph.nodes[self._constant(reference)]
        shape = self._graph.stored(node).shape
        if prod(shape) != 1:
            raise self._unknown(f"{node.name} has the shape {shape}, and is no number")
        return float(self._graph.loaded(node).reshape(()))


def next_step(graph: TfGraph, merge: TfNode) -> str:
    """Return what a loop computes for the next step of what it keeps; SpecError if it is none."""
    node = graph.node(merge.input(1)) if merge.operator == "Merge" else merge
    if node.operator != "NextIteration":
        raise SpecError(merge.name, "is no value that a loop keeps")
    return graph.source(node.input(0))
