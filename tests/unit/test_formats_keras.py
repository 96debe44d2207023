"""`read_keras` on hand-made files: structure, every refusal, and what a hostile file may try."""

from __future__ import annotations

import contextlib
import io
import json
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lstm_core.errors import FormatError
from lstm_core.formats.hdf5 import MIN_BOUND_BYTES, VariableStore
from lstm_core.formats.keras import read_keras
from lstm_core.formats.keras_config import group_names
from lstm_core.formats.keras_numbered_weights import NumberedVariables
from lstm_core.network import Network, Recurrent

FEATURES, UNITS = 3, 2

Json = dict[str, Any]


def layer(class_name: str, **config: Any) -> Json:
    """Return a serialised layer of Keras's own."""
    config.setdefault("name", class_name.lower())
    return {
        "module": "keras.layers",
        "class_name": class_name,
        "config": config,
        "registered_name": None,
    }


def lstm(**config: Any) -> Json:
    """Return a serialised LSTM."""
    return layer("LSTM", **{"units": UNITS, "return_sequences": True, **config})


def entry(*shape: int | None, **config: Any) -> Json:
    """Return a serialised InputLayer."""
    return layer("InputLayer", name="input", batch_shape=[None, *shape], dtype="float32", **config)


def sequential(*layers: Json, name: str = "model") -> Json:
    """Return a serialised Sequential model."""
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": name, "layers": list(layers)},
    }


def functional(*layers: Json, outputs: Any = None) -> Json:
    """Return a serialised functional chain; `inbound_nodes` may be set beforehand."""
    linked = []
    for before, each in zip((None, *layers), layers, strict=False):
        nodes = [] if before is None else [{"args": [tensor(before)], "kwargs": {}}]
        linked.append({"inbound_nodes": nodes, **each})
    config = {
        "name": "model",
        "layers": linked,
        "input_layers": [layers[0]["config"]["name"], 0, 0],
        "output_layers": outputs or [layers[-1]["config"]["name"], 0, 0],
    }
    module = "keras.src.models.functional"
    return {"module": module, "class_name": "Functional", "config": config}


def tensor(source: Json, index: int = 0) -> Json:
    """Return a symbolic tensor: an output of a layer."""
    history = [source["config"]["name"], 0, index]
    return {"class_name": "__keras_tensor__", "config": {"keras_history": history}}


def lstm_arrays(group: str, features: int = FEATURES, units: int = UNITS) -> dict[str, Any]:
    """Return an LSTM's variables by path, as Keras lays them out."""
    random = np.random.default_rng(0)
    shapes = [(features, 4 * units), (units, 4 * units), (4 * units,)]
    return {
        f"{group}/vars/{index}": random.normal(size=shape).astype(np.float32)
        for index, shape in enumerate(shapes)
    }


LSTM_ARRAYS = lstm_arrays("layers/lstm/cell")
MODEL = sequential(entry(None, FEATURES), lstm())


def hdf5(arrays: dict[str, Any]) -> bytes:
    """Return an HDF5 file of arrays by path."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for path, array in arrays.items():
            file[path] = array
    return buffer.getvalue()


def write(
    directory: Path,
    model: Any = MODEL,
    arrays: dict[str, Any] | None = None,
    compression: int = zipfile.ZIP_STORED,
    **members: Any,
) -> Path:
    """Write a `.keras` file; a member given as None is left out, one given as bytes replaced."""
    content = {
        "metadata.json": json.dumps({"keras_version": "3.15.1"}).encode(),
        "config.json": json.dumps(model).encode(),
        "model.weights.h5": hdf5(LSTM_ARRAYS if arrays is None else arrays),
    } | {name.replace("__", "."): data for name, data in members.items()}
    path = directory / "model.keras"
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in content.items():
            if data is not None:
                file.writestr(name, data)
    return path


def problems(directory: Path, *args: Any, **kwargs: Any) -> list[str]:
    """Return what a file is refused for."""
    path = write(directory, *args, **kwargs)
    with pytest.raises(FormatError) as caught:
        read_keras(path)
    assert str(path) in str(caught.value)
    return caught.value.problems


def read(directory: Path, *args: Any, **kwargs: Any) -> Network:
    """Write a file and read it."""
    return read_keras(write(directory, *args, **kwargs))


def test_sequential_model(tmp_path):
    """A Sequential file becomes a network with the weights where Keras puts them."""
    network = read(tmp_path)
    assert (network.name, network.input_size, network.output_size) == ("model", FEATURES, UNITS)
    (only,) = network.layers
    assert isinstance(only, Recurrent)
    np.testing.assert_array_equal(only.weights.kernel, LSTM_ARRAYS["layers/lstm/cell/vars/0"])
    assert only.return_sequences


def test_arguments_that_are_left_out_are_kerass_defaults(tmp_path):
    """A config without activations means tanh and sigmoid; null means none."""
    (default,) = read(tmp_path).layers
    (linear,) = read(tmp_path, sequential(entry(None, FEATURES), lstm(activation=None))).layers

    assert isinstance(default, Recurrent)
    assert isinstance(linear, Recurrent)
    assert (default.spec.activation, default.spec.recurrent_activation) == ("tanh", "sigmoid")
    assert linear.spec.activation == "linear"


def test_functional_chain(tmp_path):
    """A functional file is read along its wiring, whatever the order of its layers."""
    chain = [entry(None, FEATURES), lstm(name="first"), layer("Dropout"), lstm(name="second")]
    model = functional(*chain)
    arrays = LSTM_ARRAYS | lstm_arrays("layers/lstm_1/cell", UNITS)
    network = read(tmp_path, model, arrays)
    assert [each.name for each in network.layers] == ["first", "second"]
    model["config"]["layers"].reverse()
    arrays = lstm_arrays("layers/lstm/cell", UNITS) | lstm_arrays("layers/lstm_1/cell")
    assert [each.name for each in read(tmp_path, model, arrays).layers] == ["first", "second"]


def test_own_layer_has_its_weights_on_itself(tmp_path):
    """Our own layer is known by its registered name, and has no cell."""
    own = lstm() | {"module": "lstm_core.layers.lstm", "registered_name": "lstm_core>LSTM"}
    model = sequential(entry(None, FEATURES), own)
    assert read(tmp_path, model, lstm_arrays("layers/lstm")).state_size == 2 * UNITS
    own["config"]["time_major"] = True
    assert "time_major=True" in problems(tmp_path, model, lstm_arrays("layers/lstm"))[0]


def test_group_names():
    """HDF5 groups are Keras's snake case of the class, with an index from the second on."""
    assert group_names(["LSTM", "PReLU", "LSTM", "SpatialDropout1D", "LSTM", "LeakyReLU"]) == [
        "lstm",
        "p_re_lu",
        "lstm_1",
        "spatial_dropout1d",
        "lstm_2",
        "leaky_re_lu",
    ]


def test_bfloat16_and_float64_weights_become_float32(tmp_path):
    """Weights of other floating types are read as float32; bfloat16 is stored as two raw bytes."""
    arrays = {path: array.astype(np.float64) for path, array in LSTM_ARRAYS.items()}
    buffer = io.BytesIO()
    kernel = LSTM_ARRAYS["layers/lstm/cell/vars/0"]
    with h5py.File(buffer, "w") as file:
        for path, array in arrays.items():
            file[path] = array
        del file["layers/lstm/cell/vars/0"]
        halves = (kernel.view(np.uint32) >> 16).astype(np.uint16).view("V2")
        file.create_dataset("layers/lstm/cell/vars/0", data=halves).attrs["dtype"] = "bfloat16"
    network = read(tmp_path, model__weights__h5=buffer.getvalue())
    weights = network.recurrent[0].weights
    assert weights.kernel.dtype == weights.recurrent_kernel.dtype == np.float32
    np.testing.assert_allclose(weights.kernel, kernel, rtol=2**-7)


@pytest.mark.parametrize(
    ("member", "data", "problem"),
    [
        ("metadata__json", None, "is not a .keras file: it has no metadata.json"),
        ("config__json", None, "is not a .keras file: it has no config.json"),
        ("model__weights__h5", None, "is not a .keras file: it has no model.weights.h5"),
        ("config__json", b"{", "config.json is not valid JSON"),
        ("config__json", b"\xff\xfe\x00", "config.json is not valid JSON"),
        ("config__json", b"[" * 100_000, "config.json is not valid JSON"),
        ("config__json", b"[]", "config.json holds no JSON object"),
        ("config__json", b"{}", "only Sequential and functional models are read"),
        ("metadata__json", b"{}", "does not tell the version"),
        ("metadata__json", b'{"keras_version": "1.2.0"}', "was written by Keras 1.2.0"),
        ("metadata__json", b" " * (2 << 20), "metadata.json unpacks to 2097152 bytes"),
        ("config__json", b" " * (17 << 20), "config.json unpacks to"),
        ("model__weights__h5", b"no HDF5", "model.weights.h5 is damaged"),
    ],
)
def test_damaged_members(member, data, problem, tmp_path):
    """Each member that is missing, broken or too large is named."""
    found = problems(tmp_path, **{member: data})
    assert len(found) == 1
    assert problem in found[0]


def test_other_files_say_what_they_are(tmp_path):
    """A missing file, a directory, a SavedModel, HDF5 and anything else are told apart."""
    saved_model = tmp_path / "saved"
    saved_model.mkdir()
    (saved_model / "saved_model.pb").touch()
    (tmp_path / "legacy.h5").write_bytes(hdf5(LSTM_ARRAYS))
    (tmp_path / "text").write_text("hello")
    (tmp_path / "empty").touch()
    for name, what in (
        ("absent.keras", "no such file"),
        ("saved", "a TensorFlow SavedModel"),
        (".", "a directory"),
        ("legacy.h5", "an HDF5 file"),
        ("text", "not a zip archive"),
        ("empty", "not a zip archive"),
    ):
        with pytest.raises(FormatError, match=what):
            read_keras(tmp_path / name)


def test_every_truncation_is_a_format_error(tmp_path):
    """A file cut anywhere is refused, never half read."""
    path = write(tmp_path)
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(FormatError):
            read_keras(path)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_flipped_bytes_never_raise_anything_else(data, tmp_path):
    """A damaged file is read or refused, and nothing but FormatError comes out."""
    path = write(tmp_path)
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    with contextlib.suppress(FormatError):
        read_keras(path)


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.sampled_from(["LSTM", "model", "", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("config"), inner),
    max_leaves=4,
)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every part of a JSON value."""
    if not isinstance(value, dict | list):
        return [path]
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [path] * bool(path) + [p for key, each in items for p in paths_of(each, (*path, key))]


@settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_junk_in_a_config_never_raises_anything_else(data, tmp_path):
    """Whatever stands at any place of a config, the file is read or refused by FormatError."""
    cells = [layer("LSTMCell", units=UNITS), layer("LSTMCell", units=1)]
    both = layer("Bidirectional", layer=lstm(), backward_layer=lstm(go_backwards=True))
    both["config"]["merge_mode"] = "sum"
    chain = [
        entry(None, FEATURES),
        layer("Masking", mask_value=0.0),
        layer("Rescaling", scale=2.0, offset=[0.0, 1.0, 2.0]),
        layer("Normalization", axis=[-1], mean=[1, 2, 3], variance=[1, 2, 3], invert=False),
        layer("TimeDistributed", layer=layer("ReLU", max_value=None, negative_slope=0.5)),
        layer("BatchNormalization", axis=-1, scale=True, center=True, epsilon=1e-3),
        both,
        layer("RNN", cell=layer("StackedRNNCells", cells=cells)),
    ]
    model = data.draw(st.sampled_from([functional(*chain), sequential(*chain)]))
    model = json.loads(json.dumps(model))
    path = data.draw(st.sampled_from(paths_of(model)))
    parent = model
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = data.draw(JUNK)
    with contextlib.suppress(FormatError):
        read(tmp_path, model)


def test_corrupted_data_in_the_zip_is_found(tmp_path):
    """A wrong checksum is damage."""
    path = write(tmp_path)
    data = path.read_bytes()
    at = data.index(b"keras_version")
    path.write_bytes(data[:at] + b"Keras" + data[at + 5 :])
    with pytest.raises(FormatError, match=r"damaged \.keras file.*CRC"):
        read_keras(path)


def test_decompression_bombs_are_refused(tmp_path):
    """A member that unpacks to far more than the file is refused before it is unpacked."""
    found = problems(tmp_path, compression=zipfile.ZIP_DEFLATED, model__weights__h5=bytes(8 << 20))
    assert "model.weights.h5 unpacks to 8388608 bytes" in found[0]
    found = problems(tmp_path, compression=zipfile.ZIP_LZMA)
    assert "packed in a way that Keras never uses" in found[0]


def test_a_member_may_not_be_longer_than_it_tells(tmp_path):
    """What a zip tells of a member's size is not believed: no more is unpacked."""
    path = write(tmp_path, compression=zipfile.ZIP_DEFLATED, model__weights__h5=bytes(64 << 20))
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = (100).to_bytes(4, "little")
    path.write_bytes(data)
    tracemalloc.start()
    with pytest.raises(FormatError, match=r"damaged \.keras file.*CRC"):
        read_keras(path)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()


def bomb(path: str = "layers/lstm/cell/vars/0") -> bytes:
    """Return weights whose kernel claims 2**40 bytes and stores none."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in LSTM_ARRAYS.items():
            if name != path:
                file[name] = array
        file.create_dataset(path, shape=(FEATURES, 1 << 36), dtype="f4", chunks=(1, 1024))
    return buffer.getvalue()


def test_shape_bombs_are_refused(tmp_path):
    """An array may claim no more bytes than its file can hold."""
    found = problems(tmp_path, model__weights__h5=bomb())
    assert found == [f"lstm: kernel has shape (3, {1 << 36}), expected (3, 8)"]
    found = problems(
        tmp_path,
        sequential(entry(None, FEATURES), lstm(units=1 << 34)),
        model__weights__h5=bomb(),
    )
    assert "claims more bytes than the file can hold" in found[0]


def test_a_chunk_may_be_no_larger_than_the_file_can_hold(tmp_path):
    """HDF5 unpacks whole chunks, however little of one is in the array."""
    buffer = io.BytesIO(hdf5(LSTM_ARRAYS))
    with h5py.File(buffer, "r+") as file:
        path = "layers/lstm/cell/vars/0"
        del file[path]
        size = {"shape": (FEATURES, 4 * UNITS), "maxshape": (None, None), "chunks": (4096, 4096)}
        file.create_dataset(path, dtype="f4", compression="gzip", **size)[0, 0] = 1
    found = problems(tmp_path, model__weights__h5=buffer.getvalue())
    assert "claims more bytes than the file can hold" in found[0]


def test_models_of_too_many_layers_or_too_long_a_name(tmp_path):
    """Neither takes time and memory by its square."""
    inner = sequential(*[layer("Dropout", name=str(i)) for i in range(9)], name="n" * 5000)
    assert "too long a name" in problems(tmp_path, sequential(entry(None, FEATURES), inner))[0]
    many = sequential(entry(None, FEATURES), *[lstm(name=str(i)) for i in range(10_000)])
    assert "has more than 10000 layers" in problems(tmp_path, many)[0]


def test_the_bound_is_on_all_arrays_together():
    """One array linked a thousand times does not take a thousand times its place."""
    data = hdf5({"layers/lstm/vars/0": np.zeros(MIN_BOUND_BYTES // 8, np.float32)})
    with h5py.File(io.BytesIO(data), "r") as file:
        store = VariableStore(file, 1)
        variables = NumberedVariables(store, "lstm", "layers/lstm")
        for _ in range(2):
            variables.read(0, "kernel", (None,))
        with pytest.raises(ValueError, match="claims more bytes"):
            variables.read(0, "kernel", (None,))


def linked(directory: Path, kind: str) -> bytes:
    """Return weights whose kernel is somewhere else."""
    other = directory / "other.h5"
    other.write_bytes(hdf5(LSTM_ARRAYS))
    kernel = "layers/lstm/cell/vars/0"
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for path, array in LSTM_ARRAYS.items():
            if path != kernel:
                file[path] = array
        if kind == "soft":
            file["real"] = LSTM_ARRAYS[kernel]
            file[kernel] = h5py.SoftLink("/real")
        elif kind == "external":
            file[kernel] = h5py.ExternalLink(str(other), kernel)
        elif kind == "external data":
            (directory / "raw").write_bytes(LSTM_ARRAYS[kernel].tobytes())
            file.create_dataset(
                kernel, (FEATURES, 4 * UNITS), "f4", external=[(str(directory / "raw"), 0, 96)]
            )
        else:
            layout = h5py.VirtualLayout((FEATURES, 4 * UNITS), "f4")
            layout[:] = h5py.VirtualSource(str(other), kernel, (FEATURES, 4 * UNITS))
            file.create_virtual_dataset(kernel, layout)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("soft", "is a link, which is not followed"),
        ("external", "is a link, which is not followed"),
        ("external data", "keeps its data in other files"),
        ("virtual", "keeps its data in other files"),
    ],
)
def test_links_are_not_followed(kind, problem, tmp_path):
    """Nothing outside the file is opened for its sake, nor any link inside followed."""
    (found,) = problems(tmp_path, model__weights__h5=linked(tmp_path, kind))
    assert found.startswith("lstm: its kernel cannot be read: ")
    assert problem in found


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"0": np.zeros((3, 9), "f4")}, "lstm: kernel has shape (3, 9), expected (3, 8)"),
        ({"0": np.zeros((4, 8), "f4")}, "lstm: kernel has shape (4, 8), expected (3, 8)"),
        ({"1": np.zeros((2, 8, 1), "f4")}, "lstm: recurrent_kernel has shape (2, 8, 1)"),
        ({"2": np.zeros((), "f4")}, "lstm: bias has shape (), expected (8,)"),
        ({"2": None}, "lstm: its bias is missing: no layers/lstm/cell/vars/2"),
        ({"2": np.full(8, np.nan, "f4")}, "lstm: its bias has values that are not finite"),
        ({"2": np.full(8, 1e39)}, "lstm: its bias has values that are not finite in float32"),
        ({"2": np.zeros(8, "i4")}, "holds int32, not real numbers"),
        ({"2": np.zeros(8, "c8")}, "holds complex64, not real numbers"),
        ({"2": np.array([b"x"] * 8)}, "not real numbers"),
    ],
)
def test_wrong_weights_name_the_layer(changes, problem, tmp_path):
    """A variable that does not fit its config is named with its layer and both shapes."""
    arrays = LSTM_ARRAYS | {f"layers/lstm/cell/vars/{key}": v for key, v in changes.items()}
    arrays = {path: array for path, array in arrays.items() if array is not None}
    (found,) = problems(tmp_path, arrays=arrays)
    assert problem in found


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ((FEATURES,), "served is (batch, time, features)"),
        ((None, 4, FEATURES), "served is (batch, time, features)"),
        ((None, None), "features is None, not a positive integer"),
        ((None, 0), "features is 0, not a positive integer"),
    ],
)
def test_inputs_that_are_no_sequences_of_features(shape, problem, tmp_path):
    """The input's rank and size decide what a step is, so they must be known."""
    (found,) = problems(tmp_path, sequential(entry(*shape), lstm()))
    assert found.startswith("input: ")
    assert problem in found


def test_inputs_of_other_types(tmp_path):
    """Integers need an embedding, and an embedding one integer a step."""
    integers = entry(None, FEATURES)
    integers["config"]["dtype"] = "int32"
    assert "'int32', not real numbers" in problems(tmp_path, sequential(integers, lstm()))[0]
    ragged = entry(None, FEATURES, ragged=True)
    assert "sparse or ragged" in problems(tmp_path, sequential(ragged, lstm()))[0]
    embedding = layer("Embedding", input_dim=4, output_dim=FEATURES, mask_zero=True)
    arrays = LSTM_ARRAYS | {"layers/embedding/vars/0": np.ones((4, FEATURES), "f4")}
    network = read(tmp_path, sequential(entry(None), embedding, lstm()), arrays)
    assert (network.input_size, network.vocabulary) == (1, 4)
    wide = sequential(entry(None, FEATURES), embedding, lstm())
    assert "before an Embedding" in problems(tmp_path, wide, arrays)[0]
    assert "has 0 input layers" in problems(tmp_path, sequential(lstm()))[0]


def test_every_layer_at_fault_is_named_once(tmp_path):
    """One error lists each layer that cannot be read, in order, and nothing that only follows."""
    model = sequential(
        entry(None, FEATURES),
        layer("GRU"),
        lstm(),
        layer("Lambda", function={"class_name": "__lambda__", "config": {"code": "!"}}),
        layer("Dense", units=4, activation={"class_name": "function", "config": "My>act"}),
        lstm(name="shaped", units=5),
        layer("Dense", name="int8", units=1, dtype={"class_name": "QuantizedDTypePolicy"}),
        layer("Dense", name="lora", units=1, lora_rank=2),
        layer("Dense", name="custom") | {"registered_name": "My>Dense", "module": "my"},
        layer("Foo") | {"registered_name": "Foo", "module": "my.code"},
    )
    found = problems(tmp_path, model, LSTM_ARRAYS | lstm_arrays("layers/lstm_1/cell"))
    assert [each.split(":")[0] for each in found] == [
        "gru", "lambda", "dense", "shaped", "int8", "lora", "custom", "foo",
    ]  # fmt: skip
    for each, reason in zip(
        found,
        [
            "is a GRU",
            "Python code, which is never run",
            "its activation My>act is code",
            "kernel has shape (3, 8), expected (3, 20)",
            "QuantizedDTypePolicy",
            "low-rank adapter",
            "My>Dense, a custom layer",
            "my.code.Foo, a custom layer",
        ],
        strict=True,
    ):
        assert reason in each
    # The second kernel may have any number of rows: what comes before it could not be read.
    assert "expected (3, 20)" in found[3]


def test_an_unknown_activation_names_its_layer_once(tmp_path):
    """A recurrent layer's problem stands behind one name, as any other's."""
    (found,) = problems(tmp_path, sequential(entry(None, FEATURES), lstm(activation="cube")))
    assert found.startswith("lstm: unknown activation 'cube'; known: ")


def test_error_tells_the_writer(tmp_path):
    """The message tells which Keras wrote the file, and lists one problem a line."""
    path = write(tmp_path, sequential(entry(None, FEATURES), layer("GRU"), layer("Conv1D")))
    with pytest.raises(FormatError) as caught:
        read_keras(path)
    first, *rest = str(caught.value).splitlines()
    assert first == f"{path} (written by Keras 3.15.1): "
    assert [line[:5] for line in rest] == ["  - g", "  - c"]
    assert caught.value.written_by == "Keras 3.15.1"


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        ({"kwargs": {"initial_state": [1]}}, "lstm: is called with initial_state"),
        ({"kwargs": {"training": True}}, "lstm: is called with training=True"),
        ({"kwargs": {"mask": [[True]]}}, "lstm: is called with a mask made outside the chain"),
        ({"args": []}, "lstm: joins 0 layers"),
        ({"args": [tensor(entry(None, 3)), 2]}, "lstm: is called with 2 arguments"),
        ({"args": [tensor(entry(None, 3), 1)]}, "input: gives its output number 1 on, a state"),
        ({"args": [tensor(layer("Gone"))]}, "model: its layer 'gone' is missing"),
        ({"args": [tensor(lstm())]}, "model: its layers do not begin at an input"),
    ],
)
def test_functional_calls_that_are_no_chain(node, problem, tmp_path):
    """A call with anything but the layer before it is refused with its reason."""
    source = entry(None, FEATURES)
    call = {"args": [tensor(source)], "kwargs": {"training": False, "mask": None}} | node
    model = functional(source, lstm() | {"inbound_nodes": [call]})
    assert any(found.startswith(problem) for found in problems(tmp_path, model))


def test_strays_are_named(tmp_path):
    """A layer off the chain is named, not left out in silence."""
    chain = [entry(None, FEATURES), lstm(), layer("Dropout")]
    model = functional(*chain, outputs=["lstm", 0, 0])
    assert problems(tmp_path, model) == [
        "dropout: is not on the chain from the input to the output"
    ]


def test_refused_combinations(tmp_path):
    """What Keras may express and a network may not has its reason."""
    backward = lstm(go_backwards=True)
    cases = [
        (layer("Bidirectional", layer=lstm(), backward_layer=backward), "merge_mode is None"),
        (
            layer("Bidirectional", layer=lstm(), backward_layer=lstm(), merge_mode="sum"),
            "its kernel is missing: no layers/bidirectional/forward_layer/cell/vars/0",
        ),
        (layer("RNN", cell=layer("GRUCell")), "its cell is a GRUCell"),
        (layer("TimeDistributed", layer=lstm()), "cannot serve a LSTM for each time step"),
        (layer("Normalization", axis=[1], mean=None), "works along axis [1]"),
        (layer("Rescaling", scale="1", offset=0), "scale is '1', not a number"),
        (layer("Rescaling", scale=[[1, 2], [3, 4]], offset=0), "scale is not a finite number"),
        (layer("Masking", mask_value=[1, 2]), "mask_value is not one number"),
        (layer("LeakyReLU", negative_slope=True), "negative_slope is True, not a finite number"),
        (layer("LeakyReLU", negative_slope=10**400), "negative_slope is 1000"),
        (layer("Activation", activation="sparsemax"), "unknown activation 'sparsemax'"),
        (lstm(units="4"), "units is '4', not a positive integer"),
        (lstm(go_backwards="no"), "go_backwards is 'no', not true or false"),
        (lstm(return_state=True), "gives its states on"),
    ]
    for case, problem in cases:
        found = problems(tmp_path, sequential(entry(None, FEATURES), case), {})
        assert problem in found[0]


def test_two_layers_of_one_name_are_refused(tmp_path):
    """Names must tell layers apart, as Keras asks for too."""
    found = problems(tmp_path, sequential(entry(None, FEATURES), lstm(name="a"), lstm(name="a")))
    assert found == ["a: is the name of 2 layers"] * 2


def test_nested_models_are_unfolded(tmp_path):
    """A nested model's layers and variables are found below its own name."""
    inner = sequential(entry(None, UNITS), lstm(), name="inner")
    arrays = LSTM_ARRAYS | lstm_arrays("layers/sequential/layers/lstm/cell", UNITS)
    network = read(tmp_path, sequential(entry(None, FEATURES), lstm(), inner), arrays)
    assert [part.layer for part in network.state_layout[::2]] == ["lstm", "inner/lstm"]
    model = functional(entry(None, FEATURES), lstm(), inner)
    assert read(tmp_path, model, arrays).fingerprint == network.fingerprint


def mask_graph(value: float) -> Json:
    """Return a functional model as Keras writes it behind a Masking of zero."""
    module = {"module": "keras.src.ops.numpy"}
    source, masking, last = entry(None, FEATURES), layer("Masking", mask_value=0.0), lstm()
    compare = layer("NotEqual", name="compare") | module
    compare["inbound_nodes"] = [{"args": [tensor(source), value], "kwargs": {}}]
    reduce = layer("Any", name="any", axis=-1, keepdims=False) | module
    reduce["inbound_nodes"] = [{"args": [tensor(compare)], "kwargs": {}}]
    masking["inbound_nodes"] = [{"args": [tensor(source)], "kwargs": {}}]
    last["inbound_nodes"] = [{"args": [tensor(masking)], "kwargs": {"mask": tensor(reduce)}}]
    return functional(source, compare, masking, reduce, last)


def test_mask_operations_in_a_functional_graph(tmp_path):
    """Keras's own mask operations are no layers, but only as long as they make the chain's mask."""
    network = read(tmp_path, mask_graph(0.0))
    assert [each.name for each in network.layers] == ["masking", "lstm"]
    found = problems(tmp_path, mask_graph(1.0))
    assert found[0] == "lstm: is called with a mask made outside the chain"


def test_mask_operations_as_the_output_are_refused(tmp_path):
    """An operation on the chain is not taken for a mask."""
    model = mask_graph(0.0)
    for each in model["config"]["layers"]:
        if each["config"]["name"] == "compare":
            each["inbound_nodes"] = [{"args": [tensor(lstm()), 0], "kwargs": {}}]
        if each["config"]["name"] == "lstm":
            each["inbound_nodes"] = [{"args": [tensor(layer("Masking"))], "kwargs": {}}]
    model["config"]["output_layers"] = ["any", 0, 0]
    assert problems(tmp_path, model) == [
        "compare: is the operation NotEqual, which is no layer",
        "any: is the operation Any, which is no layer",
    ]


def test_sizes_that_do_not_fit_name_the_layer(tmp_path):
    """A vector of another length than the features before it is refused."""
    rescaling = layer("Rescaling", scale=[1, 2, 3, 4], offset=0)
    found = problems(tmp_path, sequential(entry(None, FEATURES), rescaling, lstm()))
    assert found == ["rescaling: takes 4 features, but the layer before it gives 3"]


def test_a_masked_softmax_is_refused(tmp_path):
    """Keras applies the mask to the features there, which is never what was meant."""
    softmax = layer("Softmax", axis=-1)
    masking = layer("Masking", mask_value=0)
    found = problems(tmp_path, sequential(entry(None, FEATURES), masking, softmax, lstm()))
    assert "softmax: Keras applies the time steps' mask" in found[0]
    last = lstm(return_sequences=False)
    assert read(tmp_path, sequential(entry(None, FEATURES), masking, last, softmax)).layers
