"""Our own format: every network comes back to the bit, and what does not fit is refused."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from lstm_core.errors import FormatError
from lstm_core.formats.network_file import METADATA_KEY, read_network_file, write_network_file
from lstm_core.formats.read import format_at, read_network
from lstm_core.network import Bidirectional, Layer, Network, Recurrent
from lstm_core.pointwise import (
    Activation,
    Affine,
    Dense,
    Embedding,
    LayerNormalization,
    Masking,
    PReLU,
)
from lstm_core.spec import LSTMSpec
from lstm_core.weights import initialize
from tests.unit.graph_networks import graph

UNITS = 3


def lstm(name: str = "lstm", *, go_backwards: bool = False, **options: Any) -> Recurrent:
    """Return an LSTM of `UNITS` features and units."""
    spec = LSTMSpec(input_size=UNITS, units=UNITS, **options)
    weights = initialize(spec, 0)
    return Recurrent(name=name, spec=spec, weights=weights, go_backwards=go_backwards)


def vector(seed: int) -> np.ndarray[Any, Any]:
    """Draw `(UNITS,)` float32."""
    return np.random.default_rng(seed).normal(size=UNITS).astype(np.float32)


def everything() -> Network:
    """Return a network with every kind of layer, and options that no default is."""
    options: dict[str, Any] = {
        "use_peepholes": True,
        "projection_size": UNITS,
        "cell_clip": 3.5,
        "gate_clip": 9.0,
    }
    table = np.arange(4 * UNITS, dtype=np.float32).reshape(4, UNITS)
    dense = np.outer(vector(0), vector(1)).astype(np.float32)
    layers: tuple[Layer, ...] = (
        Embedding(name="embedding", table=table, mask_zero=True),
        lstm("a/b", **options, projection_clip=0.1, forget_bias=0.3, use_bias=False),
        Affine(name="affine", center=np.array(0.1, np.float32),
               scale=vector(2), offset=vector(3)),
        PReLU(name="prelu", alpha=vector(4)),
        LayerNormalization(name="norm", gamma=vector(5), beta=None, epsilon=1e-3, rms_scaling=True),
        Masking(name="masking", mask_value=-1.5),
        Bidirectional(name="both", forward=lstm(), backward=lstm(go_backwards=True),
                      merge_mode="mul"),
        Activation(name="relu", function="relu", parameters={"max_value": 6.0}),
        Dense(name="dense", kernel=dense, bias=None, activation="softmax"),
    )  # fmt: skip
    return Network("name", 1, layers, written_by="somebody 1.0")


def write(directory: Path, network: Network) -> Path:
    """Write a network."""
    path = directory / "model.safetensors"
    with path.open("wb") as file:
        write_network_file(network, file)
    return path


def test_every_layer_comes_back_to_the_bit(tmp_path):
    """Every kind of layer comes back with all its fields, to the bit."""
    network = everything()
    path = write(tmp_path, network)

    again = read_network(path)

    assert format_at(path).name == "a network as safetensors"
    assert network.fingerprint == again.fingerprint
    assert [each.name for each in network.layers] == [each.name for each in again.layers]
    assert (network.name, network.written_by) == (again.name, again.written_by)


def test_other_readers_of_safetensors_read_it(tmp_path):
    """The package of that name finds the arrays where the layers' fields are."""
    network = everything()
    path = write(tmp_path, network)
    arrays = safetensors.numpy.load_file(path)
    first = network.recurrent[0]
    np.testing.assert_array_equal(arrays["layers.1.weights.kernel"], first.weights.kernel)
    with safetensors.safe_open(path, "np") as file:
        assert METADATA_KEY in file.metadata()


def test_what_other_writers_of_safetensors_write_is_read(tmp_path):
    """The package of that name may sort the arrays and pad the header otherwise."""
    network = everything()
    path = write(tmp_path, network)
    with safetensors.safe_open(path, "np") as file:
        metadata = file.metadata()
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), path, metadata)
    assert network.fingerprint == read_network(path).fingerprint


CHANGES: dict[str, tuple[Any, str]] = {
    "version": (lambda d: d.update(version=3), "is no network of version 1 or 2"),
    "no layers": (lambda d: d.update(layers=[]), "has no layers"),
    "input size": (lambda d: d.update(input_size=True), "no input size"),
    "kind": (lambda d: d["layers"][1].update(kind="os.system"), "layers.1: is no layer"),
    "field": (lambda d: d["layers"][1].update(other=1), "fields that no Recurrent has"),
    "missing": (lambda d: d["layers"][1].pop("spec"), "layers.1: lacks spec"),
    "type": (lambda d: d["layers"][1]["spec"].update(units="3"), "units is '3', not int"),
    "infinite": (lambda d: d["layers"][1]["spec"].update(cell_clip=float("inf")), "cell_clip is"),
    "vast": (lambda d: d["layers"][1]["spec"].update(cell_clip=10**400), "cell_clip is 1000"),
    "vast size": (lambda d: d["layers"][1]["spec"].update(units=10**4000), "units is 1000"),
    "shape": (lambda d: d["layers"][1]["spec"].update(units=4), "kernel has shape"),
    "function": (lambda d: d["layers"][8].update(activation="__import__"), "unknown activation"),
    "parameters": (lambda d: d["layers"][7].update(parameters={"where": 0}), "has no parameters"),
    "direction": (lambda d: d["layers"][6]["backward"].update(go_backwards=False), "same direct"),
    "merge mode": (lambda d: d["layers"][6].update(merge_mode="max"), "merge_mode is 'max'"),
    "array": (lambda d: d["layers"].insert(0, d["layers"][8]), "is missing: no layers.0.kernel"),
}


def problem_after(apply: Callable[[Any], object], path: Path) -> str:
    """Return why a file is refused whose description was changed."""
    with safetensors.safe_open(path, "np") as file:
        document = json.loads(file.metadata()[METADATA_KEY])
    apply(document)
    metadata = {METADATA_KEY: json.dumps(document)}
    safetensors.numpy.save_file(safetensors.numpy.load_file(path), path, metadata)
    with pytest.raises(FormatError) as caught:
        read_network_file(path)
    return str(caught.value)


@pytest.mark.parametrize("change", CHANGES)
def test_documents_that_do_not_fit(change, tmp_path):
    """A description that is no network's is refused, with the place at fault."""
    apply, problem = CHANGES[change]
    assert problem in problem_after(apply, write(tmp_path, everything()))


def test_a_graph_comes_back(tmp_path):
    """Merges, slices, several inputs and outputs, under their names and to the bit."""
    network = graph([("slice", 0, 0), ("average", 0, 1), ("last", 0, 0)], 3)
    again = read_network(write(tmp_path, network))
    assert network.fingerprint == again.fingerprint
    assert network.wiring == again.wiring
    assert (network.inputs, network.outputs) == (again.inputs, again.outputs)


WIRINGS: dict[str, tuple[Any, str]] = {
    "none": (lambda d: d.pop("wiring"), "wiring is not what its layers take"),
    "takes": (lambda d: d["wiring"].update(takes=[[0], "1"]), "wiring is not what"),
    "no number": (lambda d: d["wiring"]["takes"].__setitem__(0, [True]), "wiring is not what"),
    "itself": (lambda d: d["wiring"]["takes"].__setitem__(0, [2]), "words: does not take what"),
    "ends": (lambda d: d["wiring"].update(outputs=[["a"]]), "wiring is not what"),
    "size": (lambda d: d["wiring"].update(inputs=[["a", 0]]), "an input of the network has no"),
    "sum": (lambda d: d.update(input_size=9), "is 9, but the inputs have 4 features"),
    "merge": (lambda d: d["layers"][1].update(operation="max"), "both: is no merge: 'max'"),
    "masks": (lambda d: d["layers"][1].update(masks="some"), "both: is no merge"),
}


@pytest.mark.parametrize("change", WIRINGS)
def test_wirings_that_do_not_fit(change, tmp_path):
    """What is no graph is refused, with the place at fault."""
    apply, problem = WIRINGS[change]
    assert problem in problem_after(apply, write(tmp_path, graph([("lstm", 0, 0)], 0)))


def header(**entries: Any) -> bytes:
    """Return a safetensors file with this header and eight bytes of data."""
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + bytes(8)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}

DAMAGED = {
    "empty header": (b"\x02\0\0\0\0\0\0\0[]", "no JSON object"),
    "short": (b"\x50\0\0\0\0\0\0\0{}", "are not its whole header"),
    "long header": ((5 << 20).to_bytes(8, "little") + b"{" * (6 << 20), "more than the"),
    "huge shape": (header(a={**ENTRY, "shape": [1 << 40, 1 << 40]}), "which are no F32"),
    "huge number": (header(a={**ENTRY, "shape": [1 << 80]}), "does not tell a shape"),
    "overlap": (header(a=ENTRY, b=ENTRY), "begins at byte 0"),
    "gap": (header(a={**ENTRY, "shape": [1], "data_offsets": [4, 8]}), "begins at byte 4"),
    "too much": (header(a={**ENTRY, "shape": [1], "data_offsets": [0, 4]}), "but 8 are there"),
    "dtype": (header(a={**ENTRY, "dtype": "OBJECT"}), "unknown dtype"),
    "metadata": (header(__metadata__={"a": 1}, a=ENTRY), "are not texts"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_containers(damage, tmp_path):
    """What the container does not allow is found before an array is read."""
    data, problem = DAMAGED[damage]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        read_network_file(path)
    assert problem in str(caught.value)


def test_duplicate_names(tmp_path):
    """An array that is there twice is refused, since readers differ about which one counts."""
    text = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{}}'
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(8))
    with pytest.raises(FormatError, match="names something twice"):
        read_network_file(path)


def test_the_same_bytes(tmp_path):
    """A network is written the same whenever it is written."""
    first, second = io.BytesIO(), io.BytesIO()
    write_network_file(everything(), first)
    write_network_file(read_network(write(tmp_path, everything())), second)
    assert first.getvalue() == second.getvalue()
