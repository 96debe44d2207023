"""The time of one long sequence, beside what its arithmetic and its JSON cost alone."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from time import perf_counter

import orjson
from agreement import check_sequence
from bench_model import Float32
from load import post, run
from report import Figure, at_most, table
from servers import on_core, server
from setting import Setting, as_json, as_numbers, random_inputs

from lstm_core.formats.keras import read_keras
from lstm_core.runtime.cpu import CpuRuntime
from service.transport.schema import SequenceBody

NUM_STEPS = 1000
NUM_CALLS = 20
"""Of the kernel and of JSON in one repeat, whose median counts."""


def measure(setting: Setting) -> Figure:
    """Measure requests, kernel and JSON in turns, all on the servers' core."""
    inputs = random_inputs(NUM_STEPS)
    body = as_json({"inputs": as_numbers(inputs)})
    request = post("/v1/sessions/sequence/sequence", body)
    times_ms: dict[str, list[float]] = {"request": [], "kernel": [], "JSON": []}
    with server(setting.service(), setting.core) as service:
        check_sequence(service.port, setting.model)
        runtime = CpuRuntime(read_keras(setting.model), capacity=2)
        outputs = _advance(runtime, inputs)
        for _ in range(setting.repeats):
            result = run(service.port, [request], setting.warmup_s, setting.duration_s)
            times_ms["request"].append(result.p50_ms)
            with on_core(setting.core):
                times_ms["kernel"].append(_median_ms(lambda: _advance(runtime, inputs)))
                times_ms["JSON"].append(_median_ms(lambda: _read_and_write(body, outputs)))
    medians = {name: statistics.median(times) for name, times in times_ms.items()}
    parts_ms = medians["kernel"] + medians["JSON"]
    ratio = medians["request"] / parts_ms
    rows = [[name, f"{ms:.2f}"] for name, ms in medians.items()]
    return Figure(
        title=f"A sequence of {NUM_STEPS:,} steps",
        targets=[
            at_most(
                f"sequence of {NUM_STEPS:,} steps, beside the kernel's and JSON's own time",
                ratio,
                1.3,
                "{:,.2f} times",
            )
        ],
        text=table(["what", "ms"], rows)
        + f"\n\nThe body has {len(body):,} bytes. The kernel: one call of"
        " `CpuRuntime.advance`. JSON: the compiled validator of the body, orjson of the answer.",
        data={"steps": NUM_STEPS, "ms": medians, "ratio": ratio},
    )


def _median_ms(call: Callable[[], object]) -> float:
    times = []
    for _ in range(NUM_CALLS):
        began = perf_counter()
        call()
        times.append((perf_counter() - began) * 1e3)
    return statistics.median(times)


def _advance(runtime: CpuRuntime, inputs: Float32) -> Float32:
    """Take a session from zeros through `(time, INPUT_SIZE)`, in one call.

    Returns:
        `(time, OUTPUT_SIZE)` float32.
    """
    return runtime.advance([0], [1], inputs[None], None).outputs[0]


def _read_and_write(body: bytes, outputs: Float32) -> bytes:
    SequenceBody.__pydantic_validator__.validate_json(body)
    answer = {"outputs": outputs, "position": NUM_STEPS, "epoch": 2**52, "replayed": False}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)
