"""The gRPC server from its client's side: answers, errors, deadlines, cancelled calls, limits."""

import asyncio

import grpc
import numpy as np
import pytest

from lstm_core import equations
from service.errors import UnauthenticatedError
from service.stores.memory import MemoryStore
from service.transport.grpc import messages
from tests.integration.grpc_service import (
    MAX_MESSAGE_BYTES,
    PATIENCE_S,
    SLOW,
    failing,
    outputs_of,
    raw_request,
    serving_grpc,
)
from tests.integration.small_service import X, both_ways, make_engine, streaming

START = {"sequence_id": 7, "sequence_start": True}
GO_ON = {"sequence_id": 7}
STEPS = np.array(X, np.float32)[:, None]
"""Time steps of a sequence, `(3, 1, 3)`."""


@pytest.fixture(scope="module")
def expected():
    """What the equations give for `X` from zeros, `(3, 2)`."""
    lstm, head = streaming().layers
    hidden = equations.sequence(lstm.spec, lstm.weights, np.array([X])).outputs[0]
    return hidden @ head.kernel


def close(expected, response):
    """Compare the outputs of an answer."""
    np.testing.assert_allclose(outputs_of(response), expected, rtol=1e-5, atol=1e-6)


def metadata_of(error):
    """Return the trailing metadata of an error."""
    return dict(error.trailing_metadata())


# ------------------------------------------------------------------------------------------ answers


async def test_steps_of_a_sequence_are_those_of_the_equations(expected):
    """One a call, the request's id given back."""
    async with serving_grpc() as serving:
        for t, step in enumerate(STEPS):
            fields = START if t == 0 else GO_ON
            response = await serving.infer(raw_request(step, request_id=f"r{t}", **fields))
            assert ("net", "1", f"r{t}") == (
                response.model_name,
                response.model_version,
                response.id,
            )
            close(expected[t : t + 1], response)
        assert 3 == await serving.position("int:7")
        assert [("ModelInfer", "OK")] * 3 == serving.observed


async def test_several_steps_and_batches(expected):
    """`[1, time, features]` of a sequence, `[batch, time, features]` of none."""
    async with serving_grpc() as serving:
        close(expected[None], await serving.infer(raw_request([X], **START)))
        close(np.stack([expected] * 2), await serving.infer(raw_request([X, X])))


async def test_typed_contents_are_answered_typed(expected):
    """As they came."""
    async with serving_grpc() as serving:
        request = raw_request(STEPS[0], **START)
        del request.raw_input_contents[:]
        request.inputs[0].contents.fp32_contents.extend(X[0])
        response = await serving.infer(request)
        assert not response.raw_output_contents
        [tensor] = response.outputs
        assert [1, 2] == tensor.shape
        np.testing.assert_allclose(tensor.contents.fp32_contents, expected[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("datatype", "field"),
    [
        ("INT8", "int_contents"),
        ("INT16", "int_contents"),
        ("INT32", "int_contents"),
        ("INT64", "int64_contents"),
        ("UINT8", "uint_contents"),
        ("UINT16", "uint_contents"),
        ("UINT32", "uint_contents"),
        ("UINT64", "uint64_contents"),
        ("FP32", "fp32_contents"),
        ("FP64", "fp64_contents"),
        ("BOOL", "bool_contents"),
    ],
)
async def test_every_type_of_contents(datatype, field):
    """The values are those of FP32."""
    async with serving_grpc() as serving:
        told = await serving.infer(raw_request([[1, 0, 1]], **START))
        request = raw_request(b"", [1, 3], datatype=datatype, **START)
        del request.raw_input_contents[:]
        getattr(request.inputs[0].contents, field).extend([1, 0, 1])
        response = await serving.infer(request)
        values = response.outputs[0].contents.fp32_contents
        np.testing.assert_array_equal(np.array(values, np.float32), outputs_of(told)[0])


async def test_a_position_is_answered_and_replayed(expected):
    """And another one is a conflict that tells where the sequence is."""
    async with serving_grpc() as serving:
        await serving.infer(raw_request(STEPS[0], position=0, **START))
        again = raw_request(STEPS[1], position=1, **GO_ON)
        first, second = [await serving.infer(again) for _ in range(2)]
        for is_again, response in ((False, first), (True, second)):
            close(expected[1:2], response)
            assert 2 == response.parameters["position"].int64_param
            assert is_again == response.parameters["replayed"].bool_param
        epoch = first.parameters["epoch"].int64_param
        error = await failing(serving.infer(raw_request(STEPS[1], position=7, **GO_ON)))
        assert grpc.StatusCode.ABORTED == error.code()
        told = metadata_of(error)
        assert ("position_conflict", "2", str(epoch)) == (
            told["code"],
            told["position"],
            told["epoch"],
        )


async def test_known_heads_are_no_short_cut_past_the_checks(expected):
    """The second message of a kind is looked up: its values are checked all the same."""
    async with serving_grpc() as serving:
        await serving.infer(raw_request(STEPS[0], **START))
        close(expected[1:2], await serving.infer(raw_request(STEPS[1], **GO_ON)))
        error = await failing(serving.infer(raw_request([[np.nan, 0, 0]], **GO_ON)))
        assert grpc.StatusCode.INVALID_ARGUMENT == error.code()
        close(expected[2:3], await serving.infer(raw_request(STEPS[2], **GO_ON)))


# ------------------------------------------------------------------------------------------- errors


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


# ----------------------------------------------------------------------- deadlines and cancellation


@pytest.mark.parametrize("by", ["call", "parameter"])
async def test_what_has_no_turn_by_its_deadline_is_not_applied(by):
    """Whether the call has it or the request's `timeout`, in microseconds."""
    async with serving_grpc(SLOW) as serving:
        fields = {"timeout": 20_000} if by == "parameter" else {}
        options = {"timeout": 0.02} if by == "call" else {}
        call = serving.infer(raw_request(STEPS[0], **START, **fields), **options)
        error = await failing(call)
        assert grpc.StatusCode.DEADLINE_EXCEEDED == error.code()
        await asyncio.sleep(0.3)  # longer than the turn is late
        assert await serving.position("int:7") is None
        assert 0 == serving.engine.num_pending


async def test_a_streams_deadline_is_that_of_its_requests():
    """Of one in flight, which is not applied."""
    async with serving_grpc(SLOW) as serving:
        stream = serving.stream(timeout=0.05)
        await stream.write(raw_request(STEPS[0], **START).SerializeToString())
        assert grpc.StatusCode.DEADLINE_EXCEEDED == await stream.code()
        await asyncio.sleep(0.3)
        assert await serving.position("int:7") is None


@pytest.mark.parametrize("is_stream", [False, True])
async def test_a_cancelled_call_is_not_applied(is_stream):
    """If it has not begun."""
    async with serving_grpc(SLOW) as serving:
        request = raw_request(STEPS[0], **START)
        if is_stream:
            call = serving.stream()
            await call.write(request.SerializeToString())
        else:
            call = serving.infer(request)
        async with asyncio.timeout(PATIENCE_S):
            while not serving.engine.num_pending:
                await asyncio.sleep(0.001)
            call.cancel()
            while serving.engine.num_pending:
                await asyncio.sleep(0.001)
        assert await serving.position("int:7") is None
        assert 1 == serving.engine.stats.num_cancelled


# --------------------------------------------------------------------------------- limits and drain


async def test_a_message_over_the_limit():
    """RESOURCE_EXHAUSTED, compressed to less or not; the server goes on."""
    async with serving_grpc() as serving:
        request = raw_request(b"\0" * (MAX_MESSAGE_BYTES + 1), [1, 3], **START)
        for compression in (None, grpc.Compression.Gzip):
            error = await failing(serving.infer(request, compression=compression))
            assert grpc.StatusCode.RESOURCE_EXHAUSTED == error.code()
        stream = serving.stream()
        await stream.write(request.SerializeToString())
        assert grpc.StatusCode.RESOURCE_EXHAUSTED == (await failing(stream.read())).code()
        assert (await serving.infer(raw_request(STEPS[0], **START))).outputs


class StoppedStore(MemoryStore):
    """A store whose commits wait until they may go on."""

    def __init__(self):
        super().__init__(1000)
        self.may_commit = asyncio.Event()

    async def commit_many(self, commits):
        """Make each change, later."""
        await self.may_commit.wait()
        return await super().commit_many(commits)


async def test_a_stream_reads_no_more_than_it_may_have_in_flight():
    """What a client sends beyond it waits, and is answered in the end."""
    store = StoppedStore()
    engine = make_engine("net", streaming(), store=store)
    async with serving_grpc(engine=engine) as serving:
        stream = serving.stream()
        big = np.zeros((1, 1000, 3))  # 12 kB: five of them are at the limit
        for n in range(12):
            request = raw_request(big, sequence_id=n + 1, sequence_start=True)
            await stream.write(request.SerializeToString())
        async with asyncio.timeout(PATIENCE_S):
            while engine.num_pending < 6:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        assert 6 == engine.num_pending
        store.may_commit.set()
        await stream.done_writing()
        answers = [answer async for answer in stream]
        assert 12 == len(answers)
        assert not any(answer.error_message for answer in answers)


async def test_what_comes_while_answers_are_written_runs_together():
    """In the order in which it came, and in fewer ticks than there are requests."""
    async with serving_grpc() as serving:
        stream = serving.stream()
        for n in range(90):
            request = raw_request(
                STEPS[0], request_id=str(n), sequence_id=n % 30 + 1, sequence_start=n < 30
            )
            await stream.write(request.SerializeToString())
        await stream.done_writing()
        answers = [answer async for answer in stream]
        assert [str(n) for n in range(90)] == [answer.infer_response.id for answer in answers]
        assert not any(answer.error_message for answer in answers)
        assert serving.engine.stats.num_ticks < 80
        assert 3 == await serving.position("int:30")


async def test_a_drain_answers_what_is_in_flight_and_ends_streams():
    """Calls and streams; then nothing is taken."""
    async with serving_grpc(SLOW) as serving:
        call = serving.infer(raw_request(STEPS[0], **START))
        stream, idle = serving.stream(), serving.stream()
        await stream.write(
            raw_request(STEPS[0], sequence_id=8, sequence_start=True).SerializeToString()
        )
        await idle.wait_for_connection()
        async with asyncio.timeout(PATIENCE_S):
            while serving.engine.num_pending < 2:
                await asyncio.sleep(0.001)
            began = asyncio.get_running_loop().time()
            await serving.server.drain(PATIENCE_S)
        assert asyncio.get_running_loop().time() - began < PATIENCE_S / 2
        assert (await call).outputs
        assert not (await stream.read()).error_message
        for each in (stream, idle):
            error = await failing(each.read())
            assert grpc.StatusCode.UNAVAILABLE == error.code()
        assert (
            grpc.StatusCode.UNAVAILABLE == (await failing(serving.call("ServerLive", b""))).code()
        )
