"""How single steps fare while others post long sequences without pause."""

from __future__ import annotations

from dataclasses import asdict

from agreement import check_applied, check_sequence
from load import Load, Result, Run, in_turns, median, post, run
from report import RESULT_HEAD, Figure, at_most, result_cells, table
from servers import server
from setting import Setting, as_json, as_numbers, random_inputs, step_requests

NUM_STEPPERS, NUM_SEQUENCES, SEQUENCE_STEPS = 8, 4, 10_000
IDLE, BUSY = "alone", f"beside {NUM_SEQUENCES} clients with sequences of {SEQUENCE_STEPS:,} steps"


def measure(setting: Setting) -> Figure:
    """Measure the same clients with and without the sequences."""
    client_ids = [f"stepper-{index}" for index in range(NUM_STEPPERS)]
    steps = step_requests(client_ids)
    body = as_json({"inputs": as_numbers(random_inputs(SEQUENCE_STEPS))})
    sequences = Load(
        messages=[post(f"/v1/sessions/long-{i}/sequence", body) for i in range(NUM_SEQUENCES)],
        num_clients=NUM_SEQUENCES,
    )
    warmup_s, duration_s = setting.warmup_s, 2 * setting.duration_s
    behind: list[Result] = []

    with server(setting.service(), setting.core) as service:
        check_sequence(service.port, setting.model)

        def idle() -> Result:
            return run(service.port, steps, warmup_s, duration_s)

        def busy() -> Result:
            background = Run(sequences, service.port, 2 * warmup_s, duration_s)
            result = run(service.port, steps, 2 * warmup_s, duration_s)
            behind.append(background.result())
            return result

        results = {
            name: median(each)
            for name, each in in_turns(setting.repeats, {IDLE: idle, BUSY: busy}).items()
        }
        check_applied(service.port, client_ids, sum(r.num_answers for r in results.values()))
    background = median(behind)
    ratio = results[BUSY].p99_ms / results[IDLE].p99_ms
    rows = [[name, *result_cells(result)] for name, result in results.items()]
    rows.append(["the sequences meanwhile", *result_cells(background, SEQUENCE_STEPS)])
    return Figure(
        title=f"Single steps of {NUM_STEPPERS} clients beside long sequences",
        targets=[
            at_most(
                f"single steps while {NUM_SEQUENCES} clients post sequences of"
                f" {SEQUENCE_STEPS:,} steps: p99 beside that without them",
                ratio,
                4,
                "{:,.2f} times",
            )
        ],
        text=table(["single steps", *RESULT_HEAD], rows)
        + f"\n\nA sequence's body has {len(body):,} bytes; all its outputs are answered.",
        data={
            "steppers": NUM_STEPPERS,
            "idle": asdict(results[IDLE]),
            "busy": asdict(results[BUSY]),
            "sequences": asdict(background),
        },
    )
