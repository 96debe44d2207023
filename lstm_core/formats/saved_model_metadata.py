"""What Keras 2 tells of its layers in a SavedModel: their names and configurations.

Owns the two files that it is told in. Does not know what a configuration means.

References:
    `keras/protobuf/saved_metadata.proto`; before TensorFlow 2.5
    `tensorflow/core/protobuf/saved_object_graph.proto`.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lstm_core.errors import FormatError
from lstm_core.formats.keras_json import parse_config
from lstm_core.formats.protobuf import Message

Metadata = Mapping[str, Mapping[str, Any]]
"""What is told of each object, by the references from the model to it: `root.layer-1.layer-0`."""

MAX_TEXT_BYTES = 16 << 20
"""Of one object's metadata."""


def read_metadata(directory: Path) -> Metadata | None:
    """Return what is told, or None where Keras has told nothing.

    Raises:
        FormatError: A file cannot be read or is damaged.
    """
    path = directory / "keras_metadata.pb"
    has_own_file = path.is_file()
    if not has_own_file:
        path = directory / "saved_model.pb"
    try:
        data = _mapped(path)
        told = _listed(data) if has_own_file else _in_graph(data)
        parsed = {place: parse_config(text) for place, text in told}
    except OSError as error:
        raise FormatError(str(path), [f"cannot be read: {error.strerror}"]) from error
    except (ValueError, RecursionError) as error:
        raise FormatError(str(path), [f"is damaged: {error}"]) from error
    if not has_own_file and not parsed:
        return None
    return {place: each for place, each in parsed.items() if isinstance(each, dict)}


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        if not path.stat().st_size:
            return memoryview(b"")
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _listed(data: memoryview) -> Iterator[tuple[str, str]]:
    """Yield the place and the metadata of each object of `keras_metadata.pb`."""
    for node in Message(data).messages(1):
        yield node.text(3), _text(node.blobs(5))


def _in_graph(data: memoryview) -> Iterator[tuple[str, str]]:
    """Yield the place and the metadata of the model and each layer in `saved_model.pb`."""
    graphs = [each for graph in Message(data).messages(2) for each in graph.messages(7)]
    nodes = graphs[0].blobs(1) if graphs else []
    found, waiting = {0}, deque([(0, "root")])
    while waiting:
        number, place = waiting.popleft()
        if not 0 <= number < len(nodes):
            continue
        node = Message(nodes[number])
        for told in node.messages(4):
            if text := told.blobs(3):
                yield place, _text(text)
        for child in node.messages(1):
            name, target = child.text(2), child.integer(1)
            if name.startswith("layer") and target not in found:
                found.add(target)
                waiting.append((target, f"{place}.{name}"))


def _text(values: list[memoryview]) -> str:
    data = values[-1] if values else memoryview(b"null")
    if len(data) > MAX_TEXT_BYTES:
        raise ValueError(f"has metadata of more than {MAX_TEXT_BYTES} bytes")
    return str(data, "utf-8") or "null"
