"""Builds `.keras` files without Keras, so that each part of them can be wrong. Checks nothing."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import strategies as st

from lstm_core.errors import FormatError
from lstm_core.formats.keras import read_keras
from lstm_core.network import Network

FEATURES, UNITS = 3, 2

Json = dict[str, Any]


def layer(class_name: str, **config: Any) -> Json:
    """Return a serialised layer of Keras's own."""
    config.setdefault("name", class_name.lower())
    return {
        "module": "keras.layers",
        "class_name": class_name,
        "config": config,
        "registered_name": None,
    }


def lstm(**config: Any) -> Json:
    """Return a serialised LSTM."""
    return layer("LSTM", **{"units": UNITS, "return_sequences": True, **config})


def entry(*shape: int | None, **config: Any) -> Json:
    """Return a serialised InputLayer."""
    return layer("InputLayer", name="input", batch_shape=[None, *shape], dtype="float32", **config)


def sequential(*layers: Json, name: str = "model") -> Json:
    """Return a serialised Sequential model."""
    return {
        "module": "keras",
        "class_name": "Sequential",
        "config": {"name": name, "layers": list(layers)},
    }


def functional(*layers: Json, outputs: Any = None) -> Json:
    """Return a serialised functional chain; `inbound_nodes` may be set beforehand."""
    linked = []
    for before, each in zip((None, *layers), layers, strict=False):
        nodes = [] if before is None else [{"args": [tensor(before)], "kwargs": {}}]
        linked.append({"inbound_nodes": nodes, **each})
    config = {
        "name": "model",
        "layers": linked,
        "input_layers": [layers[0]["config"]["name"], 0, 0],
        "output_layers": outputs or [layers[-1]["config"]["name"], 0, 0],
    }
    module = "keras.src.models.functional"
    return {"module": module, "class_name": "Functional", "config": config}


def tensor(source: Json, index: int = 0) -> Json:
    """Return a symbolic tensor: an output of a layer."""
    history = [source["config"]["name"], 0, index]
    return {"class_name": "__keras_tensor__", "config": {"keras_history": history}}


def lstm_arrays(group: str, features: int = FEATURES, units: int = UNITS) -> dict[str, Any]:
    """Return an LSTM's variables by path, as Keras lays them out."""
    random = np.random.default_rng(0)
    shapes = [(features, 4 * units), (units, 4 * units), (4 * units,)]
    return {
        f"{group}/vars/{index}": random.normal(size=shape).astype(np.float32)
        for index, shape in enumerate(shapes)
    }


LSTM_ARRAYS = lstm_arrays("layers/lstm/cell")
MODEL = sequential(entry(None, FEATURES), lstm())


def hdf5(arrays: dict[str, Any]) -> bytes:
    """Return an HDF5 file of arrays by path."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for path, array in arrays.items():
            file[path] = array
    return buffer.getvalue()


def write(
    directory: Path,
    model: Any = MODEL,
    arrays: dict[str, Any] | None = None,
    compression: int = zipfile.ZIP_STORED,
    **members: Any,
) -> Path:
    """Write a `.keras` file; a member given as None is left out, one given as bytes replaced."""
    content = {
        "metadata.json": json.dumps({"keras_version": "3.15.1"}).encode(),
        "config.json": json.dumps(model).encode(),
        "model.weights.h5": hdf5(LSTM_ARRAYS if arrays is None else arrays),
    } | {name.replace("__", "."): data for name, data in members.items()}
    path = directory / "model.keras"
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in content.items():
            if data is not None:
                file.writestr(name, data)
    return path


def problems(directory: Path, *args: Any, **kwargs: Any) -> list[str]:
    """Return what a file is refused for."""
    path = write(directory, *args, **kwargs)
    with pytest.raises(FormatError) as caught:
        read_keras(path)
    assert str(path) in str(caught.value)
    return caught.value.problems


def read(directory: Path, *args: Any, **kwargs: Any) -> Network:
    """Write a file and read it."""
    return read_keras(write(directory, *args, **kwargs))


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 9) | st.sampled_from(["LSTM", "model", "", "1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.just("config"), inner),
    max_leaves=4,
)


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every part of a JSON value."""
    if not isinstance(value, dict | list):
        return [path]
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [path] * bool(path) + [p for key, each in items for p in paths_of(each, (*path, key))]
