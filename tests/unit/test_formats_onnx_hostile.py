"""ONNX files that are damaged, ask for too much, or look for other files: each is refused."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from lstm_core.errors import FormatError
from lstm_core.formats import onnx, onnx_model, protobuf
from lstm_core.formats.read import read_network
from lstm_core.network import Recurrent
from lstm_core.weights import reorder_gates
from tests.unit.onnx_files import (
    SQUEEZE,
    UNITS,
    field,
    lstm,
    lstm_tensors,
    node,
    save,
    tensor,
    value,
)


def problem(path: Any) -> str:
    """Return what a file is refused for."""
    with pytest.raises(FormatError) as caught:
        read_network(path)
    return str(caught.value)


def shape_of(*sizes: int) -> bytes:
    """Return the sizes of a tensor."""
    return b"".join(field(1, size) for size in sizes)


TENSORS = {
    "huge": (tensor("R", np.ones(1), dims=shape_of(1 << 40, 1 << 20)), "numbers for the shape"),
    "negative": (tensor("R", np.ones(1), dims=shape_of(-1)), "has a tensor of shape (-1,)"),
    "type": (tensor("R", np.ones(1), type=field(2, 8)), "numbers of the type 8"),
    "bytes": (tensor("R", np.ones(1), data=field(9, b"abc")), "multiple of element size"),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_that_do_not_fit(case, tmp_path):
    """A shape takes no more memory than the file has numbers."""
    stored, expected = TENSORS[case]
    assert expected in problem(save(tmp_path / "model.onnx", [lstm(), SQUEEZE], {"R": stored}))


def test_many_nodes_are_few_layers_and_sentences(tmp_path, monkeypatch):
    """Each value holds all layers before it; a graph holds so many, and tells so much, at most."""
    names = [f"v{index}" for index in range(300)]
    begin = [lstm(), SQUEEZE, node("Tanh", ["y"], names[:1])]
    chain = [node("Tanh", [a], [b]) for a, b in pairwise(names)]
    path = tmp_path / "model.onnx"
    monkeypatch.setattr(onnx, "MAX_LAYERS_HELD", 40_000)
    assert "is behind too many layers" in problem(save(path, [*begin, *chain], outputs=names[-1:]))
    broken = [node("Foo", ["y"], [name]) for name in names]
    assert problem(save(path, [*begin[:2], *broken], outputs=names)).count("is a Foo") == 100
    monkeypatch.setattr(onnx_model, "MAX_NODES", 200)
    assert "has more than 200 nodes" in problem(save(path, [*begin, *chain], outputs=names[-1:]))


def external(location: str, name: str = "R", **entries: str) -> bytes:
    """Return the recurrent weights, kept in another file."""
    pairs = {"location": location, **entries}
    data = b"".join(field(13, field(1, key) + field(2, text)) for key, text in pairs.items())
    sizes = shape_of(1, 4 * UNITS, UNITS)
    return tensor(name, np.ones(1), dims=sizes, data=data + field(14, 1))


def test_weights_in_a_file_beside_it(tmp_path):
    """As PyTorch keeps them: found by name, offset and length."""
    array = lstm_tensors()["R"].astype("<f4")
    (tmp_path / "weights.bin").write_bytes(b"1234" + array.tobytes())
    stored = external("weights.bin", offset="4", length=str(array.nbytes))
    path = save(tmp_path / "model.onnx", [lstm(), SQUEEZE], {"R": stored})
    (layer,) = read_network(path).layers
    assert isinstance(layer, Recurrent)
    expected = reorder_gates(array[0].T, "iofc")
    np.testing.assert_array_equal(layer.weights.recurrent_kernel, expected)


def test_a_file_beside_it_is_read_so_often_and_no_more(tmp_path):
    """Many tensors of the same numbers take no more memory than twice their file."""
    (tmp_path / "weights.bin").write_bytes(bytes(64))
    stored = {f"R{index}": external("weights.bin", name=f"R{index}") for index in range(3)}
    joined = node("Concat", list(stored), ["R"], axis=0)
    path = save(tmp_path / "model.onnx", [joined, lstm(), SQUEEZE], stored)
    assert "asks for more numbers than weights.bin holds" in problem(path)


PLACES = {
    "parent": ({"location": "../weights.bin"}, "which is no file beside it"),
    "absolute": ({"location": "/etc/passwd"}, "which is no file beside it"),
    "nothing": ({"location": ""}, "which is no file beside it"),
    "itself": ({"location": "."}, "which is no file beside it"),
    "link": ({"location": "link"}, "which is not beside it"),
    "directory": ({"location": "directory"}, "which is not beside it"),
    "absent": ({"location": "absent"}, "which is not beside it"),
    "behind": ({"location": "weights.bin", "offset": "1", "length": "64"}, "behind the end"),
    "before": ({"location": "weights.bin", "offset": "-8", "length": "8"}, "behind the end"),
    "number": ({"location": "weights.bin", "offset": "1e3"}, "invalid literal"),
}


@pytest.mark.parametrize("case", PLACES)
def test_no_other_file_is_opened(case, tmp_path):
    """Not above the model's directory, not through a link, not beyond a file's end."""
    entries, expected = PLACES[case]
    directory = tmp_path / "models"
    (directory / "directory").mkdir(parents=True)
    for place in (tmp_path, directory):
        (place / "weights.bin").write_bytes(bytes(64))
    (directory / "link").symlink_to(tmp_path / "weights.bin")
    stored = external(**entries)
    path = save(directory / "model.onnx", [lstm(), SQUEEZE], {"R": stored})
    assert expected in problem(path)


def test_what_is_computed_is_bounded(tmp_path):
    """Shapes that a graph asks for take no memory beyond a limit."""
    huge = {"huge": np.array([1 << 20, 1 << 20])}
    state = node("ConstantOfShape", ["huge"], ["h"])
    nodes = [state, lstm(inputs=("x", "W", "R", "B", "", "h", "h")), SQUEEZE]
    assert "constantofshape: its constants do not fit" in problem(
        save(tmp_path / "model.onnx", nodes, huge)
    )
    doubled = [node("Concat", [f"c{i}", f"c{i}"], [f"c{i + 1}"], axis=1) for i in range(40)]
    nodes = [*doubled, lstm(inputs=("x", "c40", "R", "B")), SQUEEZE]
    found = problem(save(tmp_path / "model.onnx", nodes, {"c0": np.ones((1, 8, 3))}))
    assert "computes with more numbers than the file could need" in found
    twice = node("Concat", ["s0", "s0"], ["s1"], axis=0)
    nodes = [node("ConstantOfShape", ["size"], ["s0"]), twice, node("Add", ["x", "s1"], ["y"])]
    found = problem(save(tmp_path / "model.onnx", nodes, {"size": np.array([1 << 24])}))
    assert "more than 16777216 numbers" in found
    sums = [node("Add", [f"s{i}", "s0"], [f"s{i + 1}"]) for i in range(9)]
    nodes = [node("ConstantOfShape", ["size"], ["s0"]), *sums, node("Add", ["x", "s9"], ["y"])]
    found = problem(save(tmp_path / "model.onnx", nodes, {"size": np.array([1 << 23])}))
    assert "computes with more numbers than the file could need" in found
    parts = node("Split", ["c0", "parts"], ["c1"], axis=2)
    nodes = [parts, lstm(inputs=("x", "c1", "R", "B")), SQUEEZE]
    stored = {"c0": np.ones((1, 8, 3)), "parts": np.zeros(1000, np.int64)}
    assert "1000 parts for 1 outputs" in problem(save(tmp_path / "model.onnx", nodes, stored))
    identities = [node("Tanh", [f"t{i}"], [f"t{i + 1}"]) for i in range(1001)]
    nodes = [node("Identity", ["x"], ["t0"]), *identities, lstm(inputs=("t1001", "W", "R"))]
    assert "are more than 1000" in problem(save(tmp_path / "model.onnx", [*nodes, SQUEEZE]))


def test_weights_that_are_taken_again_and_again(tmp_path):
    """Many nodes of the same weights do not take many times their memory."""
    size = 1100
    square = np.ones((size, size))
    nodes = [node("Gemm", [f"g{i}", "S"], [f"g{i + 1}"], transB=1) for i in range(40)]
    nodes += [node("Gather", ["S", "x"], ["g0"], axis=0)]
    nodes = nodes[-1:] + nodes[:-1]
    path = save(
        tmp_path / "model.onnx",
        [*nodes, lstm(inputs=("g40", "W", "R")), SQUEEZE],
        {"S": square, "W": np.ones((1, 8, size))},
        inputs=[value("x", ["t", "b"], 7)],
    )
    assert "takes numbers that too many nodes have taken already" in problem(path)


def test_a_file_larger_than_any_message(tmp_path):
    """What is no ONNX file, and only begins like one, is not read into memory."""
    path = save(tmp_path / "model.onnx", [lstm(), SQUEEZE])
    os.truncate(path, 1 << 40)
    assert "where Protocol Buffers allow" in problem(path)


def test_too_many_fields(tmp_path, monkeypatch):
    """A file of nothing but small fields is refused before it takes memory."""
    path = tmp_path / "model.onnx"
    monkeypatch.setattr(protobuf, "MAX_FIELDS", 1000)
    path.write_bytes(b"\x08\x08\x12\x00" + b"\x12\x00" * 999)
    assert "has more than 1000 fields" in problem(path)
