"""OpenVINO: its LSTMSequence, and for one step also its LSTMCell; static shapes, tensors kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import openvino as ov
from openvino import opset13 as ops
from rivals.problem import Contestant, Float32, Problem, States

from lstm_core.kernels.native import Precision

CONFIG = {
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "PERFORMANCE_HINT": "LATENCY",
}
HINTS = {"float32": "f32", "bfloat16": "bf16"}


def contestants(problem: Problem) -> Iterator[Contestant]:
    """Yield the ways to use it."""
    yield _sequence(problem)
    if problem.steps == 1:
        yield _cell(problem)


def _sequence(problem: Problem) -> Contestant:
    rows, steps, units = problem.rows, problem.steps, problem.units
    kernel, recurrent, bias = problem.with_gates("fico")
    x = ops.parameter([rows, steps, problem.spec.input_size], np.float32)
    h = ops.parameter([rows, 1, units], np.float32)
    c = ops.parameter([rows, 1, units], np.float32)
    lengths = ops.constant(np.full(rows, steps, np.int32))
    node = ops.lstm_sequence(
        x,
        h,
        c,
        lengths,
        ops.constant(kernel.T[None].copy()),
        ops.constant(recurrent.T[None].copy()),
        ops.constant(bias[None]),
        units,
        "FORWARD",
    )
    inputs = {x: problem.inputs, h: problem.h[:, None].copy(), c: problem.c[:, None].copy()}
    request, call = _compile(node, inputs, problem.precision)

    def results() -> States:
        y, h, c = (request.get_output_tensor(index).data for index in range(3))
        return y[:, 0], h[:, 0], c[:, 0]

    return Contestant(name="OpenVINO", call=call, results=results)


def _cell(problem: Problem) -> Contestant:
    rows, units = problem.rows, problem.units
    kernel, recurrent, bias = problem.with_gates("fico")
    x = ops.parameter([rows, problem.spec.input_size], np.float32)
    h = ops.parameter([rows, units], np.float32)
    c = ops.parameter([rows, units], np.float32)
    weights = (ops.constant(kernel.T.copy()), ops.constant(recurrent.T.copy()), ops.constant(bias))
    node = ops.lstm_cell(x, h, c, *weights, units)
    inputs = {x: problem.inputs[:, 0].copy(), h: problem.h, c: problem.c}
    request, call = _compile(node, inputs, problem.precision)

    def results() -> States:
        h, c = (request.get_output_tensor(index).data for index in range(2))
        return h[:, None], h, c

    return Contestant(name="OpenVINO, cell", call=call, results=results)


def _compile(
    node: Any, inputs: dict[Any, Float32], precision: Precision
) -> tuple[Any, Callable[[], None]]:
    """Return a request whose inputs are set, and what runs it."""
    model = ov.Model([ops.result(output) for output in node.outputs()], list(inputs))
    config = CONFIG | {"INFERENCE_PRECISION_HINT": HINTS[precision]}
    request = ov.Core().compile_model(model, "CPU", config).create_infer_request()
    for index, value in enumerate(inputs.values()):
        request.set_input_tensor(index, ov.Tensor(value, shared_memory=True))

    def call(_lent: object = inputs) -> None:
        request.infer(share_outputs=True)

    return request, call
