"""TensorFlow's checkpoints: every refusal, and what a hostile file may try.

That good ones give TensorFlow's numbers is shown in `tests/parity/test_formats_files.py`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstm_core.errors import FormatError
from lstm_core.formats.crc32c import crc32c
from lstm_core.formats.read import format_at, read_network
from lstm_core.formats.tf1_checkpoint import read_tf1_checkpoint
from lstm_core.kernels.cudnn_layout import Stack, checkpoint_names
from lstm_core.network import Bidirectional, Recurrent
from tests.unit.tensorflow_files import bundle, copied, entry, field, table

UNITS = 2


def problems(path: Path) -> list[str]:
    """Return what a file is refused for."""
    with pytest.raises(FormatError) as caught:
        read_network(path)
    return caught.value.problems


@pytest.mark.parametrize("size", [4096, 4099, 9000])
def test_checksums_of_long_data(size):
    """Many bytes at a time give what one at a time does."""
    data = np.random.default_rng(0).bytes(size)
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    assert register ^ 0xFFFFFFFF == crc32c(data)


def test_checksum_of_the_standard():
    """The value that RFC 3720's polynomial gives for nine digits."""
    assert crc32c(b"123456789") == 0xE3069283


@pytest.mark.parametrize("name", ["basic.index", "basic.data-00000-of-00001", "basic_v1"])
def test_every_truncation_is_a_format_error(name, tmp_path):
    """A checkpoint cut anywhere is refused, never half read."""
    model = copied("tf1", name.partition(".")[0], tmp_path)
    whole = (tmp_path / name).read_bytes()
    for size in range(0, len(whole), 37):
        (tmp_path / name).write_bytes(whole[:size])
        with pytest.raises(FormatError):
            read_tf1_checkpoint(model)


@pytest.mark.parametrize("name", ["basic.index", "basic.data-00000-of-00001", "basic_v1"])
def test_every_damage_is_found(name, tmp_path):
    """Wherever a byte is wrong, a checksum or a bound says so; none of them changes a number."""
    model = copied("tf1", name.partition(".")[0], tmp_path)
    fingerprint = read_network(model).fingerprint
    whole = (tmp_path / name).read_bytes()
    for at in range(0, len(whole), 29):
        (tmp_path / name).write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        try:
            assert read_network(model).fingerprint == fingerprint
        except FormatError:
            continue


def test_what_a_checkpoint_claims_is_compared_with_its_files(tmp_path):
    """Sizes, places and kinds that TensorFlow never writes are refused before memory is taken."""
    zeros = np.zeros((3, 4 * UNITS), np.float32).tobytes()
    shape = (3, 4 * UNITS)
    cases: list[tuple[bytes, str]] = [
        (entry(zeros, (1 << 40, 8)), "has another size than its shape"),
        (entry(zeros, (1 << 20, 1 << 20), size=1 << 42), "is cut off"),
        (entry(zeros, shape, offset=1 << 62), "is cut off"),
        (entry(zeros, shape, offset=8), "is cut off"),
        (entry(b"other", shape, size=len(zeros)), "checksum of lstm_cell/kernel is wrong"),
        (entry(zeros, shape, more=field(7, b"")), "has 0 of its 1 slices"),
        (entry(zeros, shape, dtype=3), "is of no layer"),
        (entry(zeros, shape, shard=1), "in a data file that there is not"),
        (entry(zeros, (-1, 8)), "a shape is not known"),
        (entry(zeros, shape, offset=-8), "makes no sense"),
        (b"\x0f", "unknown kind"),
    ]
    bias = entry(zeros[: 16 * UNITS], (4 * UNITS,))
    (tmp_path / "model.json").write_text('{"forget_bias": 1}')
    for kernel, problem in cases:
        entries = {"lstm_cell/bias": bias, "lstm_cell/kernel": kernel}
        assert problem in problems(bundle(tmp_path / "model", entries, zeros))[0]
    bundle(tmp_path / "model", {"lstm_cell/bias": bias}, zeros)
    (tmp_path / "model.data-00000-of-00001").unlink()
    assert problems(tmp_path / "model") == ["No such file or directory"]


@pytest.mark.parametrize(
    ("index", "problem"),
    [
        (b"", "is no table"),
        (bytes(4096), "is no table"),
        (table([(b"", field(1, 1))], kind=1), "is compressed"),
        (table([(b"", field(1, 1))], times=10_000), "claims more blocks"),
        (table([(b"", field(1, 1 << 40)), (b"x", entry(b"", ()))]), "No such file"),
        (table([(b"", field(1, 1) + field(2, 1))]), "big-endian"),
        (table([(b"", field(1, b""))]), "tells of 0 data files"),
        (table([(b"", b"\xff" * 20)]), "ends in the middle"),
        (table([]), "tells of 0 data files"),
        (table([(b"", b"")] * 100_001), "claims more entries"),
        (table([(b"x" * (1 << 20), b"")], repeats=65), "claims more entries"),
    ],
)
def test_indices_that_tensorflow_never_writes(index, problem, tmp_path):
    """An index is bounded in size, in entries and in what it may name."""
    (tmp_path / "model.index").write_bytes(index)
    assert problem in problems(tmp_path / "model")[0]


Shapes = dict[str, tuple[int, ...]]


def checkpoint(directory: Path, shapes: Shapes, *, options: Any = None, spare: int = 0) -> Path:
    """Write a checkpoint of ones that share their bytes, and of so many more."""
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    data = np.ones(max(sizes) + spare, np.float32).tobytes()
    entries = {
        name: entry(data[: 4 * int(np.prod(shape))], shape) for name, shape in shapes.items()
    }
    if options is not None:
        (directory / "model.json").write_text(json.dumps(options))
    return bundle(directory / "model", entries, data)


CELL: Shapes = {"lstm_cell/kernel": (5, 8), "lstm_cell/bias": (8,)}
TOLD = {"forget_bias": 1}


def test_forget_bias_must_be_told(tmp_path):
    """No default is taken for what changes every output; cuDNN's cell has none."""
    (found,) = problems(checkpoint(tmp_path, CELL))
    assert "say what it was in" in found
    assert str(tmp_path / "model.json") in found
    assert read_network(checkpoint(tmp_path, CELL, options=TOLD)).recurrent[0].spec.units == 2
    (tmp_path / "model.json").unlink()
    cudnn = {name.replace("lstm", "cudnn_compatible_lstm"): shape for name, shape in CELL.items()}
    assert read_network(checkpoint(tmp_path, cudnn)).recurrent[0].spec.forget_bias == 0


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"forget_bias": "1"}, "forget_bias is '1', not a finite number"),
        ({**TOLD, "forgetbias": 1}, "forgetbias is no field of it"),
        ({**TOLD, "activation": "sigmoid2"}, "unknown activation 'sigmoid2'"),
        ({**TOLD, "activation": ["tanh"]}, "unknown activation"),
        ({**TOLD, "cell_clip": -1}, "must be positive"),
        ({**TOLD, "cells": {}}, "cells is no list of objects"),
        ({**TOLD, "cells": [{"units": 3}]}, "cells have no units"),
        ({**TOLD, "layers": "lstm_cell"}, "layers is no list of scopes"),
        ({**TOLD, "layers": ["gone"]}, "gone: there is no such layer"),
        ({**TOLD, "head_activation": {}}, "head_activation is {}"),
        ({**TOLD, "return_sequences": 1}, "return_sequences is neither"),
        ({**TOLD, "cudnn": []}, "cudnn is not"),
        ([], "holds no JSON object"),
    ],
)
def test_options_are_checked(options, problem, tmp_path):
    """A field that is unknown or makes no sense is named."""
    assert problem in problems(checkpoint(tmp_path, CELL, options=options))[0]


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ({"gru_cell/gates/kernel": (5, 8)}, "gru_cell/gates: is no LSTM cell"),
        ({"rnn/mine/kernel": (5, 8)}, "rnn/mine: is no LSTM cell"),
        ({"embedding": (5, 3)}, "embedding: is of no layer"),
        ({"other/lstm_cell/kernel": (4, 8), "other/lstm_cell/bias": (8,)}, "name it in layers"),
        ({"fw/lstm_cell/kernel": (4, 8), "fw/lstm_cell/bias": (8,)}, "one direction of two"),
        ({"dense/kernel": (3, 2)}, "dense: takes 3 features, but the layer before it gives 2"),
        ({"dense/kernel": (2, 2), "dense/bias": (3,)}, "its bias (3,) does not fit"),
        ({"lstm_cell/w_i_diag": (2,)}, "its w_f_diag is missing"),
        ({"lstm_cell/projection/kernel": (3, 1)}, "projection have shape (3, 1)"),
        ({"lstm_cell/kernel": (1, 8)}, "does not fit its bias"),
        ({"lstm_cell/bias": (7,)}, "does not fit its bias"),
    ],
)
def test_variables_that_do_not_make_a_chain(more, problem, tmp_path):
    """What is of no layer, or of one that does not fit, is named, and not left out in silence."""
    found = problems(checkpoint(tmp_path, {**CELL, **more}, options=TOLD))
    assert any(problem in each for each in found)


def test_one_place_is_not_read_for_every_layer(tmp_path):
    """Tensors that share their bytes do not take more memory than the file allows."""
    cells: Shapes = {
        f"rnn/multi_rnn_cell/cell_{index}/{name}": (4, 8) if "kernel" in name else (8,)
        for index in range(8)
        for name in CELL
    }
    assert "claims more bytes" in problems(checkpoint(tmp_path, cells, options=TOLD))[0]


def test_optimizers_are_left_out(tmp_path):
    """Slots, powers and steps are no layers."""
    slots = {f"{name}/Adam": shape for name, shape in CELL.items()}
    slots |= {f"train/{name}/Adam_1": shape for name, shape in CELL.items()}
    model = checkpoint(tmp_path, {"beta1_power": (), **CELL, **slots}, options=TOLD)
    assert [layer.name for layer in read_network(model).layers] == ["lstm_cell"]


def test_a_buffer_of_cudnn_needs_its_sizes(tmp_path):
    """One number, the buffer's length, does not tell layers and units apart."""
    shape = (8 * (3 + 2) + 16,)
    assert "give cudnn in" in problems(checkpoint(tmp_path, {"opaque_kernel": shape}))[0]
    sizes = {"input_size": 3, "num_layers": 1, "num_units": 2}
    model = checkpoint(tmp_path, {"opaque_kernel": shape}, options={"cudnn": sizes})
    assert read_network(model).state_size == 4
    wrong = {"cudnn": {**sizes, "num_units": 1 << 40}}
    model = checkpoint(tmp_path, {"opaque_kernel": shape}, options=wrong)
    assert "expected" in problems(model)[0]


def test_a_checkpoint_is_known_by_its_prefix_or_its_index(tmp_path):
    """Either names the same model; the directory, and another file of it, name none."""
    model = copied("tf1", "basic", tmp_path)
    assert format_at(model).name == "a TensorFlow 1 checkpoint"
    index = read_network(tmp_path / "basic.index")
    assert read_network(model).fingerprint == index.fingerprint
    for other in (tmp_path, tmp_path / "basic.data-00000-of-00001", tmp_path / "basi"):
        with pytest.raises(FormatError):
            read_network(other)


def test_a_checkpoint_of_keras_needs_its_configuration(tmp_path):
    """Objects have numbers there, and no names: the configuration's order tells which is which."""
    model = copied("tf_keras", "chain_objects", tmp_path)
    assert format_at(model).name == "a checkpoint of Keras 2"
    (found,) = problems(model)
    assert str(tmp_path / "chain_objects.json") in found
    copied("tf_keras", "config.json", tmp_path)
    fingerprint = read_network(tmp_path / "chain_objects.index").fingerprint
    config = json.loads((tmp_path / "config.json").read_text())
    layers = config["config"]["layers"]
    (tmp_path / "chain_objects.json").write_text(json.dumps(config))
    assert read_network(model).fingerprint == fingerprint
    dropped = [each for each in layers if each["class_name"] != "Masking"]
    config["config"]["layers"] = dropped
    (tmp_path / "chain_objects.json").write_text(json.dumps(config))
    assert "its kernel is missing: no layer-0.cell.kernel" in problems(model)[0]


@pytest.mark.parametrize("direction", ["unidirectional", "bidirectional"])
def test_canonical_names_of_contrib(direction, tmp_path):
    """Its saver names every cell of a stack, in one direction or both."""
    num_directions = 1 if direction == "unidirectional" else 2
    stack = Stack(input_size=3, units=2, num_layers=2, num_directions=num_directions)
    shapes: Shapes = {}
    for name, block in zip(checkpoint_names(stack), stack.blocks(), strict=True):
        scope = f"cudnn_lstm/{name}"
        shapes[f"{scope}/kernel"] = (block.input_size + 2, 8)
        shapes[f"{scope}/bias"] = (8,)
    network = read_network(checkpoint(tmp_path, shapes, spare=100))
    kind = Recurrent if num_directions == 1 else Bidirectional
    assert [type(layer) for layer in network.layers] == [kind, kind]
    assert network.output_size == 2 * num_directions


def test_names_before_tensorflow_1_2(tmp_path):
    """Kernels were weights, and biases had a name of their own."""
    old = {"rnn/lstm_cell/weights": (5, 8), "rnn/lstm_cell/biases": (8,)}
    old |= {"rnn/lstm_cell/projection/weights": (2, 2), "fc/weights": (2, 1)}
    network = read_network(checkpoint(tmp_path, old, options=TOLD))
    assert [layer.name for layer in network.layers] == ["rnn/lstm_cell", "fc"]
    assert network.recurrent[0].spec.projection_size == 2
