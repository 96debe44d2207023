"""What an ONNX graph's inputs and outputs stand for: the sequences, or a session's state.

Owns which of them are states, which axes they have, and which nodes lie between. Knows no operator
but the LSTM, and those that take states apart and bring them together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain

from lstm_core.errors import SpecError
from lstm_core.formats.onnx_axes import STAND_INS, Atom, kinds
from lstm_core.formats.onnx_model import FLOAT_TYPES, INTEGER_TYPES, Body, Graph, Input, Node
from lstm_core.formats.onnx_values import Entry, Sequences, State, Value

STATE_OPERATORS = frozenset(
    {"Concat", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose"}
    | {"Unsqueeze", "Cast"}
)
"""What takes states apart and brings them together, one for each layer."""
_INITIAL = slice(5, 7)
"""Where an LSTM takes h and c to begin with."""


def inputs_of(graph: Graph) -> dict[str, Sequences | State]:
    """Return what each input of a graph stands for: those that LSTMs begin with are states.

    What no output depends on is left out.

    Raises:
        SpecError: There are none, or one has not the axes or the type of sequences.
    """
    if not graph.inputs or not graph.outputs:
        raise SpecError(graph.name, "has no inputs or no outputs")
    _, wanted = needed(graph)
    states = _states(graph)
    entries: dict[str, Sequences | State] = {}
    num_sequences = 0
    for each in graph.inputs:
        if each.name in states:
            entries[each.name] = State(is_given=True)
        elif each.name in wanted:
            entries[each.name] = _sequences(each, num_sequences)
            num_sequences += 1
    return entries


def _states(graph: Graph) -> set[str]:
    """Return the names of what LSTMs begin with, and of what that is made of."""
    states: set[str] = set()
    bodies: list[Body] = [graph]
    for body in bodies:
        for node in body.nodes:
            bodies += [each for each in node.attributes.values() if isinstance(each, Body)]
    for body in reversed(bodies):
        for node in reversed(body.nodes):
            if node.operator == "LSTM":
                states.update(node.inputs[_INITIAL])
            elif node.operator in STATE_OPERATORS and states.intersection(node.outputs):
                states.update(node.inputs)
    return states - {""}


def _sequences(given: Input, number: int) -> Sequences:
    """Return what an input stands for: the features are its last axis."""
    is_integer = given.element_type in INTEGER_TYPES
    if not is_integer and given.element_type not in FLOAT_TYPES:
        raise SpecError(given.name, "is of no type that is served: real numbers or integers")
    rank = len(given.shape)
    if rank not in ((2, 3) if not is_integer else (1, 2)):
        raise SpecError(given.name, f"has {rank} axes")
    lengths = [size or STAND_INS[i % 2] for i, size in enumerate(given.shape)]
    atoms = [Atom(f"input {index}", size) for index, size in enumerate(lengths)]
    features = 1
    if not is_integer:
        if given.shape[-1] is None:
            raise SpecError(given.name, "does not tell the number of its features")
        features = given.shape[-1]
        atoms[-1] = Atom("features", features)
    entry = Entry(name=given.name, number=number, features=features)
    return Sequences(axes=tuple((atom,) for atom in atoms), layers=(entry,), is_integer=is_integer)


def outputs_of(names: Sequence[str], values: Mapping[str, Value]) -> list[tuple[str, Sequences]]:
    """Return the outputs that are no states, by name.

    Args:
        names: Of all outputs.
        values: What is known by name.

    Raises:
        SpecError: One is no sequence, or has other axes than another one.
    """
    found: list[tuple[str, Sequences]] = []
    for index, name in enumerate(names):
        value = values.get(name)
        is_state = isinstance(value, State) or (isinstance(value, Sequences) and value.is_state)
        if is_state and index:
            continue
        if not isinstance(value, Sequences):
            raise SpecError(name, "does not come from the graph's input")
        _check_output(name, value)
        found.append((name, value))
    leading = [[kinds(axis) for axis in v.axes[:-1]] for _, v in found if len(v.axes) > 2]
    # What comes from an input past all LSTMs has no names for its axes.
    named = {
        str(each)
        for each in leading
        if not any(kind.startswith("input") for kind in chain.from_iterable(each))
    }
    if len(named) > 1:
        raise SpecError(found[0][0], "has its axes in another order than another output")
    return found


def _check_output(name: str, value: Sequences) -> None:
    value.check_whole()
    last = kinds(value.axes[-1]) if value.axes else []
    lengths = {atom.kind: atom.size for axis in value.axes for atom in axis}
    if lengths.get("features", 1) != 1 and last not in (["features"], ["direction", "features"]):
        raise SpecError(name, "has another last axis than the features")


def needed(body: Body) -> tuple[list[Node], set[str]]:
    """Return the nodes that the outputs depend on, in order, and all names that these take."""
    wanted = set(body.outputs)
    nodes = []
    for node in reversed(body.nodes):
        if wanted.intersection(node.outputs):
            nodes.append(node)
            wanted |= _taken(node)
    return nodes[::-1], wanted


def _taken(node: Node) -> set[str]:
    """Return what a node takes, and what the nodes of the graphs inside it do."""
    bodies = [each for each in node.attributes.values() if isinstance(each, Body)]
    inside = [_taken(each) | set(body.outputs) for body in bodies for each in body.nodes]
    return set(node.inputs).union(*inside)
