"""The operation `infer` over HTTP, for every entrance. Knows no server."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

from service.errors import ServiceError
from service.transport.headers import Headers
from service.transport.problem import Answer
from service.transport.sliced_work import SlicedWork
from service.transport.slices import LARGE_BODY_BYTES, SliceRunner, Slices, at_once
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
        self._runner = SliceRunner()

    def infer(self, parameters: dict[str, str]) -> Begin:
        """Take the model of a path; it is looked up for each request, as models come and go."""
        name, version = parameters["model"], parameters.get("version", "")
        reading = _Reading(self._catalog, name, version, self._max_body_bytes)

        def begin(headers: Headers, body: bytes, timeout_s: float | None, done: Done) -> Work:
            began = perf_counter()
            accepted = accepted_encoding(headers)
            work = _InferWork(self._inference, self._runner, timeout_s, done, accepted)
            try:
                asked = reading.read(headers, body)
            except ServiceError:
                reading.note_failure(began)
                raise
            if isinstance(asked, Asked):
                work.submit(asked)
            else:
                work.read(reading.count_failure(asked, began))
            return work

        return begin

    def note_refusal(self, parameters: dict[str, str], seconds: float) -> None:
        """Count a request to the model of a path whose body was not even read."""
        self._catalog.note_failure(parameters["model"], parameters.get("version", ""), seconds)


class _Reading:
    """The requests to one path: reads them, and counts those that cannot be read."""

    def __init__(self, catalog: Catalog, name: str, version: str, max_body_bytes: int) -> None:
        """Take the models, which of them the path names, and what a body may hold expanded."""
        self._catalog = catalog
        self._name = name
        self._version = version
        self._max_body_bytes = max_body_bytes
        self._reader = InferReader(name, version)

    def read(self, headers: Headers, body: bytes) -> Asked | Slices[Asked]:
        """Read a body, or return what reads it.

        Raises:
            ServiceError: It is no request of this protocol.
        """
        encoding = encoding_of(headers)
        if encoding is None and len(body) <= LARGE_BODY_BYTES:
            return self._read_at_once(headers, body)
        slices = self._read_in_slices(headers, body, encoding)
        if encoding is not None and len(body) <= _SMALL_COMPRESSED_BYTES:
            return at_once(slices)
        return slices

    def note_failure(self, began: float) -> None:
        """Count a request that could not be read, and came when `perf_counter` told `began`."""
        self._catalog.note_failure(self._name, self._version, perf_counter() - began)

    def count_failure(self, slices: Slices[Asked], began: float) -> Slices[Asked]:
        """Read on, and count the request if it cannot be read."""
        try:
            return (yield from slices)
        except ServiceError:
            self.note_failure(began)
            raise

    def _read_at_once(self, headers: Headers, body: bytes) -> Asked:
        if headers.get(HEADER_LENGTH) == b"0":
            signature = self._catalog.find(self._name, self._version).engine.signature
            return read_raw(self._version, signature, body)
        return self._reader.read(headers, body)

    def _read_in_slices(self, headers: Headers, body: bytes, encoding: str | None) -> Slices[Asked]:
        if encoding is not None:
            body = yield from expand(body, encoding, self._max_body_bytes)
        if len(body) <= LARGE_BODY_BYTES or headers.get(HEADER_LENGTH) == b"0":
            return self._read_at_once(headers, body)
        return (yield from self._reader.read_in_slices(headers, body))


class _InferWork(SlicedWork[Asked, InferReply]):
    """One request on its way."""

    __slots__ = ("_encoding", "_form", "_inference")

    def __init__(
        self,
        inference: Inference,
        runner: SliceRunner,
        timeout_s: float | None,
        done: Done,
        encoding: str | None,
    ) -> None:
        """Take what it needs, and how its answer shall be compressed: see `SlicedWork`."""
        super().__init__(runner, timeout_s, done)
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
