"""Damaged files of every format that is read here: a clear error, soon, and nothing else."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lstm_core.errors import FormatError
from lstm_core.formats.network_file import write_network_file
from lstm_core.formats.read import FORMATS, format_at, read_network

FIXTURES = Path(__file__).parent.parent / "fixtures" / "formats"
FILES = ("torch/cell.pt", "torch/words.safetensors", "onnx/peepholes.onnx", "own")


@pytest.fixture(params=FILES)
def whole(request, tmp_path) -> Path:
    """Copy a small file of each format; ours is one that was written now."""
    if request.param != "own":
        return Path(shutil.copy(FIXTURES / request.param, tmp_path))
    path: Path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        write_network_file(read_network(FIXTURES / "onnx" / "clip.onnx"), file)
    return path


def test_cut_off_at_every_byte(whole):
    """No beginning of a file is taken for all of it."""
    # At each byte where the format's own structure is, else at each seventh.
    size = whole.stat().st_size
    lengths = [n for n in range(size) if n < 900 or n > size - 300 or n % 7 == 0]
    for length in reversed(lengths):
        os.truncate(whole, length)
        with pytest.raises(FormatError):
            read_network(whole)


def test_changed_bytes_are_refused_or_another_model(whole):
    """A file with other bytes is refused, or is another model; nothing else is ever raised."""
    data = whole.read_bytes()
    drawn = random.Random(whole.name)
    num_refused = 0
    for _ in range(200):
        changed = bytearray(data)
        for _ in range(drawn.choice([1, 1, 2, 8])):
            changed[drawn.randrange(len(data))] = drawn.choice([0, 0xFF, drawn.randrange(256)])
        whole.write_bytes(changed)
        try:
            read_network(whole)
        except FormatError:
            num_refused += 1
    assert num_refused > 30


NO_MODELS = {
    "empty": b"",
    "text": b"Once upon a time",
    "zeros": bytes(5000),
    "image": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "elf": b"\x7fELF" + bytes(100),
}


@pytest.mark.parametrize("case", NO_MODELS)
def test_other_files(case, tmp_path):
    """What is no model is told so, with the formats that are read."""
    path = tmp_path / "model.keras"
    path.write_bytes(NO_MODELS[case])
    with pytest.raises(FormatError) as caught:
        read_network(path)
    for each in FORMATS:
        assert each.name in str(caught.value)


def test_what_is_not_there(tmp_path):
    """A missing file and a directory have messages of their own."""
    with pytest.raises(FormatError, match="there is no such file"):
        read_network(tmp_path / "absent")
    with pytest.raises(FormatError, match="is of no format that is read"):
        read_network(tmp_path)


def test_places_without_a_name(tmp_path, monkeypatch):
    """The directory that one is in may be a model, and the root is none."""
    monkeypatch.chdir(FIXTURES / "tf_keras" / "saved_model")
    assert (
        read_network(".").fingerprint
        == read_network(FIXTURES / "tf_keras" / "saved_model").fingerprint
    )
    monkeypatch.chdir(tmp_path)
    for place in (".", "..", "/"):
        with pytest.raises(FormatError, match="is of no format that is read"):
            read_network(place)


def test_the_name_decides_nothing(tmp_path):
    """A file is known by what it holds."""
    for name in ("torch/cell.pt", "onnx/clip.onnx", "torch/words.safetensors"):
        path = Path(shutil.copy(FIXTURES / name, tmp_path / "model"))
        assert format_at(path) is format_at(FIXTURES / name)


def test_a_reader_is_loaded_for_its_own_files(tmp_path):
    """A process that reads one format has the modules of no other, whatever that is."""
    shutil.copy(FIXTURES / "onnx" / "clip.onnx", tmp_path / "model")
    shown = "print(*sorted(each.rpartition('.')[2] for each in sys.modules if 'formats.' in each))"
    script = f"import sys; from lstm_core.formats.read import *; read_network('model'); {shown}"
    done = subprocess.run(
        [sys.executable, "-c", f"{script}; print('h5py' in sys.modules)"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(FIXTURES.parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    loaded, has_hdf5 = done.stdout.splitlines()
    others = {each for each in loaded.split() if not each.startswith("onnx")}
    assert others == {"protobuf", "read", "rnn_cell", "tensors"}
    assert has_hdf5 == "False"
