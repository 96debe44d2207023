"""The configuration of a model whose file holds weights only: a JSON file beside it.

Owns where it is looked for, and what tells its version. Knows no layer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lstm_core.errors import FormatError

MAX_CONFIG_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What `model.to_json()` gave.

    Attributes:
        model: The model's config.
        version: Of the Keras that wrote it, or `2` or `3` where only that can be told.
    """

    model: Mapping[str, Any]
    version: str


def parse_config(text: str | bytes) -> Any:  # noqa: ANN401 - what `json.loads` gives
    """Return JSON as Keras 2 writes it: tuples and shapes are lists here.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It is nested too deeply.
    """
    return json.loads(text, object_hook=_plain)


def _plain(value: dict[str, Any]) -> object:
    is_list = value.get("class_name") in ("__tuple__", "TensorShape")
    return value["items"] if is_list and isinstance(value.get("items"), list) else value


def read_architecture(weights: str, places: Sequence[Path]) -> Architecture:
    """Read the first of the files that is there.

    Args:
        weights: The file that they are for, for messages.
        places: Where to look, in order.

    Raises:
        FormatError: None of them is there, or it is damaged or holds no model.
    """
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        names = " or ".join(str(place) for place in places)
        problem = f"holds weights only: put what model.to_json() returns into {names}"
        raise FormatError(weights, [problem])
    model = read_json(found)
    version = model.get("keras_version") or _unpacked_version(found) or _generation(model)
    if not isinstance(version, str):
        raise FormatError(str(found), [f"keras_version is {version!r:.80}, not a text"])
    return Architecture(model=model, version=version)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        FormatError: The file is too large, or is no JSON object.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise FormatError(str(path), [f"has more than {MAX_CONFIG_BYTES} bytes"])
        parsed = parse_config(data)
    except OSError as error:
        raise FormatError(str(path), [f"cannot be read: {error.strerror}"]) from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(str(path), [f"is not valid JSON: {error}"]) from error
    if not isinstance(parsed, dict):
        raise FormatError(str(path), ["holds no JSON object"])
    return parsed


def _unpacked_version(config: Path) -> object:
    """Return the version that stands beside the `config.json` of an unpacked `.keras` file."""
    metadata = config.with_name("metadata.json")
    if config.name != "config.json" or not metadata.is_file():
        return None
    return read_json(metadata).get("keras_version")


def _generation(model: Mapping[str, Any]) -> str:
    """Return `2` or `3`: Keras 3 has another name for the shape of an input, and says modules."""
    for config in _configs(model):
        if "batch_shape" in config:
            return "3"
        if "batch_input_shape" in config:
            return "2"
    return "3" if "module" in model else "2"


def _configs(model: object) -> Iterator[Mapping[str, Any]]:
    config = model.get("config") if isinstance(model, dict) else None
    if isinstance(config, dict):
        yield config
        layers = config.get("layers")
        for layer in layers if isinstance(layers, list) else []:
            yield from _configs(layer)
