"""From the bytes of requests to what they ask, those first that are known but for their values.

The steps of a sequence are the same bytes up to the raw values, which come last. What stands before
them is kept with what it means, and is looked up whole: nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from service.errors import BodyTooLargeError, ServiceError
from service.transport.grpc import messages
from service.transport.grpc.conversion import (
    RAW_INPUT_TAG,
    Asked,
    parse_message,
    read_request,
    varint,
)
from service.transport.v2.messages import InferRequest, InputTensor, Parameters

MAX_HEADS = 8192
_MAX_HEAD_BYTES = 512
_MAX_VALUES_BYTES = 16 * 1024
_MAX_LENGTHS = 4

_LITTLE_FLOAT = np.dtype("<f4")


class _Head(NamedTuple):
    """What stands before the values of one FP32 input.

    Attributes:
        model_name: As in the request, and so on.
        model_version: Likewise.
        parameters: Likewise.
        outputs: Likewise.
        name: Of the input.
        shape: Of the input.
    """

    model_name: str
    model_version: str
    parameters: Parameters
    outputs: Sequence[str]
    name: str
    shape: tuple[int, ...]


class KnownHeads:
    """The heads of one server's messages, up to `MAX_HEADS` of them."""

    def __init__(
        self, note_failure: Callable[[str, str, float], None], max_message_bytes: int
    ) -> None:
        """Know none.

        Args:
            note_failure: Told of each message that is no request for its model: the model's name
                and version, and the seconds that it took to find out.
            max_message_bytes: A longer message is refused.
        """
        self._note_failure = note_failure
        self._max_message_bytes = max_message_bytes
        self._heads: dict[bytes, _Head] = {}
        # Of the values, in bytes: few, as each is tried.
        self._lengths: list[int] = []

    def read(self, data: bytes) -> Asked:
        """Return what the bytes of a `ModelInferRequest` ask.

        Raises:
            InvalidRequestError: They are none, or it is not for this service.
            BodyTooLargeError: They are over the limit.
        """
        for length in self._lengths:
            head = self._heads.get(data[:-length])
            if head is not None:
                values = np.frombuffer(data[-length:], _LITTLE_FLOAT).reshape(head.shape)
                request = InferRequest(
                    model_name=head.model_name,
                    model_version=head.model_version,
                    parameters=head.parameters,
                    inputs=(InputTensor(name=head.name, values=values),),
                    outputs=head.outputs,
                )
                return Asked(request, is_typed=False)
        began = perf_counter()
        message = parse_message(data)
        try:
            if len(data) > self._max_message_bytes:
                raise BodyTooLargeError(self._max_message_bytes)
            asked = read_request(message)
        except ServiceError:
            self._note_failure(message.model_name, message.model_version, perf_counter() - began)
            raise
        self._learn(data, message, asked.request)
        return asked

    def _learn(
        self, data: bytes, message: messages.ModelInferRequest, request: InferRequest
    ) -> None:
        """Keep the head of a good message, if it has one that may come again."""
        if request.id or len(request.inputs) != 1 or len(message.raw_input_contents) != 1:
            return
        tensor, length = message.inputs[0], len(message.raw_input_contents[0])
        head, field = data[: len(data) - length], RAW_INPUT_TAG + varint(length)
        if (
            tensor.datatype != "FP32"
            or not 0 < length <= _MAX_VALUES_BYTES
            or len(head) > _MAX_HEAD_BYTES
            or not head.endswith(field)
            # What is a message without the field is one with it, whatever its values are.
            or not _is_message_without_values(head.removesuffix(field))
        ):
            return
        if length not in self._lengths:
            if len(self._lengths) == _MAX_LENGTHS:
                return
            self._lengths.append(length)
        if len(self._heads) >= MAX_HEADS:
            self._heads.clear()
        self._heads[head] = _Head(
            request.model_name,
            request.model_version,
            request.parameters,
            request.outputs,
            tensor.name,
            tuple(tensor.shape),
        )


def _is_message_without_values(data: bytes) -> bool:
    try:
        return not messages.ModelInferRequest.FromString(data).raw_input_contents
    except DecodeError:
        return False
