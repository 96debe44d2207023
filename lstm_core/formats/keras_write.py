"""Writes a network as a `.keras` file that Keras 3 loads, without Keras."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter
from typing import IO, Any

import h5py

from lstm_core.errors import FormatError, SpecError
from lstm_core.formats.keras_config import group_names
from lstm_core.formats.keras_layers import KerasLayer, keras_layer, serialized
from lstm_core.network import Bidirectional, Network, Recurrent

KERAS_VERSION = "3.6.0"
"""The oldest that the files are written for."""
_DATE = (1980, 1, 1, 0, 0, 0)


def write_keras(network: Network, file: IO[bytes]) -> None:
    """Write a Sequential model to a file that is open for writing bytes.

    Args:
        network: The network. Names that Keras does not take are changed.
        file: Where to.

    Raises:
        FormatError: Keras has no layer for some of them; `problems` names each and why.
    """
    layers = _keras_layers(network)
    names = _names(network)
    config = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {
            "name": _name(network.name, "model"),
            "trainable": True,
            "dtype": "float32",
            "layers": [_input_layer(network)]
            + [serialized(layer, name) for layer, name in zip(layers, names, strict=True)],
        },
        "registered_name": None,
    }
    members = {
        "metadata.json": json.dumps({"keras_version": KERAS_VERSION}).encode(),
        "config.json": json.dumps(config).encode(),
        "model.weights.h5": _weights(layers),
    }
    with zipfile.ZipFile(file, "w") as archive:
        for member, data in members.items():
            # The same bytes whenever they are written.
            archive.writestr(zipfile.ZipInfo(member, _DATE), data)


def _keras_layers(network: Network) -> list[KerasLayer]:
    layers: list[KerasLayer] = []
    problems: list[str] = []
    has_time = True
    for layer, features in zip(
        network.layers, [network.input_size, *network.output_sizes], strict=False
    ):
        try:
            layers.append(keras_layer(layer, features, has_time=has_time))
        except SpecError as error:
            problems.append(str(error))
        if isinstance(layer, Recurrent | Bidirectional):
            has_time = layer.return_sequences
    if problems:
        raise FormatError(f"{network.name} as a .keras file", problems)
    return layers


def _input_layer(network: Network) -> dict[str, Any]:
    is_integer = network.vocabulary is not None
    shape = [None, None] if is_integer else [None, None, network.input_size]
    config = {
        "batch_shape": shape,
        "dtype": "int32" if is_integer else "float32",
        "sparse": False,
        "ragged": False,
        "name": _name(network.inputs[0].name, "input"),
    }
    return {
        "module": "keras.layers",
        "class_name": "InputLayer",
        "config": config,
        "registered_name": None,
    }


def _names(network: Network) -> list[str]:
    """Return a name for each layer that Keras takes, all different."""
    seen: Counter[str] = Counter({_name(network.inputs[0].name, "input"): 1})
    names = []
    for layer in network.layers:
        name = _name(layer.name, "layer")
        while seen[name]:
            seen[name] += 1
            name = f"{name}_{seen[name] - 1}"
        seen[name] = 1
        names.append(name)
    return names


def _name(name: str, default: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip("_.-") or default


def _weights(layers: list[KerasLayer]) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for layer, group in zip(layers, group_names([x.kind for x in layers]), strict=True):
            file.create_group(f"layers/{group}/vars")
            for place, array in layer.variables.items():
                file[f"layers/{group}/{place}"] = array
    return buffer.getvalue()
