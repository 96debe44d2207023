"""Single steps over HTTP by store, beside sessions in memory; `durable_steps.py` has more."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import asdict

from agreement import check_applied, check_step
from durable_steps import redis_server, store_options
from load import in_turns, median, run
from report import RESULT_HEAD, Figure, Target, at_least, not_measured, result_cells, table
from servers import server
from setting import Setting, step_requests

NUM_CLIENTS = 64
MEMORY = "memory"
WANTED = {"embedded, sync": 0.7, "Redis, sync": 0.5}


def measure(setting: Setting) -> Figure:
    """Measure the stores in turns. Redis shares the generator's core."""
    client_ids = [f"client-{index}" for index in range(NUM_CLIENTS)]
    requests = step_requests(client_ids)
    with ExitStack() as stack:
        has_redis = shutil.which("redis-server") is not None
        url = stack.enter_context(redis_server(setting.folder)) if has_redis else None
        options = store_options(setting.folder, url)
        ports = {
            name: stack.enter_context(server(setting.service(*options[name]), setting.core)).port
            for name in (MEMORY, *WANTED)
            if name in options
        }
        for name, port in ports.items():
            check_step(name, port, setting.model)
        sides = {
            name: lambda port=port: run(port, requests, setting.warmup_s, setting.duration_s)
            for name, port in ports.items()
        }
        results = {name: median(each) for name, each in in_turns(setting.repeats, sides).items()}
        for name, port in ports.items():
            check_applied(port, client_ids, results[name].num_answers)
    memory = results[MEMORY]
    targets: list[Target] = []
    for name, wanted in WANTED.items():
        what = f"HTTP step, {NUM_CLIENTS} clients, {name}, beside memory"
        if name in results:
            targets.append(at_least(what, results[name].rate / memory.rate, wanted))
        else:
            targets.append(not_measured(what, "no redis-server here"))
    rows = [[name, *result_cells(r), f"{r.rate / memory.rate:.2f}"] for name, r in results.items()]
    return Figure(
        title=f"Single steps of {NUM_CLIENTS} clients by store",
        targets=targets,
        text=table(["store", *RESULT_HEAD, "of memory"], rows),
        data={"clients": NUM_CLIENTS, "stores": {n: asdict(r) for n, r in results.items()}},
    )
