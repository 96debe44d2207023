"""Our own format: a network as a safetensors file, its configuration as JSON in the metadata.

It holds every network, to the bit: what is read has the fingerprint of what was written. A field of
a layer is an array of the file, `layers.0.weights.kernel`, or an entry of the JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import IO, Any, TypeGuard, get_args

import numpy as np
import numpy.typing as npt

from lstm_core.errors import FormatError, SpecError, WeightsError
from lstm_core.formats.safetensors import (
    LENGTH_BYTES,
    Json,
    TensorFile,
    is_safetensors,
    open_safetensors,
    write_safetensors,
)
from lstm_core.formats.tensors import Tensors, read_weight
from lstm_core.merge import MASKS, OPERATIONS, Merge
from lstm_core.network import MERGE_MODES, Bidirectional, Layer, Network, Recurrent
from lstm_core.pointwise import FUNCTIONS, Activation, Affine, Dense, Pointwise
from lstm_core.spec import LSTMSpec
from lstm_core.weights import LSTMWeights
from lstm_core.wiring import Wiring, chain

METADATA_KEY = "lstm_core"
VERSION = 1
"""Of a chain, which the releases before graphs read too."""
GRAPH_VERSION = 2

Arrays = dict[str, npt.NDArray[np.float32]]

_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Recurrent, Bidirectional, Merge, *get_args(Pointwise))
}
_PARTS: dict[str, type[Any]] = {
    "LSTMSpec": LSTMSpec,
    "LSTMWeights": LSTMWeights,
    "Recurrent": Recurrent,
}
_PARAMETERS = {
    "relu": {"negative_slope", "max_value", "threshold"},
    "leaky_relu": {"negative_slope"},
    "elu": {"alpha"},
    "celu": {"alpha"},
    "gelu": {"approximate"},
}
_LARGEST = float(np.finfo(np.float32).max)
_VECTOR = (1,)
_RANKS = {"bias": _VECTOR, "gamma": _VECTOR, "beta": _VECTOR} | dict.fromkeys(
    ("alpha", "center", "scale", "offset"), (0, 1)
)
"""Axes of an array by its field; others have two."""


def _is_number(value: Json) -> bool:
    # As a comparison, since an integer of JSON may be larger than any float.
    return type(value) in (int, float) and bool(abs(value) <= _LARGEST)


def _is_integer(value: Json) -> TypeGuard[int]:
    return type(value) is int and abs(value) < 1 << 63


_SCALARS: dict[str, Callable[[Json], bool]] = {
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "int": _is_integer,
    "float": _is_number,
    "int | None": lambda value: value is None or _is_integer(value),
    "float | None": lambda value: value is None or _is_number(value),
    "Mapping[str, Any]": lambda value: (
        isinstance(value, dict)
        and all(
            each is None or isinstance(each, bool) or _is_number(each) for each in value.values()
        )
    ),
}
"""Whether a value is of a field's type, by the type's text."""


def is_network_file(path: Path, start: bytes) -> bool:
    """Whether a file is a safetensors file whose metadata hold a network."""
    # The metadata come first in what is written here; the key may stand deeper in a file that
    # another program has rewritten.
    if not is_safetensors(path, start):
        return False
    key = f'"{METADATA_KEY}"'.encode()
    if key in start:
        return True
    with path.open("rb") as file:
        size = int.from_bytes(file.read(LENGTH_BYTES), "little")
        return key in file.read(min(size, 1 << 20))


def read_network_file(path: str | os.PathLike[str]) -> Network:
    """Read a network that `write_network_file` wrote.

    Raises:
        FormatError: It cannot be read, or is damaged.
    """
    with open_safetensors(path) as file:
        try:
            return _read(file)
        except (SpecError, WeightsError) as error:
            raise FormatError(os.fspath(path), [str(error)]) from error
        except RecursionError as error:
            raise FormatError(os.fspath(path), ["its metadata are nested too deeply"]) from error


def write_network_file(network: Network, file: IO[bytes]) -> None:
    """Write a network to a file that is open for writing bytes."""
    arrays: Arrays = {}
    layers = [
        {"kind": type(layer).__name__, **_describe(layer, f"layers.{index}", arrays)}
        for index, layer in enumerate(network.layers)
    ]
    document: dict[str, Json] = {
        "version": VERSION if network.is_chain else GRAPH_VERSION,
        "name": network.name,
        "written_by": network.written_by,
        "input_size": network.input_size,
    }
    wiring = network.wiring
    if network.is_chain:
        names = {"input_name": network.inputs[0].name, "output_name": network.outputs[0].name}
        document |= names
    else:
        document["wiring"] = {field.name: getattr(wiring, field.name) for field in fields(wiring)}
    document["layers"] = layers
    write_safetensors(file, arrays, {METADATA_KEY: json.dumps(document)})


def _describe(part: Any, path: str, arrays: Arrays) -> dict[str, Json]:  # noqa: ANN401 - any dataclass
    """Return the fields of a part that are no arrays, and put those that are into `arrays`."""
    described: dict[str, Json] = {}
    for field in fields(part):
        value = getattr(part, field.name)
        place = f"{path}.{field.name}"
        if field.type in _PARTS:
            described[field.name] = _describe(value, place, arrays)
        elif field.type in _SCALARS:
            described[field.name] = dict(value) if isinstance(value, Mapping) else value
        elif value is not None:
            arrays[place] = value
    return described


def _read(file: TensorFile) -> Network:
    try:
        document = json.loads(file.metadata.get(METADATA_KEY, ""))
    except ValueError as error:
        raise SpecError("metadata", f"{METADATA_KEY} is not valid JSON: {error}") from error
    version = document.get("version") if isinstance(document, dict) else None
    if version not in (VERSION, GRAPH_VERSION):
        known = f"version {VERSION} or {GRAPH_VERSION}"
        raise SpecError("metadata", f"{METADATA_KEY} is no network of {known}")
    name, input_size = document.get("name"), document.get("input_size")
    layers = document.get("layers")
    if not isinstance(name, str) or not _is_integer(input_size) or input_size < 1:
        raise SpecError("metadata", "the network has no name or no input size")
    if not isinstance(layers, list) or not layers:
        raise SpecError("metadata", "the network has no layers")
    return Network(
        name,
        input_size,
        tuple(_layer(layer, f"layers.{i}", file.tensors) for i, layer in enumerate(layers)),
        written_by=writer if isinstance(writer := document.get("written_by"), str) else None,
        wiring=_chain(document) if version == VERSION else _wiring(document.get("wiring")),
    )


def _chain(document: dict[str, Json]) -> Wiring:
    input_name, output_name = document.get("input_name"), document.get("output_name")
    if not (isinstance(input_name, str) and isinstance(output_name, str)):
        raise SpecError("metadata", "the network has no name for its input or for its output")
    return chain(input_name, document["input_size"], len(document["layers"]), output_name)


def _wiring(document: Json) -> Wiring:
    """Return what each layer takes; what it refers to is checked by the network."""
    given = document if isinstance(document, dict) else {}
    takes = given.get("takes", [])
    is_listed = isinstance(takes, list) and all(
        isinstance(taken, list) and all(map(_is_integer, taken)) for taken in takes
    )
    ends = [_ends(given.get(field)) for field in ("inputs", "outputs")]
    if not is_listed or ends[0] is None or ends[1] is None:
        raise SpecError("metadata", "the network's wiring is not what its layers take")
    if any(size < 1 for _, size in ends[0]):
        raise SpecError("metadata", "an input of the network has no size")
    return Wiring(inputs=ends[0], takes=tuple(map(tuple, takes)), outputs=ends[1])


def _ends(document: Json) -> tuple[tuple[str, int], ...] | None:
    """Return names and numbers in a list of pairs; None where it is none."""
    is_listed = isinstance(document, list) and all(
        isinstance(end, list) and len(end) == 2 and isinstance(end[0], str) and _is_integer(end[1])
        for end in document
    )
    return tuple((name, number) for name, number in document) if is_listed else None


def _layer(document: Json, path: str, tensors: Tensors) -> Layer:
    kind = _KINDS.get(str(document.get("kind"))) if isinstance(document, dict) else None
    if kind is None:
        raise SpecError(path, f"is no layer that is known; known are {', '.join(_KINDS)}")
    fields_only = {name: value for name, value in document.items() if name != "kind"}
    layer: Layer = _Part(path, fields_only, tensors).build(kind)
    _check(layer)
    return layer


@dataclass(frozen=True, slots=True)
class _Part:
    """The JSON of a layer, or of a part of one, and where its arrays are."""

    path: str
    document: Json
    tensors: Tensors

    def build(self, kind: type[Any]) -> Any:  # noqa: ANN401 - an instance of `kind`
        known = {field.name: field for field in fields(kind)}
        if not isinstance(self.document, dict) or self.document.keys() - known.keys():
            unknown = sorted(self.document.keys() - known.keys()) if self.document else []
            raise SpecError(self.path, f"has fields that no {kind.__name__} has: {unknown!s:.80}")
        values = {}
        for name, field in known.items():
            if field.type not in _PARTS and field.type not in _SCALARS:
                values[name] = self._array(field)
            elif name in self.document:
                values[name] = self._value(field)
            elif field.default is MISSING and field.default_factory is MISSING:
                raise SpecError(self.path, f"lacks {name}")
        return kind(**values)

    def _value(self, field: Field[Any]) -> Any:  # noqa: ANN401 - the field's type
        value = self.document[field.name]
        if field.type in _PARTS:
            path = f"{self.path}.{field.name}"
            return _Part(path, value, self.tensors).build(_PARTS[str(field.type)])
        if not _SCALARS[str(field.type)](value):
            raise SpecError(self.path, f"{field.name} is {value!r:.80}, not {field.type}")
        return value

    def _array(self, field: Field[Any]) -> npt.NDArray[np.float32] | None:
        key = f"{self.path}.{field.name}"
        if key not in self.tensors and "None" in str(field.type):
            return None
        ranks = _RANKS.get(field.name, (2,))
        rank = len(self.tensors[key].shape) if key in self.tensors else ranks[0]
        if rank not in ranks:
            raise SpecError(self.path, f"{field.name} has {rank} axes")
        return read_weight(self.tensors, key, self.path, field.name, (None,) * rank)


def _check(layer: Layer) -> None:
    """Refuse what the types allow and no runtime can run.

    Raises:
        SpecError, WeightsError: Something does not fit.
    """
    if isinstance(layer, Recurrent):
        layer.weights.check(layer.spec)
    elif isinstance(layer, Bidirectional):
        _check_bidirectional(layer)
    elif isinstance(layer, Dense):
        _check_function(layer.name, layer.activation, {})
        columns = layer.kernel.shape[1]
        if layer.bias is not None and layer.bias.shape != (columns,):
            raise WeightsError(f"bias of {layer.name}", (columns,), layer.bias.shape)
    elif isinstance(layer, Activation):
        _check_function(layer.name, layer.function, layer.parameters)
    elif isinstance(layer, Merge):
        if layer.operation not in OPERATIONS or layer.masks not in MASKS:
            problem = f"is no merge: {layer.operation!r:.80} with masks of {layer.masks!r:.80}"
            raise SpecError(layer.name, problem)
    elif isinstance(layer, Affine):
        widths = {v.size for v in (layer.center, layer.scale, layer.offset) if v.ndim}
        if len(widths) > 1:
            raise SpecError(layer.name, f"has vectors of different lengths, {sorted(widths)}")


def _check_bidirectional(layer: Bidirectional) -> None:
    if layer.merge_mode not in MERGE_MODES:
        raise SpecError(layer.name, f"merge_mode is {layer.merge_mode!r:.80}")
    for direction in (layer.forward, layer.backward):
        direction.weights.check(direction.spec)
    if layer.forward.go_backwards == layer.backward.go_backwards:
        raise SpecError(layer.name, "both its layers run in the same direction")
    if layer.forward.return_sequences != layer.backward.return_sequences:
        raise SpecError(layer.name, "only one of its layers returns sequences")


def _check_function(layer: str, name: str, parameters: Mapping[str, Any]) -> None:
    if name not in FUNCTIONS:
        raise SpecError(layer, f"unknown activation {name!r:.80}")
    unknown = parameters.keys() - _PARAMETERS.get(name, set())
    if unknown:
        raise SpecError(layer, f"{name} has no parameters {sorted(unknown)!s:.80}")
