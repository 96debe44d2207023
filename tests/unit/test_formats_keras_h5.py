"""HDF5 files of Keras, models and mere weights: damage, bounds, and what stands beside them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from lstm_core.errors import FormatError
from lstm_core.formats import hdf5
from lstm_core.formats.read import format_at, read_network
from tests.unit.keras_h5_files import ENTRY, UNITS, lstm, problems, sequential, write_h5
from tests.unit.tensorflow_files import copied


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
