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
from lstm_core.formats.keras_config import MERGES, group_names
from lstm_core.formats.keras_layers import OPERATIONS, KerasLayer, keras_layer, serialized
from lstm_core.formats.keras_nodes import depths_of, finished_first
from lstm_core.network import Network, TensorPart, is_masked_behind

KERAS_VERSION = "3.6.0"
"""The oldest that the files are written for."""
_DATE = (1980, 1, 1, 0, 0, 0)


def write_keras(network: Network, file: IO[bytes]) -> None:
    """Write a model to a file that is open for writing bytes: Sequential, or functional.

    Args:
        network: The network. Names that Keras does not take are changed.
        file: Where to.

    Raises:
        FormatError: Keras has no layer for some of them; `problems` names each and why.
    """
    layers = _keras_layers(network)
    names = _names(network)
    is_sequential = network.is_chain and all(not layer.arguments for layer in layers)
    make = _sequential if is_sequential else _functional
    members = {
        "metadata.json": json.dumps({"keras_version": KERAS_VERSION}).encode(),
        "config.json": json.dumps(make(network, layers, names)).encode(),
        "model.weights.h5": _weights(layers, _listing(network)),
    }
    with zipfile.ZipFile(file, "w") as archive:
        for member, data in members.items():
            # The same bytes whenever they are written.
            archive.writestr(zipfile.ZipInfo(member, _DATE), data)


def _keras_layers(network: Network) -> list[KerasLayer]:
    layers: list[KerasLayer] = []
    problems: list[str] = []
    sizes = [*(part.size for part in network.inputs), *network.output_sizes]
    is_masked = [False] * len(network.inputs)
    for layer, taken in zip(network.layers, network.wiring.takes, strict=True):
        masked = [is_masked[value] for value in taken]
        is_masked.append(is_masked_behind(layer, masked))
        features, has_time = sizes[taken[0]], network.has_time[taken[0]]
        try:
            made = keras_layer(layer, features, has_time=has_time, is_masked=any(masked))
        except SpecError as error:
            problems.append(str(error))
        else:
            layers.append(made)
    if problems:
        raise FormatError(f"{network.name} as a .keras file", problems)
    return layers


def _sequential(network: Network, layers: list[KerasLayer], names: list[str]) -> dict[str, Any]:
    inputs = [_input_layer(part, name) for part, name in zip(network.inputs, names, strict=False)]
    others = [serialized(each, name) for each, name in zip(layers, names[1:], strict=True)]
    return _model(network, "keras", "Sequential", {"dtype": "float32", "layers": inputs + others})


def _functional(network: Network, layers: list[KerasLayer], names: list[str]) -> dict[str, Any]:
    num_inputs = len(network.inputs)
    entries = [
        {**_input_layer(part, name), "name": name, "inbound_nodes": []}
        for part, name in zip(network.inputs, names, strict=False)
    ]
    sizes = [*(part.size for part in network.inputs), *network.output_sizes]
    tensors = [
        _tensor(name, size, has_time=has_time)
        for name, size, has_time in zip(names, sizes, network.has_time, strict=True)
    ]
    others = []
    for index in _listing(network):
        layer, name = layers[index], names[num_inputs + index]
        args: list[Any] = [tensors[value] for value in network.wiring.takes[index]]
        args += layer.arguments
        is_listed = layer.module != OPERATIONS or layer.kind == "Concatenate"
        if layer.kind in MERGES and is_listed:
            args = [args]
        nodes = [{"args": args, "kwargs": {}}]
        others.append({**serialized(layer, name), "name": name, "inbound_nodes": nodes})
    config = {
        "layers": entries + others,
        "input_layers": _listed(names[:num_inputs]),
        "output_layers": _listed([names[value] for _, value in network.wiring.outputs]),
    }
    return _model(network, "keras.src.models.functional", "Functional", config)


def _listing(network: Network) -> list[int]:
    """Return the layers' numbers in the order in which Keras lists them, and finds their arrays."""
    num_inputs, takes = len(network.inputs), network.wiring.takes

    def parents(value: int) -> tuple[int, ...]:
        return () if value < num_inputs else takes[value - num_inputs]

    finished, met = finished_first([value for _, value in network.wiring.outputs], parents)
    depths = depths_of(finished, parents, lambda value: value)
    # What is of one depth stays as it was met.
    order = sorted(met, key=lambda value: -depths[value])
    return [value - num_inputs for value in order if value >= num_inputs]


def _tensor(name: str, size: int, *, has_time: bool) -> dict[str, Any]:
    """Return what stands for a layer's output in the calls of others."""
    shape = [None, None, size] if has_time else [None, size]
    config = {"shape": shape, "dtype": "float32", "keras_history": [name, 0, 0]}
    return {"class_name": "__keras_tensor__", "config": config}


def _model(network: Network, module: str, kind: str, config: dict[str, Any]) -> dict[str, Any]:
    named = {"name": _name(network.name, "model"), "trainable": True, **config}
    return {"module": module, "class_name": kind, "config": named, "registered_name": None}


def _listed(names: list[str]) -> list[Any]:
    ends = [[name, 0, 0] for name in names]
    return ends if len(ends) > 1 else ends[0]


def _input_layer(part: TensorPart, name: str) -> dict[str, Any]:
    is_integer = part.vocabulary is not None
    config = {
        "batch_shape": [None, None] if is_integer else [None, None, part.size],
        "dtype": "int32" if is_integer else "float32",
        "sparse": False,
        "ragged": False,
        "name": name,
    }
    return {
        "module": "keras.layers",
        "class_name": "InputLayer",
        "config": config,
        "registered_name": None,
    }


def _names(network: Network) -> list[str]:
    """Return a name for each input, then for each layer, that Keras takes, all different."""
    seen: Counter[str] = Counter()
    names = []
    for given, default in [(part.name, "input") for part in network.inputs] + [
        (layer.name, "layer") for layer in network.layers
    ]:
        name = _name(given, default)
        while seen[name]:
            seen[name] += 1
            name = f"{name}_{seen[name] - 1}"
        seen[name] = 1
        names.append(name)
    return names


def _name(name: str, default: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip("_.-") or default


def _weights(layers: list[KerasLayer], listing: list[int]) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        listed = [layers[index] for index in listing]
        for layer, group in zip(listed, group_names([x.kind for x in listed]), strict=True):
            file.create_group(f"layers/{group}/vars")
            for place, array in layer.variables.items():
                file[f"layers/{group}/{place}"] = array
    return buffer.getvalue()
