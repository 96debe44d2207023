"""Reads a program of `torch.export` (`….pt2`), without PyTorch and without running anything in it.

Such a file has the graph that `torch.export.export` traced, as JSON, and its weights. It is put
into ONNX's words, and followed as an ONNX graph is; so it needs no document beside it. Sizes that
were fixed when it was traced do not bind a session: each has as many time steps as it likes.

References:
    PyTorch, torch/_export/serde/schema.py, torch/export/pt2_archive.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

from lstm_core.errors import FormatError, SpecError
from lstm_core.formats.onnx import network_of
from lstm_core.formats.onnx_model import Graph, Input
from lstm_core.formats.tensors import StoredTensor
from lstm_core.formats.torch_archive import Archive
from lstm_core.formats.torch_export_operators import OPERATORS
from lstm_core.formats.torch_export_program import TYPES, Json, Program, entry, listed, named
from lstm_core.formats.torch_storages import Dtype, Storage
from lstm_core.network import Network

MAX_GRAPH_BYTES = 4 << 20
"""A graph of 1,000 nodes takes 1 MB. Parsed, it may take 25 times as much memory."""

_MODEL = "models/model.json"
_MAX_SIZE = 1 << 40
_OLDER = "serialized_exported_program.json"
_WEIGHTS = "data/weights/model_weights_config.json"
_DTYPES = {
    4: Dtype("int32", 4), 5: Dtype("int64", 8), 6: Dtype("float16", 2), 7: Dtype("float32", 4),
    8: Dtype("float64", 8), 13: Dtype("bfloat16", 2),
}  # fmt: skip
"""By the numbers of PyTorch's schema."""


def is_torch_export(path: Path, _start: bytes) -> bool:
    """Whether a zip archive is of a program of `torch.export`."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith((f"/{_MODEL}", _OLDER)) for name in archive.namelist())
    except (zipfile.BadZipFile, ValueError, RuntimeError):
        return False


def read_torch_export(path: str | os.PathLike[str]) -> Network:
    """Read a program, from its first input to its outputs.

    Args:
        path: A file that `torch.export.save` wrote. No code in it is run.

    Raises:
        FormatError: It cannot be read, is damaged, or holds something that cannot be served; then
            `problems` names every such node and why.
    """
    name = os.fspath(path)
    writer = "PyTorch"
    try:
        with zipfile.ZipFile(path) as file:
            archive = Archive(file, _prefix(file), Path(path).stat().st_size)
            document = _json(archive, _MODEL)
            writer = f"PyTorch {entry(document, 'torch_version', str)}"
            weights = _Weights(archive, entry(_json(archive, _WEIGHTS), "config", dict))
            # The weights are read while the graph is followed.
            return network_of(name, _graph(document, weights, Path(path).stem, writer))
    except SpecError as error:
        raise FormatError(name, [str(error)], writer) from error
    except FormatError:
        raise
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError) as error:
        raise FormatError(name, [f"is a damaged program of torch.export: {error}"]) from error


def _prefix(file: zipfile.ZipFile) -> str:
    models = [each for each in file.namelist() if each.endswith(f"/{_MODEL}")]
    if not models:
        problem = "is in an older layout of torch.export; save it again with PyTorch 2.13 or newer"
        raise SpecError(_OLDER, problem + ", or save its state_dict()")
    if len(models) > 1:
        raise ValueError(f"has {len(models)} models, of which one is read")
    return models[0].removesuffix(_MODEL)


def _json(archive: Archive, member: str) -> Json:
    try:
        parsed = json.loads(archive.member(member, MAX_GRAPH_BYTES))
    except RecursionError as error:
        raise ValueError(f"{member} is nested too deeply") from error
    if not isinstance(parsed, dict):
        raise ValueError(f"{member} is no JSON object")  # noqa: TRY004 - the file is at fault
    return parsed


class _Weights:
    """The arrays of an archive, by the names of a state dict."""

    def __init__(self, archive: Archive, config: dict[str, Any]) -> None:
        self._archive = archive
        self._config = config

    def stored(self, name: str) -> StoredTensor:
        """Return an array; ValueError where it is missing or does not lie as it should."""
        told = entry(self._config, name, dict)
        meta = entry(told, "tensor_meta", dict)
        dtype = _DTYPES.get(entry(meta, "dtype", int))
        if dtype is None or told.get("use_pickle") is not False:
            raise ValueError(f"{name:.80} is not stored as plain numbers")
        shape = [entry(each, "as_int", int) for each in listed(meta, "sizes")]
        strides = [entry(each, "as_int", int) for each in listed(meta, "strides")]
        offset = entry(entry(meta, "storage_offset", dict), "as_int", int)
        key = f"weights/{entry(told, 'path_name', str)}"
        num_items = self._archive.member_bytes(f"data/{key}") // dtype.item_bytes
        storage = Storage(dtype=dtype, key=key, num_items=num_items)
        return self._archive.tensor(storage, offset, shape, strides)


def _graph(document: Json, weights: _Weights, name: str, writer: str) -> Graph:
    """Return the program in ONNX's words.

    Raises:
        SpecError: A node cannot be put into them.
        ValueError: It is damaged.
    """
    module = entry(document, "graph_module", dict)
    graph, signature = entry(module, "graph", dict), entry(module, "signature", dict)
    metas = entry(graph, "tensor_values", dict)
    program = Program(metas)
    for each in listed(signature, "input_specs"):
        if "user_input" in each:
            program.add_input(_input(_tensor(each, "user_input"), metas))
        elif "parameter" in each or "buffer" in each:
            kind = "parameter" if "parameter" in each else "buffer"
            told = entry(each, kind, dict)
            own, name_of_weight = named(told, "arg"), entry(told, f"{kind}_name", str)
            if told.get("persistent") is False:
                problem = "is a buffer that is not saved with the weights; make it persistent"
                raise SpecError(name_of_weight, problem)
            tensor = weights.stored(name_of_weight)
            program.store_array(own, tensor.shape, tensor.load)
        else:
            what = ", ".join(each)
            problem = "is a kind of input that is not served; a constant can be a buffer instead"
            raise SpecError(what, problem)
    outputs = [_tensor(each, "user_output") for each in listed(signature, "output_specs")]
    program.translate(listed(graph, "nodes"), outputs, OPERATORS)
    return program.built(name, writer, outputs)


def _tensor(told: Json, kind: str) -> str:
    """Return the name of a tensor that a program takes or gives.

    Raises:
        SpecError: It is something else.
        ValueError: It is damaged.
    """
    if kind not in told:
        raise SpecError(f"{', '.join(told):.80}", f"is no {kind}, and is not served")
    argument = entry(entry(told, kind, dict), "arg", dict)
    if "as_tensor" not in argument:
        raise SpecError(kind, f"is {', '.join(argument):.80}, and no tensor")
    return named(argument, "as_tensor")


def _input(name: str, metas: Json) -> Input:
    meta = entry(metas, name, dict)
    sizes = [each.get("as_int") for each in listed(meta, "sizes")]
    if any(isinstance(size, int) and abs(size) > _MAX_SIZE for size in sizes):
        raise SpecError(name, "has an axis longer than any")
    return Input(
        name=name,
        element_type=TYPES.get(entry(meta, "dtype", int), 0),
        shape=tuple(size if isinstance(size, int) and size > 0 else None for size in sizes),
    )
