"""SavedModels of Keras, changed by hand: what is missing or damaged is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lstm_core.errors import FormatError
from lstm_core.formats.protobuf import Message
from lstm_core.formats.read import read_network
from lstm_core.formats.tensorflow_bundle import Bundle
from tests.unit.tensorflow_files import bundle, copied, entry, field


def problems(path: Path) -> list[str]:
    """Return what a file is refused for."""
    with pytest.raises(FormatError) as caught:
        read_network(path)
    return caught.value.problems


def test_saved_models_that_lack_something(tmp_path):
    """What is missing or damaged is named, and where a configuration is looked for."""
    model = copied("tf_keras", "export", tmp_path)
    (model / "config.json").rename(tmp_path / "export.json")
    assert read_network(model).output_size == 2
    (tmp_path / "export.json").unlink()
    (found,) = problems(model)
    assert str(model / "config.json") in found
    (model / "variables" / "variables.index").unlink()
    assert problems(model) == ["No such file or directory"]


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        (b"\x0f", "is damaged"),
        (b"", "have no configuration"),
        (field(1, field(3, b"root") + field(5, b"{")), "is damaged"),
        (field(1, field(3, b"root") + field(5, b"[" * 100_000)), "is damaged"),
        (field(1, field(3, b"root") + field(5, b"[]")), "have no configuration"),
        (field(1, field(3, b"root") + field(5, b'{"config": {}}')), "a class of its own"),
    ],
)
def test_damaged_metadata(metadata, problem, tmp_path):
    """Keras's metadata are checked like any configuration."""
    model = copied("tf_keras", "saved_model", tmp_path)
    (model / "keras_metadata.pb").write_bytes(metadata)
    assert problem in problems(model)[0]


def test_metadata_as_before_tensorflow_2_5(tmp_path):
    """They were in the graph of objects of `saved_model.pb`; the references name the places."""
    model = copied("tf_keras", "saved_model", tmp_path)
    fingerprint = read_network(model).fingerprint
    metadata = model / "keras_metadata.pb"
    told = {
        node.text(3).partition(".")[2]: node.text(5).encode()
        for node in Message(memoryview(metadata.read_bytes())).messages(1)
    }
    references, nodes = b"", []
    for number, (place, text) in enumerate(told.items()):
        nodes.append(field(4, field(1, b"_tf_keras_layer") + field(3, text)))
        if place and "." not in place:
            references += field(1, field(1, number) + field(2, place.encode()))
    nodes[0] += references
    graph = b"".join(field(1, node) for node in nodes)
    (model / "saved_model.pb").write_bytes(field(2, field(7, graph)))
    metadata.unlink()
    assert read_network(model).fingerprint == fingerprint


def test_the_graph_of_objects_is_checked(tmp_path):
    """It must be there, and name objects that are."""
    model = copied("tf_keras", "saved_model", tmp_path)
    prefix = model / "variables" / "variables"
    data = Bundle(prefix).text("_CHECKPOINTABLE_OBJECT_GRAPH")
    assert data
    bundle(prefix, {"x": entry(b"\0\0\0\0", ())}, b"\0\0\0\0")
    assert "tells of no objects" in problems(model)[0]
    graph = field(1, field(1, field(1, 7) + field(2, b"layer-0")))
    stored = bytes([len(graph)]) + b"\0\0\0\0" + graph
    bundle(prefix, {"_CHECKPOINTABLE_OBJECT_GRAPH": entry(stored, (), dtype=7)}, stored)
    assert "is damaged" in problems(model)[0]


def test_exported_layers_of_one_name_are_refused(tmp_path):
    """The variables' names are all that tells an export's layers apart."""
    model = copied("tf_keras", "export", tmp_path)
    config = json.loads((model / "config.json").read_text())
    for each in config["config"]["layers"]:
        if each["class_name"] == "LSTM":
            each["config"]["name"] = "renamed"
    (model / "config.json").write_text(json.dumps(config))
    assert "renamed: its kernel is missing" in problems(model)[0]
