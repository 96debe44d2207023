"""`inference.GRPCInferenceService`: its methods over the core of the Open Inference Protocol.

Messages come and go as bytes, so that one that is none is answered like any other wrong request.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Any, TypeAlias

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError, Message

from service.errors import ModelUnknownError, ServiceError
from service.transport.explain import wrong
from service.transport.grpc import messages
from service.transport.grpc.conversion import write_reply
from service.transport.grpc.failures import Context, abort, as_service_error, code_of
from service.transport.grpc.health import is_ready
from service.transport.grpc.known_heads import KnownHeads
from service.transport.grpc.stream import NAME as STREAM
from service.transport.grpc.stream import InferStream, Observe
from service.transport.headers import Admit
from service.transport.v2 import metadata
from service.transport.v2.catalog import Catalog
from service.transport.v2.inference import Inference
from service.transport.v2.messages import InferReply

NAME = "inference.GRPCInferenceService"

_ABOUT_THE_PROCESS = ("ServerLive", "ServerReady")
"""Methods that anybody may call, as the routes of health over HTTP."""

# Names of types only: the classes of grpc take no arguments.
Handler: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"
Answering = Callable[[bytes, Context], Awaitable[bytes]]


class InferenceService:
    """The methods, and the streams that are open."""

    def __init__(
        self,
        inference: Inference,
        catalog: Catalog,
        *,
        max_message_bytes: int,
        observe: Observe,
        admit: Admit | None,
    ) -> None:
        """Take what answers.

        Args:
            inference: For requests of inference.
            catalog: For everything about models.
            max_message_bytes: Of the server; a stream holds little more in flight.
            observe: Told of every call, and of every answer in a stream.
            admit: Asked with the metadata of every call but those about the process itself; raises
                `UnauthenticatedError` or `ForbiddenError`.
        """
        self._inference = inference
        self._catalog = catalog
        self._max_message_bytes = max_message_bytes
        self._observe = observe
        self._admit = admit
        self._heads = KnownHeads(catalog.note_failure, max_message_bytes)
        self._streams: set[InferStream] = set()
        self._is_closing = False

    def handlers(self) -> dict[str, Handler]:
        """Return what answers each method."""
        told: dict[type[Message], Callable[[Any], Awaitable[Message]]] = {
            messages.ServerLiveRequest: self._server_live,
            messages.ServerReadyRequest: self._server_ready,
            messages.ModelReadyRequest: self._model_ready,
            messages.ServerMetadataRequest: self._server_metadata,
            messages.ModelMetadataRequest: self._model_metadata,
            messages.ModelConfigRequest: self._model_config,
            messages.ModelStatisticsRequest: self._model_statistics,
            messages.RepositoryIndexRequest: self._repository_index,
            messages.RepositoryModelLoadRequest: self._load_model,
            messages.RepositoryModelUnloadRequest: self._unload_model,
        }
        handlers = {}
        for request_class, tell in told.items():
            name = request_class.DESCRIPTOR.name.removesuffix("Request")
            handlers[name] = self._unary(name, partial(_tell, request_class, tell))
        handlers["ModelInfer"] = self._unary("ModelInfer", self._infer)
        handlers[STREAM] = grpc.stream_stream_rpc_method_handler(self._infer_stream)
        return handlers

    def close_streams(self) -> None:
        """Let the streams answer what they have read, and end; new ones end at once."""
        self._is_closing = True
        for stream in self._streams:
            stream.close()

    def _unary(self, name: str, answer: Answering) -> Handler:
        """Return the handler of a method, which tells errors by their status."""

        async def handle(data: bytes, context: Context) -> bytes:
            began_at = perf_counter()
            code = "CANCELLED"  # unless it comes to something else
            message, failure = b"", None
            try:
                if name not in _ABOUT_THE_PROCESS:
                    self._let_in(context)
                message = await answer(data, context)
                code = "OK"
            except Exception as error:  # noqa: BLE001 - the guard: the caller gets a status
                failure = as_service_error(error, name)
                code = code_of(failure).name
            finally:
                self._observe(name, code, perf_counter() - began_at)
            if failure is not None:
                # What grpc raises for it holds this frame until the rare collector runs.
                del data
                await abort(context, failure)
            return message

        return grpc.unary_unary_rpc_method_handler(handle)

    def _let_in(self, context: Context) -> None:
        """Let a call in.

        Raises:
            UnauthenticatedError: It has no valid credentials.
            ForbiddenError: Its sender may not do this.
        """
        if self._admit is not None:
            given = context.invocation_metadata() or ()
            self._admit({name.encode(): _as_bytes(value) for name, value in given})

    async def _infer(self, data: bytes, context: Context) -> bytes:
        request, is_typed = self._heads.read(data)
        answered: asyncio.Future[InferReply | ServiceError]
        answered = asyncio.get_running_loop().create_future()

        def complete(result: InferReply | ServiceError) -> None:
            if not answered.done():
                answered.set_result(result)

        # None where the caller waits for any time, whatever the types say.
        left_s: float | None = context.time_remaining()
        work = self._inference.infer(request, complete, left_s)
        try:
            result = await answered
        except asyncio.CancelledError:
            work.cancel()
            raise
        if isinstance(result, ServiceError):
            raise result
        return write_reply(result, is_typed=is_typed)

    async def _infer_stream(
        self, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[bytes]:
        try:
            self._let_in(context)
        except ServiceError as error:
            await abort(context, error)
        stream = InferStream(
            self._inference,
            self._heads,
            context,
            max_bytes=self._max_message_bytes,
            observe=self._observe,
        )
        self._streams.add(stream)
        if self._is_closing:
            stream.close()
        try:
            async for answer in stream.answers(requests):
                yield answer
        finally:
            self._streams.discard(stream)

    async def _server_live(self, _: messages.ServerLiveRequest) -> Message:
        return messages.ServerLiveResponse(live=True)

    async def _server_ready(self, _: messages.ServerReadyRequest) -> Message:
        return messages.ServerReadyResponse(ready=await is_ready(self._catalog))

    async def _model_ready(self, request: messages.ModelReadyRequest) -> Message:
        try:
            model = self._catalog.find(request.name, request.version)
        except ModelUnknownError:
            # Who waits for a model to be loaded asks for one that is not there yet.
            return messages.ModelReadyResponse(ready=False)
        return messages.ModelReadyResponse(ready=await is_ready(self._catalog, model))

    async def _server_metadata(self, _: messages.ServerMetadataRequest) -> Message:
        return _filled(messages.ServerMetadataResponse(), metadata.server_metadata())

    async def _model_metadata(self, request: messages.ModelMetadataRequest) -> Message:
        model = self._catalog.find(request.name, request.version)
        return _filled(messages.ModelMetadataResponse(), metadata.model_metadata(model))

    async def _model_config(self, request: messages.ModelConfigRequest) -> Message:
        model = self._catalog.find(request.name, request.version)
        config = {"config": metadata.model_config(model)}
        return _filled(messages.ModelConfigResponse(), config)

    async def _model_statistics(self, request: messages.ModelStatisticsRequest) -> Message:
        models = list(self._catalog.models())
        if request.name:
            models = [self._catalog.find(request.name, request.version)]
        return _filled(messages.ModelStatisticsResponse(), metadata.model_statistics(models))

    async def _repository_index(self, request: messages.RepositoryIndexRequest) -> Message:
        index = metadata.repository_index(self._catalog, is_ready_only=request.ready)
        return _filled(messages.RepositoryIndexResponse(), {"models": index})

    async def _load_model(self, request: messages.RepositoryModelLoadRequest) -> Message:
        await self._catalog.load(request.model_name, request.parameters)
        return messages.RepositoryModelLoadResponse()

    async def _unload_model(self, request: messages.RepositoryModelUnloadRequest) -> Message:
        await self._catalog.unload(request.model_name)
        return messages.RepositoryModelUnloadResponse()


async def _tell(
    request_class: type[Message],
    tell: Callable[[Any], Awaitable[Message]],
    data: bytes,
    _: Context,
) -> bytes:
    try:
        request = request_class.FromString(data)
    except DecodeError:
        raise wrong((), f"not a {request_class.DESCRIPTOR.name} of protobuf") from None
    message = await tell(request)
    return message.SerializeToString()


def _filled(message: Message, document: metadata.Document) -> Message:
    """Fill a message from the document of the same names."""
    return ParseDict(document, message)


def _as_bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value
