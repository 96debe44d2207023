"""Answers of `infer` over HTTP: a JSON document, and binary tensors behind it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from service.domain import Float32
from service.transport.problem import Answer, Headers
from service.transport.render import dump
from service.transport.slices import LARGE_ANSWER_VALUES, Slices, at_once
from service.transport.v2.compression import compress
from service.transport.v2.datatypes import to_bytes
from service.transport.v2.messages import InferReply, OutputTensor

HEADER_LENGTH = b"inference-header-content-length"
"""How many bytes of a body are JSON; left out: all of them."""

_WRITE_VALUES = 4096
_NO_DATA = b'"data":[]'
"""Nothing else in a document is an empty list, and quotes within a string are escaped."""
_BINARY = b"application/octet-stream"


class AnswerForm:
    """How answers shall be written.

    It keeps the JSON around the last answer's tensor: the next one to the same request, for other
    inputs, has the same.
    """

    __slots__ = ("_by_name", "_default", "_frame", "_headers", "_kind")

    def __init__(self, *, is_binary: bool, is_binary_by_name: Mapping[str, bool]) -> None:
        """Take what is said.

        Args:
            is_binary: Whether tensors stand behind the JSON, where nothing else is said of them.
            is_binary_by_name: What is said of some.
        """
        self._default = is_binary
        self._by_name = is_binary_by_name
        self._kind: tuple[str, str, tuple[int, ...]] | None = None
        self._frame = b"", b""
        self._headers: Headers = ()

    def is_binary(self, name: str) -> bool:
        """Tell whether an output's tensor stands behind the JSON."""
        return self._by_name.get(name, self._default)

    def write_one(self, reply: InferReply, output: OutputTensor) -> Answer:
        """Write an answer of one tensor and of no parameters.

        Args:
            reply: To the request that this form was made for.
            output: Its only one.
        """
        values = output.values
        is_binary = self.is_binary(output.name)
        kind = (reply.model_version, output.name, values.shape)
        if kind != self._kind:
            document, _ = _document(reply, self)
            self._kind, self._frame = kind, _frame_of(document)
            self._headers = ((HEADER_LENGTH, b"%d" % len(self._frame[0])),)
        before, behind = self._frame
        if is_binary:
            return Answer(200, before + to_bytes(values), _BINARY, self._headers)
        return Answer(200, b"%b%b%b" % (before, dump(values.reshape(-1)), behind))


def write_infer(
    reply: InferReply, form: AnswerForm, encoding: str | None
) -> Answer | Slices[Answer]:
    """Return the answer, or what writes it in slices where it is long.

    Args:
        reply: What came of the request.
        form: How its answer shall be written.
        encoding: How it shall be compressed; None: not at all.
    """
    if sum([output.values.size for output in reply.outputs]) > LARGE_ANSWER_VALUES:
        return _write_in_slices(reply, form, encoding)
    if encoding is not None:
        return at_once(_write_in_slices(reply, form, encoding))
    if len(reply.outputs) == 1 and not reply.parameters:
        return form.write_one(reply, reply.outputs[0])
    document, blobs = _document(reply, form)
    json = dump(document)
    return _binary_answer(json, blobs) if blobs else Answer(200, json)


def _document(reply: InferReply, form: AnswerForm) -> tuple[dict[str, Any], list[bytes]]:
    """Return the JSON document of an answer, and the tensors behind it."""
    blobs: list[bytes] = []
    outputs = []
    for output in reply.outputs:
        values = output.values
        written: dict[str, Any] = {"name": output.name, "datatype": "FP32", "shape": values.shape}
        if form.is_binary(output.name):
            blob = to_bytes(values)
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


def _frame_of(document: dict[str, Any]) -> tuple[bytes, bytes]:
    """Return the JSON before and behind the numbers of the only output, or all of it if binary."""
    [output] = document["outputs"]
    if "data" not in output:
        return dump(document), b""
    before, behind = dump(document | {"outputs": [output | {"data": []}]}).split(_NO_DATA)
    return before + b'"data":', behind


def _write_in_slices(reply: InferReply, form: AnswerForm, encoding: str | None) -> Slices[Answer]:
    document, blobs = _document(reply, form)
    lists = []
    for output in document["outputs"]:
        if "data" in output:
            lists.append(output["data"])
            output["data"] = []
    pieces = dump(document).split(_NO_DATA)
    parts = [pieces[0]]
    for values, piece in zip(lists, pieces[1:], strict=True):
        parts.append(b'"data":[')
        yield from _write_numbers(values, parts)
        parts += (b"]", piece)
    json = b"".join(parts)
    answer = _binary_answer(json, blobs) if blobs else Answer(200, json)
    if encoding is None:
        return answer
    body = yield from compress(answer.body, encoding)
    headers = (*answer.headers, (b"content-encoding", encoding.encode()))
    return replace(answer, body=body, headers=headers)


def _write_numbers(values: Float32, parts: list[bytes]) -> Slices[None]:
    """Append `(values,)` float32 as JSON without brackets."""
    for start in range(0, len(values), _WRITE_VALUES):
        if start:
            parts.append(b",")
        parts.append(dump(values[start : start + _WRITE_VALUES])[1:-1])
        yield
