"""A closed-loop client of gRPC, in a process of its own: `GrpcLoad(...).run()` starts it.

It sends bytes that were made before and reads bytes, so that it costs little more than grpc's own
client. That is still about what grpc's server costs: its use of the CPU is part of the result.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import uvloop
from load import Result
from setting import random_inputs

from service.transport.grpc import messages

SERVICE = "/inference.GRPCInferenceService"
UNARY, STREAMS, ONE_STREAM = "unary", "streams", "one stream"
FORMS = (UNARY, STREAMS, ONE_STREAM)
"""A call a step; a stream a sequence; one stream for all sequences, a step of each in flight."""
_ERROR_TAG = b"\x0a"
"""With which the answer in a stream begins that tells an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcLoad:
    """What is sent, and how.

    Attributes:
        port: On the loopback address.
        form: One of `FORMS`.
        first_id: Of the sequences, which are to be new ones.
        num_sequences: Each with one step in flight.
        warmup_s: What is answered in this time first is not counted.
        duration_s: What is answered in this time then is.
    """

    port: int
    form: str
    first_id: int
    num_sequences: int
    warmup_s: float
    duration_s: float

    @property
    def client_ids(self) -> list[str]:
        """The sessions of the sequences."""
        return [f"int:{self.first_id + n}" for n in range(self.num_sequences)]

    def run(self) -> Result:
        """Run it in a process of its own, on this one's core."""
        command = [sys.executable, __file__, json.dumps(asdict(self))]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run(command, check=True, capture_output=True, env=environment, text=True)
        return Result(**json.loads(done.stdout))


def step_message(sequence_id: int, inputs: Any, *, starts: bool) -> bytes:
    """Return the bytes of a step, `inputs` `(INPUT_SIZE,)` float32."""
    request = messages.ModelInferRequest(model_name="bench")
    request.parameters["sequence_id"].int64_param = sequence_id
    if starts:
        request.parameters["sequence_start"].bool_param = True
    request.inputs.add(name="input", datatype="FP32", shape=[1, len(inputs)])
    request.raw_input_contents.append(inputs.astype("<f4").tobytes())
    return request.SerializeToString()


class _Client:
    """Sequences at work."""

    def __init__(self, load: GrpcLoad) -> None:
        self._load = load
        self._latencies_s: list[float] = []
        self._num_answers = 0
        self._num_failed = 0
        self._begin_at = self._end_at = 0.0

    async def run(self) -> Result:
        load = self._load
        inputs = random_inputs(load.num_sequences)
        ids = range(load.first_id, load.first_id + load.num_sequences)
        sent = [
            (step_message(n, x, starts=True), step_message(n, x, starts=False))
            for n, x in zip(ids, inputs, strict=True)
        ]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{load.port}") as channel:
            self._begin_at = time.perf_counter() + load.warmup_s
            self._end_at = self._begin_at + load.duration_s
            busy = asyncio.create_task(self._watch_cpu())
            if load.form == UNARY:
                call: Any = channel.unary_unary(f"{SERVICE}/ModelInfer")
                await asyncio.gather(*(self._unary(call, *each) for each in sent))
            else:
                begin: Any = channel.stream_stream(f"{SERVICE}/ModelStreamInfer")
                groups = [sent] if load.form == ONE_STREAM else [[each] for each in sent]
                await asyncio.gather(*(self._stream(begin(), group) for group in groups))
            cpu = await busy
        p50_s, p99_s = np.percentile(self._latencies_s, [50, 99])
        return Result(
            rate=len(self._latencies_s) / load.duration_s,
            p50_ms=1e3 * float(p50_s),
            p99_ms=1e3 * float(p99_s),
            generator_cpu=cpu,
            num_failed=self._num_failed,
            num_answers=self._num_answers,
        )

    async def _watch_cpu(self) -> float:
        await asyncio.sleep(self._begin_at - time.perf_counter())
        began, used_s = time.perf_counter(), time.process_time()
        await asyncio.sleep(self._end_at - time.perf_counter())
        return (time.process_time() - used_s) / (time.perf_counter() - began)

    async def _unary(self, call: Any, first: bytes, other: bytes) -> None:
        message, now = first, time.perf_counter()
        while now < self._end_at:
            began = now
            await call(message)
            now = self._note(began)
            message = other

    async def _stream(self, call: Any, sent: Sequence[tuple[bytes, bytes]]) -> None:
        began_at = []
        for first, _ in sent:
            began_at.append(time.perf_counter())
            await call.write(first)
        num_open, n, now = len(sent), 0, 0.0
        while num_open:
            answer = await call.read()
            self._num_failed += answer.startswith(_ERROR_TAG)
            now = self._note(began_at[n])
            if now < self._end_at:
                began_at[n] = now
                await call.write(sent[n][1])
            else:
                num_open -= 1
            n = (n + 1) % len(sent)
        await call.done_writing()

    def _note(self, began: float) -> float:
        now = time.perf_counter()
        self._num_answers += 1
        if self._begin_at <= now < self._end_at:
            self._latencies_s.append(now - began)
        return now


if __name__ == "__main__":
    told = uvloop.run(_Client(GrpcLoad(**json.loads(sys.argv[1]))).run())
    print(json.dumps(asdict(told)))
