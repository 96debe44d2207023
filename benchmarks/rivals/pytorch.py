"""PyTorch: `nn.LSTM`, which is oneDNN's on a CPU, and for one step also `nn.LSTMCell`."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from rivals.problem import Contestant, Problem, States

torch.set_num_threads(1)
torch.set_grad_enabled(mode=False)


def contestants(problem: Problem) -> Iterator[Contestant]:
    """Yield the ways to use it."""
    yield _layer(problem)
    if problem.steps == 1:
        yield _cell(problem)


def _load(module: torch.nn.Module, problem: Problem, suffix: str) -> None:
    kernel, recurrent, bias = problem.with_gates("ifco")
    state = {"weight_ih": kernel.T, "weight_hh": recurrent.T, "bias_ih": bias, "bias_hh": 0 * bias}
    module.load_state_dict({name + suffix: torch.tensor(value) for name, value in state.items()})
    module.eval()


def _layer(problem: Problem) -> Contestant:
    layer = torch.nn.LSTM(problem.spec.input_size, problem.units)
    _load(layer, problem, "_l0")
    x = torch.tensor(problem.time_major)
    states = torch.tensor(problem.h)[None], torch.tensor(problem.c)[None]

    def call() -> object:
        with torch.inference_mode():
            return layer(x, states)

    def results() -> States:
        with torch.inference_mode():
            y, (h, c) = layer(x, states)
        return y.numpy().swapaxes(0, 1), h[0].numpy(), c[0].numpy()

    return Contestant(name="PyTorch", call=call, results=results)


def _cell(problem: Problem) -> Contestant:
    cell = torch.nn.LSTMCell(problem.spec.input_size, problem.units)
    _load(cell, problem, "")
    x = torch.tensor(problem.inputs[:, 0])
    states = torch.tensor(problem.h), torch.tensor(problem.c)

    def call() -> object:
        with torch.inference_mode():
            return cell(x, states)

    def results() -> States:
        with torch.inference_mode():
            h, c = cell(x, states)
        return h.numpy()[:, None], h.numpy(), c.numpy()

    return Contestant(name="PyTorch, cell", call=call, results=results)
