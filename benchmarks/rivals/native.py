"""This project's kernel, as the service calls it: `CpuRuntime.advance`, from slot to slot."""

from __future__ import annotations

from collections.abc import Iterator

from rivals.problem import Contestant, Problem, States

from lstm_core.network import Network, Recurrent
from lstm_core.runtime.cpu import CpuRuntime

NAME = "ours"


def contestants(problem: Problem) -> Iterator[Contestant]:
    """Yield the kernel. Its rows are gathered from the arena and scattered to it in each call."""
    lstm = Recurrent(name="lstm", spec=problem.spec, weights=problem.weights)
    network = Network("n", problem.spec.input_size, (lstm,))
    runtime = CpuRuntime(network, 2 * problem.rows, precision=problem.precision)
    (dispatch,) = runtime.dispatches.values()
    if dispatch.kernel != "native":
        raise RuntimeError(f"the native kernel does not run: {dispatch.reason}")
    sources = list(range(1, problem.rows + 1))
    targets = list(range(problem.rows + 1, 2 * problem.rows + 1))
    for slot, h, c in zip(sources, problem.h, problem.c, strict=True):
        runtime.write(slot, [*h, *c], [True])
    inputs, lengths = problem.inputs, [problem.steps] * problem.rows

    def results() -> States:
        advanced = runtime.advance(sources, targets, inputs, lengths)
        h, c = advanced.rows[:, : problem.units], advanced.rows[:, problem.units :]
        return advanced.outputs, h, c

    yield Contestant(
        name=NAME,
        call=lambda: runtime.advance(sources, targets, inputs, lengths),
        results=results,
    )
