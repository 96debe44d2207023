"""The gRPC server beside its inference: health, reflection, TLS, its start and its end."""

import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from service.__main__ import main
from service.errors import StoreUnavailableError
from service.model_files import bundled_models
from service.stores.memory import MemoryStore
from service.transport.grpc import messages
from service.transport.grpc.server import Tls
from tests.contract.redis_server import certificate
from tests.integration.grpc_service import PATIENCE_S, START, failing, raw_request, serving_grpc
from tests.integration.live_server import free_port, live_server
from tests.integration.small_service import make_engine, streaming

SERVICE = "inference.GRPCInferenceService"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class MoodyStore(MemoryStore):
    """A store that answers or does not."""

    is_there = True

    async def check(self):
        """Tell whether it answers."""
        if not self.is_there:
            raise StoreUnavailableError("gone")


@pytest.fixture
def fast_watches(monkeypatch):
    """Let watches look often."""
    monkeypatch.setattr("service.transport.grpc.health._LOOK_EVERY_S", 0.01)


async def test_health_is_whether_requests_would_be_taken():
    """Of the server and of the service; of another one there is none."""
    store = MoodyStore(50)
    async with serving_grpc(engine=make_engine("net", streaming(), store=store)) as serving:
        health: Any = health_pb2_grpc.HealthStub(serving.channel)

        async def check(service):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
            return answer.status

        for is_there in (True, False):
            store.is_there = is_there
            told = SERVING if is_there else NOT_SERVING
            assert [told, told] == [await check(""), await check(SERVICE)]
            assert is_there == (await serving.call("ServerReady", b"")).ready
            request = messages.ModelReadyRequest(name="net")
            assert is_there == (await serving.call("ModelReady", request)).ready
            assert (await serving.call("ServerLive", b"")).live
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check("other" * 10_000)
        assert grpc.StatusCode.NOT_FOUND == caught.value.code()
        assert 100 > len(caught.value.details() or "")


@pytest.mark.usefixtures("fast_watches")
async def test_a_watch_tells_every_change_and_the_end():
    """The drain ends it, and does not wait for it."""
    store = MoodyStore(50)
    async with serving_grpc(engine=make_engine("net", streaming(), store=store)) as serving:
        health: Any = health_pb2_grpc.HealthStub(serving.channel)

        def watch(service):
            request = health_pb2.HealthCheckRequest(service=service)
            return health.Watch(request, timeout=PATIENCE_S)

        known, unknown = watch(SERVICE), watch("other")
        assert SERVICE_UNKNOWN == (await unknown.read()).status
        for is_there in (True, False, True):
            store.is_there = is_there
            assert (SERVING if is_there else NOT_SERVING) == (await known.read()).status
        await serving.server.drain(PATIENCE_S)
        assert NOT_SERVING == (await known.read()).status
        for each in (known, unknown):
            assert grpc.aio.EOF == await each.read()
            assert grpc.StatusCode.OK == await each.code()


async def test_reflection_tells_services_and_their_messages():
    """As `grpcurl` asks for them."""
    async with serving_grpc() as serving:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(serving.channel)
        questions = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol="grpc.health.v1.Health"),
        ]
        call = stub.ServerReflectionInfo(iter(questions), timeout=PATIENCE_S)
        listed, ours, of_health = [answer async for answer in call]
        names = [service.name for service in listed.list_services_response.service]
        assert {SERVICE, "grpc.health.v1.Health"} <= set(names)
        for answer, name in ((ours, "inference.proto"), (of_health, "grpc_health")):
            [data] = answer.file_descriptor_response.file_descriptor_proto
            assert name in FileDescriptorProto.FromString(data).name


@pytest.fixture
def tls(tmp_path):
    """A certificate and its key."""
    return Tls(*map(Path, certificate(tmp_path)))


@pytest.fixture
def credentials(tls):
    """Those of a client that believes in the certificate only."""
    return grpc.ssl_channel_credentials(tls.cert.read_bytes())


async def test_tls(tls, credentials):
    """With the certificate that is given; who does not encrypt is not answered."""
    async with serving_grpc(tls=tls) as serving:
        error = await failing(serving.call("ServerLive", b""))
        assert grpc.StatusCode.UNAVAILABLE == error.code()
        async with grpc.aio.secure_channel(f"127.0.0.1:{serving.port}", credentials) as channel:
            call: Any = channel.unary_unary(f"/{SERVICE}/ServerLive")
            assert messages.ServerLiveResponse.FromString(await call(b"", timeout=PATIENCE_S)).live


async def test_tls_wants_a_certificate_and_its_key(tls, tmp_path):
    """Anything else is told by name, before there is a port."""
    for wrong in (Tls(tls.key, tls.key), Tls(tls.cert, tmp_path / "none.pem")):
        with pytest.raises(OSError, match="pem"):
            async with serving_grpc(tls=wrong):
                pass


def test_sigterm_ends_streams_behind_their_answers_and_then_the_process(tls, credentials):
    """Under TLS, as the settings say: what is in flight is answered, and the exit status is 0."""
    port = free_port()
    options = ["--grpc-port", str(port), "--max-wait-us", "300000"]
    options += ["--grpc-tls-cert", str(tls.cert), "--grpc-tls-key", str(tls.key)]
    with (
        live_server(*options) as server,
        grpc.secure_channel(f"127.0.0.1:{port}", credentials) as channel,
    ):
        tell = channel.unary_unary(
            f"/{SERVICE}/ModelMetadata",
            messages.ModelMetadataRequest.SerializeToString,
            messages.ModelMetadataResponse.FromString,
        )
        told = tell(messages.ModelMetadataRequest(name="gait"), timeout=30)
        request = raw_request([[0.5] * 9], model_name="gait", **START)
        request.inputs[0].name = told.inputs[0].name

        def requests():
            yield request.SerializeToString()
            deadline = time.monotonic() + 30
            while 'lstm_pending_requests{model="gait"} 1.0' not in metrics(server):
                assert time.monotonic() < deadline
            server.process.send_signal(signal.SIGTERM)

        begin: Any = channel.stream_stream(f"/{SERVICE}/ModelStreamInfer")
        answers = begin(requests(), timeout=30)
        answer = messages.ModelStreamInferResponse.FromString(next(answers))
        assert not answer.error_message
        assert answer.infer_response.raw_output_contents
        assert 0 == server.process.wait(timeout=30)


def metrics(server):
    """Return the metrics of a server, as text."""
    return httpx.get(f"{server.url}/metrics", trust_env=False).text


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--grpc-port", "70000"], "--grpc-port: Input should be less than or equal to 65535"),
        (["--grpc-port", "0", "--grpc-tls-cert", "c"], "must be given together"),
        (["--grpc-tls-cert", "c", "--grpc-tls-key", "k"], "not served without grpc_port"),
    ],
)
def test_settings_that_make_no_sense(options, told, capsys):
    """Are refused at the start."""
    assert 2 == main(["serve", "--store", "memory", *options])
    assert told in capsys.readouterr().err


def test_a_port_that_is_taken_ends_the_start(capsys):
    """With what could not be done, and not beside whoever has it."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        model = f"gait={bundled_models()['gait']}"
        options = ["--store", "memory", "--model", model, "--port", "0", "--grpc-port", str(port)]
        assert 2 == main(["serve", *options])
    assert f"gRPC cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


def test_without_the_extra_the_message_says_how_to_have_it(monkeypatch, capsys):
    """And the server does not start without what was asked for."""
    for name in [name for name in sys.modules if name.startswith("service.transport.grpc")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "grpc_reflection", None)

    assert 2 == main(["serve", "--store", "memory", "--grpc-port", "0"])

    told = "lstm-service: --grpc-port: gRPC needs grpc_reflection: pip install 'lstm-service[grpc]'"
    assert told in capsys.readouterr().err
