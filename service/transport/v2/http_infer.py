"""The operation `infer` over HTTP, for every entrance. Knows no server."""

from __future__ import annotations

from collections.abc import Callable

from service.errors import ServiceError
from service.transport.headers import Headers
from service.transport.problem import Answer
from service.transport.sliced_work import SlicedWork
from service.transport.slices import Slices, Turns, at_once
from service.transport.v2.catalog import Catalog
from service.transport.v2.compression import accepted_encoding, encoding_of, expand
from service.transport.v2.http_answers import HEADER_LENGTH, AnswerForm, write_infer
from service.transport.v2.http_requests import Asked, InferReader, read_raw
from service.transport.v2.inference import Inference
from service.transport.v2.messages import InferReply
from service.transport.work import Begin, Done, Work

_SMALL_COMPRESSED_BYTES = 4096
"""What is compressed to as little holds some megabytes at most, and is expanded in one piece."""


class InferOperation:
    """What the routes of `infer` do."""

    def __init__(self, catalog: Catalog, inference: Inference, *, max_body_bytes: int) -> None:
        """Take what answers.

        Args:
            catalog: The models.
            inference: Over the same ones.
            max_body_bytes: A longer body is refused, also where it is compressed to less.
        """
        self._catalog = catalog
        self._inference = inference
        self._max_body_bytes = max_body_bytes
        self._turns = Turns()

    def infer(self, parameters: dict[str, str]) -> Begin:
        """Take the model of a path; it is looked up for each request, as models come and go."""
        name, version = parameters["model"], parameters.get("version", "")
        reader = InferReader(name, version)

        def read(headers: Headers, body: bytes) -> Asked:
            if headers.get(HEADER_LENGTH) == b"0":
                signature = self._catalog.find(name, version).engine.signature
                return read_raw(version, signature, body)
            return reader.read(headers, body)

        def read_expanded(headers: Headers, expanding: Slices[bytes]) -> Slices[Asked]:
            return read(headers, (yield from expanding))

        def begin(headers: Headers, body: bytes, timeout_s: float | None, done: Done) -> Work:
            accepted = accepted_encoding(headers)
            work = _InferWork(self._inference, self._turns, timeout_s, done, accepted)
            encoding = encoding_of(headers)
            if encoding is None:
                work.submit(read(headers, body))
                return work
            expanding = expand(body, encoding, self._max_body_bytes)
            if len(body) <= _SMALL_COMPRESSED_BYTES:
                work.submit(at_once(read_expanded(headers, expanding)))
            else:
                work.read(read_expanded(headers, expanding))
            return work

        return begin


class _InferWork(SlicedWork[Asked, InferReply]):
    """One request on its way."""

    __slots__ = ("_encoding", "_form", "_inference")

    def __init__(
        self,
        inference: Inference,
        turns: Turns,
        timeout_s: float | None,
        done: Done,
        encoding: str | None,
    ) -> None:
        """Take what it needs, and how its answer shall be compressed: see `SlicedWork`."""
        super().__init__(turns, timeout_s, done)
        self._inference = inference
        self._encoding = encoding
        self._form: AnswerForm | None = None

    def ask(
        self,
        request: Asked,
        complete: Callable[[InferReply | ServiceError], None],
        timeout_s: float | None,
    ) -> Work:
        """Begin the inference."""
        self._form = request.form
        return self._inference.infer(request.request, complete, timeout_s)

    def write(self, reply: InferReply) -> Answer | Slices[Answer]:
        """Write the reply in the form that was asked for."""
        assert self._form is not None, "it was asked"
        return write_infer(reply, self._form, self._encoding)
