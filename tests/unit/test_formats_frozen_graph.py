"""Frozen graphs of TensorFlow, changed by hand: what is followed, and what each refusal says."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstm_core.errors import FormatError
from lstm_core.formats import frozen_graph_nodes
from lstm_core.formats.protobuf import Message
from lstm_core.formats.read import format_at, read_network
from lstm_core.pointwise import Dense
from tests.unit.onnx_files import lstm, node, save
from tests.unit.tensorflow_files import FIXTURES, field

FROZEN = FIXTURES / "tf1" / "frozen.pb"
CELL = "rnn/while/lstm_cell/"
ARRAY = "rnn/while/TensorArray"
LATER = "rnn/while/add_1"
STATE = "rnn/LSTMCellZeroState/zeros"

Parts = dict[str, Any]
"""A node: its `name`, `op`, list of `inputs`, and `attributes` as bytes by name."""


def nodes_of(path: Path) -> dict[str, Parts]:
    """Return the nodes of a graph by name, in its order."""
    found = {}
    for each in Message(memoryview(path.read_bytes())).messages(1):
        attributes = {entry.text(1): bytes(entry.blobs(2)[-1]) for entry in each.messages(5)}
        parts = {"op": each.text(2), "inputs": each.texts(3), "attributes": attributes}
        found[each.text(1)] = {"name": each.text(1), **parts}
    return found


def written(path: Path, nodes: list[Parts]) -> Path:
    """Write a graph."""
    data = b""
    for each in nodes:
        parts = field(1, each["name"].encode()) + field(2, each["op"].encode())
        parts += b"".join(field(3, name.encode()) for name in each.get("inputs", []))
        for name, value in each.get("attributes", {}).items():
            parts += field(5, field(1, name.encode()) + field(2, value))
        data += field(1, parts)
    path.write_bytes(data)
    return path


def stored(values: Any, *, kind: int = 1, shape: tuple[int, ...] | None = None) -> dict[str, bytes]:
    """Return the attributes of a constant."""
    array = np.asarray(values, "<f4" if kind == 1 else "<i4")
    told = array.shape if shape is None else shape
    dims = b"".join(field(2, field(1, size)) for size in told)
    content = field(4, array.tobytes())
    return {"value": field(8, field(1, kind) + field(2, dims) + content)}


def problem(path: Path) -> str:
    """Return what a file is refused for."""
    with pytest.raises(FormatError) as caught:
        read_network(path)
    return str(caught.value)


def changed(path: Path, change: Callable[[dict[str, Parts]], Any]) -> Path:
    """Write the fixture, changed."""
    nodes = nodes_of(FROZEN)
    change(nodes)
    return written(path, list(nodes.values()))


def put(name: str, **parts: Any) -> Callable[[dict[str, Parts]], Any]:
    """Return a change of one node."""
    return lambda nodes: nodes[name].update(parts)


def test_the_fixture_written_again(tmp_path):
    """What is changed below is a graph that is read, whatever the order of its nodes."""
    nodes = list(nodes_of(FROZEN).values())
    whole = read_network(FROZEN)
    assert read_network(written(tmp_path / "same.pb", nodes)).fingerprint == whole.fingerprint
    backwards = written(tmp_path / "backwards.pb", nodes[::-1])
    assert read_network(backwards).fingerprint == whole.fingerprint
    assert format_at(backwards).name == "a frozen graph of TensorFlow"
    assert (whole.inputs[0].name, whole.written_by) == ("x", "TensorFlow")


def test_numbers_of_the_cell_are_read(tmp_path):
    """The forget bias and the activation stand in the loop, where no checkpoint has them."""
    spec = read_network(FROZEN).recurrent[0].spec
    assert (spec.forget_bias, spec.activation, spec.cell_clip) == (1.0, "tanh", None)
    bias = changed(tmp_path / "bias.pb", put(f"{CELL}add/y", attributes=stored(0.25)))
    assert read_network(bias).recurrent[0].spec.forget_bias == 0.25

    def relu(nodes: dict[str, Parts]) -> None:
        for name in ("Tanh", "Tanh_1"):
            nodes[CELL + name]["op"] = "Relu"

    assert read_network(changed(tmp_path / "relu.pb", relu)).recurrent[0].spec.activation == "relu"


def limited(nodes: dict[str, Parts]) -> None:
    """Put limits on what a cell gives that has no projection."""
    h = CELL + "mul_2"
    for name, op, taken, limit in (("low", "Minimum", h, 0.1), ("both", "Maximum", "low", -0.1)):
        nodes[f"{name}/y"] = {"name": f"{name}/y", "op": "Const", "attributes": stored(limit)}
        nodes[name] = {"name": name, "op": op, "inputs": [taken, f"{name}/y"]}
    nodes["rnn/while/NextIteration_4"]["inputs"] = ["both"]
    written = nodes[f"{ARRAY}Write/TensorArrayWriteV3"]
    written["inputs"][2] = "both"


REFUSALS: dict[str, tuple[Callable[[dict[str, Parts]], Any], str]] = {
    "operator": (put("dense/BiasAdd", op="Cumsum"), "dense/BiasAdd: is a Cumsum, which is not"),
    "functional loop": (put("dense/BiasAdd", op="StatelessWhile"), "with lower_control_flow"),
    "another function": (put(f"{CELL}Tanh", op="Sin"), "runs no LSTMCell of rnn_cell"),
    "input gate": (put(f"{CELL}Sigmoid_1", op="Relu"), "is no product with a gate"),
    "forget gate": (put(f"{CELL}Sigmoid", op="Relu"), "is no product with a gate"),
    "output gate": (put(f"{CELL}Sigmoid_2", op="Relu"), "is no product with a gate"),
    "two functions": (put(f"{CELL}Tanh_1", op="Relu"), "its activation is a Relu"),
    "other gate": (put(f"{CELL}add", inputs=[f"{CELL}split:1", f"{CELL}add/y"]),
                   "its gates are in another order"),
    "gates of rows": (put(f"{CELL}split/split_dim", attributes=stored(0, kind=3)),
                      "its gates are not parts of the features"),
    "other state": (put(f"{CELL}concat", inputs=["rnn/while/TensorArrayReadV3",
                                                 "rnn/while/Identity_3", f"{CELL}concat/axis"]),
                    "its states are not those of the step before"),
    "three joined": (put(f"{CELL}concat", inputs=["rnn/while/TensorArrayReadV3",
                                                  "rnn/while/Identity_4", "rnn/while/Identity_4",
                                                  f"{CELL}concat/axis"]), "joins something else"),
    "ones": (put(f"{STATE}/Const", attributes=stored(1)), "neither zeros nor an input"),
    "kernel of the input": (put("rnn/lstm_cell/kernel", op="Placeholder"), "not stored in the"),
    "lengths": (put(f"{CELL}mul_2", op="SelectV2"), "it has sequence_length or dropout"),
    "limits": (limited, "it limits what it gives, which is no projection"),
    "read elsewhere": (lambda nodes: nodes[f"{ARRAY}ReadV3"]["inputs"].__setitem__(1, LATER),
                       "ReadV3: is of another step than the one"),
    "written elsewhere": (
        lambda nodes: nodes[f"{ARRAY}Write/TensorArrayWriteV3"]["inputs"].__setitem__(1, LATER),
        "WriteV3: is of another step than the one"),
    "begins later": (put("rnn/time", attributes=stored(1, kind=3)), "another way than from 0 on"),
    "leaves out": (put(f"{LATER}/y", attributes=stored(2, kind=3)), "another way than from 0 on"),
    "ends early": (put("rnn/while/Less_1/Enter", inputs=[f"{LATER}/y"]),
                   "does not run once for each time step, in their order"),
    "ends by itself": (put("rnn/while/Less_1", op="Greater"), "ends a loop by a Greater"),
    "ends in a circle": (put("rnn/while/LogicalAnd", inputs=["rnn/while/LogicalAnd"]),
                         "ends a loop by a LogicalAnd"),
    "gathers a part": (put("rnn/TensorArrayStack/range/start", attributes=stored(1, kind=3)),
                       "does not run once for each time step, in their order"),
    "channels first": (put("dense/BiasAdd", attributes={"data_format": field(2, b"NCHW")}),
                       "adds along another axis than the last"),
    "vector": (put(f"{CELL}add/y", attributes=stored([1, 1])), "has the shape (2,), and is no num"),
    "turned": (put(f"{CELL}MatMul", attributes={"transpose_b": field(5, 1)}), "is a MatMul"),
    "few inputs": (put(f"{CELL}mul_2", inputs=[f"{CELL}Sigmoid_2"]), "has 1 inputs only"),
    "itself": (put("dense/BiasAdd", inputs=["dense/BiasAdd", "dense/bias/read"]), "or a circle"),
    "circle": (put("dense/Tensordot/MatMul", inputs=["dense/BiasAdd", "dense/kernel"]),
               "is behind more than 150 nodes, or a circle"),
    "identities": (lambda nodes: (put("dense/kernel/read", inputs=["dense/bias/read"])(nodes),
                                  put("dense/bias/read", inputs=["dense/kernel/read"])(nodes)),
                   "is a circle"),
    "nowhere": (lambda nodes: nodes.pop("dense/kernel"), "dense/kernel: is taken, but is nowhere"),
    "twice": (lambda nodes: nodes.update(copy=dict(nodes["x"])), "has two nodes of one name"),
    "axes": (lambda nodes: nodes["x"]["attributes"].pop("shape"), "how many axes it has"),
    "huge": (put("dense/kernel", attributes=stored(1, shape=(1 << 40, 2))), "where 2199023255552"),
    "negative": (put("dense/kernel", attributes=stored(1, shape=(-1, 2))), "a shape is not known"),
    "texts": (put("dense/kernel", attributes=stored(1, kind=7)), "of the type 7, which is not"),
    "small": (put("rnn/lstm_cell/bias", attributes=stored(np.ones(15))), "does not fit its bias"),
    "infinite": (put("rnn/lstm_cell/bias", attributes=stored(np.full(16, np.inf))), "finite numb"),
    "rank": (put("rnn/lstm_cell/bias", attributes=stored(np.ones((4, 4)))), "the shape (4, 4)"),
    "integers": (put("rnn/lstm_cell/bias", attributes=stored(np.ones(16), kind=3)), "real, finite"),
    "features": (put("rnn/transpose", op="Reshape"), "rnn/transpose"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_served(case, tmp_path):
    """Each is named by its node, before memory is taken that the file does not fill."""
    change, expected = REFUSALS[case]
    assert expected in problem(changed(tmp_path / "model.pb", change))


def test_numbers_that_are_repeated_are_bounded(tmp_path):
    """One stored number stands for a few million in all of the constants, and for no more."""
    zeros = stored(0, shape=(1 << 20, 2))
    fits = changed(tmp_path / "fits.pb", put("dense/bias", attributes=stored(0.5, shape=(2,))))
    *_, dense = read_network(fits).layers
    assert isinstance(dense, Dense)
    np.testing.assert_array_equal(dense.bias, [0.5, 0.5])

    def many(nodes: dict[str, Parts]) -> None:
        for index in range(4):
            nodes[f"zeros{index}"] = {"name": f"zeros{index}", "op": "Const", "attributes": zeros}
        names = [f"zeros{index}" for index in range(4)]
        nodes["axis"] = {"name": "axis", "op": "Const", "attributes": stored(0, kind=3)}
        nodes["all"] = {"name": "all", "op": "ConcatV2", "inputs": [*names, "axis"]}
        nodes["dense/kernel/read"]["inputs"] = ["all"]

    assert "has 1 numbers, where 2097152 are told" in problem(changed(tmp_path / "many.pb", many))


def test_many_nodes_are_refused(tmp_path, monkeypatch):
    """A graph takes a second at most."""
    monkeypatch.setattr(frozen_graph_nodes, "MAX_NODES", 100)
    assert "has more than 100 nodes" in problem(changed(tmp_path / "model.pb", lambda _: None))


def test_many_values_of_loops_are_bounded(tmp_path):
    """Each asks for all of its loop's cells, however often it stands in the graph."""

    def many(nodes: dict[str, Parts]) -> None:
        gather = nodes["rnn/TensorArrayStack/TensorArrayGatherV3"]
        for index in range(201):
            nodes[f"again{index}"] = {**gather, "name": f"again{index}"}

    assert "is one of more than 200 values of loops" in problem(
        changed(tmp_path / "model.pb", many)
    )


def test_changed_and_missing_bytes(tmp_path):
    """A graph has no checksum: it is refused, or is another one; nothing else is raised."""
    data = FROZEN.read_bytes()
    path = tmp_path / "model.pb"
    drawn = random.Random(0)
    num_refused = 0
    pieces = [data[:size] for size in range(0, len(data), 211)]
    for _ in range(150):
        other = bytearray(data)
        for _ in range(drawn.choice([1, 2, 8])):
            other[drawn.randrange(len(data))] = drawn.choice([0, 0xFF, drawn.randrange(256)])
        pieces.append(bytes(other))
    for piece in pieces:
        path.write_bytes(piece)
        try:
            read_network(path)
        except FormatError:
            num_refused += 1
    assert num_refused > 80


def test_other_files_that_begin_so(tmp_path):
    """A text that begins with an empty line is no graph."""
    path = tmp_path / "model.pb"
    for start in (b"\n", b"\n\n\n", b"\n\x05\n\x03abc", b"\nonce upon a time", b"\n\xff\xff\xff"):
        path.write_bytes(start)
        assert "is of no format that is read here" in problem(path)


def test_cells_belong_to_frozen_graphs_only(tmp_path):
    """An ONNX graph that has such a node has no options of a cell."""
    cell = node("LSTMCell", ["x", "W", "R"], ["y"], "tensorflow", options=1)
    path = save(tmp_path / "model.onnx", [cell])
    assert "lstmcell: takes what does not come from" in problem(path)
    hidden = node("LSTMCell", ["s", "W", "R"], ["y"], "tensorflow")
    path = save(tmp_path / "model.onnx", [lstm(), node("Squeeze", ["Y", "one"], ["s"]), hidden])
    assert "lstmcell: takes what does not come from" in problem(path)
