"""ONNX graphs with LSTMs into networks, without the `onnx` package.

A graph is followed from its input to its outputs: what it computes of shapes is computed, and
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
from lstm_core.formats.onnx_axes import STAND_INS, Atom, kinds
from lstm_core.formats.onnx_constants import MAX_NUMBERS, evaluate
from lstm_core.formats.onnx_junctions import wired
from lstm_core.formats.onnx_model import (
    FLOAT_TYPES,
    INTEGER_TYPES,
    Body,
    Graph,
    Input,
    Node,
    Tensor,
    read_graph,
)
from lstm_core.formats.onnx_operators import read_node
from lstm_core.formats.onnx_values import Broken, Constant, Sequences, State, Value
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
    """Read a graph, from its first input to its outputs.

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
    """Return what a graph computes, from its first input to its outputs.

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
        layers, wiring = wired(outputs, graph.inputs[0].name, walk.input_size)
        name = graph.name or Path(path).stem
        return Network(name, walk.input_size, layers, written_by=graph.written_by, wiring=wiring)
    except SpecError as error:
        raise FormatError(path, [str(error)], graph.written_by) from error


class _Walk:
    """One way through a graph.

    Attributes:
        problems: A sentence for each node that stands in the way.
        input_size: Features of one time step.
    """

    def __init__(self, graph: Graph) -> None:
        self.problems: list[str] = []
        self.input_size = 1
        self._graph = graph
        self._values: dict[str, Value] = {}
        self._stored: dict[str, Tensor] = {}
        # What is computed of the numbers that stand for sizes.
        self._measured: set[str] = set()
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
        if not graph.inputs or not graph.outputs:
            raise SpecError(graph.name, "has no inputs or no outputs")
        first, *others = graph.inputs
        self._values[first.name] = self._input(first)
        self._values |= {each.name: State(is_given=True) for each in others}
        self._run(graph)
        return self._outputs_of(graph.outputs)

    def _run(self, body: Body) -> None:
        self._stored |= body.initializers
        for node in _needed(body):
            if len(self.problems) < _MAX_PROBLEMS:
                self._read(node)

    def _input(self, given: Input) -> Sequences:
        """Return what the graph's input stands for: the features are its last axis."""
        is_integer = given.element_type in INTEGER_TYPES
        if not is_integer and given.element_type not in FLOAT_TYPES:
            raise SpecError(given.name, "is of no type that is served: real numbers or integers")
        rank = len(given.shape)
        if rank not in ((2, 3) if not is_integer else (1, 2)):
            raise SpecError(given.name, f"has {rank} axes")
        lengths = [size or STAND_INS[i % 2] for i, size in enumerate(given.shape)]
        atoms = [Atom(f"input {index}", size) for index, size in enumerate(lengths)]
        if not is_integer:
            if given.shape[-1] is None:
                raise SpecError(given.name, "does not tell the number of its features")
            self.input_size = given.shape[-1]
            atoms[-1] = Atom("features", self.input_size)
        return Sequences(axes=tuple((atom,) for atom in atoms), is_integer=is_integer)

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
            if None in self._graph.inputs[0].shape:
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

    def _outputs_of(self, names: Sequence[str]) -> list[tuple[str, Sequences]]:
        found: list[tuple[str, Sequences]] = []
        if self.problems:
            return found
        for index, name in enumerate(names):
            value = self._values.get(name)
            is_state = isinstance(value, State) or (
                isinstance(value, Sequences) and value.is_state and index > 0
            )
            if is_state and index:
                continue
            if not isinstance(value, Sequences):
                raise SpecError(name, "does not come from the graph's input")
            _check_output(name, value)
            found.append((name, value))
        leading = {tuple(map(tuple, map(kinds, v.axes[:-1]))) for _, v in found if len(v.axes) > 2}
        if len(leading) > 1:
            raise SpecError(found[0][0], "has its axes in another order than another output")
        return found


def _check_output(name: str, value: Sequences) -> None:
    value.check_whole()
    last = kinds(value.axes[-1]) if value.axes else []
    lengths = {atom.kind: atom.size for axis in value.axes for atom in axis}
    if lengths.get("features", 1) != 1 and last not in (["features"], ["direction", "features"]):
        raise SpecError(name, "has another last axis than the features")


def _shape(node: Node, value: Sequences) -> Value:
    lengths = [int(np.prod([atom.size for atom in axis])) for axis in value.axes]
    start, end = node.attribute("start", 0), node.attribute("end", len(lengths))
    return np.array(lengths[start:end], np.int64)


def _needed(body: Body) -> list[Node]:
    """Return the nodes that the outputs depend on, in order."""
    wanted = set(body.outputs)
    needed = []
    for node in reversed(body.nodes):
        if wanted.intersection(node.outputs):
            needed.append(node)
            wanted |= _taken(node)
    return needed[::-1]


def _taken(node: Node) -> set[str]:
    """Return what a node takes, and what the nodes of the graphs inside it do."""
    bodies = [each for each in node.attributes.values() if isinstance(each, Body)]
    inside = [_taken(each) | set(body.outputs) for body in bodies for each in body.nodes]
    return set(node.inputs).union(*inside)


def _sentence(node: Node, error: Exception) -> str:
    text = str(error)
    return text if text.startswith(node.name) else f"{node.name} ({node.operator}): {text}"
