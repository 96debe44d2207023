"""Builds `.h5` files as Keras before 3 wrote them, so that each part of them can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lstm_core.errors import FormatError
from lstm_core.formats.read import read_network
from lstm_core.network import Network

FEATURES, UNITS = 3, 2

Json = dict[str, Any]


def layer(class_name: str, **config: Any) -> Json:
    """Return a layer as Keras 2 serialises it."""
    config.setdefault("name", class_name.lower())
    return {"class_name": class_name, "config": config}


def lstm(**config: Any) -> Json:
    """Return an LSTM that gives every step on."""
    return layer("LSTM", **{"units": UNITS, "return_sequences": True, **config})


def called(name: str, each: Json, source: str | None = None) -> Json:
    """Return a layer as it stands in a functional model, called with the output of another."""
    nodes = [] if source is None else [[[source, 0, 0, {}]]]
    return {**each, "name": name, "inbound_nodes": nodes}


ENTRY = layer("InputLayer", name="input", batch_input_shape=[None, None, FEATURES])


def sequential(*layers: Json, name: str = "model") -> Json:
    """Return a Sequential model."""
    return {"class_name": "Sequential", "config": {"name": name, "layers": list(layers)}}


def lstm_arrays(owner: str, features: int = FEATURES, units: int = UNITS) -> dict[str, Any]:
    """Return an LSTM's weights by name."""
    random = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {
        "kernel": (features, 4 * units),
        "recurrent_kernel": (units, 4 * units),
        "bias": (4 * units,),
    }
    return {
        f"{owner}/{name}:0": random.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


WEIGHTS = {"lstm": lstm_arrays("lstm/lstm_cell")}


def write_h5(
    directory: Path,
    model: Any,
    weights: dict[str, dict[str, Any]] | None = None,
    version: str | None = "2.4.0",
) -> Path:
    """Write a whole model as Keras before 3 does; text given as the model is written as it is."""
    path = directory / "model.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = model if isinstance(model, str) else json.dumps(model)
        if version is not None:
            file.attrs["keras_version"] = version
        root = file.create_group("model_weights")
        weights = WEIGHTS if weights is None else weights
        root.attrs["layer_names"] = [name.encode() for name in weights]
        for name, arrays in weights.items():
            group = root.create_group(name)
            group.attrs["weight_names"] = [each.encode() for each in arrays]
            for each, array in arrays.items():
                group[each] = array
    return path


def read(directory: Path, *args: Any, **kwargs: Any) -> Network:
    """Write a file and read it."""
    return read_network(write_h5(directory, *args, **kwargs))


def problems(path: Path) -> list[str]:
    """Return what a file is refused for."""
    with pytest.raises(FormatError) as caught:
        read_network(path)
    return caught.value.problems
