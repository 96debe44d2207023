"""One step of many sessions in a request, as JSON and in binary."""

from __future__ import annotations

import urllib.error
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agreement import (
    BINARY_STEPS,
    binary_steps,
    check_applied,
    check_binary_steps,
    check_steps,
)
from load import Result, in_turns, median, post, run
from report import RESULT_HEAD, Figure, Target, at_least, not_measured, result_cells, table
from servers import server
from setting import Setting, as_json, as_numbers, random_inputs

CONNECTIONS = (1, 2, 4)
NUM_ROWS = 256
PATH = "/v1/models/bench/steps"


def measure(setting: Setting) -> Figure:
    """Measure both forms over several connections; the best of them is the figure."""
    targets: list[Target] = []
    rows: list[list[str]] = []
    data: list[dict[str, Any]] = []
    with server(setting.service(), setting.core) as service:
        for form, request, check, wanted in (
            ("JSON", _json_request, check_steps, 250_000),
            ("binary", _binary_request, check_binary_steps, 400_000),
        ):
            name = f"`steps` with {NUM_ROWS} sessions a request, {form}"
            if not _is_served(check, service.port, setting.model):
                targets.append(not_measured(name, "not served"))
                continue
            results = _measure(setting, service.port, form, request)
            best = max(results, key=lambda n: results[n].rate)
            rate = results[best].rate * NUM_ROWS
            name += f" ({best} connections)"
            targets.append(at_least(name, rate, wanted, "{:,.0f} session steps/s"))
            for n, result in results.items():
                rows.append([form, str(n), *result_cells(result, NUM_ROWS)])
                data.append({"form": form, "connections": n, "rows": NUM_ROWS, **asdict(result)})
    return Figure(
        title="One step of many sessions in a request",
        targets=targets,
        text=table(["body", "connections", *RESULT_HEAD], rows)
        + "\n\nLatencies are a request's. Every row was applied, by the sessions' positions.",
        data={"results": data},
    )


def _is_served(check: Callable[[int, Path], None], port: int, model: Path) -> bool:
    try:
        check(port, model)
    except urllib.error.HTTPError as error:
        if error.code != 415:
            raise
        return False
    return True


def _measure(
    setting: Setting, port: int, form: str, request: Callable[[Sequence[str]], bytes]
) -> dict[int, Result]:
    client_ids = [
        [f"{form}-{connection}-{row}" for row in range(NUM_ROWS)]
        for connection in range(max(CONNECTIONS))
    ]
    requests = [request(ids) for ids in client_ids]
    sides = {
        str(n): lambda n=n: run(port, requests[:n], setting.warmup_s, setting.duration_s)
        for n in CONNECTIONS
    }
    results = {int(n): median(each) for n, each in in_turns(setting.repeats, sides).items()}
    answered = NUM_ROWS * sum(result.num_answers for result in results.values())
    check_applied(port, [client_id for ids in client_ids for client_id in ids], answered)
    return results


def _json_request(client_ids: Sequence[str]) -> bytes:
    inputs = as_numbers(random_inputs(len(client_ids)))
    return post(PATH, as_json({"client_ids": client_ids, "inputs": inputs}))


def _binary_request(client_ids: Sequence[str]) -> bytes:
    return post(PATH, binary_steps(client_ids, random_inputs(len(client_ids))), BINARY_STEPS)
