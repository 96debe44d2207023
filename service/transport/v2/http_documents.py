"""The JSON document of a request of `infer` over HTTP: what its members say.

Knows no bytes behind it. Members that mean nothing here are ignored, as the protocol wants it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from service.domain import Float32
from service.transport.explain import Location, describe, shorten, wrong
from service.transport.v2.datatypes import BinaryTensor, from_values
from service.transport.v2.http_answers import AnswerForm
from service.transport.v2.sequences import Meaning, read_flag, read_meaning

MAX_TENSORS = 64
"""More tensors than any model here takes or gives."""

_SHARED_MEMORY = "shared_memory_region"

Inputs = Sequence[tuple[str, Float32 | BinaryTensor]]
"""Name and values of each input, or what is said of the bytes behind the JSON."""


class Frame(NamedTuple):
    """What the JSON of a request says, except for its inputs.

    Attributes:
        request_id: The request's own name.
        parameters: Its parameters.
        meaning: What they mean.
        outputs: Names of the outputs that are wanted.
        form: How the answer shall be written.
    """

    request_id: str
    parameters: Mapping[str, Any]
    meaning: Meaning
    outputs: Sequence[str]
    form: AnswerForm

    def fits(self, document: dict[str, Any]) -> bool:
        """Tell whether another document says the same; in doubt it does not."""
        parameters = document.get("parameters")
        return (
            self.request_id == document.get("id", "")
            and self.parameters == parameters
            # Python takes true for 1, and 1.0 too.
            and [*map(type, self.parameters.values())] == [*map(type, parameters.values())]
            and [*self.parameters] == [*parameters]
            and not self.outputs
            and "outputs" not in document
        )


def parse_document(json: bytes) -> dict[str, Any]:
    """Return what is an object in JSON.

    Raises:
        InvalidRequestError: It is none.
    """
    try:
        document = orjson.loads(json)
    except orjson.JSONDecodeError as error:
        raise wrong((), f"not valid JSON: {shorten(str(error))}") from None
    if not isinstance(document, dict):
        raise wrong((), f"expected an object, got {describe(document)}")
    return document


def read_frame(document: dict[str, Any]) -> Frame:
    """Return what a document says, except for its inputs.

    Raises:
        InvalidRequestError: It is no request of this protocol.
    """
    parameters = _parameters(document, ())
    request_id = document.get("id", "")
    if not isinstance(request_id, str):
        raise wrong(("id",), f"expected a string, got {describe(request_id)}")
    meaning = read_meaning(parameters)
    outputs, is_binary_by_name = _read_outputs(document)
    is_binary = read_flag(parameters, "binary_data_output")
    form = AnswerForm(is_binary=is_binary, is_binary_by_name=is_binary_by_name)
    return Frame(request_id, parameters, meaning, outputs, form)


def read_inputs(document: dict[str, Any]) -> Inputs:
    """Return the inputs of a document.

    Args:
        document: Its numbers are lists, or float32 already as `long_documents` reads them.

    Raises:
        InvalidRequestError: One has no such values, or float32 cannot hold them.
    """
    return [
        _read_input(tensor, ("inputs", index))
        for index, tensor in enumerate(_tensors(document, "inputs"))
    ]


def _parameters(document: dict[str, Any], where: Location) -> dict[str, Any]:
    parameters = document.get("parameters")
    if parameters is None:
        return {}
    if not isinstance(parameters, dict):
        raise wrong((*where, "parameters"), f"expected an object, got {describe(parameters)}")
    return parameters


def _tensors(document: dict[str, Any], member: str) -> list[dict[str, Any]]:
    tensors = document.get(member, [])
    if not isinstance(tensors, list):
        raise wrong((member,), f"expected an array, got {describe(tensors)}")
    if len(tensors) > MAX_TENSORS:
        raise wrong((member,), f"expected at most {MAX_TENSORS} tensors, got {len(tensors)}")
    for index, tensor in enumerate(tensors):
        if not isinstance(tensor, dict):
            raise wrong((member, index), f"expected an object, got {describe(tensor)}")
        if not isinstance(tensor.get("name"), str):
            text = f"expected a string, got {describe(tensor.get('name'))}"
            raise wrong((member, index, "name"), text)
    return tensors


def _read_input(tensor: dict[str, Any], where: Location) -> tuple[str, Float32 | BinaryTensor]:
    """Return an input's name, and its values or what is said of its bytes behind the JSON."""
    name, datatype, shape = tensor["name"], tensor.get("datatype"), tensor.get("shape")
    if not isinstance(datatype, str):
        raise wrong((*where, "datatype"), f"expected a string, got {describe(datatype)}")
    if not isinstance(shape, list) or set(map(type, shape)) - {int}:
        text = f"expected an array of integers, got {describe(shape)}"
        raise wrong((*where, "shape"), text)
    parameters = _parameters(tensor, where)
    _refuse_shared_memory(parameters, where)
    size, data = parameters.get("binary_data_size"), tensor.get("data")
    if size is None:
        if isinstance(data, np.ndarray):
            return name, data
        if not isinstance(data, list):
            text = f"expected an array, or binary_data_size instead, got {describe(data)}"
            raise wrong((*where, "data"), text)
        return name, from_values(name, datatype, shape, data)
    where = (*where, "parameters", "binary_data_size")
    if data is not None:
        raise wrong(where, "means that there is no data beside it")
    binary = BinaryTensor(name, datatype, shape)
    if type(size) is not int or size != binary.num_bytes:
        expected = f"expected {binary.num_bytes}, as datatype and shape say"
        raise wrong(where, f"{expected}, got {describe(size)}")
    return name, binary


def _read_outputs(document: dict[str, Any]) -> tuple[list[str], dict[str, bool]]:
    """Return the names of the outputs that are wanted, and which of them in binary if it says."""
    names: list[str] = []
    is_binary: dict[str, bool] = {}
    for index, tensor in enumerate(_tensors(document, "outputs")):
        where = ("outputs", index)
        parameters = _parameters(tensor, where)
        _refuse_shared_memory(parameters, where)
        if parameters.get("classification"):
            text = "classification is not served; ask for the output itself"
            raise wrong((*where, "parameters"), text)
        names.append(tensor["name"])
        if "binary_data" in parameters:
            is_binary[tensor["name"]] = read_flag(parameters, "binary_data", (*where, "parameters"))
    return names, is_binary


def _refuse_shared_memory(parameters: dict[str, Any], where: Location) -> None:
    if _SHARED_MEMORY in parameters:
        raise wrong((*where, "parameters"), "shared memory is not served; send the tensor itself")
