"""PyTorch state dicts into networks, from `.pt` or safetensors, without PyTorch.

A state dict has names and arrays. It does not tell in which order modules run, nor the functions
between them. That is said by a document, as `MODEL.json` beside the file, or as the metadata entry
`layers` of a safetensors file:

    {"layers": [{"lstm": "encoder"}, {"linear": "head.0"}, {"activation": "relu"},
                {"linear": "head.2"}]}

Without one, only an LSTM alone, or with one `Linear` and no module without weights, is read. A
TorchScript program (`torch.jit.save`) is read as a state dict too: its code is not.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lstm_core.errors import FormatError, SpecError
from lstm_core.formats.safetensors import open_safetensors
from lstm_core.formats.tensors import StoredTensor
from lstm_core.formats.torch_archive import open_torch
from lstm_core.formats.torch_chain import guess_chain, read_chain
from lstm_core.formats.torch_layers import Json
from lstm_core.formats.torch_pickle import Attributed, Value
from lstm_core.formats.torch_script import arrays_of, class_of, entries_of
from lstm_core.formats.torch_state import StateDict, is_lstm_key
from lstm_core.network import Network

METADATA_KEY = "layers"
MAX_DOCUMENT_BYTES = 1 << 20
_WRITER = "PyTorch"


def read_torch(path: str | os.PathLike[str]) -> Network:
    """Read a state dict that `torch.save` wrote, alone or as one entry of a checkpoint.

    So are the arrays of what `torch.jit.save` wrote.

    Args:
        path: The file. No code in it is run. `path` with the suffix `.json` tells its layers.

    Raises:
        FormatError: It cannot be read, is damaged, asks for code, or holds something that cannot be
            served; then `problems` names every such part and why.
    """
    with _problems_of(path), open_torch(path) as content:
        document = _document_beside(path)
        state = _state_dict(content, document)
        return _network(path, state, document)


def read_torch_safetensors(path: str | os.PathLike[str]) -> Network:
    """Read a state dict that `safetensors.torch.save_file` wrote.

    Args:
        path: The file. Its metadata entry `layers`, or `path` with the suffix `.json`, tells its
            layers.

    Raises:
        FormatError: As `read_torch`.
    """
    with _problems_of(path), open_safetensors(path) as file:
        document = _document_beside(path)
        text = file.metadata.get(METADATA_KEY)
        if text is not None:
            if document is not None:
                raise SpecError("layers", f"both the metadata and {_beside(path).name} tell them")
            document = _parsed(text, f"the metadata entry {METADATA_KEY}")
        return _network(path, StateDict(file.tensors), document)


@contextmanager
def _problems_of(path: str | os.PathLike[str]) -> Iterator[None]:
    try:
        yield
    except SpecError as error:
        raise FormatError(os.fspath(path), [str(error)], _WRITER) from error


def _network(
    path: str | os.PathLike[str], state: StateDict, document: Mapping[str, Json] | None
) -> Network:
    chain = guess_chain(state, _beside(path).name) if document is None else document.get("layers")
    input_size, layers, problems = read_chain(state, chain)
    if problems:
        raise FormatError(os.fspath(path), problems, _WRITER)
    return Network(Path(path).stem, input_size, tuple(layers), written_by=_WRITER)


def _state_dict(content: Value, document: Mapping[str, Json] | None) -> StateDict:
    """Return the arrays of the one state dict with an LSTM that a file holds.

    Raises:
        SpecError: There is none, or more than one and the document names none of them.
    """
    if isinstance(content, Attributed) and content.kind:
        return _script_state(content)
    named = None if document is None else document.get("state_dict")
    found: dict[str, dict[str, StoredTensor]] = {}
    if isinstance(content, dict):
        for name, value in [("", content), *content.items()]:
            arrays = _arrays(value)
            if isinstance(name, str) and any(is_lstm_key(key) for key in arrays):
                found[name] = arrays
    if named is not None and named not in found:
        raise SpecError("state_dict", f"there is no entry {named!r:.80} with an LSTM's weights")
    if not found:
        problem = "there is none with an LSTM's weights, such as weight_ih_l0"
        raise SpecError("state_dict", problem)
    if named is None and len(found) > 1:
        listed = ", ".join(map(repr, found))
        problem = f'there are several, {listed:.200}; name one as "state_dict" in the document'
        raise SpecError("state_dict", problem)
    name = str(named) if named is not None else next(iter(found))
    owner = content[name] if name else content
    modules = owner.attributes.get("_metadata") if isinstance(owner, Attributed) else None
    names = [key for key in modules if isinstance(key, str)] if isinstance(modules, dict) else []
    return StateDict(found[name], modules=names)


def _script_state(program: Attributed) -> StateDict:
    """Return the arrays of a TorchScript program, by the names of its modules."""
    try:
        arrays, entries = arrays_of(program), entries_of(program)
    except ValueError as error:
        raise SpecError("modules", str(error)) from error
    if not any(is_lstm_key(key) for key in arrays):
        problem = (
            "is a TorchScript program without the weights of an LSTM under their names; one that"
            " was frozen keeps them in its code: save it before torch.jit.freeze"
        )
        raise SpecError(class_of(program), problem)
    return StateDict(arrays, modules=list(entries), entries=entries)


def _arrays(value: Value) -> dict[str, StoredTensor]:
    if not isinstance(value, dict):
        return {}
    return {
        key: array
        for key, array in value.items()
        if isinstance(key, str) and isinstance(array, StoredTensor)
    }


def _beside(path: str | os.PathLike[str]) -> Path:
    return Path(path).with_suffix(".json")


def _document_beside(path: str | os.PathLike[str]) -> dict[str, Json] | None:
    beside = _beside(path)
    try:
        if not beside.is_file():
            return None
        with beside.open("rb") as file:
            data = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise SpecError(beside.name, f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_DOCUMENT_BYTES:
        raise SpecError(beside.name, f"has more than {MAX_DOCUMENT_BYTES} bytes")
    return _parsed(data, beside.name)


def _parsed(text: str | bytes, where: str) -> dict[str, Json]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SpecError(where, f"is not valid JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("layers"), list):
        raise SpecError(where, 'is no JSON object with a list of "layers"')
    if not isinstance(document.get("state_dict", ""), str):
        raise SpecError(where, "its state_dict is no name of an entry")
    unknown = document.keys() - {"layers", "state_dict"}
    if unknown:
        raise SpecError(where, f"has unknown entries {sorted(unknown)!s:.80}")
    return document
