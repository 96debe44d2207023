"""The messages of an ONNX file that describe a graph, read without the `onnx` package.

Owns the field numbers, where a tensor's numbers lie, and the files beside the model that may hold
them. Knows no operator.

References:
    https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from lstm_core.errors import SpecError
from lstm_core.formats.protobuf import Message
from lstm_core.formats.tensors import to_float32

Array = npt.NDArray[Any]
Scalar = TypeVar("Scalar", int, float, str)

MAX_MODEL_BYTES = 2 << 30
"""Of one message. Larger models keep their weights in other files."""

MAX_DEPTH = 8
"""Of graphs inside nodes."""

MAX_NODES = 20_000
"""Of one graph: a second's work."""

_FLOATS = {1: "float32", 10: "float16", 11: "float64", 16: "bfloat16"}
_INTEGERS = {2: "u1", 3: "i1", 4: "u2", 5: "i2", 6: "i4", 7: "i8", 9: "u1"}
FLOAT_TYPES = frozenset(_FLOATS)
_SECOND_KEYS = b"\x12\x1a\x22\x28\x32\x3a\x42"
"""How the fields of a model that may stand second begin."""
INTEGER_TYPES = frozenset({6, 7})
"""The types of a graph's input that are served, by their numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tensor:
    """A stored array.

    Attributes:
        shape: Its shape.
        load: Reads it, as float32 or int64; ValueError or OSError where that fails.
    """

    shape: tuple[int, ...]
    load: Callable[[], Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One operation.

    Attributes:
        operator: What it does, with its domain where that is not ONNX's own.
        name: Its name, or that of its first output.
        inputs: Names of what it takes, empty where something is left out.
        outputs: Names of what it gives.
        attributes: Numbers, texts, lists of them, `Tensor`s and `Body`s; None where it is something
            else.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    def attribute(self, name: str, default: Scalar) -> Scalar:
        """Return an attribute of the default's type, or the default.

        Raises:
            SpecError: It is of another type, or no finite number.
        """
        value = self.attributes.get(name, default)
        is_right = type(value) is type(default)
        if not is_right or (type(value) is float and not math.isfinite(value)):
            raise SpecError(self.name, f"its attribute {name} is not what it should be")
        return value

    def listed(self, name: str, kind: type[Scalar]) -> list[Scalar] | None:
        """Return an attribute that is a list, None where there is none.

        Raises:
            SpecError: It is something else, or a list of something else.
        """
        if name not in self.attributes:
            return None
        values = self.attributes[name]
        if not isinstance(values, list) or not all(type(value) is kind for value in values):
            raise SpecError(self.name, f"its attribute {name} is no list that it should be")
        return values


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A graph inside a node, such as a branch of an `If`.

    Attributes:
        nodes: In an order in which they can run.
        initializers: Stored arrays by name.
        outputs: Names of what it gives.
    """

    nodes: tuple[Node, ...]
    initializers: dict[str, Tensor]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What a graph takes.

    Attributes:
        name: Its name.
        element_type: The number of its type, 0 where it is no tensor.
        shape: Its sizes, None where one is not fixed.
    """

    name: str
    element_type: int
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph(Body):
    """A model's graph.

    Attributes:
        name: Its name.
        opset: The version of ONNX's own operators.
        written_by: The program that wrote it, with its version where that is known.
        inputs: What it takes, without the initializers.
    """

    name: str
    opset: int
    written_by: str
    inputs: tuple[Input, ...]


class FilesBeside:
    """The files in a model's directory that may hold its numbers, and no others."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._bytes_left: dict[str, int] = {}

    def read(self, tensor: Message) -> bytes:
        """Return the bytes of a tensor that is kept in a file beside the model.

        Raises:
            ValueError: It is kept elsewhere, or too much is asked of the file.
        """
        entries = {entry.text(1): entry.text(2) for entry in tensor.messages(13)}
        location = entries.get("location", "")
        file = self._directory / location
        if Path(location).name != location or location in {"", ".", ".."} or "\0" in location:
            raise ValueError(f"keeps its numbers at {location!r:.80}, which is no file beside it")
        if file.is_symlink() or not file.is_file():
            raise ValueError(f"keeps its numbers in {location!r:.80}, which is not beside it")
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", "-1"))
        size = file.stat().st_size
        length = size - offset if length < 0 else length
        if offset < 0 or offset + length > size:
            raise ValueError(f"keeps its numbers behind the end of {location:.80}")
        # Tensors may share numbers, but not so many that they take memory which no file took.
        self._bytes_left[location] = self._bytes_left.get(location, 2 * size) - length
        if self._bytes_left[location] < 0:
            raise ValueError(f"asks for more numbers than {location:.80} holds")
        with file.open("rb") as opened:
            opened.seek(offset)
            return opened.read(length)


def is_onnx(_path: Path, start: bytes) -> bool:
    """Whether a file begins as an ONNX model does: with the version of its format.

    Protocol Buffers have no magic number; the order of the fields is every writer's.
    """
    return len(start) > 4 and start[0] == 0x08 and 1 <= start[1] < 0x40 and start[2] in _SECOND_KEYS


def read_graph(path: Path) -> Graph:
    """Read the graph of a model.

    Raises:
        ValueError: It is damaged.
        OSError: It cannot be read.
    """
    size = path.stat().st_size
    if size > MAX_MODEL_BYTES:
        raise ValueError(f"takes {size} bytes, where Protocol Buffers allow {MAX_MODEL_BYTES}")
    model = Message(memoryview(path.read_bytes()))
    graph = model.message(7)
    opsets = [opset.integer(2) for opset in model.messages(8) if opset.text(1) in {"", "ai.onnx"}]
    if graph is None or len(opsets) != 1:
        raise ValueError("has no graph, or does not tell the version of its operators")
    body = _body(graph, FilesBeside(path.parent), 0)
    inputs = [_input(message) for message in graph.messages(11)]
    producer = " ".join(part for part in (model.text(2), model.text(3)) if part)
    return Graph(
        name=graph.text(2),
        opset=opsets[0],
        written_by=producer or "an unnamed program",
        nodes=body.nodes,
        initializers=body.initializers,
        inputs=tuple(each for each in inputs if each.name not in body.initializers),
        outputs=body.outputs,
    )


def _body(message: Message, beside: FilesBeside, depth: int) -> Body:
    if depth > MAX_DEPTH:
        raise ValueError(f"has graphs inside each other, more than {MAX_DEPTH}")
    if len(message.blobs(1)) > MAX_NODES:
        raise ValueError(f"has more than {MAX_NODES} nodes")
    return Body(
        nodes=tuple(_node(each, beside, depth) for each in message.messages(1)),
        initializers={each.text(8): _tensor(each, beside) for each in message.messages(5)},
        outputs=tuple(each.text(1) for each in message.messages(12)),
    )


def _input(message: Message) -> Input:
    kind = message.message(2)
    tensor = None if kind is None else kind.message(1)
    if tensor is None:
        return Input(name=message.text(1), element_type=0, shape=())
    shape = tensor.message(2)
    sizes = [] if shape is None else [dim.integer(1) for dim in shape.messages(1)]
    return Input(
        name=message.text(1),
        element_type=tensor.integer(1),
        shape=tuple(size if size > 0 else None for size in sizes),
    )


def _node(message: Message, beside: FilesBeside, depth: int) -> Node:
    outputs = tuple(message.texts(2))
    operator, domain = message.text(4), message.text(7)
    return Node(
        operator=operator if domain in {"", "ai.onnx"} else f"{domain}.{operator}",
        name=message.text(3) or next(iter(outputs), operator),
        inputs=tuple(message.texts(1)),
        outputs=outputs,
        attributes={each.text(1): _attribute(each, beside, depth) for each in message.messages(5)},
    )


def _attribute(message: Message, beside: FilesBeside, depth: int) -> Any:  # noqa: ANN401 - see `Node.attributes`
    kind = message.integer(20)
    if kind == 4:
        tensor = message.message(5)
        return None if tensor is None else _tensor(tensor, beside)
    if kind == 5:
        graph = message.message(6)
        return None if graph is None else _body(graph, beside, depth + 1)
    readers: dict[int, Callable[[], Any]] = {
        1: lambda: float((message.floats(2).tolist() or [0.0])[-1]),
        2: lambda: message.integer(3),
        3: lambda: message.text(4),
        6: lambda: message.floats(7).tolist(),
        7: lambda: message.integers(8),
        8: lambda: message.texts(9),
    }
    return readers.get(kind, lambda: None)()


def _tensor(message: Message, beside: FilesBeside) -> Tensor:
    shape = tuple(message.integers(1))
    kind = message.integer(2)
    if not all(0 <= size < 1 << 63 for size in shape) or len(shape) > 64:
        raise ValueError(f"has a tensor of shape {shape!s:.80}")

    def load() -> Array:
        values = _values(message, kind, beside)
        if values.size != math.prod(shape):
            raise ValueError(f"has {values.size} numbers for the shape {shape!s:.80}")
        return values.reshape(shape)

    return Tensor(shape=shape, load=load)


def _values(message: Message, kind: int, beside: FilesBeside) -> Array:
    if kind not in _FLOATS and kind not in _INTEGERS:
        raise ValueError(f"has numbers of the type {kind}, which is not read")
    is_external = message.integer(14) == 1
    raw = [beside.read(message)] if is_external else message.blobs(9)
    if raw:
        if kind in _FLOATS:
            return to_float32(raw[-1], _FLOATS[kind])
        return np.frombuffer(raw[-1], f"<{_INTEGERS[kind]}").astype(np.int64)
    if kind in (1, 11):
        values = message.floats(4) if kind == 1 else message.floats(10, "<f8")
        with np.errstate(over="ignore"):
            return values.astype(np.float32)
    integers = message.integers(7 if kind == 7 else 5)
    if kind in _FLOATS:
        # Halves are stored as the integers that their bits make.
        return to_float32(np.array(integers, "<u2").tobytes(), _FLOATS[kind])
    return np.array(integers, np.int64)
