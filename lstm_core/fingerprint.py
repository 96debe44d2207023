"""What tells one model from another: a state belongs to one.

Owns what of a layer counts. Knows layers by their fields only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lstm_core.wiring import Wiring

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_LATER_FIELDS = frozenset({"gate_clip"})
"""Not part of a fingerprint where they are None: they came when there were states already."""


def fingerprint_of(wiring: Wiring, layers: Sequence[DataclassInstance]) -> str:
    """Return SHA-256, in hexadecimal, of the inference configuration and the weights.

    Args:
        wiring: What each layer takes.
        layers: Dataclasses, of whose fields all but the names count, float arrays as float32.
    """
    form: dict[str, Any] = {"fingerprint": 1}
    sizes = [size for _, size in wiring.inputs]
    if wiring.is_chain:
        # As it was when there were chains only, since there are sessions of them.
        form["input_size"] = sizes[0]
    else:
        outputs = [value for _, value in wiring.outputs]
        form |= {"inputs": sizes, "takes": wiring.takes, "outputs": outputs}
    digest = hashlib.sha256(json.dumps(form).encode())
    for layer in layers:
        for name, value in _canonical(layer, type(layer).__name__):
            if isinstance(value, np.ndarray):
                digest.update(json.dumps([name, value.shape]).encode())
                digest.update(np.ascontiguousarray(value, "<f4").tobytes())
            else:
                digest.update(json.dumps([name, value]).encode())
    return digest.hexdigest()


def _canonical(part: DataclassInstance, path: str) -> Iterator[tuple[str, Any]]:
    """Yield every field below a layer but the names, in the order of their definition."""
    for field in fields(part):
        value = getattr(part, field.name)
        if field.name == "name" or (field.name in _LATER_FIELDS and value is None):
            continue
        if is_dataclass(value) and not isinstance(value, type):
            yield from _canonical(value, f"{path}.{field.name}")
        else:
            yield f"{path}.{field.name}", dict(value) if field.name == "parameters" else value
