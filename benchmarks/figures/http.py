"""Single steps over HTTP at several numbers of clients, beside an echo and two plain services."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict

from agreement import check_applied, check_step
from load import Result, in_turns, median, run
from report import RESULT_HEAD, Figure, Target, at_least, at_most, result_cells, table
from servers import server, uvicorn_command
from setting import Setting, step_requests

CLIENTS = (1, 16, 64, 256)
KERAS_CLIENTS = (1, 64)
SERVICE, ECHO, NUMPY, KERAS = "service", "echo", "FastAPI + NumPy", "FastAPI + Keras"

Medians = Mapping[tuple[str, int], Result]


def measure(setting: Setting) -> Figure:
    """Measure all servers in turns, at each number of clients."""
    environment = {"BENCH_MODEL": str(setting.model), "TF_CPP_MIN_LOG_LEVEL": "3"}
    commands = {
        SERVICE: setting.service(),
        ECHO: uvicorn_command("echo:app"),
        NUMPY: uvicorn_command("peer_fastapi_numpy:app"),
        KERAS: uvicorn_command("peer_fastapi_keras:app"),
    }
    client_ids = [f"client-{index}" for index in range(max(CLIENTS))]
    requests = step_requests(client_ids)
    medians: dict[tuple[str, int], Result] = {}
    with ExitStack() as stack:
        ports = {
            name: stack.enter_context(server(command, setting.core, environment)).port
            for name, command in commands.items()
        }
        for name in (SERVICE, NUMPY, KERAS):
            check_step(name, ports[name], setting.model)
        for num_clients in CLIENTS:
            sides = {
                name: lambda port=port, sent=requests[:num_clients]: run(
                    port, sent, setting.warmup_s, setting.duration_s
                )
                for name, port in ports.items()
                if name != KERAS or num_clients in KERAS_CLIENTS
            }
            for name, results in in_turns(setting.repeats, sides).items():
                medians[name, num_clients] = median(results)
        answered = sum(medians[SERVICE, n].num_answers for n in CLIENTS)
        check_applied(ports[SERVICE], client_ids, answered)
    return Figure(
        title="Single steps over HTTP",
        targets=_targets(medians),
        text=_text(medians, len(requests[0])),
        data={
            "results": [
                {"server": name, "clients": num_clients, **asdict(result)}
                for (name, num_clients), result in medians.items()
            ]
        },
    )


def _targets(medians: Medians) -> list[Target]:
    def ratio(peer: str, num_clients: int) -> float:
        return medians[SERVICE, num_clients].rate / medians[peer, num_clients].rate

    alone, echo_alone = medians[SERVICE, 1], medians[ECHO, 1]
    at_64 = medians[SERVICE, 64]
    times = "{:,.2f} times"
    return [
        *(
            at_least(f"HTTP step, {n} clients, beside the echo", ratio(ECHO, n), 1.3, times)
            for n in (64, 256)
        ),
        *(
            at_least(f"the same beside {NUMPY}, {n} clients", ratio(NUMPY, n), 10, times)
            for n in (64, 256)
        ),
        at_least(f"the same beside {KERAS}, 64 clients", ratio(KERAS, 64), 300, times),
        at_most("p50 at one client beside the echo", alone.p50_ms / echo_alone.p50_ms, 1.4, times),
        at_most("p99 at 64 clients beside p50", at_64.p99_ms / at_64.p50_ms, 3, times),
    ]


def _text(medians: Medians, num_bytes: int) -> str:
    rows = [
        [
            str(num_clients),
            name,
            *result_cells(result),
            f"{result.rate / medians[ECHO, num_clients].rate:.3g}",
        ]
        for (name, num_clients), result in medians.items()
    ]
    return (
        f"A request has about {num_bytes} bytes. Every answered step of the service was applied"
        " once, by the sessions' positions.\n\n"
        + table(["clients", "server", *RESULT_HEAD, "of the echo"], rows)
    )
