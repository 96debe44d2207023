"""The gRPC server in a test's event loop, and a client that speaks in bytes of the protocol."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest

from service.limits import EngineLimits
from service.transport.grpc import messages
from service.transport.grpc.server import GrpcServer
from tests.integration.small_service import LIMITS, X, make_app, make_engine, streaming

PATIENCE_S = 10
"""Longer than anything here takes; what hangs fails."""
SLOW = EngineLimits(arena_rows=300, max_pending=100, max_wait_us=200_000)
"""Turns come 200 ms late."""
MAX_MESSAGE_BYTES = 64 * 1024
START = {"sequence_id": 7, "sequence_start": True}
GO_ON = {"sequence_id": 7}
STEPS = np.array(X, np.float32)[:, None]
"""Time steps of a sequence, `(3, 1, 3)`."""


@dataclass
class Serving:
    """A server with its engine.

    Attributes:
        server: It.
        port: On the loopback address.
        engine: Of the model `net`: 3 inputs, 2 outputs.
        channel: To it.
        observed: The method and the code of everything that was answered.
    """

    server: GrpcServer
    port: int
    engine: Any
    channel: Any
    observed: list[tuple[str, str]]

    def call(self, method, request, response_class=None, **options):
        """Begin a unary call of the inference service."""
        response_class = response_class or getattr(messages, f"{method}Response")
        data = request if isinstance(request, bytes) else request.SerializeToString()
        begin = self.channel.unary_unary(
            f"/inference.GRPCInferenceService/{method}",
            response_deserializer=response_class.FromString,
        )
        return begin(data, **{"timeout": PATIENCE_S} | options)

    def infer(self, request, **options):
        """Begin a request of inference."""
        return self.call("ModelInfer", request, **options)

    def stream(self, **options):
        """Begin a stream of inference."""
        begin = self.channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer",
            response_deserializer=messages.ModelStreamInferResponse.FromString,
        )
        return begin(**{"timeout": PATIENCE_S} | options)

    async def position(self, client_id):
        """Return where a session is; None where there is none."""
        sessions, _ = await self.engine.list_sessions(1000, None)
        return {each.client_id: each.position for each in sessions}.get(client_id)


@asynccontextmanager
async def serving_grpc(limits=LIMITS, *, network=None, tls=None, admit=None, engine=None):
    """Run a server of one model, `net`."""
    engine = engine or make_engine("net", network or streaming(), limits)
    app = make_app({"net": engine})
    observed = []
    server = GrpcServer(
        app.inference,
        app.catalog,
        max_message_bytes=MAX_MESSAGE_BYTES,
        observe=lambda method, code, _: observed.append((method, code)),
        admit=admit,
    )
    port = server.listen("127.0.0.1", 0, tls)
    async with app.router.lifespan_context(app):
        await server.start()
        options = [("grpc.enable_http_proxy", 0)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            try:
                yield Serving(server, port, engine, channel, observed)
            finally:
                async with asyncio.timeout(PATIENCE_S):
                    await server.drain(0)


def raw_request(values, shape=None, *, datatype="FP32", **fields):
    """Return a request with one raw input of the model `net`.

    Args:
        values: An array, or the bytes of one.
        shape: That of the input; None: the array's.
        datatype: As the protocol writes it.
        fields: Parameters by name; `request_id`, `model_name`, `model_version`.
    """
    request = messages.ModelInferRequest(
        model_name=fields.pop("model_name", "net"),
        model_version=fields.pop("model_version", ""),
        id=fields.pop("request_id", ""),
    )
    for name, value in fields.items():
        set_parameter(request.parameters[name], value)
    if not isinstance(values, bytes):
        array = np.asarray(values, np.float32)
        values, shape = array.tobytes(), array.shape if shape is None else shape
    request.inputs.add(name="inputs", datatype=datatype, shape=shape)
    request.raw_input_contents.append(values)
    return request


def set_parameter(parameter, value):
    """Set a parameter by the type of its value."""
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", float: "double_param"}
    setattr(parameter, kinds[type(value)], value)


def outputs_of(response):
    """Return the values of an answer with one raw output."""
    (tensor,), (raw,) = response.outputs, response.raw_output_contents
    assert "FP32" == tensor.datatype
    return np.frombuffer(raw, "<f4").reshape(tensor.shape)


async def failing(call):
    """Return the error that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def metadata_of(error):
    """Return the trailing metadata of an error."""
    return dict(error.trailing_metadata())
