"""The messages of inference, from bytes to what the core takes, and back.

Pure functions. What the tensors and the parameters mean, the core knows.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from google.protobuf.message import DecodeError

from service.errors import ServiceError
from service.transport.explain import shorten, wrong
from service.transport.grpc import messages
from service.transport.render import error_document
from service.transport.v2 import datatypes
from service.transport.v2.messages import InferReply, InferRequest, InputTensor, Scalar

_CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}
"""Where a message holds the values of a datatype; those that are not here can only be raw."""
# A field's number and how its length is told, as https://protobuf.dev/programming-guides/encoding
# has them. Fields written one behind the other are a message, in any order.
RAW_INPUT_TAG = b"\x3a"
_RAW_OUTPUT_TAG = b"\x32"
_ID_TAG = b"\x1a"
_INFER_RESPONSE_TAG = b"\x12"
_FP32_CONTENTS_TAG = b"\x32"
_BYTES = [bytes([number]) for number in range(0x80)]

MAX_TYPED_VALUES = 250_000
"""Of one tensor's contents: each is looked at by itself, while the event loop stands still."""

_SHARED_MEMORY = "shared_memory_region"


class Asked(NamedTuple):
    """A message that was read.

    Attributes:
        request: What it asks.
        is_typed: Whether its tensors are written out by type; so is the answer then.
    """

    request: InferRequest
    is_typed: bool


def parse_message(data: bytes) -> messages.ModelInferRequest:
    """Read the bytes of a request.

    Raises:
        InvalidRequestError: They are none.
    """
    try:
        return messages.ModelInferRequest.FromString(data)
    except DecodeError:
        raise wrong((), "not a ModelInferRequest of protobuf") from None


def id_of(data: bytes) -> str:
    """Return the own name of a request that may be wrong in any way; empty where it has none."""
    try:
        return messages.ModelInferRequest.FromString(data).id
    except DecodeError:
        return ""


def read_request(message: messages.ModelInferRequest) -> Asked:
    """Return what a message asks.

    Raises:
        InvalidRequestError: Its tensors are not what it says, or not for this service.
    """
    is_typed = not message.raw_input_contents
    if is_typed:
        inputs = [_typed_input(tensor) for tensor in message.inputs]
    else:
        inputs = _raw_inputs(message)
    for output in message.outputs:
        _refuse_shared_memory(("outputs", output.name), output.parameters)
    request = InferRequest(
        model_name=message.model_name,
        model_version=message.model_version,
        id=message.id,
        parameters={name: _scalar(name, value) for name, value in message.parameters.items()},
        inputs=inputs,
        outputs=[output.name for output in message.outputs],
    )
    return Asked(request, is_typed)


def write_reply(reply: InferReply, *, is_typed: bool) -> bytes:
    """Return a `ModelInferResponse`, its tensors written out by type or raw."""
    outputs = reply.outputs
    if not (is_typed or reply.parameters) and len(outputs) == 1:
        output = outputs[0]
        head = _response_head(
            reply.model_name, reply.model_version, output.name, output.values.shape
        )
        values = datatypes.to_bytes(output.values)
        request_id = reply.id.encode()
        if request_id:
            head += _ID_TAG + varint(len(request_id)) + request_id
        return b"".join((head, _RAW_OUTPUT_TAG, varint(len(values)), values))
    response = messages.ModelInferResponse(
        model_name=reply.model_name, model_version=reply.model_version, id=reply.id
    )
    for output in outputs:
        shape = output.values.shape
        tensor = response.outputs.add(name=output.name, datatype="FP32", shape=shape)
        if is_typed:
            values = datatypes.to_bytes(output.values)
            tensor.contents.MergeFromString(_FP32_CONTENTS_TAG + varint(len(values)) + values)
        else:
            response.raw_output_contents.append(datatypes.to_bytes(output.values))
    _set_parameters(response, reply.parameters)
    return response.SerializeToString()


def write_stream_reply(reply: InferReply, *, is_typed: bool) -> bytes:
    """Return a `ModelStreamInferResponse` around what `write_reply` returns."""
    response = write_reply(reply, is_typed=is_typed)
    return b"".join((_INFER_RESPONSE_TAG, varint(len(response)), response))


def write_stream_error(error: ServiceError, request_id: str) -> bytes:
    """Return the `ModelStreamInferResponse` that tells an error.

    Beside the protocol's text and id, the parameters hold the error's `code`, and the session's
    `position` and `epoch` where the error knows them.
    """
    document = error_document(error)
    message = str(document.pop("message"))
    answer = messages.ModelStreamInferResponse(error_message=message)
    answer.infer_response.id = request_id
    _set_parameters(answer.infer_response, document)
    return answer.SerializeToString()


def varint(number: int) -> bytes:
    """Return a number from 0 as protobuf writes it."""
    if number < 0x80:
        return _BYTES[number]
    parts = bytearray()
    while number >= 0x80:
        parts.append(0x80 | number & 0x7F)
        number >>= 7
    parts.append(number)
    return bytes(parts)


@lru_cache(maxsize=256)
def _response_head(
    model_name: str, model_version: str, output_name: str, shape: tuple[int, ...]
) -> bytes:
    """Return what stands before the id and the values of an answer with one raw FP32 output."""
    response = messages.ModelInferResponse(model_name=model_name, model_version=model_version)
    response.outputs.add(name=output_name, datatype="FP32", shape=shape)
    return response.SerializeToString()


def _set_parameters(
    response: messages.ModelInferResponse, parameters: Mapping[str, object]
) -> None:
    for name, value in parameters.items():
        parameter = response.parameters[name]
        if isinstance(value, bool):
            parameter.bool_param = value
        elif isinstance(value, int):
            parameter.int64_param = value
        elif isinstance(value, float):
            parameter.double_param = value
        else:
            parameter.string_param = str(value)


def _scalar(name: str, parameter: messages.InferParameter) -> Scalar:
    kind = parameter.WhichOneof("parameter_choice")
    if kind is None:
        raise wrong(("parameters", shorten(name)), "expected a value, got none")
    value: Scalar = getattr(parameter, kind)
    return value


def _raw_inputs(message: messages.ModelInferRequest) -> list[InputTensor]:
    raws = message.raw_input_contents
    if len(raws) != len(message.inputs):
        text = f"expected {len(message.inputs)} values, one an input, got {len(raws)}"
        raise wrong(("raw_input_contents",), text)
    inputs = []
    for tensor, raw in zip(message.inputs, raws, strict=True):
        name = tensor.name
        if tensor.HasField("contents"):
            text = "expected no contents beside raw_input_contents"
            raise wrong(("inputs", shorten(name)), text)
        _refuse_shared_memory(("inputs", name), tensor.parameters)
        values = datatypes.from_bytes(name, tensor.datatype, tuple(tensor.shape), raw)
        inputs.append(InputTensor(name=name, values=values))
    return inputs


def _typed_input(tensor: messages.ModelInferRequest.InferInputTensor) -> InputTensor:
    name, datatype = tensor.name, tensor.datatype
    _refuse_shared_memory(("inputs", name), tensor.parameters)
    where = _CONTENTS.get(datatype)
    if where is None and datatype in ("FP16", "BF16"):
        text = f"expected raw_input_contents, which alone can hold {datatype}"
        raise wrong(("inputs", shorten(name)), text)
    values = getattr(tensor.contents, where) if where is not None else ()
    if len(values) > MAX_TYPED_VALUES:
        text = f"expected at most {MAX_TYPED_VALUES} values in contents, got {len(values)}"
        raise wrong(("inputs", shorten(name)), f"{text}; send more as raw_input_contents")
    array = datatypes.from_values(name, datatype, tuple(tensor.shape), list(values))
    return InputTensor(name=name, values=array)


def _refuse_shared_memory(
    where: tuple[str, str], parameters: Mapping[str, messages.InferParameter]
) -> None:
    if parameters and _SHARED_MEMORY in parameters:
        location, name = where
        raise wrong((location, shorten(name)), "shared memory is not supported")
