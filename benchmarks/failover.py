"""How long a session waits when its replica is killed: part of `make bench`.

Three replicas on one Redis behind HAProxy with the configuration of `deploy/`. A client steps one
session without pause; its replica gets kill -9; the time from there to the next answer, which
another replica gives, is the figure. Each repeat has a session of its own.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from durable_steps import redis_server

from tests.integration.deployment import REPLICAS, Balancer, balancer, find_tool, wait_until
from tests.integration.live_server import LiveServer

CHECK_INTERVAL_MS = 1000
"""Between two health checks of the balancer."""
BODY_INPUTS = [0.1] * 12
NUM_STEPS_BEFORE = 50


def step(client: httpx.Client, path: str, position: int) -> httpx.Response | None:
    """Ask for a step; None where nobody answered it."""
    try:
        answer = client.post(path, json={"inputs": BODY_INPUTS, "position": position})
    except httpx.TransportError:
        return None
    return answer if answer.status_code == 200 else None


def failover_ms(front: Balancer, replicas: dict[str, LiveServer], path: str) -> float:
    """Kill the replica of a session, and return the time to its next answer.

    Raises:
        RuntimeError: The session did not go on where it was.
    """
    with httpx.Client(base_url=front.url, timeout=30) as client:
        answer = None
        for position in range(NUM_STEPS_BEFORE):
            answer = step(client, path, position)
            if answer is None:
                raise RuntimeError("a step failed with all replicas up")
        assert answer is not None
        victim = replicas[answer.headers["x-replica"]]
        began = time.perf_counter()
        victim.process.kill()
        while (answer := step(client, path, NUM_STEPS_BEFORE)) is None:
            pass
        took_ms = (time.perf_counter() - began) * 1e3
    if answer.json()["position"] != NUM_STEPS_BEFORE + 1:
        raise RuntimeError(f"the session went on elsewhere: {answer.text}")
    victim.process.wait()
    return took_ms


def kill_all(replicas: dict[str, LiveServer]) -> None:
    """End the replicas at once."""
    for replica in replicas.values():
        replica.process.kill()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    if find_tool("haproxy") is None or find_tool("redis-server") is None:
        print("no haproxy or no redis-server here: failover is not measured")
        return
    times_ms = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        url = stack.enter_context(redis_server(folder))
        store = ("--store", f"{url}/0", "--log-level", "error")
        replicas = {name: LiveServer(*store) for name in REPLICAS}
        stack.callback(kill_all, replicas)
        ports = [int(replica.url.rsplit(":", 1)[1]) for replica in replicas.values()]
        front = stack.enter_context(balancer(folder, ports))
        for repeat in range(options.repeats):
            times_ms.append(failover_ms(front, replicas, f"/v1/sessions/failover-{repeat}/step"))
            for name, port in zip(REPLICAS, ports, strict=True):
                if replicas[name].process.poll() is not None:
                    replicas[name] = LiveServer(*store, port=port)
            wait_until(lambda: front.count_up() == len(REPLICAS))
    print(f"\nfrom kill -9 of a replica to its session's next answer, {options.repeats} times:")
    print(f"median {statistics.median(times_ms):.0f} ms, longest {max(times_ms):.0f} ms;")
    print(f"the balancer checks every {CHECK_INTERVAL_MS} ms")


if __name__ == "__main__":
    main()
