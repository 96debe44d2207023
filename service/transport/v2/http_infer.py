"""The operation `infer` over HTTP, for every entrance. Knows no server."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from service.errors import ServiceError
from service.transport.headers import Headers
from service.transport.problem import Answer
from service.transport.sliced_work import SlicedWork
from service.transport.slices import Slices, Turns, at_once
from service.transport.v2 import compression
from service.transport.v2.catalog import Catalog
from service.transport.v2.http_messages import (
    AnswerForm,
    Asked,
    header_length_of,
    read_infer,
    read_raw,
    write_infer,
)
from service.transport.v2.inference import Inference, InferReply
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
        return partial(self._infer, parameters["model"], parameters.get("version", ""))

    def _infer(
        self,
        name: str,
        version: str,
        headers: Headers,
        body: bytes,
        timeout_s: float | None,
        done: Done,
    ) -> Work:
        work = _InferWork(self._inference, self._turns, timeout_s, done)
        encoding = compression.encoding_of(headers)
        if encoding is None:
            work.submit(self._read(name, version, headers, body))
            return work
        expanding = compression.expand(body, encoding, self._max_body_bytes)
        if len(body) <= _SMALL_COMPRESSED_BYTES:
            work.submit(self._read(name, version, headers, at_once(expanding)))
        else:
            work.read(self._read_expanded(name, version, headers, expanding))
        return work

    def _read_expanded(
        self, name: str, version: str, headers: Headers, expanding: Slices[bytes]
    ) -> Slices[Asked]:
        body = yield from expanding
        return self._read(name, version, headers, body)

    def _read(self, name: str, version: str, headers: Headers, body: bytes) -> Asked:
        if header_length_of(headers) == 0:
            signature = self._catalog.find(name, version).engine.signature
            return read_raw(version, signature, headers, body)
        return read_infer(name, version, headers, body)


class _InferWork(SlicedWork[Asked, InferReply]):
    """One request on its way."""

    form: AnswerForm

    def __init__(
        self, inference: Inference, turns: Turns, timeout_s: float | None, done: Done
    ) -> None:
        """Take what it needs: see `SlicedWork`."""
        super().__init__(turns, timeout_s, done)
        self._inference = inference

    def ask(
        self,
        request: Asked,
        complete: Callable[[InferReply | ServiceError], None],
        timeout_s: float | None,
    ) -> Work:
        """Begin the inference."""
        self.form = request.form
        return self._inference.infer(request.request, complete, timeout_s)

    def write(self, reply: InferReply) -> Answer | Slices[Answer]:
        """Write the reply in the form that was asked for."""
        return write_infer(reply, self.form)
