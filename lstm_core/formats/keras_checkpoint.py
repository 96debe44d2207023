"""Reads the checkpoints that Keras 2 writes by itself: `model.save_weights("PREFIX")`.

They hold objects and variables, but no configuration: that comes from `PREFIX.json`, or from
`config.json` in the same directory, as `model.to_json()` writes it. `tf.train.Checkpoint(model=…)`
of a Keras 2 model is the same, one object deeper.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lstm_core.errors import FormatError
from lstm_core.formats.keras_config import CONTAINERS, LayerConfig
from lstm_core.formats.keras_json import read_architecture
from lstm_core.formats.keras_network import Place, build_network
from lstm_core.formats.tensorflow_bundle import Bundle, checkpoint_prefix
from lstm_core.formats.tensorflow_objects import (
    Node,
    TrackedVariables,
    has_objects,
    read_objects,
)
from lstm_core.network import Network

Numbers = Mapping[tuple[str, ...], int]
"""The number of each layer in its model, by the names that `LayerConfig.names` has."""


def is_keras_checkpoint(path: Path, _start: bytes) -> bool:
    """Return whether a path is what the names of such a checkpoint's files begin with."""
    prefix = checkpoint_prefix(path)
    if not prefix.with_name(f"{prefix.name}.index").is_file():
        return False
    try:
        return has_objects(Bundle(prefix))
    except FormatError:
        return False


def read_keras_checkpoint(path: str | os.PathLike[str]) -> Network:
    """Read a model from its checkpoint and the JSON file beside it.

    Args:
        path: What the names of the checkpoint's files begin with, or `….index`. No code is run.

    Returns:
        The network, its weights float32.

    Raises:
        FormatError: A file is missing or damaged, or they hold something that cannot be served;
            then `problems` names every such layer and why.
    """
    prefix = checkpoint_prefix(Path(path))
    bundle = Bundle(prefix)
    objects = read_objects(bundle)
    places = [prefix.with_name(f"{prefix.name}.json"), prefix.with_name("config.json")]
    architecture = read_architecture(str(prefix), places)
    numbers = _numbers(architecture.model.get("config"), architecture.model.get("class_name"))
    place = _tracked(bundle, objects, numbers)
    return build_network(str(prefix), architecture.model, architecture.version, place)


def _numbers(config: object, kind: object) -> Numbers:
    """Return the numbers of the layers of a model, and of those in the models inside."""
    layers = config.get("layers") if isinstance(config, dict) else None
    listed = [each for each in layers if isinstance(each, dict)] if isinstance(layers, list) else []
    if kind == "Sequential":
        # It does not count what only tells of its inputs.
        listed = [each for each in listed if each.get("class_name") != "InputLayer"]
    numbers: dict[tuple[str, ...], int] = {}
    for number, layer in enumerate(listed):
        inner: Any = layer.get("config")
        name = str(inner.get("name")) if isinstance(inner, dict) else ""
        numbers[name,] = number
        if str(layer.get("class_name")) in CONTAINERS | {"Model"}:
            inside = _numbers(inner, layer.get("class_name"))
            numbers |= {(name, *names): each for names, each in inside.items()}
    return numbers


def _tracked(bundle: Bundle, objects: list[Node], numbers: Numbers) -> Place:
    root = 0 if "layer-0" in objects[0].children else objects[0].children.get("model", 0)

    def place_of(layer: LayerConfig) -> TrackedVariables:
        node: int | None = root
        place = []
        for depth in range(len(layer.names)):
            place.append(f"layer-{numbers.get(layer.names[: depth + 1])}")
            node = None if node is None else objects[node].children.get(place[-1])
        return TrackedVariables(
            layer=layer.name, bundle=bundle, objects=objects, place=".".join(place), node=node
        )

    return place_of
