"""Requests and answers of `infer` over HTTP: a JSON document, and binary tensors behind it.

From bytes to an `InferRequest`, and from an `InferReply` to bytes. Knows no engine. What of a
document is of no use here is not looked at, as the protocol wants it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson

from service.domain import Float32, Signature
from service.transport.explain import Location, describe, shorten, wrong
from service.transport.headers import Headers
from service.transport.problem import Answer
from service.transport.render import dump
from service.transport.slices import LARGE_ANSWER_VALUES, Slices, at_once
from service.transport.v2 import compression, datatypes
from service.transport.v2.inference import InferReply, InferRequest, InputTensor
from service.transport.v2.metadata import input_datatype

HEADER_LENGTH = b"inference-header-content-length"
"""How many bytes of a body are JSON; left out: all of them."""
MAX_TENSORS = 64
"""More tensors than any model here takes or gives."""

_LENGTH = re.compile(rb"[0-9]{1,18}\Z")
_WRITE_VALUES = 4096
_BINARY = b"application/octet-stream"
_SHARED_MEMORY = "shared_memory_region"


class AnswerForm(NamedTuple):
    """How an answer shall be written.

    Attributes:
        is_binary: Whether tensors stand behind the JSON, where nothing else is said of them.
        is_binary_by_name: What is said of some.
        encoding: How the whole is compressed; None: not at all.
    """

    is_binary: bool
    is_binary_by_name: Mapping[str, bool]
    encoding: str | None


class Asked(NamedTuple):
    """What a body asks for.

    Attributes:
        request: What is asked.
        form: How it shall be answered.
    """

    request: InferRequest
    form: AnswerForm


def header_length_of(headers: Headers) -> int | None:
    """Return how many bytes of a body are said to be JSON, None where nothing is said.

    Raises:
        InvalidRequestError: That is no number.
    """
    given = headers.get(HEADER_LENGTH)
    if given is None:
        return None
    if not _LENGTH.match(given):
        text = f"expected a number of bytes, got {describe(given.decode('latin-1'))}"
        raise wrong(("inference-header-content-length",), text)
    return int(given)


def read_infer(name: str, version: str, headers: Headers, body: bytes) -> Asked:
    """Read a JSON document with the tensors behind it.

    Args:
        name: The model's, from the path.
        version: Likewise; empty for the current one.
        headers: By lower-case name.
        body: What they belong to, expanded.

    Raises:
        InvalidRequestError: It is no request of this protocol.
    """
    length = header_length_of(headers)
    if length is not None and length > len(body):
        text = f"is {length}, but the body has {len(body)} bytes"
        raise wrong(("inference-header-content-length",), text)
    document = _read_document(body if length is None else body[:length])
    parameters = _parameters(document, ())
    request_id = document.get("id", "")
    if not isinstance(request_id, str):
        raise wrong(("id",), f"expected a string, got {describe(request_id)}")
    at = len(body) if length is None else length
    inputs = []
    for index, tensor in enumerate(_tensors(document, "inputs")):
        read, at = _read_input(tensor, ("inputs", index), body, at)
        inputs.append(read)
    if at != len(body):
        text = f"{len(body) - at} bytes stand behind the tensors; is a binary_data_size too small?"
        raise wrong((), text)
    outputs, is_binary_by_name = _read_outputs(document)
    request = InferRequest(
        model_name=name,
        model_version=version,
        id=request_id,
        parameters=parameters,
        inputs=inputs,
        outputs=outputs,
    )
    is_binary = _flag(parameters, "binary_data_output", ("parameters",))
    encoding = compression.accepted_encoding(headers)
    return Asked(request, AnswerForm(is_binary, is_binary_by_name, encoding))


def read_raw(version: str, signature: Signature, headers: Headers, body: bytes) -> Asked:
    """Read a body that is the model's only input: one sequence of time steps, without a state.

    Args:
        version: Of the model; empty for the current one.
        signature: The model's.
        headers: By lower-case name.
        body: `(time, input_size)` values of the model's own datatype, little-endian.

    Raises:
        InvalidRequestError: It is no whole number of time steps.
    """
    datatype, size = input_datatype(signature), signature.input_size
    step_bytes = datatypes.num_bytes(signature.input_name, datatype, [size])
    num_steps, rest = divmod(len(body), step_bytes)
    if rest or not num_steps:
        expected = f"expected {step_bytes} bytes ({size} {datatype} values) for each time step"
        raise wrong((signature.input_name,), f"{expected}, got {len(body)}")
    shape = (1, num_steps, size)
    values = datatypes.from_bytes(signature.input_name, datatype, shape, body)
    tensor = InputTensor(name=signature.input_name, values=values)
    request = InferRequest(model_name=signature.model, model_version=version, inputs=(tensor,))
    form = AnswerForm(is_binary=True, is_binary_by_name={}, encoding=None)
    return Asked(request, form._replace(encoding=compression.accepted_encoding(headers)))


def write_infer(reply: InferReply, form: AnswerForm) -> Answer | Slices[Answer]:
    """Return the answer, or what writes it in slices where it is long."""
    if any(output.values.size > LARGE_ANSWER_VALUES for output in reply.outputs):
        return _write_in_slices(reply, form)
    if form.encoding is not None:
        return at_once(_write_in_slices(reply, form))
    document, blobs = _document(reply, form)
    json = dump(document)
    if not blobs:
        return Answer(200, json)
    return _binary_answer(json, blobs)


def _read_document(json: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(json)
    except orjson.JSONDecodeError as error:
        raise wrong((), f"not valid JSON: {shorten(str(error))}") from None
    if not isinstance(document, dict):
        raise wrong((), f"expected an object, got {describe(document)}")
    return document


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


def _read_input(
    tensor: dict[str, Any], where: Location, body: bytes, at: int
) -> tuple[InputTensor, int]:
    """Return an input, and where the tensors of those behind it begin."""
    name, datatype, shape = tensor["name"], tensor.get("datatype"), tensor.get("shape")
    if not isinstance(datatype, str):
        raise wrong((*where, "datatype"), f"expected a string, got {describe(datatype)}")
    if not isinstance(shape, list) or set(map(type, shape)) - {int}:
        text = f"expected an array of integers, got {describe(shape)}"
        raise wrong((*where, "shape"), text)
    parameters = _parameters(tensor, where)
    _refuse_shared_memory(parameters, where)
    size = parameters.get("binary_data_size")
    data = tensor.get("data")
    if size is None:
        if not isinstance(data, list):
            text = f"expected an array, or binary_data_size instead, got {describe(data)}"
            raise wrong((*where, "data"), text)
        values = datatypes.from_values(name, datatype, shape, data)
        return InputTensor(name=name, values=values), at
    where = (*where, "parameters", "binary_data_size")
    if type(size) is not int or size < 0:
        raise wrong(where, f"expected a number of bytes, got {describe(size)}")
    if data is not None:
        raise wrong(where, "means that there is no data beside it")
    if size > len(body) - at:
        raise wrong(where, f"is {size}, but {len(body) - at} bytes are left of the body")
    values = datatypes.from_bytes(name, datatype, shape, body[at : at + size])
    return InputTensor(name=name, values=values), at + size


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
            is_binary[tensor["name"]] = _flag(parameters, "binary_data", (*where, "parameters"))
    return names, is_binary


def _refuse_shared_memory(parameters: dict[str, Any], where: Location) -> None:
    if _SHARED_MEMORY in parameters:
        raise wrong((*where, "parameters"), "shared memory is not served; send the tensor itself")


def _flag(parameters: dict[str, Any], name: str, where: Location) -> bool:
    value = parameters.get(name, False)
    if type(value) is not bool:
        raise wrong((*where, name), f"expected true or false, got {describe(value)}")
    return value


def _document(reply: InferReply, form: AnswerForm) -> tuple[dict[str, Any], list[bytes]]:
    """Return the JSON document of an answer, and the tensors behind it."""
    blobs: list[bytes] = []
    outputs = []
    for output in reply.outputs:
        values = output.values
        written: dict[str, Any] = {"name": output.name, "datatype": "FP32", "shape": values.shape}
        if form.is_binary_by_name.get(output.name, form.is_binary):
            blob = datatypes.to_bytes(values)
            blobs.append(blob)
            written["parameters"] = {"binary_data_size": len(blob)}
        else:
            written["data"] = values.reshape(-1)
        outputs.append(written)
    document: dict[str, Any] = {
        "model_name": reply.model_name,
        "model_version": reply.model_version,
        "outputs": outputs,
    }
    if reply.id:
        document["id"] = reply.id
    if reply.parameters:
        document["parameters"] = reply.parameters
    return document, blobs


def _binary_answer(json: bytes, blobs: list[bytes]) -> Answer:
    body = b"".join((json, *blobs))
    return Answer(200, body, _BINARY, ((HEADER_LENGTH, b"%d" % len(json)),))


def _write_in_slices(reply: InferReply, form: AnswerForm) -> Slices[Answer]:
    document, blobs = _document(reply, form)
    lists = []
    for output in document["outputs"]:
        if "data" in output:
            lists.append(output["data"])
            output["data"] = []
    # Nothing else in the document is an empty list, and quotes in a string stand behind a stroke.
    pieces = dump(document).split(b'"data":[]')
    parts = [pieces[0]]
    for values, piece in zip(lists, pieces[1:], strict=True):
        parts.append(b'"data":[')
        yield from _write_numbers(values, parts)
        parts += (b"]", piece)
    json = b"".join(parts)
    answer = _binary_answer(json, blobs) if blobs else Answer(200, json)
    if form.encoding is None:
        return answer
    body = yield from compression.compress(answer.body, form.encoding)
    headers = (*answer.headers, (b"content-encoding", form.encoding.encode()))
    return answer._replace(body=body, headers=headers)


def _write_numbers(values: Float32, parts: list[bytes]) -> Slices[None]:
    """Append `(values,)` float32 as JSON without brackets."""
    for start in range(0, len(values), _WRITE_VALUES):
        if start:
            parts.append(b",")
        parts.append(dump(values[start : start + _WRITE_VALUES])[1:-1])
        yield
