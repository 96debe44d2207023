"""A frozen graph of TensorFlow in ONNX's words, so that it can be followed as an ONNX graph is.

Owns the way from the outputs back to the input, the values' names, and what the loops become. What
becomes of a single node is told by `frozen_graph_operators`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from lstm_core.errors import SpecError
from lstm_core.formats.frozen_graph_loops import Loop, loop_of
from lstm_core.formats.frozen_graph_nodes import TfGraph, TfNode
from lstm_core.formats.onnx_building import GraphBuilder
from lstm_core.formats.onnx_model import Graph, Input
from lstm_core.formats.onnx_rnn_cell import CELL, STEPS

MAX_LOOPS = 200
"""Loops' values, each of which is followed through all of the loop's cells."""
MAX_DEPTH = 150
"""Of what is computed from the input to the output, a loop being one step."""

TYPES = {1: 1, 2: 11, 3: 6, 9: 7, 14: 16, 19: 10}
"""ONNX's numbers of TensorFlow's types."""
_SAME = frozenset(
    {"Abs", "Add", "Elu", "Equal", "Erf", "Exp", "Log", "LogSoftmax", "Mul", "Neg", "Range", "Relu"}
    | {"Reshape", "Selu", "Shape", "Sigmoid", "Softmax", "Softplus", "Softsign", "Sqrt", "Sub"}
    | {"Tanh"}
)
"""What takes and gives the same under the same name."""
_RENAMED = {
    "AddV2": "Add",
    "Maximum": "Max",
    "Minimum": "Min",
    "RealDiv": "Div",
}
"""What takes and gives the same under ONNX's name."""
_OUTPUTS = frozenset({"Assert", "Const", "NoOp", "Placeholder"})
"""What no one need take, without being an output."""
_FUNCTIONAL_LOOPS = frozenset({"While", "StatelessWhile", "PartitionedCall"})
_MAX_INTEGERS = 64
"""That tell what a node does: an axis has one."""


class Translation(GraphBuilder):
    """A graph of TensorFlow on its way to one of ONNX."""

    def __init__(self, graph: TfGraph, name: str, operators: Operators) -> None:
        """Begin.

        Args:
            graph: The graph.
            name: Its name.
            operators: What puts a node of each operator into others; the rest stands here.
        """
        super().__init__()
        self._operators = operators
        self._graph = graph
        self._name = name
        self._known: dict[str, str] = {}
        self._cells: set[str] = set()
        self._num_loops = 0
        self._depth = 0

    def graph(self, outputs: Sequence[str] = ()) -> Graph:
        """Return the graph.

        Args:
            outputs: What it gives; none: all that nothing takes.

        Raises:
            SpecError: A node cannot be put into ONNX's words.
        """
        names = [self._value(each) for each in outputs or self._untaken()]
        return self.built(self._name, "TensorFlow", names)

    def _untaken(self) -> list[str]:
        taken = {each.partition(":")[0] for n in self._graph.nodes.values() for each in n.inputs}
        # The last first: what else nobody takes is more often left over than wanted.
        return [
            node.name
            for node in reversed(self._graph.nodes.values())
            if node.name not in taken and node.operator not in _OUTPUTS
        ]

    def _value(self, reference: str) -> str:
        """Return the name of a value, with the nodes that it comes from before it."""
        source = self._graph.source(reference)
        if source not in self._known:
            node = self._graph.node(source)
            if self._depth == MAX_DEPTH:
                raise SpecError(node.name, f"is behind more than {MAX_DEPTH} nodes, or a circle")
            self._depth += 1
            self._known[source] = self._translated(node, source)
            self._depth -= 1
        return self._known[source]

    def _translated(self, node: TfNode, source: str) -> str:
        if self._graph.is_stored(node):
            stored = self._graph.stored(node)
            return self.store_array(node.name, stored.shape, stored.load)
        if node.operator in {"Placeholder", "PlaceholderWithDefault"}:
            return self.add_input(_input(node))
        if node.operator in {"TensorArrayGatherV3", "Exit"}:
            self._num_loops += 1
            if self._num_loops > MAX_LOOPS:
                raise SpecError(node.name, f"is one of more than {MAX_LOOPS} values of loops")
            return self._loop(node, loop_of(self._graph, source))
        if node.operator in _SAME or node.operator in _RENAMED:
            operator = _RENAMED.get(node.operator, node.operator)
            return self.node(node, operator, [self._value(each) for each in node.inputs])
        translate = self._operators.get(node.operator)
        if translate is None or ":" in source:
            problem = f"is a {node.operator}, which is not served in a frozen graph"
            if node.operator in _FUNCTIONAL_LOOPS:
                problem += "; freeze it with lower_control_flow"
            raise SpecError(node.name, problem)
        return translate(self, node)

    def node(
        self,
        node: TfNode,
        operator: str,
        inputs: Iterable[str],
        suffix: str = "",
        **attributes: float,
    ) -> str:
        """Add a node, and return the name of what it gives.

        Args:
            node: What it is made of.
            operator: ONNX's.
            inputs: Names of values.
            suffix: Of its name, where it is not the last that the node becomes.
            attributes: Its attributes.
        """
        return self.add(node.name + suffix, operator, inputs, attributes=attributes)

    def value(self, node: TfNode, index: int) -> str:
        """Return the name of an input, with the nodes that it comes from."""
        if index >= len(node.inputs):
            raise SpecError(node.name, f"has {len(node.inputs)} inputs only")
        return self._value(node.inputs[index])

    def maker(self, node: TfNode, index: int) -> TfNode:
        """Return the node that an input comes from; raises as `value`."""
        return self._graph.node(node.input(index))

    def integers(self, node: TfNode, index: int) -> list[int]:
        """Return an input that is stored integers; raises as `value`."""
        name = self.value(node, index)
        stored = self._stored.get(name)
        array = None if stored is None else stored.load()
        if array is None or array.dtype.kind != "i" or array.size > _MAX_INTEGERS:
            raise SpecError(node.name, "is told by the values themselves what it does")
        return [int(each) for each in array.reshape(-1)]

    def _loop(self, node: TfNode, loop: Loop) -> str:
        """Add a loop's cells, one node each, and return what is asked of the last one."""
        steps = [self._value(each) for each in loop.steps]
        given = last = self.node(node, STEPS, [self._value(loop.source), *steps], "/steps")
        for cell in loop.cells:
            stored = [cell.kernel, cell.bias, *(cell.peepholes or ("", "", "")), cell.projection]
            names = [self._value(name) if name else "" for name in stored]
            sequence, last = f"{cell.gives} in all steps", f"{cell.gives} in the last step"
            # A loop may be asked for all steps and for the last.
            if sequence not in self._cells:
                self._cells.add(sequence)
                options = {"options": cell.options}
                self.add(cell.name, CELL, (given, *names), (sequence, last), options)
            given = sequence
        return last if node.operator == "Exit" else given


def _input(node: TfNode) -> Input:
    shape = node.attributes.get("shape")
    dims = None if shape is None else shape.message(7)
    if dims is None or dims.integer(3):
        raise SpecError(node.name, "does not tell how many axes it has")
    sizes = [each.integer(1) for each in dims.messages(2)]
    return Input(
        name=node.name,
        element_type=TYPES.get(node.number("dtype", 6), 0),
        shape=tuple(size if size > 0 else None for size in sizes),
    )


Operators = Mapping[str, Callable[[Translation, TfNode], str]]
"""What puts a node of each operator into ONNX's words, and returns the name of its value."""
