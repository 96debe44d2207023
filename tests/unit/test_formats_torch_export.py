"""Programs of `torch.export`, changed by hand: what is followed, and what each refusal says."""

from __future__ import annotations

import json
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstm_core.errors import FormatError
from lstm_core.formats.read import format_at, read_network
from lstm_core.merge import Merge
from lstm_core.network import Recurrent
from lstm_core.pointwise import Affine, PReLU
from tests.unit.tensorflow_files import FIXTURES

EXPORTED = FIXTURES / "torch" / "exported.pt2"
MODEL = "exported/models/model.json"
WEIGHTS = "exported/data/weights/model_weights_config.json"
Json = Any


def members() -> dict[str, bytes]:
    """Return what is in the fixture."""
    with zipfile.ZipFile(EXPORTED) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def written(path: Path, contents: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> Path:
    """Write a program."""
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return path


def changed(path: Path, change: Callable[[Json, Json], Any]) -> Path:
    """Write the fixture, its graph and what it tells of its weights changed."""
    contents = members()
    document, weights = (json.loads(contents[name]) for name in (MODEL, WEIGHTS))
    change(document["graph_module"], weights["config"])
    contents |= {MODEL: json.dumps(document).encode(), WEIGHTS: json.dumps(weights).encode()}
    return written(path, contents)


def problem(path: Path) -> str:
    """Return what a file is refused for."""
    with pytest.raises(FormatError) as caught:
        read_network(path)
    return str(caught.value)


def node(module: Json, name: str) -> Json:
    """Return a node of a graph."""
    return next(each for each in module["graph"]["nodes"] if each["name"] == name)


def put(name: str, **arguments: Json) -> Callable[[Json, Json], Any]:
    """Return a change of a node's arguments, or of its target."""

    def change(module: Json, _weights: Json) -> None:
        found = node(module, name)
        found["target"] = arguments.pop("target", found["target"])
        found["inputs"] = [each for each in found["inputs"] if each["name"] not in arguments]
        found["inputs"] += [{"name": key, "arg": arg} for key, arg in arguments.items()]

    return change


def test_weights_and_names(tmp_path):
    """Gates keep their order, both biases are added, and the program's maker is told."""
    network = read_network(EXPORTED)
    assert format_at(EXPORTED).name == "a program of torch.export"
    assert network.written_by is not None
    assert network.written_by.startswith("PyTorch 2.")
    assert [layer.name for layer in network.layers][:2] == ["lstm/0", "lstm/1"]
    first = network.layers[0]
    assert isinstance(first, Recurrent)
    places = {f"exported/data/weights/weight_{index}" for index in range(4)}
    kernel, recurrent, *biases = (np.frombuffer(members()[name], "<f4") for name in sorted(places))
    np.testing.assert_array_equal(first.weights.kernel, kernel.reshape(16, 3).T)
    np.testing.assert_array_equal(first.weights.recurrent_kernel, recurrent.reshape(16, 4).T)
    np.testing.assert_array_equal(first.weights.bias, biases[0] + biases[1])
    path = Path(shutil.copy(EXPORTED, tmp_path / "any name"))
    assert read_network(path).fingerprint == network.fingerprint


def test_checks_of_sizes_are_left_out(tmp_path):
    """What only compares values with those that were traced gives nothing."""

    def add(module: Json, _weights: Json) -> None:
        target = "torch.ops.aten._assert_tensor_metadata.default"
        module["graph"]["nodes"].insert(0, {"target": target, "inputs": [], "outputs": []})

    path = changed(tmp_path / "model.pt2", add)
    assert read_network(path).fingerprint == read_network(EXPORTED).fingerprint


def cast(kind: int) -> Callable[[Json, Json], Any]:
    """Return a change of a node into one that gives another type."""
    return put("dropout", target="torch.ops.aten.to.dtype", self={"as_tensor": {"name": "select"}},
               dtype={"as_scalar_type": kind})  # fmt: skip


def test_types_of_real_numbers_are_all_one(tmp_path):
    """What turns them into others of them does nothing, since everything runs in float32."""
    path = changed(tmp_path / "model.pt2", cast(8))
    assert read_network(path).fingerprint == read_network(EXPORTED).fingerprint


def meta(name: str, **fields: Json) -> Callable[[Json, Json], Any]:
    """Return a change of what is told of a weight."""
    return lambda _module, weights: weights[name]["tensor_meta"].update(fields)


SIZES = [{"as_int": 16}, {"as_int": 1 << 40}]
IH = "lstm.weight_ih_l0"
TARGET = "torch.ops.aten.sin.default"

SLOPES = {"as_tensor": {"name": "p_norm_weight"}}


def in_place(value: str, *, taken: str) -> Callable[[Json, Json], Any]:
    """Return a change: a function is put in place on a value, and `taken` behind it."""

    def change(module: Json, weights: Json) -> None:
        target = "torch.ops.aten.relu_.default"
        given = {"self": {"as_tensor": {"name": value}}, "input": {"as_none": True}}
        put("dropout", target=target, **given)(module, weights)
        put("layer_norm", input={"as_tensor": {"name": taken}})(module, weights)

    return change


REFUSALS: dict[str, tuple[Callable[[Json, Json], Any], str]] = {
    "operator": (put("sigmoid", target=TARGET), "sigmoid: is a aten.sin.default, which is not"),
    "code": (put("sigmoid", target="os.system"), "sigmoid: is a os.system, which is not served"),
    "training": (put("lstm", train={"as_bool": True}), "was exported in training"),
    "dropout": (put("dropout", train={"as_bool": True}), "was exported in training"),
    "projection": (put("lstm", params={"as_tensors": [{"name": "p_lstm_weight_ih_l0"}] * 10}),
                   "one with a projection"),
    "layers": (put("lstm", num_layers={"as_int": 1 << 40}), "is an LSTM of 8 arrays"),
    "states": (put("lstm", hx={"as_tensors": []}), "with other than two states"),
    "no number": (put("select", index={"as_string": "last"}), "its index is no finite number"),
    "vast number": (put("layer_norm", eps={"as_int": 10**400}), "its eps is no finite number"),
    "no finite number": (put("layer_norm", eps={"as_float": float("nan")}), "no finite number"),
    "vast integer": (put("select", index={"as_int": 1 << 70}), "integer of more than 64 bits"),
    "vast size": (put("zeros", size={"as_ints": [1 << 70]}), "integer of more than 64 bits"),
    "odd size": (put("zeros", size={"as_sym_int": 5}), "as_int is missing"),
    "long axis": (lambda module, _: module["graph"]["tensor_values"]["x"].update(
        sizes=[{"as_int": 1 << 70}] * 3), "has an axis longer than any"),
    "no integer": (put("select", index={"as_float": 0.5}), "its index is no integer"),
    "no value": (put("sigmoid", self={"as_int": 1}), "its self is no value of the graph"),
    "no values": (put("lstm", params={"as_int": 1}), "its params is no list of values"),
    "no sizes": (put("zeros", size={"as_string": "x"}), "its size is no list of sizes"),
    "another step": (put("select", index={"as_int": 1}), "is not the last that the LSTM takes"),
    "nowhere": (put("sigmoid", self={"as_tensor": {"name": "gone"}}), "takes gone, which is nowh"),
    "itself": (put("sigmoid", self={"as_tensor": {"name": "sigmoid"}}), "sigmoid, which is nowher"),
    "argument": (put("sigmoid", self={"as_tensor": 1}), "name is missing, or is not what it"),
    "no outputs": (lambda module, _: node(module, "sigmoid").update(outputs=[]), "gives nothing"),
    "no nodes": (lambda module, _: module["graph"].pop("nodes"), "nodes is missing"),
    "nodes": (lambda module, _: module["graph"].update(nodes=[1]), "nodes is no list of objects"),
    "constant": (lambda module, _: module["signature"]["input_specs"].append({"token": {}}),
                 "token: is a kind of input that is not served"),
    "state": (lambda module, _: module["signature"]["output_specs"].insert(
        0, {"buffer_mutation": {}}), "buffer_mutation: is no user_output, and is not served"),
    "no tensor": (lambda module, _: module["signature"]["output_specs"].append(
        {"user_output": {"arg": {"as_int": 3}}}), "user_output: is as_int, and no tensor"),
    "not saved": (lambda module, _: module["signature"]["input_specs"].append(
        {"buffer": {"arg": {"name": "b"}, "buffer_name": "scale", "persistent": False}}),
        "scale: is a buffer that is not saved with the weights"),
    "changed and taken": (in_place("select", taken="select"), "changes in place what is kept, or"),
    "changed under another name": (in_place("select", taken="slice_1"), "changes in place what"),
    "changed weight": (in_place("p_fc_bias", taken="select"), "changes in place what is kept, or"),
    "slopes of steps": (put("slice_1", target="torch.ops.aten.prelu.default", weight=SLOPES),
                        "has numbers of the shape (4, 1) for 4 features"),
    "axes": (lambda module, _: module["graph"]["tensor_values"]["x"].update(sizes=[]), "0 axes"),
    "weight": (lambda _, weights: weights.pop(IH), "lstm.weight_ih_l0 is missing"),
    "pickle": (lambda _, weights: weights[IH].update(use_pickle=True), "is not stored as plain"),
    "place": (lambda _, weights: weights[IH].update(path_name="../../version"), "its storage"),
    "integers": (cast(5), "turns real numbers into others"),
    "dtype": (meta(IH, dtype=99), "is not stored as plain numbers"),
    "huge": (meta(IH, sizes=SIZES), "that is larger than its storage"),
    "negative": (meta(IH, sizes=[{"as_int": -16}, {"as_int": 3}]), "that are no natural numbers"),
    "repeated": (meta(IH, strides=[{"as_int": 1 << 40}, {"as_int": 1}]), "larger than its storage"),
    "turned": (meta(IH, sizes=[{"as_int": 3}, {"as_int": 16}]), "its constants do not fit"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_served(case, tmp_path):
    """Each is named, before memory is taken that the file does not fill; nothing is run."""
    change, expected = REFUSALS[case]
    assert expected in problem(changed(tmp_path / "model.pt2", change))


def test_what_is_changed_in_place_and_taken_once(tmp_path):
    """Nothing else sees the change, so it is as good as a new value."""
    path = changed(tmp_path / "model.pt2", in_place("select", taken="dropout"))
    assert [getattr(layer, "function", "") for layer in read_network(path).layers][2] == "relu"


def test_slopes_of_features(tmp_path):
    """PReLU's slopes belong to the second axis, which the features are behind the last step."""
    selected = {"as_tensor": {"name": "select"}}
    change = put("dropout", target="torch.ops.aten.prelu.default", self=selected, weight=SLOPES)
    assert isinstance(read_network(changed(tmp_path / "model.pt2", change)).layers[2], PReLU)


def test_a_difference_from_a_number_and_the_larger_of_two_values(tmp_path):
    """`1 - x` keeps its sign, and a value that meets itself is merged."""
    selected = {"as_tensor": {"name": "select"}}
    others: tuple[tuple[str, Json, Json], ...] = (
        ("rsub.Scalar", {"as_float": 3.0}, [-2.0]),
        ("maximum.default", selected, [5.0]),
        ("minimum.default", selected, [5.0]),
    )
    for operator, other, expected in others:
        change = put("dropout", target=f"torch.ops.aten.{operator}", self=selected, other=other)
        network = read_network(changed(tmp_path / "model.pt2", change))
        (layer,) = (x for x in network.layers if isinstance(x, Affine | Merge))
        x = np.full(1, 5, np.float32)
        assert (layer(x) if isinstance(layer, Affine) else layer(x, x)).tolist() == expected


def test_archives_that_are_damaged(tmp_path):
    """Members that are missing, packed, too many or no JSON make a clear error."""
    path = tmp_path / "model.pt2"
    contents = members()
    assert "is compressed, which PyTorch never does" in problem(
        written(path, contents, zipfile.ZIP_DEFLATED)
    )
    twin = contents | {"other/models/model.json": b"{}"}
    assert "has 2 models, of which one is read" in problem(written(path, twin))
    for data, expected in (
        (b"[]", "is no JSON object"),
        (b"{", "Expecting property name"),
        (b"[" * 100_000, "nested too deeply"),
        (b"{}", "torch_version is missing"),
    ):
        assert expected in problem(written(path, contents | {MODEL: data}))
    older = {"serialized_exported_program.json": b"{}", "version": b"7"}
    assert "is in an older layout of torch.export" in problem(written(path, older))
    del contents[WEIGHTS]
    assert "lacks data/weights/model_weights_config.json" in problem(written(path, contents))


def test_cut_off_and_changed(tmp_path):
    """Other bytes are refused, or make another model; nothing else is ever raised."""
    data = EXPORTED.read_bytes()
    path = tmp_path / "model.pt2"
    for size in range(0, len(data), 997):
        path.write_bytes(data[:size])
        with pytest.raises(FormatError):
            read_network(path)
    drawn = random.Random(0)
    model = members()[MODEL]
    num_refused = 0
    for _ in range(100):
        other = bytearray(model)
        other[drawn.randrange(len(model))] = drawn.choice(b'0"{[ax')
        try:
            read_network(written(path, members() | {MODEL: bytes(other)}))
        except FormatError:
            num_refused += 1
    assert num_refused > 30
