"""Builds ONNX files without the `onnx` package, so that each part of them can be wrong.

Knows the numbers of the fields. Checks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

UNITS, FEATURES = 2, 3


def varint(value: int) -> bytes:
    """Return an integer as it stands in a message."""
    value &= (1 << 64) - 1
    data = bytearray()
    while value > 0x7F:
        data.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*data, value])


def field(number: int, value: int | bytes | str) -> bytes:
    """Return a field."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def tensor(name: str, array: Any, **others: bytes) -> bytes:
    """Return a tensor of float32 or int64; `others` replaces fields by their names."""
    array = np.asarray(array)
    is_integer = array.dtype.kind == "i"
    parts = {
        "dims": b"".join(field(1, size) for size in array.shape),
        "type": field(2, 7 if is_integer else 1),
        "name": field(8, name),
        "data": field(9, array.astype("<i8" if is_integer else "<f4").tobytes()),
    }
    return b"".join((parts | others).values())


def attribute(name: str, value: Any) -> bytes:
    """Return an attribute of an integer, a number, a text, a tensor or a list of them."""
    if isinstance(value, int):
        kind, data = 2, field(3, value)
    elif isinstance(value, float):
        kind, data = 1, b"\x15" + np.float32(value).tobytes()
    elif isinstance(value, str):
        kind, data = 3, field(4, value)
    elif isinstance(value, bytes):
        kind, data = 4, field(5, value)
    elif value and isinstance(value[0], str):
        kind, data = 8, b"".join(field(9, each) for each in value)
    elif value and isinstance(value[0], float):
        kind, data = 6, b"".join(b"\x3d" + np.float32(each).tobytes() for each in value)
    else:
        kind, data = 7, b"".join(field(8, each) for each in value)
    return field(1, name) + data + field(20, kind)


Names = Sequence[str]


def node(
    operator: str, inputs: Names, outputs: Names, domain: str = "", **attributes: Any
) -> bytes:
    """Return a node, with the name of its operator in lower case."""
    parts = [field(1, name) for name in inputs] + [field(2, name) for name in outputs]
    parts += [field(3, operator.lower()), field(4, operator), field(7, domain)]
    parts += [field(5, attribute(name, value)) for name, value in attributes.items()]
    return b"".join(parts)


def value(name: str, shape: Sequence[int | str], kind: int = 1) -> bytes:
    """Return the description of an input or output."""
    dims = b"".join(field(1, field(1 if isinstance(d, int) else 2, d)) for d in shape)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, dims)))


def model(
    nodes: Sequence[bytes],
    tensors: Sequence[bytes],
    *,
    inputs: Sequence[bytes] | None = None,
    outputs: Sequence[str] = ("y",),
    opset: int = 17,
) -> bytes:
    """Return a model that takes `x`, `(time, batch, features)`, unless told otherwise."""
    if inputs is None:
        inputs = [value("x", ["time", "batch", FEATURES])]
    graph = b"".join(
        [field(1, each) for each in nodes]
        + [field(2, "graph")]
        + [field(5, each) for each in tensors]
        + [field(11, each) for each in inputs]
        + [field(12, value(name, [])) for name in outputs]
    )
    start = field(1, 8) + field(2, "tests") + field(3, "1")
    return start + field(7, graph) + field(8, field(2, opset))


def lstm_tensors(num_directions: int = 1) -> dict[str, Any]:
    """Return the weights of an LSTM."""
    random = np.random.default_rng(0)
    shapes = {
        "W": (num_directions, 4 * UNITS, FEATURES),
        "R": (num_directions, 4 * UNITS, UNITS),
        "B": (num_directions, 8 * UNITS),
    }
    return {name: random.normal(size=shape) for name, shape in shapes.items()}


def save(
    path: Path, nodes: Sequence[bytes], tensors: Mapping[str, Any] | None = None, **options: Any
) -> Path:
    """Write a model; `tensors` are beside the weights of an LSTM and some axes."""
    known = lstm_tensors() | {"zero": np.array([0]), "one": np.array([1])} | dict(tensors or {})
    stored = [
        array if isinstance(array, bytes) else tensor(name, array) for name, array in known.items()
    ]
    path.write_bytes(model(nodes, stored, **options))
    return path


def lstm(outputs: Names = ("Y",), inputs: Names = ("x", "W", "R", "B"), **options: Any) -> bytes:
    """Return an LSTM node."""
    return node("LSTM", inputs, outputs, **options)


SQUEEZE = node("Squeeze", ["Y", "one"], ["y"])
"""What takes the direction out of an LSTM's output."""
