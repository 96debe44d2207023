"""Single steps by the Open Inference Protocol over HTTP, beside those of the service's own API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from agreement import begin_v2, check_applied, check_step, check_v2, v2_request
from load import Result, in_turns, median, post, run
from report import RESULT_HEAD, Figure, Target, at_least, result_cells, table
from servers import server
from setting import Setting, random_inputs, step_requests

CLIENTS = (1, 16, 64, 256)
V1, V2_JSON, V2_BINARY = "/v1, JSON", "/v2, JSON", "/v2, binary"
WANTED = 0.8

Medians = Mapping[tuple[str, int], Result]


def measure(setting: Setting) -> Figure:
    """Measure the three in turns, at each number of clients."""
    most = max(CLIENTS)
    inputs = random_inputs(most)
    names = {V2_JSON: range(1, most + 1), V2_BINARY: range(most + 1, 2 * most + 1)}
    client_ids = {V1: [f"client-{index}" for index in range(most)]}
    client_ids |= {form: [f"int:{number}" for number in ids] for form, ids in names.items()}
    requests = {V1: step_requests(client_ids[V1])}
    for form, numbers in names.items():
        requests[form] = [
            post(*v2_request(values, number, is_binary=form == V2_BINARY))
            for values, number in zip(inputs[:, None], numbers, strict=True)
        ]
    medians: dict[tuple[str, int], Result] = {}
    with server(setting.service(), setting.core) as service:
        check_step("the service", service.port, setting.model)
        for is_binary in (False, True):
            check_v2(service.port, setting.model, is_binary=is_binary)
        for numbers in names.values():
            begin_v2(service.port, numbers)
        for num_clients in CLIENTS:
            sides = {
                form: lambda sent=sent[:num_clients]: run(
                    service.port, sent, setting.warmup_s, setting.duration_s
                )
                for form, sent in requests.items()
            }
            for form, results in in_turns(setting.repeats, sides).items():
                medians[form, num_clients] = median(results)
        for form, ids in client_ids.items():
            answered = sum(medians[form, n].num_answers for n in CLIENTS)
            # Those of the protocol have had a step that began them.
            check_applied(service.port, ids, answered + (0 if form == V1 else most))
    return Figure(
        title="Single steps by the Open Inference Protocol over HTTP",
        targets=_targets(medians),
        text=_text(medians, {form: len(sent[0]) for form, sent in requests.items()}),
        data={
            "results": [
                {"form": form, "clients": num_clients, **asdict(result)}
                for (form, num_clients), result in medians.items()
            ]
        },
    )


def _ratio(medians: Medians, form: str, num_clients: int) -> float:
    return medians[form, num_clients].rate / medians[V1, num_clients].rate


def _targets(medians: Medians) -> list[Target]:
    return [
        at_least(
            f"{V2_BINARY}, {n} clients, beside {V1}",
            _ratio(medians, V2_BINARY, n),
            WANTED,
            "{:,.2f} times",
        )
        for n in CLIENTS
    ]


def _text(medians: Medians, num_bytes: Mapping[str, int]) -> str:
    rows = [
        [str(n), form, *result_cells(result), f"{_ratio(medians, form, n):.2f}"]
        for (form, n), result in medians.items()
    ]
    sizes = ", ".join(f"{form} {size}" for form, size in num_bytes.items())
    return (
        f"Bytes of a request: {sizes}. Every answered step was applied once, by the sessions'"
        " positions.\n\n" + table(["clients", "form", *RESULT_HEAD, f"of {V1}"], rows)
    )
