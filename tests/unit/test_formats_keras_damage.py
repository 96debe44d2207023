"""`read_keras` on damaged and hostile files: a clear error within bounds, and nothing else."""

from __future__ import annotations

import contextlib
import io
import json
import tracemalloc
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lstm_core.errors import FormatError
from lstm_core.formats.hdf5 import MIN_BOUND_BYTES, VariableStore
from lstm_core.formats.keras import read_keras
from lstm_core.formats.keras_numbered_weights import NumberedVariables
from tests.unit.keras_files import (
    FEATURES,
    JUNK,
    LSTM_ARRAYS,
    UNITS,
    entry,
    functional,
    hdf5,
    layer,
    lstm,
    paths_of,
    problems,
    read,
    sequential,
    write,
)


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
