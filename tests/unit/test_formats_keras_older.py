"""Files of Keras before 3, and weights without a model: structure, and every refusal.

That good ones give their framework's numbers is shown in `tests/parity/test_formats_files.py`.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lstm_core.errors import FormatError
from lstm_core.formats import hdf5
from lstm_core.formats.read import format_at, read_network
from lstm_core.network import Bidirectional, Network, Recurrent
from lstm_core.pointwise import Activation, Dense
from tests.unit.tensorflow_files import copied

FEATURES, UNITS = 3, 2

Json = dict[str, Any]


def layer(class_name: str, **config: Any) -> Json:
    """Return a layer as Keras 2 serialises it."""
    config.setdefault("name", class_name.lower())
    return {"class_name": class_name, "config": config}


def lstm(**config: Any) -> Json:
    """Return an LSTM that gives every step on."""
    return layer("LSTM", **{"units": UNITS, "return_sequences": True, **config})


def called(name: str, each: Json, source: str | None = None) -> Json:
    """Return a layer as it stands in a functional model, called with the output of another."""
    nodes = [] if source is None else [[[source, 0, 0, {}]]]
    return {**each, "name": name, "inbound_nodes": nodes}


ENTRY = layer("InputLayer", name="input", batch_input_shape=[None, None, FEATURES])


def sequential(*layers: Json, name: str = "model") -> Json:
    """Return a Sequential model."""
    return {"class_name": "Sequential", "config": {"name": name, "layers": list(layers)}}


def lstm_arrays(owner: str, features: int = FEATURES, units: int = UNITS) -> dict[str, Any]:
    """Return an LSTM's weights by name."""
    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "kernel": (features, 4 * units),
        "recurrent_kernel": (units, 4 * units),
        "bias": (4 * units,),
    }
    return {
        f"{owner}/{name}:0": random.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


WEIGHTS = {"lstm": lstm_arrays("lstm/lstm_cell")}


def write_h5(
    directory: Path,
    model: Any,
    weights: dict[str, dict[str, Any]] | None = None,
    version: str | None = "2.4.0",
) -> Path:
    """Write a whole model as Keras before 3 does; text given as the model is written as it is."""
    path = directory / "model.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = model if isinstance(model, str) else json.dumps(model)
        if version is not None:
            file.attrs["keras_version"] = version
        root = file.create_group("model_weights")
        weights = WEIGHTS if weights is None else weights
        root.attrs["layer_names"] = [name.encode() for name in weights]
        for name, arrays in weights.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = [each.encode() for each in arrays]
            for each, array in arrays.items():
                group[each] = array
    return path


def read(directory: Path, *args: Any, **kwargs: Any) -> Network:
    """Write a file and read it."""
    return read_network(write_h5(directory, *args, **kwargs))


def problems(path: Path) -> list[str]:
    """Return what a file is refused for."""
    with pytest.raises(FormatError) as caught:
        read_network(path)
    return caught.value.problems


def test_hard_sigmoid_is_that_of_its_day(tmp_path):
    """In a layer, a cell and a Dense, before Keras 3; Keras 3's own is another function."""
    chain = [ENTRY, lstm(recurrent_activation="hard_sigmoid")]
    chain.append(layer("Dense", units=1, activation="hard_sigmoid"))
    dense = {"dense/kernel:0": np.ones((UNITS, 1), "f4"), "dense/bias:0": np.ones(1, "f4")}
    weights = {**WEIGHTS, "dense": dense}
    for version, name in (("2.4.0", "hard_sigmoid_v1"), ("3.1.0", "hard_sigmoid")):
        shape = "batch_shape" if version.startswith("3") else "batch_input_shape"
        chain[0] = layer("InputLayer", dtype="float32", **{shape: [None, None, FEATURES]})
        first, last = read(tmp_path, sequential(*chain), weights, version).layers
        assert isinstance(first, Recurrent)
        assert isinstance(last, Dense)
        assert (first.spec.recurrent_activation, last.activation) == (name, name)


@pytest.mark.parametrize(
    "model",
    [
        sequential(lstm(batch_input_shape=[None, None, FEATURES])),
        {"class_name": "Sequential", "config": [lstm(batch_input_shape=[None, 5, FEATURES])]},
        {
            "class_name": "Model",
            "config": {
                "name": "model",
                "layers": [
                    called("input", ENTRY),
                    called("lstm", lstm(), "input"),
                ],
                "input_layers": [["input", 0, 0]],
                "output_layers": [["lstm", 0, 0]],
            },
        },
        {
            "class_name": "Sequential",
            "config": {
                "name": "model",
                "layers": [lstm()],
                "build_input_shape": [None, None, FEATURES],
            },
        },
    ],
    ids=["first layer's shape", "list of layers", "functional", "built shape"],
)
def test_ways_of_saying_what_comes_in(model, tmp_path):
    """Every form that Keras 1 and 2 had makes the same network."""
    same = read(tmp_path, sequential(ENTRY, lstm()))
    assert read(tmp_path, model).fingerprint == same.fingerprint


def test_layers_of_one_name_in_two_models(tmp_path):
    """The names of the variables of a nested model tell its layers apart."""
    inner = sequential(lstm(name="a"), lstm(name="lstm", units=3), name="inner")
    arrays = lstm_arrays("a/lstm_cell", UNITS) | lstm_arrays("lstm/lstm_cell_1", UNITS, 3)
    network = read(tmp_path, sequential(ENTRY, lstm(), inner), {**WEIGHTS, "inner": arrays})
    assert [each.name for each in network.layers] == ["lstm", "inner/a", "inner/lstm"]
    last = network.recurrent[-1]
    np.testing.assert_array_equal(last.weights.kernel, arrays["lstm/lstm_cell_1/kernel:0"])
    found = problems(write_h5(tmp_path, sequential(ENTRY, lstm(), inner), {**WEIGHTS, "inner": {}}))
    assert found[0] == "inner/a: its kernel is missing: no variable number 1 of this layer"


def test_a_direction_without_a_config_is_the_other_reversed(tmp_path):
    """`Bidirectional` of Keras 2 names one layer, and its arrays come forward, then backward."""
    arrays = lstm_arrays("both/forward_lstm/c") | lstm_arrays("both/backward_lstm/c")
    unnamed = {f"{i}": array for i, array in enumerate(arrays.values())}
    model = sequential(ENTRY, layer("Bidirectional", name="both", layer=lstm(), merge_mode="sum"))
    networks = [read(tmp_path, model, {"both": each}) for each in (arrays, unnamed)]
    assert len({network.fingerprint for network in networks}) == 1
    (both,) = networks[0].layers
    assert isinstance(both, Bidirectional)
    assert (both.forward.go_backwards, both.backward.go_backwards) == (False, True)


def test_keras_1_names_and_gates(tmp_path):
    """Twelve arrays an LSTM, i, c, f, o, become three; a file without a version is of that time."""
    random = np.random.default_rng(0)
    arrays = {
        f"lstm_{what}_{gate}": random.normal(size=shape).astype(np.float32)
        for gate in "icfo"
        for what, shape in (("W", (FEATURES, UNITS)), ("U", (UNITS, UNITS)), ("b", (UNITS,)))
    }
    old = {"name": "lstm", "output_dim": UNITS, "inner_activation": "linear", "activation": "relu"}
    model = sequential(ENTRY, {"class_name": "LSTM", "config": old})
    (only,) = read(tmp_path, model, {"lstm": arrays}, version=None).recurrent
    assert (only.spec.activation, only.spec.recurrent_activation) == ("relu", "linear")
    forget = only.weights.kernel[:, UNITS : 2 * UNITS]
    np.testing.assert_array_equal(forget, arrays["lstm_W_f"])
    batch = layer("BatchNormalization", mode=0, epsilon=1e-3)
    both = write_h5(tmp_path, sequential(ENTRY, model["config"]["layers"][1], batch),
                    {"lstm": arrays}, "1.2.2")  # fmt: skip
    assert "is a BatchNormalization of Keras 1" in problems(both)[0]
    arrays["lstm_W_f"] = arrays["lstm_W_f"][:1]
    (found,) = problems(write_h5(tmp_path, model, {"lstm": arrays}, version="1.2.2"))
    assert found.startswith("lstm: kernel has shape ()")


def test_parameters_under_their_old_names(tmp_path):
    """LeakyReLU's slope and the threshold of a layer that Keras 3 no longer has."""
    tail = [layer("LeakyReLU", alpha=0.25), layer("ThresholdedReLU", theta=0.5)]
    network = read(tmp_path, sequential(ENTRY, lstm(), *tail))
    leaky, thresholded = network.layers[1:]
    assert isinstance(leaky, Activation)
    assert isinstance(thresholded, Activation)
    assert leaky.parameters == {"negative_slope": 0.25}
    assert (thresholded.function, thresholded.parameters) == ("relu", {"threshold": 0.5})


@pytest.mark.parametrize(
    ("chain", "problem"),
    [
        ([layer("GRU")], "gru: is a GRU"),
        ([layer("Mine>Layer")], "is a Mine>Layer, a custom layer"),
        ([layer("Lambda")], "Python code, which is never run"),
        ([layer("LSTM", units=UNITS, name="gone")], "gone: its kernel is missing"),
        ([layer("Masking", mask_value=0.0), layer("Rescaling", scale=2.0, offset=0.0)],
         "drops the mask"),
        ([layer("CuDNNLSTM", units=UNITS, name="lstm")], "bias has shape (8,), expected (16,)"),
        ([layer("Bidirectional", merge_mode="sum")], "lacks the layer"),
        ([lstm(return_state=True)], "gives its states on"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_named(chain, problem, tmp_path):
    """The reasons are those of Keras 3's files, and what was otherwise then."""
    assert problem in problems(write_h5(tmp_path, sequential(ENTRY, *chain)))[0]


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("{", "model_config cannot be read"),
        ("[" * 60_000, "model_config cannot be read"),
        ("[]", "is no JSON object"),
        ("{}", "only Sequential and functional models are read"),
        (sequential(), "has 0 input layers"),
        ({"class_name": "Sequential", "config": {"layers": 1}}, "no list of layers"),
    ],
)
def test_damaged_configurations(model, problem, tmp_path):
    """A configuration that is none is a FormatError."""
    assert problem in problems(write_h5(tmp_path, model))[0]


def test_attributes_are_bounded(tmp_path, monkeypatch):
    """A list of names may be one long string, thousands of times: only the product bounds it."""
    path = write_h5(tmp_path, sequential(ENTRY, lstm()))
    with h5py.File(path, "r+") as file:
        names = np.empty(3000, dtype=object)
        names[:] = "lstm/lstm_cell/kernel:0"
        file["model_weights/lstm"].attrs.create("weight_names", names, dtype=h5py.string_dtype())
    monkeypatch.setattr(hdf5, "MAX_NAMES_BYTES", 1 << 20)
    assert problems(path) == [
        "lstm: its weights cannot be read: attribute weight_names is too long"
    ]


@pytest.mark.parametrize("size", [0, 1 << 40, (1 << 64) - 24])
def test_damaged_heaps_are_refused_before_the_library_walks_them(size, tmp_path):
    """A piece of no size would make it walk for ever, a long one make it leave the file."""
    path = write_h5(tmp_path, sequential(ENTRY, lstm()))
    data = bytearray(path.read_bytes())
    at = data.index(b"GCOL") + 16
    while data[at : at + 2] != bytes(2):
        at += 16 + (int.from_bytes(data[at + 8 : at + 16], "little") + 7) // 8 * 8
    data[at + 8 : at + 16] = size.to_bytes(8, "little")
    path.write_bytes(data)
    assert "is a damaged HDF5 file: its heap at byte" in problems(path)[0]


def test_other_lengths_than_kerass_are_refused(tmp_path):
    """A superblock may not give its heaps another layout than the one that is checked."""
    path = write_h5(tmp_path, sequential(ENTRY, lstm()))
    data = bytearray(path.read_bytes())
    data[14] = 4
    path.write_bytes(data)
    assert "its superblock is not as Keras writes it" in problems(path)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"class_name": []},
        {"config": {"units": UNITS, "dtype": {"class_name": {}}}},
        {"config": {"units": UNITS, "activation": {"class_name": "function", "config": ["a>b"]}}},
    ],
)
def test_names_that_are_lists_are_refused(changes, tmp_path):
    """What stands for a class or a function may be anything in a file that no Keras wrote."""
    with pytest.raises(FormatError):
        read_network(write_h5(tmp_path, sequential(ENTRY, lstm() | changes)))


def test_a_configuration_beside_weights_is_of_a_model(tmp_path):
    """Its class may be anything in a file that no Keras wrote."""
    weights = copied("keras3", "chain.weights", tmp_path).with_name("chain.weights.h5")
    (tmp_path / "chain.json").write_text('{"class_name": []}')
    assert "only Sequential and functional models are read" in problems(weights)[0]


def test_attributes_that_are_no_texts_are_not_read(tmp_path):
    """A type of strings that is damaged would end the process in the library."""
    path = write_h5(tmp_path, sequential(ENTRY, lstm()))
    with h5py.File(path, "r+") as file:
        names = list(file["model_weights/lstm"].attrs["weight_names"])
        del file["model_weights/lstm"].attrs["weight_names"]
        dtype = h5py.string_dtype()
        file["model_weights/lstm"].attrs.create("weight_names", names, dtype=dtype)
    data = bytearray(path.read_bytes())
    at = data.rindex(b"weight_names\0\0\0\0\x19") + 16
    data[at + 1] = 0x7F
    path.write_bytes(data)
    assert "attribute weight_names holds no text" in problems(path)[0]


def test_a_damaged_root_is_a_format_error(tmp_path):
    """What the library says of an object that it cannot open is told as the file's fault."""
    path = write_h5(tmp_path, sequential(ENTRY, lstm()))
    data = bytearray(path.read_bytes())
    root = int.from_bytes(data[64:72], "little")
    data[root] = 0xFF
    path.write_bytes(data)
    with pytest.raises(FormatError, match="damaged"):
        read_network(path)


def test_names_in_pieces(tmp_path):
    """Lists that are too long for one attribute are in several."""
    path = write_h5(tmp_path, sequential(ENTRY, lstm()))
    with h5py.File(path, "r+") as file:
        attributes = file["model_weights/lstm"].attrs
        names = list(attributes["weight_names"])
        del attributes["weight_names"]
        attributes["weight_names0"], attributes["weight_names1"] = names[:2], names[2:]
    assert read_network(path).state_size == 2 * UNITS


def test_links_are_not_followed(tmp_path):
    """Nothing outside the file is opened for its sake."""
    path = write_h5(tmp_path, sequential(ENTRY, lstm()))
    with h5py.File(path, "r+") as file:
        del file["model_weights/lstm"]
        file["model_weights/lstm"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/")
    assert "is a link, which is not followed" in problems(path)[0]


def test_weights_need_their_configuration(tmp_path):
    """It is looked for under the weights' name, then under one for the directory."""
    weights = copied("keras3", "chain.weights", tmp_path).with_name("chain.weights.h5")
    (found,) = problems(weights)
    assert str(tmp_path / "chain.json") in found
    assert str(tmp_path / "config.json") in found
    copied("keras3", "chain.json", tmp_path).rename(tmp_path / "config.json")
    assert format_at(weights).name == "a .weights.h5 of Keras"
    network = read_network(weights)
    assert network.written_by == "Keras 3"
    assert (
        network.fingerprint == read_network(copied("keras3", "chain.keras", tmp_path)).fingerprint
    )


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("chain.json", "{", "is not valid JSON"),
        ("chain.json", "[]", "holds no JSON object"),
        ("chain.json", '{"keras_version": 3}', "keras_version is 3"),
        ("chain.json", " " * (17 << 20), "has more than"),
        ("metadata.json", "1", "holds no JSON object"),
    ],
)
def test_damaged_configurations_beside_weights(name, text, problem, tmp_path):
    """The file that is at fault is named."""
    weights = copied("keras3", "chain.weights", tmp_path).with_name("chain.weights.h5")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_text(text)
    with pytest.raises(FormatError, match=problem) as caught:
        read_network(weights)
    assert caught.value.path == str(tmp_path / name)


def test_an_hdf5_file_of_something_else(tmp_path):
    """It is no model for being HDF5."""
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["x"] = [1.0]
    (tmp_path / "data.json").write_text("{}")
    assert "holds no weights as Keras lays them out" in problems(path)[0]


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.sampled_from(["LSTM", "model", "", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("config"), inner),
    max_leaves=4,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the place of every part of a JSON value."""
    if not isinstance(value, dict | list):
        return [path]
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [path] * bool(path) + [p for key, each in items for p in places(each, (*path, key))]


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_junk_in_a_config_never_raises_anything_else(data, tmp_path):
    """Whatever stands at any place of a config of Keras 1 or 2, nothing but FormatError comes."""
    cells = [layer("LSTMCell", units=UNITS), layer("LSTMCell", units=1)]
    chain = [
        layer("Bidirectional", layer=lstm(), merge_mode="sum"),
        layer("RNN", cell=layer("StackedRNNCells", cells=cells), return_sequences=True),
        layer("TimeDistributed", layer=layer("Dense", units=2, activation="hard_sigmoid")),
        lstm(dtype={"class_name": "Policy", "config": {"name": "mixed_float16"}}),
    ]
    names = ["input", *(each["config"]["name"] for each in chain)]
    nodes = [
        called(name, each, before)
        for name, each, before in zip(names[1:], chain, names, strict=False)
    ]
    functional = {
        "name": "model",
        "layers": [called("input", ENTRY), *nodes],
        "input_layers": [["input", 0, 0]],
        "output_layers": [["lstm", 0, 0]],
    }
    graph = {"class_name": "Functional", "config": functional}
    model = data.draw(st.sampled_from([graph, sequential(ENTRY, *chain), sequential(*chain)]))
    model = json.loads(json.dumps(model))
    path = data.draw(st.sampled_from(places(model)))
    parent = model
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = data.draw(JUNK)
    version = data.draw(st.sampled_from(["1.2.2", "2.4.0", "3.0.0"]))
    with contextlib.suppress(FormatError):
        read(tmp_path, model, version=version)
