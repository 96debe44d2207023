"""A million sessions in one replica: their memory, and steps of random ones of them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import asdict
from http.client import HTTPConnection
from time import perf_counter

from agreement import DisagreementError, check_step
from bench_model import OUTPUT_SIZE, UNITS
from load import Result, in_turns, median, run
from report import RESULT_HEAD, Figure, at_least, at_most, result_cells, table
from servers import Server, server
from setting import Setting, as_json, step_requests

NUM_SESSIONS, NUM_QUICK_SESSIONS = 1_000_000, 20_000
ROWS_A_REQUEST = 1024
NUM_CLIENTS = 64
ROW_BYTES = 4 * 2 * UNITS
ANSWER_BYTES = 4 * OUTPUT_SIZE
MOST_STEPS_A_SECOND = 100_000
"""So many sessions are picked for each second, so that hardly one comes twice."""
NUM_AT_HAND = 4096
"""So few sessions that all are at hand, and so many that hardly one has two steps at once."""
FEW, SOME, MANY = f"{NUM_CLIENTS} sessions", f"random ones of {NUM_AT_HAND:,}", "random ones of all"


def measure(setting: Setting) -> Figure:
    """Fill a replica and measure it."""
    num_sessions = NUM_QUICK_SESSIONS if setting.is_quick else NUM_SESSIONS
    few = step_requests([client_id(index) for index in range(NUM_CLIENTS)])
    warmup_s, duration_s = setting.warmup_s, setting.duration_s
    num_picked = int(MOST_STEPS_A_SECOND * (warmup_s + duration_s))
    picks = random.Random(0)
    with server(setting.service("--max-sessions", "1100000"), setting.core) as service:
        check_step("service", service.port, setting.model)
        run(service.port, few, warmup_s, duration_s)
        before = service.resident_bytes()
        began = perf_counter()
        _fill(service, num_sessions)
        filled_s = perf_counter() - began
        each = (service.resident_bytes() - before) / num_sessions

        def run_random(num_different: int) -> Result:
            picked = (picks.randrange(num_different) for _ in range(num_picked))
            requests = step_requests([client_id(index) for index in picked])
            return run(service.port, requests, warmup_s, duration_s, NUM_CLIENTS)

        sides = {
            FEW: lambda: run(service.port, few, warmup_s, duration_s),
            SOME: lambda: run_random(NUM_AT_HAND),
            MANY: lambda: run_random(num_sessions),
        }
        results = {name: median(runs) for name, runs in in_turns(setting.repeats, sides).items()}
        after_steps = service.resident_bytes()
    return _figure(num_sessions, each, filled_s, after_steps, results)


def _figure(
    num_sessions: int,
    each: float,
    filled_s: float,
    after_steps: int,
    results: Mapping[str, Result],
) -> Figure:
    """Return what was measured.

    Args:
        num_sessions: How many were filled in.
        each: The bytes of one, all in all.
        filled_s: What filling took.
        after_steps: The bytes resident after the runs.
        results: Of the runs.
    """
    rest = each - ROW_BYTES - ANSWER_BYTES
    what = f"{num_sessions:,} sessions in one replica"
    rows = [[name, *result_cells(result)] for name, result in results.items()]
    return Figure(
        title=what,
        targets=[
            at_most(
                f"{what}, each stepped: memory a session beyond row and answer",
                rest,
                300,
                "{:,.0f} bytes",
            ),
            at_least(
                f"{what}: steps/s at {NUM_CLIENTS} clients over random ones",
                results[MANY].rate / results[FEW].rate,
                0.9,
                "{:,.2f} of that with 64",
            ),
        ],
        text=f"A session has {each:,.0f} bytes: {ROW_BYTES:,} of its row, {ANSWER_BYTES} of its"
        f" stored answer, {rest:,.0f} more. Filled in {filled_s:.0f} s by `steps`;"
        f" {after_steps / 2**20:,.0f} MiB resident after the runs. Random ones are not those of the"
        " connection's last request, whose head is then not known from it; what a session that is"
        f" not at hand costs beside that shows against {SOME}, which are:"
        f" {results[MANY].rate / results[SOME].rate:.2f} of their rate.\n\n"
        + table(["steps of", *RESULT_HEAD], rows),
        data={
            "sessions": num_sessions,
            "bytes_a_session": each,
            "bytes_beyond": rest,
            "few": asdict(results[FEW]),
            "some": asdict(results[SOME]),
            "many": asdict(results[MANY]),
        },
    )


def client_id(index: int) -> str:
    """Return a client id of 20 characters."""
    return f"session-{index:012d}"


def _fill(service: Server, num_sessions: int) -> None:
    """Step each session once.

    Raises:
        DisagreementError: A step failed, or was not the session's first but for the few.
    """
    inputs = [[0.5] * 32] * ROWS_A_REQUEST
    connection = HTTPConnection("127.0.0.1", service.port)
    for start in range(0, num_sessions, ROWS_A_REQUEST):
        ids = [client_id(i) for i in range(start, min(start + ROWS_A_REQUEST, num_sessions))]
        body = as_json({"client_ids": ids, "inputs": inputs[: len(ids)]})
        connection.request(
            "POST", "/v1/models/bench/steps", body, {"content-type": "application/json"}
        )
        answer = json.loads(connection.getresponse().read())
        positions = answer["positions"][NUM_CLIENTS if start == 0 else 0 :]
        if any(answer["errors"]) or set(positions) != {1}:
            raise DisagreementError(f"not all of sessions {start:,} and on began: {answer}")
    connection.close()
