"""ONNX graphs with LSTMs into networks, without the `onnx` package.

A graph is followed from its inputs to its outputs: what it computes of shapes is computed, and
what it does to the sequences becomes a layer. Sizes that a graph leaves open get a number that
stands for them. States that a graph takes as inputs, or gives as outputs, are the session's: it
begins with zeros.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lstm_core.errors import FormatError, SpecError
from lstm_core.formats.onnx_axes import STAND_INS
from lstm_core.formats.onnx_constants import MAX_NUMBERS, evaluate
from lstm_core.formats.onnx_ends import inputs_of, needed, outputs_of
from lstm_core.formats.onnx_junctions import wired
from lstm_core.formats.onnx_model import Body, Graph, Node, Tensor, read_graph
from lstm_core.formats.onnx_operators import read_node
from lstm_core.formats.onnx_values import Broken, Constant, Entry, Sequences, Value
from lstm_core.network import Network

MAX_EXPANSION = 16
"""How many times, in all, the stored numbers may become a part of layers, or be computed with."""
_MAX_COMPUTED = 2 * MAX_NUMBERS
"""Numbers that may be computed with beside these, in all: shapes, and states to begin with."""
MAX_LAYERS_HELD = 1 << 23
"""By all values of a graph together, of which each holds all layers before it: 64 MB."""
_MAX_PROBLEMS = 100
"""That are told at once."""
_NUM_VALUES = {"ConstantOfShape": 0, "Expand": 1, "Reshape": 1, "Shape": 0}
"""How many inputs' numbers become those of the output: the others tell its shape."""
_MOVES = frozenset({"Cast", "Gather", "Identity", "Slice", "Split", "Squeeze", "Unsqueeze"})
"""What gives some of the numbers that it takes as they are."""


def read_onnx(path: str | os.PathLike[str]) -> Network:
    """Read a graph, from its inputs to its outputs.

    Args:
        path: A file that begins with an ONNX model. Files beside it are read where it keeps its
            weights there, and nothing else.

    Raises:
        FormatError: It cannot be read, is damaged, or holds something that cannot be served; then
            `problems` names every such node and why.
    """
    name = os.fspath(path)
    try:
        graph = read_graph(Path(path))
    except (OSError, ValueError) as error:
        raise FormatError(name, [f"is a damaged ONNX file: {error}"]) from error
    return network_of(name, graph)


def network_of(path: str, graph: Graph) -> Network:
    """Return what a graph computes, from its inputs to its outputs.

    Args:
        path: Its file, for messages.
        graph: The graph.

    Raises:
        FormatError: It holds something that cannot be served; then `problems` names every such node
            and why.
    """
    walk = _Walk(graph)
    try:
        outputs = walk.run()
        if walk.problems:
            raise FormatError(path, walk.problems, graph.written_by)
        layers, wiring = wired(walk.entries, outputs)
        name = graph.name or Path(path).stem
        input_size = sum(size for _, size in wiring.inputs)
        return Network(name, input_size, layers, written_by=graph.written_by, wiring=wiring)
    except SpecError as error:
        raise FormatError(path, [str(error)], graph.written_by) from error


class _Walk:
    """One way through a graph.

    Attributes:
        problems: A sentence for each node that stands in the way.
        entries: The graph's inputs that are no states, in its order.
    """

    def __init__(self, graph: Graph) -> None:
        self.problems: list[str] = []
        self.entries: list[Entry] = []
        self._graph = graph
        self._values: dict[str, Value] = {}
        self._stored: dict[str, Tensor] = {}
        # What is computed of the numbers that stand for sizes.
        self._measured: set[str] = set()
        self._is_open = False
        self._times: set[int] = set()
        self._layers_held = 0
        self._numbers_read = 0
        self._numbers_taken = 0
        self._numbers_computed = 0

    def run(self) -> list[tuple[str, Sequences]]:
        """Return the outputs that are no states, by name.

        Raises:
            SpecError: The graph's inputs or outputs cannot be served.
        """
        graph = self._graph
        given = inputs_of(graph)
        self._values |= given
        self.entries = [
            link
            for value in given.values()
            if isinstance(value, Sequences)
            for link in value.layers
            if isinstance(link, Entry)
        ]
        names = {entry.name for entry in self.entries}
        self._is_open = any(None in each.shape for each in graph.inputs if each.name in names)
        self._run(graph)
        return [] if self.problems else outputs_of(graph.outputs, self._values)

    def _run(self, body: Body) -> None:
        self._stored |= body.initializers
        for node in needed(body)[0]:
            if len(self.problems) < _MAX_PROBLEMS:
                self._read(node)

    def _read(self, node: Node) -> None:
        inputs: list[Value | None] = []
        try:
            inputs = [self._value(node, name) for name in node.inputs]
            if any(isinstance(value, Broken) for value in inputs):
                # One sentence a problem: what follows from it is not told again.
                outputs: Sequence[Value] = [Broken()] * len(node.outputs)
            else:
                outputs = self._outputs(node, inputs)
        except (SpecError, OSError, ValueError) as error:
            self.problems.append(_sentence(node, error))
            outputs = [Broken()] * len(node.outputs)
        self._values |= dict(zip(node.outputs, outputs, strict=False))
        self._look_at_time(node, outputs)
        self._layers_held += sum(len(v.layers) for v in outputs if isinstance(v, Sequences))
        if self._layers_held > MAX_LAYERS_HELD:
            raise SpecError(node.name, "is behind too many layers, as too many other nodes are")

    def _look_at_time(self, node: Node, outputs: Sequence[Value]) -> None:
        """Refuse an LSTM that runs over another axis than those in other branches."""
        for value in outputs:
            axes = value.axes if isinstance(value, Sequences) else ()
            self._times |= {atom.size for axis in axes for atom in axis if atom.kind == "time"}
        if len(self._times) > 1:
            raise SpecError(node.name, "runs over another axis than other LSTMs of the graph")

    def _branch(self, node: Node, condition: Value | None) -> Sequence[Value]:
        """Return what a branch of an `If` gives, which the sizes of the values choose."""
        if not isinstance(condition, np.ndarray) or condition.size != 1:
            raise SpecError(node.name, "is an If of something else than sizes")
        branch = node.attributes.get("then_branch" if condition.all() else "else_branch")
        if not isinstance(branch, Body):
            raise SpecError(node.name, "is an If without its branches")
        self._run(branch)
        given = [self._value(node, name) for name in branch.outputs]
        return [Broken() if value is None else value for value in given]

    def _outputs(self, node: Node, inputs: list[Value | None]) -> Sequence[Value]:
        if node.operator == "If":
            return self._branch(node, inputs[0] if inputs else None)
        constants = [value for value in inputs if value is None or isinstance(value, np.ndarray)]
        if len(constants) == len(inputs):
            computed = evaluate(node, constants)
            if computed is None:
                raise SpecError(node.name, f"is a {node.operator}, which is not served")
            if node.operator == "Constant":
                self._numbers_read += sum(array.size for array in computed)
            self._count(node, [array for array in constants if array is not None], computed)
            self._measure(node, computed)
            return computed
        self._take(node, constants)
        if node.operator == "Shape" and isinstance(inputs[0], Sequences):
            if self._is_open:
                self._measured |= set(node.outputs)
            return [_shape(node, inputs[0])]
        for name, value in zip(node.inputs, inputs, strict=True):
            if not isinstance(value, np.ndarray) or name not in self._measured:
                continue
            if value.dtype.kind == "f" and value.any():
                problem = "computes with the number of time steps or of sequences, which is open"
                raise SpecError(node.name, problem)
        return read_node(node, inputs, self._graph.opset)

    def _value(self, node: Node, name: str) -> Value | None:
        if not name:
            return None
        if name not in self._values:
            if name not in self._stored:
                raise SpecError(node.name, f"takes {name:.80}, which is nowhere")
            array = self._stored[name].load()
            self._numbers_read += array.size
            self._values[name] = array
        return self._values[name]

    def _measure(self, node: Node, computed: Sequence[Constant]) -> None:
        """Remember what depends on sizes that are open."""
        values = node.inputs[: _NUM_VALUES.get(node.operator, len(node.inputs))]
        is_moved = node.operator in _MOVES
        if self._measured.intersection(values) and not (
            # Another size out of a shape, such as the number of features.
            is_moved and all((array < min(STAND_INS)).all() for array in computed)
        ):
            self._measured |= set(node.outputs)

    def _count(self, node: Node, taken: Sequence[Constant], given: Sequence[Constant]) -> None:
        """Count what constants are computed with; what is another view of one costs nothing.

        Raises:
            SpecError: So many nodes compute that they take much more time and memory than the file.
        """
        made = [
            array
            for array in given
            if 0 not in array.strides and not any(np.may_share_memory(array, x) for x in taken)
        ]
        if made:
            self._numbers_computed += sum(array.size for array in (*made, *taken))
        if self._numbers_computed > _MAX_COMPUTED + MAX_EXPANSION * self._numbers_read:
            raise SpecError(node.name, "computes with more numbers than the file could need")

    def _take(self, node: Node, constants: Sequence[Constant | None]) -> None:
        """Count what layers are made of.

        Raises:
            SpecError: The same numbers are taken so often that they take much more memory than
                the file.
        """
        self._numbers_taken += sum(array.size for array in constants if array is not None)
        if self._numbers_taken > MAX_NUMBERS + MAX_EXPANSION * self._numbers_read:
            raise SpecError(node.name, "takes numbers that too many nodes have taken already")


def _shape(node: Node, value: Sequences) -> Value:
    lengths = [int(np.prod([atom.size for atom in axis])) for axis in value.axes]
    start, end = node.attribute("start", 0), node.attribute("end", len(lengths))
    return np.array(lengths[start:end], np.int64)


def _sentence(node: Node, error: Exception) -> str:
    text = str(error)
    return text if text.startswith(node.name) else f"{node.name} ({node.operator}): {text}"
