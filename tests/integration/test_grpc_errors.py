"""What the gRPC server refuses, how it says so, and that nothing is applied."""

import grpc
import pytest

from service.errors import UnauthenticatedError
from service.transport.grpc import messages
from tests.integration.grpc_service import (
    GO_ON,
    START,
    STEPS,
    failing,
    metadata_of,
    outputs_of,
    raw_request,
    serving_grpc,
)
from tests.integration.small_service import X, both_ways

UNKNOWN = (
    "inference request for sequence 7 to model 'net' must specify the START flag on the first"
    " request of the sequence"
)


def without_values():
    """Return a request whose tensor has neither raw values nor contents."""
    request = raw_request(STEPS[0], **START)
    del request.raw_input_contents[:]
    return request


def with_both():
    """Return a request whose tensor has raw values and contents."""
    request = raw_request(STEPS[0], **START)
    request.inputs[0].contents.fp32_contents.extend(X[0])
    return request


def with_more_values():
    """Return a request with more raw values than inputs."""
    request = raw_request(STEPS[0], **START)
    request.raw_input_contents.append(b"\0" * 12)
    return request


def in_shared_memory():
    """Return a request whose values are elsewhere."""
    request = without_values()
    request.inputs[0].parameters["shared_memory_region"].string_param = "region"
    return request


def with_an_empty_parameter():
    """Return a request with a parameter that has no value."""
    request = raw_request(STEPS[0], **START)
    request.parameters["position"].SetInParent()
    return request


@pytest.mark.parametrize(
    ("request_", "code", "text"),
    [
        (b"\xff\xff", "INVALID_ARGUMENT", "not a ModelInferRequest"),
        (raw_request(STEPS[0], model_name="no", **START), "NOT_FOUND", "no model is called"),
        (raw_request(STEPS[0], model_version="9", **START), "NOT_FOUND", "no model is called"),
        (
            raw_request(STEPS[0], **GO_ON),
            "INVALID_ARGUMENT",
            UNKNOWN,
        ),
        (raw_request([[1, 2]], **START), "INVALID_ARGUMENT", "expected the shape [1, 3]"),
        (raw_request(STEPS[0], [1, -3], **START), "INVALID_ARGUMENT", "-3"),
        (raw_request(b"\0" * 11, [1, 3], **START), "INVALID_ARGUMENT", "expected 12 bytes"),
        (raw_request(b"", [1, 3], datatype="BYTES", **START), "INVALID_ARGUMENT", "BYTES"),
        (without_values(), "INVALID_ARGUMENT", "got 0"),
        (with_both(), "INVALID_ARGUMENT", "no contents beside raw_input_contents"),
        (with_more_values(), "INVALID_ARGUMENT", "one an input, got 2"),
        (in_shared_memory(), "INVALID_ARGUMENT", "shared memory is not supported"),
        (with_an_empty_parameter(), "INVALID_ARGUMENT", "position"),
        (raw_request(STEPS[0], position=5, **START), "INVALID_ARGUMENT", "position"),
    ],
)
async def test_what_is_wrong_is_told_and_nothing_is_applied(request_, code, text):
    """By the status and in words; the same in a stream, which goes on."""
    async with serving_grpc() as serving:
        error = await failing(serving.infer(request_, response_class=messages.ModelInferResponse))
        assert (code, True) == (error.code().name, text in error.details()), error.details()
        assert "code" in metadata_of(error)

        stream = serving.stream()
        data = request_ if isinstance(request_, bytes) else request_.SerializeToString()
        await stream.write(data)
        answer = await stream.read()
        assert error.details() == answer.error_message
        told = answer.infer_response.parameters["code"].string_param
        assert metadata_of(error)["code"] == told
        await stream.write(
            raw_request([[1, 2, 3]], sequence_id=1, sequence_start=True).SerializeToString()
        )
        assert not (await stream.read()).error_message
        await stream.done_writing()
        assert grpc.StatusCode.OK == await stream.code()
        assert await serving.position("int:7") is None
        asked = messages.ModelStatisticsRequest(name="net")
        [stats] = (await serving.call("ModelStatistics", asked)).model_stats
        names_the_model = not isinstance(request_, bytes) and code != "NOT_FOUND"
        assert 2 * names_the_model == stats.inference_stats.fail.count


async def test_an_error_in_a_stream_names_its_request_and_keeps_the_order():
    """Between answers of other sequences."""
    async with serving_grpc() as serving:
        stream = serving.stream()
        for n in range(30):
            known = n % 3 != 1
            request = raw_request(
                STEPS[0], request_id=f"r{n}", sequence_id=n + 1, sequence_start=known
            )
            await stream.write(request.SerializeToString())
        await stream.done_writing()
        answers = [answer async for answer in stream]
        assert [f"r{n}" for n in range(30)] == [each.infer_response.id for each in answers]
        assert [n % 3 == 1 for n in range(30)] == [bool(each.error_message) for each in answers]


async def test_a_model_that_cannot_be_stepped_takes_batches_only():
    """A sequence is refused with the reason."""
    async with serving_grpc(network=both_ways()) as serving:
        error = await failing(serving.infer(raw_request(STEPS[0], **START)))
        assert grpc.StatusCode.INVALID_ARGUMENT == error.code()
        assert "not_streamable" == metadata_of(error)["code"]
        assert (2, 3, 10) == outputs_of(await serving.infer(raw_request([X, X]))).shape


@pytest.mark.parametrize(
    "method",
    ["SystemSharedMemoryStatus", "CudaSharedMemoryRegister", "TraceSetting", "LogSettings"],
)
async def test_what_is_not_served_is_unimplemented(method):
    """Shared memory, tracing, logging."""
    async with serving_grpc() as serving:
        call = serving.call(method, b"", response_class=messages.ServerLiveResponse)
        assert grpc.StatusCode.UNIMPLEMENTED == (await failing(call)).code()


async def test_a_model_is_not_loaded_with_a_configuration():
    """It is told, not left out."""
    async with serving_grpc() as serving:
        request = messages.RepositoryModelLoadRequest(model_name="net")
        request.parameters["config"].string_param = "{}"
        error = await failing(serving.call("RepositoryModelLoad", request))
        assert grpc.StatusCode.INVALID_ARGUMENT == error.code()
        assert "without parameters; got config" in error.details()


async def test_a_fault_of_ours_tells_nothing_of_it(monkeypatch):
    """INTERNAL, and the stream goes on."""
    async with serving_grpc() as serving:

        def fail(*_):
            raise RuntimeError("a secret")

        monkeypatch.setattr(serving.engine, "submit", fail)
        error = await failing(serving.infer(raw_request(STEPS[0], **START)))
        assert grpc.StatusCode.INTERNAL == error.code()
        assert "secret" not in error.details()
        stream = serving.stream()
        for _ in range(2):
            await stream.write(raw_request(STEPS[0], **START).SerializeToString())
            assert error.details() == (await stream.read()).error_message


async def test_who_is_not_let_in():
    """By what the metadata of a call says; health of the process is for everybody."""

    def admit(headers):
        if headers.get(b"authorization") != b"Bearer me":
            raise UnauthenticatedError

    async with serving_grpc(admit=admit) as serving:
        request = raw_request(STEPS[0], **START)
        error = await failing(serving.infer(request))
        assert grpc.StatusCode.UNAUTHENTICATED == error.code()
        stream = serving.stream()
        assert grpc.StatusCode.UNAUTHENTICATED == (await failing(stream.read())).code()
        assert (await serving.call("ServerReady", b"")).ready
        assert (await serving.infer(request, metadata=[("authorization", "Bearer me")])).outputs
