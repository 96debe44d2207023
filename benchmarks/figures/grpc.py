"""Single steps over gRPC: a call each, or in streams; beside an echo, the ceiling of grpc."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from agreement import NUM_STEPS, check_applied, compare
from bench_model import expected_outputs
from grpc_load import FORMS, ONE_STREAM, STREAMS, UNARY, GrpcLoad, step_message
from grpc_load import SERVICE as GRPC_SERVICE
from load import Result, in_turns, median
from report import RESULT_HEAD, Figure, Target, at_least, result_cells, table
from servers import free_port, server
from setting import Setting, random_inputs

from service.transport.grpc import messages

SEQUENCES: Mapping[str, tuple[int, ...]] = {
    UNARY: (1, 16, 64, 256),
    STREAMS: (1, 16, 64, 256),
    ONE_STREAM: (64,),
}
SERVICE, ECHO = "service", "echo"


def measure(setting: Setting) -> Figure:
    """Measure the service and the echo in turns."""
    medians: dict[tuple[str, int, str], Result] = {}
    ids = count(1, 1000)
    loads: list[GrpcLoad] = []
    port = free_port()
    options = ["--grpc-port", str(port)]
    with (
        server(setting.service(*options), setting.core) as service,
        server(["grpc_echo"], setting.core) as echo,
    ):
        _check(port, setting.model)
        ports = {SERVICE: port, ECHO: echo.port}

        def run(form: str, num_sequences: int, name: str) -> Result:
            load = GrpcLoad(
                port=ports[name],
                form=form,
                first_id=next(ids),
                num_sequences=num_sequences,
                warmup_s=setting.warmup_s,
                duration_s=setting.duration_s,
            )
            if name == SERVICE:
                loads.append(load)
            return load.run()

        for form in FORMS:
            for n in SEQUENCES[form]:
                sides = {name: partial(run, form, n, name) for name in ports}
                for name, results in in_turns(setting.repeats, sides).items():
                    medians[form, n, name] = median(results)
        answered = sum(r.num_answers for (*_, name), r in medians.items() if name == SERVICE)
        check_applied(service.port, [each for load in loads for each in load.client_ids], answered)
    return Figure(
        title="Single steps over gRPC",
        targets=_targets(medians),
        text=_text(medians),
        data={
            "results": [
                {"form": form, "sequences": n, "server": name, **asdict(result)}
                for (form, n, name), result in medians.items()
            ]
        },
    )


def _check(port: int, model: Path) -> None:
    """Step a sequence by streams and by calls in turns; raises `DisagreementError`."""
    inputs = random_inputs(NUM_STEPS, seed=6)
    outputs = []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary(f"{GRPC_SERVICE}/ModelInfer")
        stream: Any = channel.stream_stream(f"{GRPC_SERVICE}/ModelStreamInfer")
        for t, values in enumerate(inputs):
            step = step_message(999_999_999, values, starts=t == 0)
            if t % 2:
                response = messages.ModelInferResponse.FromString(call(step))
            else:
                [answer] = stream(iter([step]))
                response = messages.ModelStreamInferResponse.FromString(answer).infer_response
            outputs.append(np.frombuffer(response.raw_output_contents[0], "<f4"))
    compare("gRPC", outputs, expected_outputs(model, inputs))


def _targets(medians: Mapping[tuple[str, int, str], Result]) -> list[Target]:
    return [
        at_least(
            f"gRPC, 64 sequences, {what}",
            medians[form, 64, SERVICE].rate,
            10_000,
            "{:,.0f} steps/s",
        )
        for form, what in ((STREAMS, "a stream each"), (ONE_STREAM, "one stream"))
    ]


def _text(medians: Mapping[tuple[str, int, str], Result]) -> str:
    rows = [
        [form, str(n), name, *result_cells(r), f"{r.rate / medians[form, n, ECHO].rate:.2f}"]
        for (form, n, name), r in medians.items()
    ]
    return (
        "One step of each sequence is in flight. Every answered step of the service was applied"
        " once, by the sessions' positions. The client is grpc's own for asyncio, and where it is"
        " too busy the figure is its own.\n\n"
        + table(["form", "sequences", "server", *RESULT_HEAD, "of the echo"], rows)
    )
