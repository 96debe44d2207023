"""The nodes of a graph of TensorFlow (`GraphDef`), read without it.

Owns the numbers of the fields, and how a constant's numbers are stored. Knows no operator but
those of constants and variables, and what gives a value on as it is.

References:
    `tensorflow/core/framework/graph.proto`, `node_def.proto`, `attr_value.proto`, `tensor.proto`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from lstm_core.errors import SpecError
from lstm_core.formats.onnx_model import Array, Tensor
from lstm_core.formats.protobuf import Message, varint
from lstm_core.formats.tensorflow_bundle import shape_of
from lstm_core.formats.tensors import StoredTensor, to_float32

MAX_GRAPH_BYTES = 2 << 30
"""Of one message."""
MAX_NODES = 20_000
"""A second's work. A loop of one cell has about 150."""
MAX_REPEATED = 1 << 22
"""Numbers that are another one again, which take no bytes in the file: of all constants."""
_MAX_STATE = 1 << 20
"""Numbers of a state to begin with, which are looked at."""

_FLOATS = {1: ("float32", 5, "<f4"), 2: ("float64", 6, "<f8")}
"""The name of each type by its number, the field of its numbers and their dtype there."""
_HALVES = {14: "bfloat16", 19: "float16"}
_INTEGERS = {3: ("<i4", 7), 9: ("<i8", 10), 6: ("<i1", 7), 4: ("<u1", 7), 10: ("<?", 11)}
_PASSES = frozenset({"CheckNumerics", "Identity", "ReadVariableOp", "Snapshot", "StopGradient"})
_VARIABLES = frozenset({"VarHandleOp", "Variable", "VariableV2"})

Variables = Callable[[str], StoredTensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class TfNode:
    """One operation.

    Attributes:
        name: Its name.
        operator: What it does.
        inputs: What it takes: a node's name, with `:1` and so on for another output than its first.
        attributes: By name, as messages.
    """

    name: str
    operator: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Message]

    def input(self, index: int) -> str:
        """Return one of what it takes; SpecError where there are not so many."""
        if index >= len(self.inputs):
            raise SpecError(self.name, f"has {len(self.inputs)} inputs only")
        return self.inputs[index]

    def number(self, attribute: str, field: int = 3) -> int:
        """Return an attribute that is an integer (field 3), a flag (5) or a type (6); 0 if none."""
        found = self.attributes.get(attribute)
        return 0 if found is None else found.integer(field)

    def numbers(self, attribute: str) -> list[int]:
        """Return an attribute that is a list of integers, empty where there is none."""
        found = self.attributes.get(attribute)
        listed = None if found is None else found.message(1)
        return [] if listed is None else listed.integers(3)

    def text(self, attribute: str) -> str:
        """Return an attribute that is a text, empty where there is none."""
        found = self.attributes.get(attribute)
        return "" if found is None else found.text(2)

    def real(self, attribute: str, default: float) -> float:
        """Return an attribute that is a number."""
        found = self.attributes.get(attribute)
        values = np.empty(0) if found is None else found.floats(4)
        return float(values[-1]) if values.size else default


class TfGraph:
    """A graph, by the names of its nodes."""

    def __init__(self, message: Message, variables: Variables | None = None) -> None:
        """Read the nodes.

        Args:
            message: A `GraphDef`.
            variables: Returns a variable by its name, or raises KeyError; None: there are none.

        Raises:
            ValueError: It is damaged, or has too many.
        """
        if len(message.blobs(1)) > MAX_NODES:
            raise ValueError(f"has more than {MAX_NODES} nodes")
        listed = [_node(each) for each in message.messages(1)]
        self.nodes = {node.name: node for node in listed}
        if len(self.nodes) < len(listed):
            raise ValueError("has two nodes of one name")
        self._variables = variables
        self._sources: dict[str, str] = {}
        self._zeros: dict[str, bool] = {}
        self._repeated_left = MAX_REPEATED

    def node(self, reference: str) -> TfNode:
        """Return the node that a reference names, behind those that give on what they are given.

        Raises:
            SpecError: There is none, or they go round in a circle.
        """
        return self.nodes[self.source(reference).partition(":")[0]]

    def source(self, reference: str) -> str:
        """Return the reference behind nodes that give on what they are given; raises as `node`."""
        passed: dict[str, None] = {}
        while reference not in self._sources:
            name = reference.partition(":")[0]
            node = self.nodes.get(name)
            if node is None:
                raise SpecError(name, "is taken, but is nowhere")
            if node.operator not in _PASSES or not node.inputs:
                self._sources[reference] = reference.removesuffix(":0")
                break
            if reference in passed:
                raise SpecError(name, "is a circle")
            passed[reference] = None
            reference = node.inputs[0]
        found = self._sources[reference]
        self._sources |= dict.fromkeys(passed, found)
        return found

    def is_stored(self, node: TfNode) -> bool:
        """Whether a node is a constant, or a variable that is stored beside the graph."""
        is_variable = node.operator in _VARIABLES and self._variables is not None
        return node.operator == "Const" or is_variable

    def stored(self, node: TfNode) -> Tensor:
        """Return what a constant or a variable holds.

        Raises:
            SpecError: It is neither, or its shape is not known, or it is missing.
        """
        if node.operator in _VARIABLES and self._variables is not None:
            try:
                variable = self._variables(node.text("shared_name") or node.name)
            except KeyError:
                raise SpecError(node.name, "is a variable that is not in the file") from None
            return Tensor(shape=variable.shape, load=variable.load)
        value = node.attributes.get("value")
        message = None if value is None else value.message(8)
        if node.operator != "Const" or message is None:
            raise SpecError(node.name, "is not stored in the file")
        try:
            shape = shape_of(message.message(2))
        except ValueError as error:
            raise SpecError(node.name, str(error)) from error

        def load() -> Array:
            return self._filled(_numbers(message), prod(shape)).reshape(shape)

        return Tensor(shape=shape, load=load)

    def loaded(self, node: TfNode) -> Array:
        """Return the numbers of what is stored; raises as `stored`, also where they are damaged."""
        try:
            return self.stored(node).load()
        except ValueError as error:
            raise SpecError(node.name, str(error)) from error

    def is_zeros(self, node: TfNode) -> bool:
        """Whether a constant is zeros only; raises as `loaded`."""
        # Each cell of a loop may begin with the same one.
        if node.name not in self._zeros:
            is_small = prod(self.stored(node).shape) <= _MAX_STATE
            self._zeros[node.name] = is_small and not self.loaded(node).any()
        return self._zeros[node.name]

    def _filled(self, values: Array, count: int) -> Array:
        """Return as many numbers as a shape has, of which the last may stand for all behind it."""
        if values.size == count:
            return values
        self._repeated_left -= count
        if not 0 < values.size < count or self._repeated_left < 0:
            raise ValueError(f"has {values.size} numbers, where {count} are told")
        return np.concatenate([values, np.full(count - values.size, values[-1])])


def _numbers(message: Message) -> Array:
    kind = message.integer(1)
    content = (message.blobs(4) or [memoryview(b"")])[-1]
    if kind in _FLOATS:
        name, field, dtype = _FLOATS[kind]
        if content:
            return to_float32(content, name)
        with np.errstate(over="ignore"):
            return message.floats(field, dtype).astype(np.float32)
    if kind in _HALVES:
        halves = np.array(message.integers(13), np.int64).astype("<u2").tobytes()
        return to_float32(content or halves, _HALVES[kind])
    if kind not in _INTEGERS:
        raise ValueError(f"has numbers of the type {kind}, which is not read")
    dtype, field = _INTEGERS[kind]
    if content:
        return np.frombuffer(content, dtype).astype(np.int64)
    return np.array(message.integers(field), np.int64)


def _node(message: Message) -> TfNode:
    attributes = {}
    for entry in message.messages(5):
        value = entry.message(2)
        if value is not None:
            attributes[entry.text(1)] = value
    return TfNode(
        name=message.text(1),
        operator=message.text(2),
        inputs=tuple(each for each in message.texts(3) if not each.startswith("^")),
        attributes=attributes,
    )


def read_message(path: Path) -> Message:
    """Return the message that a file is; ValueError if it is too large or damaged."""
    if path.stat().st_size > MAX_GRAPH_BYTES:
        raise ValueError(f"takes more bytes than the {MAX_GRAPH_BYTES} of one message")
    return Message(memoryview(path.read_bytes()))


def is_frozen_graph(_path: Path, start: bytes) -> bool:
    """Whether a file begins as a graph does: with a node that has a name and an operator."""
    try:
        data = memoryview(start)
        if start[:1] != b"\n":
            return False
        _, at = varint(data, 1)
        for field in (b"\n", b"\x12"):
            if start[at : at + 1] != field:
                return False
            size, at = varint(data, at + 1)
            text = str(data[at : at + size], "ascii")
            if len(text) != size or not text.isprintable() or not text:
                return False
            at += size
    except ValueError:
        return False
    return True
