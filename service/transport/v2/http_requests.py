"""Requests of `infer` over HTTP: a JSON document, and binary tensors behind it.

From bytes to an `InferRequest`, and how the answer shall be written. Knows no engine. What of a
document is of no use here is not looked at, as the protocol wants it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import orjson

from service.domain import Float32
from service.signature import Signature
from service.transport.explain import Location, describe, shorten, wrong
from service.transport.headers import Headers
from service.transport.v2.datatypes import BinaryTensor, from_bytes, from_values
from service.transport.v2.http_answers import HEADER_LENGTH, AnswerForm
from service.transport.v2.messages import InferRequest, InputTensor
from service.transport.v2.metadata import input_datatype
from service.transport.v2.sequences import Meaning, read_meaning

MAX_TENSORS = 64
"""More tensors than any model here takes or gives."""

_LENGTH = re.compile(rb"[0-9]{1,18}\Z")
_SHARED_MEMORY = "shared_memory_region"
_MAX_REMEMBERED_BYTES = 2048


class Asked(NamedTuple):
    """What a body asks for.

    Attributes:
        request: What is asked.
        form: How it shall be answered.
    """

    request: InferRequest
    form: AnswerForm


class _Frame(NamedTuple):
    """What the JSON of a request says but for its inputs.

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


Inputs = Sequence[tuple[str, Float32 | BinaryTensor]]
"""Name and values of each input, or what is said of the bytes behind the JSON."""


class InferReader:
    """Reads the requests to one path, those of one client in a row mostly.

    What it remembers of one spares the next one the reading of what is the same: the steps of a
    sequence differ in their inputs, and in binary these are not even in the JSON.
    """

    __slots__ = ("_frame", "_inputs", "_json", "_length", "_length_line", "_name", "_version")

    def __init__(self, name: str, version: str) -> None:
        """Take the model that the path names, and its version; empty for the current one."""
        self._name = name
        self._version = version
        self._length_line: bytes | None = None
        self._length: int | None = None
        self._frame: _Frame | None = None
        # Of the last one whose tensors were all behind its JSON.
        self._json: bytes | None = None
        self._inputs: Inputs = ()

    def read(self, headers: Headers, body: bytes) -> Asked:
        """Read a JSON document with the tensors behind it.

        Args:
            headers: By lower-case name.
            body: What they belong to, expanded.

        Raises:
            InvalidRequestError: It is no request of this protocol.
        """
        given = headers.get(HEADER_LENGTH)
        if given != self._length_line:
            self._length_line, self._length = given, _header_length(given)
        length = self._length
        if length is None:
            frame, inputs = self._read_json(body)
            length = len(body)
        elif length > len(body):
            text = f"is {length}, but the body has {len(body)} bytes"
            raise wrong(("inference-header-content-length",), text)
        else:
            frame, inputs = self._read_known(body[:length])
        request = InferRequest(
            model_name=self._name,
            model_version=self._version,
            id=frame.request_id,
            parameters=frame.parameters,
            inputs=_take_inputs(inputs, body, length),
            outputs=frame.outputs,
            meaning=frame.meaning,
        )
        return Asked(request, frame.form)

    def _read_known(self, json: bytes) -> tuple[_Frame, Inputs]:
        """Read a document, or find out that it is the last one."""
        frame = self._frame
        if frame is not None and json == self._json:
            return frame, self._inputs
        frame, inputs = self._read_json(json)
        if len(json) <= _MAX_REMEMBERED_BYTES and not any(
            isinstance(values, np.ndarray) for _, values in inputs
        ):
            self._json, self._inputs = json, inputs
        return frame, inputs

    def _read_json(self, json: bytes) -> tuple[_Frame, Inputs]:
        self._json = None  # it belongs to the frame
        document = _parse(json)
        frame = self._frame
        if frame is None or not frame.fits(document):
            frame = _read_frame(document)
            self._frame = frame if len(json) <= _MAX_REMEMBERED_BYTES else None
        inputs = [
            _read_input(tensor, ("inputs", index))
            for index, tensor in enumerate(_tensors(document, "inputs"))
        ]
        return frame, inputs


def read_raw(version: str, signature: Signature, body: bytes) -> Asked:
    """Read a body that is the model's only input: one sequence of time steps, without a state.

    Args:
        version: Of the model; empty for the current one.
        signature: The model's.
        body: `(time, input_size)` values of the model's own datatype, little-endian.

    Raises:
        InvalidRequestError: It is no whole number of time steps.
    """
    part, *others = signature.inputs
    if others:
        text = f"a body of one input only, but model {signature.model!r} has {1 + len(others)}"
        raise wrong(("inference-header-content-length",), text)
    name, datatype, size = part.name, input_datatype(part), part.size
    step_bytes = BinaryTensor(name, datatype, [size]).num_bytes
    num_steps, rest = divmod(len(body), step_bytes)
    if rest or not num_steps:
        expected = f"expected {step_bytes} bytes ({size} {datatype} values) for each time step"
        raise wrong((name,), f"{expected}, got {len(body)}")
    values = from_bytes(name, datatype, (1, num_steps, size), body)
    tensor = InputTensor(name=name, values=values)
    request = InferRequest(model_name=signature.model, model_version=version, inputs=(tensor,))
    return Asked(request, AnswerForm(is_binary=True, is_binary_by_name={}))


def _header_length(given: bytes | None) -> int | None:
    """Return how many bytes of a body are said to be JSON, None where nothing is said."""
    if given is None:
        return None
    if not _LENGTH.match(given):
        text = f"expected a number of bytes, got {describe(given.decode('latin-1'))}"
        raise wrong(("inference-header-content-length",), text)
    return int(given)


def _parse(json: bytes) -> dict[str, Any]:
    try:
        document = orjson.loads(json)
    except orjson.JSONDecodeError as error:
        raise wrong((), f"not valid JSON: {shorten(str(error))}") from None
    if not isinstance(document, dict):
        raise wrong((), f"expected an object, got {describe(document)}")
    return document


def _read_frame(document: dict[str, Any]) -> _Frame:
    parameters = _parameters(document, ())
    request_id = document.get("id", "")
    if not isinstance(request_id, str):
        raise wrong(("id",), f"expected a string, got {describe(request_id)}")
    meaning = read_meaning(parameters)
    outputs, is_binary_by_name = _read_outputs(document)
    is_binary = _flag(parameters, "binary_data_output", ("parameters",))
    form = AnswerForm(is_binary=is_binary, is_binary_by_name=is_binary_by_name)
    return _Frame(request_id, parameters, meaning, outputs, form)


def _take_inputs(given: Inputs, body: bytes, at: int) -> list[InputTensor]:
    """Return the inputs, some of which stand behind the JSON, from `at` on."""
    inputs = []
    for name, values in given:
        if isinstance(values, BinaryTensor):
            end = at + values.num_bytes
            if end > len(body):
                text = f"has {values.num_bytes} bytes, but {len(body) - at} are left of the body"
                raise wrong((shorten(name),), text)
            inputs.append(InputTensor(name=name, values=values.read(body[at:end])))
            at = end
        else:
            inputs.append(InputTensor(name=name, values=values))
    if at != len(body):
        text = f"{len(body) - at} bytes stand behind the tensors; is a binary_data_size too small?"
        raise wrong((), text)
    return inputs


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
