"""Reads a SavedModel of Keras 2, tf_keras or Keras 3, without TensorFlow.

`model.save(DIRECTORY)` of Keras 2 and tf_keras puts the model's configuration into
`keras_metadata.pb`, before TensorFlow 2.5 into `saved_model.pb`. `model.export(DIRECTORY)` leaves
it out, and so does everything else of TensorFlow 2 that writes a SavedModel: then it comes from a
JSON file as `model.to_json()` writes it, `config.json` in the directory or `DIRECTORY.json` beside
it. The functions in `saved_model.pb` are code, which is never run. What TensorFlow 1 wrote is a
graph, which `saved_graph` reads.
"""

from __future__ import annotations

import os
from pathlib import Path

from lstm_core.errors import FormatError, SpecError
from lstm_core.formats.keras_config import LayerConfig
from lstm_core.formats.keras_json import Architecture, read_architecture
from lstm_core.formats.keras_legacy_weights import belonging
from lstm_core.formats.keras_network import Place, build_network
from lstm_core.formats.saved_graph import read_saved_graph
from lstm_core.formats.saved_model_metadata import Metadata, read_metadata
from lstm_core.formats.tensorflow_bundle import Bundle
from lstm_core.formats.tensorflow_objects import (
    Node,
    TrackedVariables,
    has_objects,
    read_objects,
)
from lstm_core.formats.variables import NamedVariables
from lstm_core.network import Network


def is_saved_model(path: Path, start: bytes) -> bool:
    """Return whether a path is the directory of a SavedModel.

    Args:
        path: The path.
        start: The file's first bytes, `b""` for what is no file.
    """
    return not start and (path / "saved_model.pb").is_file() and (path / "variables").is_dir()


def read_saved_model(path: str | os.PathLike[str]) -> Network:
    """Read a model, Sequential or functional.

    Args:
        path: A directory that `model.save` of Keras 2 or tf_keras wrote, or `model.export` of any
            Keras with the configuration beside it. No code in it is run.

    Returns:
        The network, its weights float32.

    Raises:
        FormatError: There is no such directory, a file in it is missing or damaged, or it holds
            something that cannot be served; then `problems` names every such layer and why.
    """
    directory = Path(path)
    if not is_saved_model(directory, b""):
        raise FormatError(str(directory), ["is no SavedModel: no saved_model.pb and variables"])
    bundle = Bundle(directory / "variables" / "variables")
    metadata = read_metadata(directory)
    if metadata is None and not has_objects(bundle):
        return read_saved_graph(directory, bundle)
    objects = read_objects(bundle)
    if metadata is not None:
        architecture = _architecture(directory, metadata)
        place = _tracked(bundle, objects, metadata)
    else:
        places = [directory / "config.json", directory.with_name(f"{directory.name}.json")]
        architecture = read_architecture(str(directory), places)
        place = _named(bundle, objects, architecture)
    return build_network(str(directory), architecture.model, architecture.version, place)


def _architecture(directory: Path, metadata: Metadata) -> Architecture:
    root = metadata.get("root", {})
    model = root.get("model_config")
    if not isinstance(model, dict):
        problem = "its metadata have no configuration: the model is a class of its own"
        raise FormatError(str(directory), [problem])
    version = root.get("keras_version")
    return Architecture(model=model, version=version if isinstance(version, str) else "2")


def _tracked(bundle: Bundle, objects: list[Node], metadata: Metadata) -> Place:
    """Return the places of the layers by the names that the metadata tell of their objects."""
    known: dict[tuple[str, str], str] = {}
    for place, told in metadata.items():
        owner, _, reference = place.rpartition(".")
        if reference.startswith("layer"):
            known.setdefault((owner, str(told.get("name"))), place)

    def place_of(layer: LayerConfig) -> TrackedVariables:
        place: str | None = "root"
        for name in layer.names:
            place = known.get((place or "", name))
        node: int | None = None if place is None else 0
        for reference in (place or "root").split(".")[1:]:
            node = None if node is None else objects[node].children.get(reference)
        return TrackedVariables(
            layer=layer.name,
            bundle=bundle,
            objects=objects,
            place=place or f"the object {layer.name}",
            node=node,
        )

    return place_of


def _named(bundle: Bundle, objects: list[Node], architecture: Architecture) -> Place:
    """Return the places of the layers by the full names of the variables that were exported."""
    numbers = objects[objects[0].children["variables"]].children if _is_export(objects) else {}
    variables = [objects[numbers[each]] for each in sorted(numbers, key=_number)]
    listed = [
        (node.full_name, bundle.stored(node.key)) for node in variables if node.key in bundle.shapes
    ]
    config = architecture.model.get("config")
    model = str(config.get("name")) if isinstance(config, dict) else ""

    def place_of(layer: LayerConfig) -> NamedVariables:
        own = belonging(listed, layer.names, model)
        names = [name for name, _ in own]
        if len(set(names)) != len(names):
            problem = "cannot be told from another layer: their variables have the same names"
            raise SpecError(layer.name, problem)
        return NamedVariables(layer=layer.name, listed=own)

    return place_of


def _is_export(objects: list[Node]) -> bool:
    return "variables" in objects[0].children


def _number(name: str) -> int:
    return int(name) if name.isdecimal() else -1
