"""Requests of `infer` over HTTP: a JSON document, and binary tensors behind it.

From bytes to an `InferRequest`, and how the answer shall be written. Knows no engine.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from service.signature import Signature
from service.transport.explain import Location, describe, shorten, wrong
from service.transport.headers import Headers
from service.transport.slices import Slices
from service.transport.v2.datatypes import BinaryTensor, from_bytes
from service.transport.v2.http_answers import HEADER_LENGTH, AnswerForm
from service.transport.v2.http_documents import (
    Frame,
    Inputs,
    parse_document,
    read_frame,
    read_inputs,
)
from service.transport.v2.long_documents import parse_in_slices
from service.transport.v2.messages import InferRequest, InputTensor
from service.transport.v2.metadata import input_datatype

_WHERE_LENGTH: Location = (HEADER_LENGTH.decode(),)
_LENGTH = re.compile(rb"[0-9]{1,18}\Z")
_MAX_REMEMBERED_BYTES = 2048


class Asked(NamedTuple):
    """What a body asks for.

    Attributes:
        request: What is asked.
        form: How it shall be answered.
    """

    request: InferRequest
    form: AnswerForm


class InferReader:
    """Reads the requests to one path, mostly those of one client in a row.

    It remembers what the last one said, and does not read again what is the same in the next one:
    the steps of a sequence differ in their inputs only, and in binary these are not in the JSON.
    """

    __slots__ = ("_frame", "_inputs", "_json", "_length", "_length_line", "_name", "_version")

    def __init__(self, name: str, version: str) -> None:
        """Take the model that the path names, and its version; empty for the current one."""
        self._name = name
        self._version = version
        self._length_line: bytes | None = None
        self._length: int | None = None
        self._frame: Frame | None = None
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
        length = self._json_length(headers, body)
        if length is None:
            return self._asked(*self._read_json(body), body, len(body))
        return self._asked(*self._read_known(body[:length]), body, length)

    def read_in_slices(self, headers: Headers, body: bytes) -> Slices[Asked]:
        """Do as `read`, with the same result and the same errors.

        Raises:
            InvalidRequestError: As `read` does.
        """
        length = self._json_length(headers, body)
        if length is None:
            length = len(body)
        document = yield from parse_in_slices(body[:length])
        if document is None:
            return self.read(headers, body)
        return self._asked(*self._read_document(document, length), body, length)

    def _json_length(self, headers: Headers, body: bytes) -> int | None:
        """Return how much of a body is JSON; None where all of it is."""
        given = headers.get(HEADER_LENGTH)
        if given != self._length_line:
            self._length_line, self._length = given, _header_length(given)
        length = self._length
        if length is not None and length > len(body):
            text = f"is {length}, but the body has {len(body)} bytes"
            raise wrong(_WHERE_LENGTH, text)
        return length

    def _asked(self, frame: Frame, inputs: Inputs, body: bytes, length: int) -> Asked:
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

    def _read_known(self, json: bytes) -> tuple[Frame, Inputs]:
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

    def _read_json(self, json: bytes) -> tuple[Frame, Inputs]:
        return self._read_document(parse_document(json), len(json))

    def _read_document(self, document: dict[str, Any], num_bytes: int) -> tuple[Frame, Inputs]:
        self._json = None  # it belongs to the frame
        frame = self._frame
        if frame is None or not frame.fits(document):
            frame = read_frame(document)
            self._frame = frame if num_bytes <= _MAX_REMEMBERED_BYTES else None
        return frame, read_inputs(document)


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
        raise wrong(_WHERE_LENGTH, text)
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
        raise wrong(_WHERE_LENGTH, text)
    return int(given)


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
