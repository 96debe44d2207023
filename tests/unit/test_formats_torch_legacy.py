"""State dicts as PyTorch before 1.6 wrote them, made by hand: read as they are, or refused."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstm_core.errors import FormatError
from lstm_core.formats.read import format_at, read_network
from tests.unit.tensorflow_files import FIXTURES
from tests.unit.torch_files import (
    integer,
    lstm_arrays,
    save_arrays,
    save_legacy,
    state_dict,
    tensor,
    text,
)

ARRAYS = {name: array.astype("<f4") for name, array in lstm_arrays("").items()}
STORAGES = {name: array.tobytes() for name, array in ARRAYS.items()}
ENTRIES = {name: tensor(name, array.shape) for name, array in ARRAYS.items()}
STATE = state_dict(ENTRIES)


def problem(path: Path) -> str:
    """Return what a file is refused for."""
    with pytest.raises(FormatError) as caught:
        read_network(path)
    return str(caught.value)


def test_the_older_format_is_read(tmp_path):
    """The same arrays make the same model as in a zip archive."""
    legacy = save_legacy(tmp_path / "legacy.pt", STATE, STORAGES)
    assert format_at(legacy).name == "a PyTorch file"
    zipped = save_arrays(tmp_path / "zip.pt", ARRAYS)
    assert read_network(legacy).fingerprint == read_network(zipped).fingerprint


def test_addresses_with_a_view_and_older_tensors(tmp_path):
    """PyTorch before 0.4 rebuilt tensors by another name, and its storages told of views."""
    old = STATE.replace(b"_rebuild_tensor_v2", b"_rebuild_tensor")
    count = integer(24)
    whole = old.replace(count + b"tQ", count + b"NtQ")
    assert whole != old
    path = save_legacy(tmp_path / "model.pt", whole, STORAGES)
    assert read_network(path).state_size == 4
    view = b"(" + text("1") + integer(0) + count + b"t"
    viewed = save_legacy(tmp_path / "view.pt", old.replace(count + b"tQ", count + view + b"tQ"), {})
    assert "something that is no storage of numbers" in problem(viewed)


def test_state_dicts_of_python_2(tmp_path):
    """Its ordered dictionaries were given all their pairs at once."""
    pairs = b"".join(b"](" + text(name) + value + b"e" for name, value in ENTRIES.items())
    whole = b"ccollections\nOrderedDict\n](" + pairs + b"e\x85R"
    path = save_legacy(tmp_path / "model.pt", whole, STORAGES)
    same = save_legacy(tmp_path / "same.pt", STATE, STORAGES)
    assert read_network(path).fingerprint == read_network(same).fingerprint


FEWER = dict(list(STORAGES.items())[:-1])
CODE = b"cposix\nsystem\n" + text("true") + b"\x85R"

REFUSALS: dict[str, tuple[bytes, Any, dict[str, bytes], str]] = {
    "protocol": (STATE, STORAGES, {"protocol": integer(1002)}, "is of another protocol than 1001"),
    "nested protocol": (STATE, STORAGES, {"protocol": b")" + b"\x85" * 5000}, "another protocol"),
    "code first": (STATE, STORAGES, {"protocol": CODE}, "asks for posix.system, which is code"),
    "code": (CODE, {}, {}, "asks for posix.system, which is code and never run"),
    "big": (STATE, STORAGES, {"system": b"}" + text("little_endian") + b"\x89s"}, "not little-end"),
    "no system": (STATE, STORAGES, {"system": b"N"}, "is of another protocol than 1001"),
    "missing storage": (STATE, FEWER, {}, "has other storages than its tensors are in"),
    "strange storage": (STATE, STORAGES | {"x": b""}, {}, "has other storages than its tensors"),
    "no keys": (STATE, STORAGES, {"keys": b"N"}, "has other storages than its tensors"),
    "keys of lists": (STATE, STORAGES, {"keys": b"]]a"}, "has other storages than its tensors"),
    "sizes": (STATE, STORAGES | {"weight_ih_l0": bytes(92)}, {}, "of 23 numbers, or is cut off"),
    "two of one key": (state_dict(ENTRIES | {"x": tensor("weight_ih_l0", (2, 2))}), STORAGES, {},
                       "tells of two storages of the key weight_ih_l0"),
    "a whole module": (b"c__main__\nNet\n)\x81", STORAGES, {}, "torch.save(model.state_dict()"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_damaged_or_code(case, tmp_path):
    """Whatever comes first in the file is read as data, and nothing is run."""
    opcodes, storages, others, expected = REFUSALS[case]
    path = save_legacy(tmp_path / "model.pt", opcodes, storages, **others)
    assert expected in problem(path)


def test_cut_off_and_changed(tmp_path):
    """Every beginning is refused; other bytes make another model, or none."""
    path = Path(shutil.copy(FIXTURES / "torch" / "legacy.pt", tmp_path / "model.pt"))
    data = path.read_bytes()
    for size in [*range(0, 700, 3), *range(700, len(data), 37)]:
        path.write_bytes(data[:size])
        with pytest.raises(FormatError):
            read_network(path)
    drawn = random.Random(0)
    num_refused = 0
    for _ in range(150):
        changed = bytearray(data)
        changed[drawn.randrange(len(data))] = drawn.randrange(256)
        path.write_bytes(changed)
        try:
            read_network(path)
        except FormatError:
            num_refused += 1
    assert num_refused > 20


def test_a_storage_is_read_once(tmp_path):
    """Many small tensors of one large storage do not read it again and again."""
    size = 1 << 20
    names = [f"{name}_l{layer}" for layer in range(40) for name in ("weight_ih", "weight_hh")]
    shared = state_dict({name: tensor("0", (8, 2), num_items=size) for name in names})
    numbers = np.ones(size, np.float32).tobytes()
    path = save_legacy(tmp_path / "model.pt", shared, {"0": numbers})
    assert len(read_network(path).layers) == 40
