"""Calls of the gRPC server that are late, cancelled, too large or too many, and those in drains."""

import asyncio

import grpc
import numpy as np
import pytest

from service.stores.memory import MemoryStore
from service.transport.grpc import messages
from tests.integration.grpc_service import (
    MAX_MESSAGE_BYTES,
    PATIENCE_S,
    SLOW,
    START,
    STEPS,
    failing,
    raw_request,
    serving_grpc,
)
from tests.integration.small_service import make_engine, streaming


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


async def test_what_is_late_when_it_is_read_is_counted():
    """As a failed request, like what is late for its turn; it is not applied."""
    async with serving_grpc(SLOW) as serving:
        stream = serving.stream()
        await stream.write(raw_request(STEPS[0], **START, timeout=1).SerializeToString())
        assert "had no turn" in (await stream.read()).error_message
        asked = messages.ModelStatisticsRequest(name="net")
        [stats] = (await serving.call("ModelStatistics", asked)).model_stats
        assert 1 == stats.inference_stats.fail.count
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


@pytest.mark.parametrize("num_bytes", [MAX_MESSAGE_BYTES, 2 * MAX_MESSAGE_BYTES])
async def test_a_message_over_the_limit(num_bytes):
    """RESOURCE_EXHAUSTED, compressed to less or not; the server goes on.

    A stream too, if the message is not far too long to be read at all.
    """
    async with serving_grpc() as serving:
        request = raw_request(b"\0" * num_bytes, [1, 3], **START)
        for compression in (None, grpc.Compression.Gzip):
            error = await failing(serving.infer(request, compression=compression))
            assert grpc.StatusCode.RESOURCE_EXHAUSTED == error.code()
        stream = serving.stream()
        await stream.write(request.SerializeToString())
        is_read = num_bytes == MAX_MESSAGE_BYTES
        if is_read:
            assert "over the limit of 65536 bytes" in (await stream.read()).error_message
        else:
            assert grpc.StatusCode.RESOURCE_EXHAUSTED == (await failing(stream.read())).code()
        assert (await serving.infer(raw_request(STEPS[0], **START))).outputs
        asked = messages.ModelStatisticsRequest(name="net")
        [told] = (await serving.call("ModelStatistics", asked)).model_stats
        assert 3 * is_read == told.inference_stats.fail.count
        exhausted = [method for method, code in serving.observed if code == "RESOURCE_EXHAUSTED"]
        assert ["ModelInfer", "ModelInfer", "ModelStreamInfer"] * is_read == exhausted


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
