"""The gRPC server from its client's side: what it answers, in calls and in streams."""

import grpc
import numpy as np
import pytest

from lstm_core import equations
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
from tests.integration.small_service import X, streaming


@pytest.fixture(scope="module")
def expected():
    """What the equations give for `X` from zeros, `(3, 2)`."""
    lstm, head = streaming().layers
    hidden = equations.sequence(lstm.spec, lstm.weights, np.array([X])).outputs[0]
    return hidden @ head.kernel


def close(expected, response):
    """Compare the outputs of an answer."""
    np.testing.assert_allclose(outputs_of(response), expected, rtol=1e-5, atol=1e-6)


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
