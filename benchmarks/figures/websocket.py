"""Single steps over WebSockets in binary frames, several in flight on each."""

from __future__ import annotations

from dataclasses import asdict

from agreement import check_applied, check_stream
from bench_model import OUTPUT_SIZE
from load import Load, Result, Run, binary_frame, handshake, in_turns, median
from report import RESULT_HEAD, Figure, at_least, result_cells, table
from servers import server
from setting import Setting, random_inputs

NUM_SOCKETS, DEPTH = 64, 8


def measure(setting: Setting) -> Figure:
    """Measure with and without company in flight."""
    client_ids = [f"stream-{index}" for index in range(NUM_SOCKETS)]
    frames = [binary_frame(row.astype("<f4").tobytes()) for row in random_inputs(4 * NUM_SOCKETS)]
    with server(setting.service(), setting.core) as service:
        check_stream(service.port, setting.model)

        def run(depth: int) -> Result:
            load = Load(
                messages=frames,
                num_clients=NUM_SOCKETS,
                depth=depth,
                handshakes=[handshake(f"/v1/sessions/{i}/stream") for i in client_ids],
                answer_bytes=4 * OUTPUT_SIZE,
            )
            return Run(load, service.port, setting.warmup_s, setting.duration_s).result()

        runs = in_turns(setting.repeats, {"1": lambda: run(1), str(DEPTH): lambda: run(DEPTH)})
        results = {depth: median(each) for depth, each in runs.items()}
        answered = sum(result.num_answers for result in results.values())
        check_applied(service.port, client_ids, answered)
    rows = [[str(NUM_SOCKETS), depth, *result_cells(r)] for depth, r in results.items()]
    name = f"WebSocket binary, {NUM_SOCKETS} sockets, {DEPTH} steps in flight each"
    return Figure(
        title="Single steps over WebSockets",
        targets=[at_least(name, results[str(DEPTH)].rate, 100_000, "{:,.0f} steps/s")],
        text=table(["sockets", "in flight each", *RESULT_HEAD], rows),
        data={
            "results": [
                {"sockets": NUM_SOCKETS, "depth": int(depth), **asdict(result)}
                for depth, result in results.items()
            ]
        },
    )
