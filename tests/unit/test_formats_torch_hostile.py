"""What a `.pt` file may try: run code, take memory, or pass for another."""

from __future__ import annotations

import os
import pickle
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstm_core.errors import FormatError
from lstm_core.formats import torch_pickle
from lstm_core.formats.read import read_network
from tests.unit.torch_files import (
    ORDERED,
    REBUILD,
    integer,
    lstm_arrays,
    mapping,
    numbers,
    save,
    save_arrays,
    state_dict,
    storage,
    tensor,
    text,
)

MAX_S = 20.0
"""Far more than any of these takes, and far less than what they ask for."""


def problem(path: Path) -> str:
    """Return what a file is refused for, soon."""
    begin = time.monotonic()
    with pytest.raises(FormatError) as caught:
        read_network(path)
    assert time.monotonic() - begin < MAX_S
    return str(caught.value)


class Payload:
    """An object whose pickle runs a command when it is loaded by `pickle`."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_code_is_never_run(protocol, tmp_path):
    """A pickle that runs a command is refused by the command's name, and the command not run."""
    ran = tmp_path / "ran"
    payload = pickle.dumps({"lstm": Payload(f"touch {ran}")}, protocol)
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", payload)
    assert "asks for posix.system, which is code and never run" in problem(path)
    bare = tmp_path / "model.pkl"
    bare.write_bytes(payload)
    assert "is a bare pickle, which is never run" in problem(bare)
    assert not ran.exists()


NAMES = ["builtins.eval", "torch.load", "torch.nn.modules.rnn.LSTM", "__main__.Net", "numpy.load"]


@pytest.mark.parametrize("name", NAMES)
def test_no_other_class_or_function(name, tmp_path):
    """A whole module, as `torch.save(model)` writes it, is refused like any other code."""
    module, _, function = name.rpartition(".")
    path = save(tmp_path / "model.pt", f"c{module}\n{function}\n)R".encode())
    found = problem(path)
    assert f"asks for {name}, which is code" in found
    assert "torch.save(model.state_dict(), path)" in found


OPCODES = {
    "calls a dictionary": b"})R",
    "calls a dtype": b"ctorch\nFloatStorage\n)R",
    "calls a tensor": tensor("0", (1,)) + b")R",
    "tensor of text": REBUILD + b"(" + text("a") * 4 + b"tR",
    "tensor of one argument": REBUILD + storage("0", 1) + b"\x85R",
    "parameter of text": b"ctorch._utils\n_rebuild_parameter\n" + text("a") + b"\x85R",
    "builds a tensor": tensor("0", (1,)) + b"}b",
    "builds with a list": ORDERED + b"]b",
    "ordered of a text": b"ccollections\nOrderedDict\n" + text("x") + b"\x85R",
    "ordered of numbers": b"ccollections\nOrderedDict\n](K\x01K\x02e\x85R",
    "ordered of lists": b"ccollections\nOrderedDict\n]](]Nea\x85R",
    "ordered of two": b"ccollections\nOrderedDict\n]]\x86R",
    "old instance": b"(ios\nsystem\n",
    "object": b"(ccollections\nOrderedDict\no",
    "new object": b"ccollections\nOrderedDict\n)\x81",
    "extension": b"\x82\x01",
    "persistent line": b"Pstorage\n",
    "persistent text": text("0") + b"Q",
    "persistent short": b"(" + text("storage") + b"tQ",
    "key of a tuple": b"})}s",
    "recalls nothing": b"h\x09",
    "empty stack": b"R",
    "mark for a value": b"(a",
    "no mark": b"u",
    "items without a partner": b"}(" + text("a") + b"u",
    "append to a dictionary": b"}Na",
    "stack global of integers": b"K\x01K\x01\x93",
    "long text": b"X\xff\xff\xff\xff",
    "long bytes": b"\x8e" + b"\xff" * 7 + b"\x7f",
    "long integer": b"\x8b\xff\xff\xff\x7f",
}  # fmt: skip


@pytest.mark.parametrize("case", OPCODES)
def test_opcodes_that_make_no_sense(case, tmp_path):
    """Nothing on the stack is trusted to be what an opcode expects."""
    assert "data.pkl" in problem(save(tmp_path / "model.pt", OPCODES[case], {"0": bytes(4)}))


def test_the_memo_takes_no_memory_of_its_own(tmp_path):
    """An index of two thousand million costs one entry, where CPython's unpickler takes 32 GB."""
    path = save(tmp_path / "model.pt", b"}r\xff\xff\xff\x7f")
    assert "there is none with an LSTM's weights" in problem(path)


def test_deep_and_long_pickles(tmp_path, monkeypatch):
    """Nesting is no recursion, and the number of opcodes is limited."""
    monkeypatch.setattr(torch_pickle, "MAX_OPCODES", 50_000)
    deep = save(tmp_path / "deep.pt", b"}" + text("a") + b")" + b"\x85" * 40_000 + b"s")
    assert "there is none with an LSTM's weights" in problem(deep)
    long = save(tmp_path / "long.pt", b"N" * 50_001)
    assert "has more than 50000 opcodes" in problem(long)


def lstm_of(weight: bytes) -> bytes:
    """Return the opcodes of a state dict whose first weights are these."""
    return state_dict({"weight_ih_l0": weight, "weight_hh_l0": tensor("1", (8, 2))})


TENSORS = {
    "huge": (tensor("0", (1 << 40, 1 << 40), num_items=4), "larger than its storage"),
    "repeated": (tensor("0", (8, 1 << 40), (0, 0), num_items=1), "larger than its storage"),
    "beyond": (tensor("0", (8, 3), (100, 1), num_items=24), "larger than its storage"),
    "offset": (tensor("0", (8, 3), offset=1, num_items=24), "larger than its storage"),
    "negative": (tensor("0", (8, 3), (-3, 1), num_items=24), "no natural numbers"),
    "claimed": (tensor("0", (8, 3), num_items=1 << 40), "data/0 has 96 bytes"),
    "other member": (tensor("../byteorder", (8, 3)), "lacks data/../byteorder"),
    "absent": (tensor("9", (8, 3)), "lacks data/9"),
    "integers": (
        REBUILD + b"(" + storage("0", 12, "Long") + integer(0) + numbers((4, 3)) + numbers((3, 1))
        + b"tR",
        "expected (8, 3)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TENSORS)
def test_tensors_stay_in_their_storage(case, tmp_path):
    """A shape takes no more memory than the file has numbers."""
    weight, expected = TENSORS[case]
    storages = {"0": bytes(96), "1": bytes(64)}
    assert expected in problem(save(tmp_path / "model.pt", lstm_of(weight), storages))


def test_sizes_that_grow_behind_the_checks(tmp_path):
    """A list of sizes that is appended to later changes no tensor, and reads no memory."""
    sizes = b"]q\x01(K\x08K\x03e" + b"]q\x02(K\x03K\x01e"
    weight = REBUILD + b"(" + storage("0", 24) + integer(0) + sizes + b"tR"
    arrays = {"weight_ih_l0": weight, "weight_hh_l0": tensor("1", (8, 2))}
    grown = {"a": b"h\x01" + integer(1000) + b"a", "b": b"h\x02" + integer(1 << 40) + b"a"}
    storages = {"0": bytes(96), "1": bytes(64)}
    path = save(tmp_path / "model.pt", state_dict(arrays | grown), storages)
    assert read_network(path).input_size == 3


def test_integers_are_no_weights(tmp_path):
    """Weights of whole numbers are refused by their dtype."""
    weight = REBUILD + b"(" + storage("0", 24, "Long") + integer(0)
    weight += numbers((8, 3)) + numbers((3, 1)) + b"tR"
    path = save(tmp_path / "model.pt", lstm_of(weight), {"0": bytes(192), "1": bytes(64)})
    assert "holds int64, not real numbers" in problem(path)


def test_compressed_members(tmp_path):
    """PyTorch compresses nothing, so a bomb is refused before it is unpacked."""
    zeros = np.zeros((8, 300_000), np.float32)
    entries = lstm_of(tensor("0", zeros.shape))
    storages = {"0": zeros.tobytes(), "1": bytes(64)}
    path = save(tmp_path / "model.pt", entries, storages, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < zeros.nbytes / 100
    assert "is compressed, which PyTorch never does" in problem(path)


@pytest.mark.filterwarnings("ignore:Overlapped entries")  # as newer Pythons say beside the error
def test_members_that_overlap(tmp_path):
    """Many storages at one place of the file are read for no more than the file has."""
    layers, size = 50, 4 * 256 * 64
    entries: dict[str, bytes] = {}
    for layer in range(layers):
        for name in ("weight_ih", "weight_hh"):
            entries[f"{name}_l{layer}"] = tensor(f"{layer}{name}", (256, 64))
    keys = {f"{layer}{name}": b"" for layer in range(layers) for name in ("weight_ih", "weight_hh")}
    path = save(tmp_path / "model.pt", state_dict(entries), {"0weight_ih": bytes(size)})
    with zipfile.ZipFile(path, "a") as archive:
        first = archive.getinfo("archive/data/0weight_ih")
        for key in list(keys)[1:]:
            twin = zipfile.ZipInfo(f"archive/data/{key}")
            twin.file_size = twin.compress_size = size
            twin.CRC, twin.header_offset = first.CRC, first.header_offset
            archive.filelist.append(twin)
        vars(archive)["_didModify"] = True  # so that the directory is written anew
    assert "data/0weight_hh" in problem(path)


def test_tensors_that_share_a_storage(tmp_path):
    """Many tensors of the same numbers are loaded for no more than twice the file."""
    shared = {
        f"{name}_l{layer}": tensor("0", (128, 32))
        for layer in range(8)
        for name in ("weight_ih", "weight_hh")
    }
    path = save(tmp_path / "model.pt", state_dict(shared), {"0": bytes(4 * 128 * 32)})
    assert "share their numbers too often" in problem(path)


def test_other_machines(tmp_path):
    """Numbers whose bytes lie the other way round are refused."""
    lstm = save_arrays(tmp_path / "model.pt", lstm_arrays(""))
    assert read_network(lstm).state_size == 4
    big = save(tmp_path / "big.pt", mapping({}), others={"byteorder": b"big"})
    assert "not little-endian" in problem(big)
