"""Builds files as `torch.save` does, opcode by opcode, so that each of them can be wrong.

Knows the pickle's opcodes. Checks nothing.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

ORDERED = b"ccollections\nOrderedDict\n)R"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def text(value: str) -> bytes:
    """Return the opcode of a text."""
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def integer(value: int) -> bytes:
    """Return the opcode of an integer."""
    data = value.to_bytes(16, "little", signed=True)
    return b"\x8a\x10" + data


def numbers(values: Any) -> bytes:
    """Return the opcodes of a tuple of integers."""
    return b"(" + b"".join(map(integer, values)) + b"t"


def storage(key: str, num_items: int, kind: str = "Float") -> bytes:
    """Return the opcodes of a storage."""
    parts = [text("storage"), f"ctorch\n{kind}Storage\n".encode(), text(key), text("cpu")]
    return b"(" + b"".join(parts) + integer(num_items) + b"tQ"


def tensor(
    key: str, shape: Any, strides: Any = None, *, num_items: int | None = None, offset: int = 0
) -> bytes:
    """Return the opcodes of a tensor; its storage is as large as it is unless told."""
    if strides is None:
        strides = np.cumprod([1, *shape[::-1]])[:-1][::-1].tolist()
    count = int(np.prod(shape)) if num_items is None else num_items
    parts = [storage(key, count), integer(offset), numbers(shape), numbers(strides)]
    return REBUILD + b"(" + b"".join(parts) + b"\x89" + ORDERED + b"tR"


def mapping(entries: Mapping[str, bytes]) -> bytes:
    """Return the opcodes of a dictionary."""
    items = b"".join(text(name) + value for name, value in entries.items())
    return b"}(" + items + b"u"


def state_dict(entries: Mapping[str, bytes], modules: Any = ()) -> bytes:
    """Return the opcodes of a state dict, with the names of all modules where they are given."""
    items = b"".join(text(name) + value for name, value in entries.items())
    known = {name: mapping({"version": integer(1)}) for name in modules}
    build = mapping({"_metadata": mapping(known)}) + b"b" if known else b""
    return ORDERED + b"(" + items + b"u" + build


def save(
    path: Path,
    opcodes: bytes,
    storages: Mapping[str, bytes] | None = None,
    *,
    others: Mapping[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Write a file; `others` are members by name, and take the place of those that there are."""
    members = {"data.pkl": b"\x80\x02" + opcodes + b".", "byteorder": b"little"}
    members |= {f"data/{key}": data for key, data in (storages or {}).items()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in (members | dict(others or {})).items():
            archive.writestr(f"archive/{name}", data)
    return path


MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
SYSTEM = b"}" + text("little_endian") + b"\x88s"


def save_legacy(
    path: Path,
    opcodes: bytes,
    storages: Mapping[str, bytes],
    *,
    protocol: bytes = integer(1001),
    system: bytes = SYSTEM,
    keys: bytes | None = None,
) -> Path:
    """Write a file as PyTorch before 1.6 did; storages are of float32."""
    if keys is None:
        keys = b"](" + b"".join(map(text, storages)) + b"e"
    pickles = [protocol, system, opcodes, keys]
    data = MAGIC + b"".join(b"\x80\x02" + each + b"." for each in pickles)
    for each in storages.values():
        data += (len(each) // 4).to_bytes(8, "little") + each
    path.write_bytes(data)
    return path


def save_arrays(path: Path, arrays: Mapping[str, Any], modules: Any = ()) -> Path:
    """Write a state dict of float32 arrays."""
    data = {name: np.ascontiguousarray(array, "<f4") for name, array in arrays.items()}
    entries = {name: tensor(name, array.shape) for name, array in data.items()}
    return save(
        path, state_dict(entries, modules), {name: array.tobytes() for name, array in data.items()}
    )


def lstm_arrays(prefix: str = "lstm.", features: int = 3, units: int = 2) -> dict[str, Any]:
    """Return the parameters of an `nn.LSTM` of one layer."""
    random = np.random.default_rng(0)
    shapes = {
        "weight_ih_l0": (4 * units, features),
        "weight_hh_l0": (4 * units, units),
        "bias_ih_l0": (4 * units,),
        "bias_hh_l0": (4 * units,),
    }
    return {prefix + name: random.normal(size=shape) for name, shape in shapes.items()}


def linear_arrays(prefix: str, features: int, outputs: int) -> dict[str, Any]:
    """Return the parameters of an `nn.Linear`."""
    return {f"{prefix}.weight": np.ones((outputs, features)), f"{prefix}.bias": np.ones(outputs)}
