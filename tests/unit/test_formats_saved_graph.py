"""SavedModels of TensorFlow 1, changed by hand: signatures, variables, and every refusal."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lstm_core.errors import FormatError
from lstm_core.formats.protobuf import Message
from lstm_core.formats.read import format_at, read_network
from tests.unit.tensorflow_files import FIXTURES, bundle, entry, field

SAVED = FIXTURES / "tf1" / "saved_graph"


@pytest.fixture
def model(tmp_path) -> Path:
    """Copy the fixture."""
    return Path(shutil.copytree(SAVED, tmp_path / "model"))


def parts() -> tuple[bytes, bytes]:
    """Return the graph of the fixture, and its signature."""
    (graph,) = Message(memoryview((SAVED / "saved_model.pb").read_bytes())).messages(2)
    (signature,) = (each.blobs(2)[-1] for each in graph.messages(5))
    return bytes(graph.blobs(2)[-1]), bytes(signature)


def write(model: Path, *signatures: str, num_graphs: int = 1, output: str | None = None) -> None:
    """Write the graph again, under these signatures, or with one of an output of this name."""
    definition, signature = parts()
    if output is not None:
        signature = field(2, field(1, b"y") + field(2, field(1, output.encode())))
    told = b"".join(field(5, field(1, n.encode()) + field(2, signature)) for n in signatures)
    graph = field(2, field(2, definition) + told)
    (model / "saved_model.pb").write_bytes(field(1, 1) + graph * num_graphs)


def problem(model: Path) -> str:
    """Return what a model is refused for."""
    with pytest.raises(FormatError) as caught:
        read_network(model)
    return str(caught.value)


def test_the_only_or_the_default_signature_names_the_output(model):
    """The one there is, or `serving_default`, names the output."""
    whole = read_network(model)
    assert format_at(model).name == "a SavedModel"
    assert (whole.name, whole.written_by) == ("model", "TensorFlow")
    write(model, "mine")
    assert read_network(model).fingerprint == whole.fingerprint
    write(model, "mine", "serving_default")
    assert read_network(model).fingerprint == whole.fingerprint
    write(model, "serve", output="dense/MatMul")
    assert "dense/MatMul: is taken, but is nowhere" in problem(model)
    write(model, "serve", output="rnn/transpose_1:0")
    (layer,) = read_network(model).layers
    assert layer.name == "rnn/lstm_cell"


def test_what_cannot_be_served(model):
    """Signatures that leave a choice, and graphs beside each other, are refused."""
    write(model, "b", "a")
    assert "signatures: are ['a', 'b']; one, or serving_default" in problem(model)
    write(model)
    assert "signatures: are []" in problem(model)
    write(model, "serve", num_graphs=2)
    assert "has 2 graphs, of which one can be served" in problem(model)
    (model / "saved_model.pb").write_bytes(field(1, 1) + field(2, b""))
    assert "has no graph" in problem(model)
    (model / "saved_model.pb").write_bytes(b"\x0f")
    assert "saved_model.pb: is damaged" in problem(model)


def test_variables_are_those_of_the_file(model):
    """One that is missing or has another shape is named."""
    prefix = model / "variables" / "variables"
    bundle(prefix, {"rnn/lstm_cell/kernel": entry(bytes(4 * 7 * 16), (7, 16))}, bytes(4 * 7 * 16))
    assert "rnn/lstm_cell/bias: is a variable that is not in the file" in problem(model)
    bundle(prefix, {each: entry(bytes(64), (16,)) for each in names()}, bytes(64))
    assert "rnn/lstm_cell: its kernel has the shape (16,)" in problem(model)


def names() -> list[str]:
    """Return the names of the fixture's variables."""
    return ["rnn/lstm_cell/kernel", "rnn/lstm_cell/bias", "dense/kernel", "dense/bias"]
