"""ONNX Runtime: its LSTM operator, and for one step also a fused product with the gates spelt out.

Inputs, outputs and states are bound to memory that stays, so that a call copies nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper
from rivals.problem import Contestant, Float32, Problem, States


def contestants(problem: Problem) -> Iterator[Contestant]:
    """Yield the ways to use it."""
    yield _operator(problem)
    if problem.steps == 1:
        yield _product(problem)


def _operator(problem: Problem) -> Contestant:
    rows, steps, units = problem.rows, problem.steps, problem.units
    kernel, recurrent, bias = problem.with_gates("iofc")
    weights = {
        "W": kernel.T[None].copy(),
        "R": recurrent.T[None].copy(),
        "B": np.concatenate([bias, np.zeros_like(bias)])[None],
    }
    node = helper.make_node(
        "LSTM",
        ["x", "W", "R", "B", "", "h", "c"],
        ["y", "h_next", "c_next"],
        hidden_size=units,
    )
    inputs = {"x": problem.time_major, "h": problem.h[None], "c": problem.c[None]}
    outputs = {
        "y": (steps, 1, rows, units),
        "h_next": (1, rows, units),
        "c_next": (1, rows, units),
    }
    call, bound = _bind([node], weights, inputs, outputs)

    def results() -> States:
        y, h, c = (bound[name].numpy() for name in outputs)
        return y[:, 0].swapaxes(0, 1), h[0], c[0]

    return Contestant(name="ONNX Runtime", call=call, results=results)


def _product(problem: Problem) -> Contestant:
    kernel, recurrent, bias = problem.with_gates("ifco")
    weights = {"W": np.concatenate([kernel, recurrent]), "B": bias}
    node = helper.make_node
    nodes = [
        node("Concat", ["x", "h"], ["xh"], axis=1),
        node("Gemm", ["xh", "W", "B"], ["z"]),
        node("Split", ["z"], ["zi", "zf", "zg", "zo"], axis=1, num_outputs=4),
        node("Sigmoid", ["zi"], ["i"]),
        node("Sigmoid", ["zf"], ["f"]),
        node("Tanh", ["zg"], ["g"]),
        node("Sigmoid", ["zo"], ["o"]),
        node("Mul", ["f", "c"], ["kept"]),
        node("Mul", ["i", "g"], ["added"]),
        node("Add", ["kept", "added"], ["c_next"]),
        node("Tanh", ["c_next"], ["squashed"]),
        node("Mul", ["o", "squashed"], ["h_next"]),
    ]
    shape = (problem.rows, problem.units)
    inputs = {"x": problem.inputs[:, 0].copy(), "h": problem.h, "c": problem.c}
    call, bound = _bind(nodes, weights, inputs, {"h_next": shape, "c_next": shape})

    def results() -> States:
        h = bound["h_next"].numpy()
        return h[:, None], h, bound["c_next"].numpy()

    return Contestant(name="ONNX Runtime, Gemm", call=call, results=results)


def _bind(
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, Float32],
    inputs: Mapping[str, Float32],
    outputs: Mapping[str, tuple[int, ...]],
) -> tuple[Any, dict[str, Any]]:
    """Return what runs a graph on memory that stays, and this memory, which must be kept."""

    def describe(shapes: Mapping[str, tuple[int, ...]]) -> list[onnx.ValueInfoProto]:
        return [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in shapes.items()
        ]

    graph = helper.make_graph(
        nodes,
        "lstm",
        describe({name: value.shape for name, value in inputs.items()}),
        describe(outputs),
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    binding = session.io_binding()
    bound = {
        name: ort.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, "cpu")
        for name, shape in outputs.items()
    }
    for name, value in bound.items():
        binding.bind_ortvalue_output(name, value)
    for name, value in inputs.items():
        # It lends its memory to the binding, which does not keep it.
        bound[name] = ort.OrtValue.ortvalue_from_numpy(value)
        binding.bind_ortvalue_input(name, bound[name])
    return lambda: session.run_with_iobinding(binding), bound
