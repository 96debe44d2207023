"""ONNX graphs with functions that are taken apart: what is put together again, and what is not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from lstm_core.errors import FormatError
from lstm_core.formats.read import read_network
from lstm_core.network import Bidirectional, Recurrent
from tests.unit.onnx_files import (
    SQUEEZE,
    UNITS,
    attribute,
    field,
    lstm,
    lstm_tensors,
    node,
    save,
    value,
)

X = np.random.default_rng(3).normal(0, 2, (50, UNITS)).astype(np.float32)
ERF = np.vectorize(math.erf)
SEQUENCES = [lstm(), node("Squeeze", ["Y", "one"], ["x1"])]
Nodes = Sequence[tuple[str, Sequence[str]]]
"""Operators and what they take; each gives `x2`, `x3` ..., the last of them `y`."""


def sigmoid(x: Any) -> Any:
    """Return the logistic function."""
    return 1 / (1 + np.exp(-x))


def softplus(x: Any) -> Any:
    """Return `log(1 + exp(x))`."""
    return np.log1p(np.exp(x))


def gelu(x: Any) -> Any:
    """Return the exact one."""
    return x * (1 + ERF(x / np.sqrt(2))) / 2


def gelu_by_tanh(x: Any) -> Any:
    """Return the approximation."""
    return x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2


def normalised(x: Any) -> Any:
    """Return the features with mean 0 and variance 1."""
    return (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 0.001)


CONSTANTS = {
    "half": 0.5, "two": 2.0, "three": 3.0, "root2": 2**0.5, "root_half": 0.5**0.5, "unit": 1.0,
    "cubed": 0.044715, "outer": (2 / math.pi) ** 0.5, "six": 6.0, "sixth": 1 / 6, "twenty": 20.0,
    "epsilon": 0.001, "minus": -1.0, "four": 4.0,
}  # fmt: skip
MEAN = ("ReduceMean", ["x1"]), ("Sub", ["x1", "x2"])

FORMULAS: dict[str, tuple[Nodes, Any]] = {
    "gelu, PyTorch": ([("Div", ["x1", "root2"]), ("Erf", ["x2"]), ("Add", ["x3", "unit"]),
                       ("Mul", ["x1", "x4"]), ("Mul", ["x5", "half"])], gelu),
    "gelu, factor first": ([("Mul", ["half", "x1"]), ("Mul", ["root_half", "x1"]), ("Erf", ["x3"]),
                            ("Add", ["unit", "x4"]), ("Mul", ["x5", "x2"])], gelu),
    "gelu, factor inside": ([("Mul", ["x1", "root_half"]), ("Erf", ["x2"]), ("Mul", ["x3", "half"]),
                             ("Add", ["half", "x4"]), ("Mul", ["x5", "x1"])], gelu),
    "gelu without its half": ([("Div", ["x1", "root2"]), ("Erf", ["x2"]), ("Add", ["x3", "unit"]),
                               ("Mul", ["x1", "x4"])], lambda x: 2 * gelu(x)),
    "gelu by tanh": ([("Mul", ["x1", "x1"]), ("Mul", ["x1", "x2"]), ("Mul", ["cubed", "x3"]),
                      ("Add", ["x1", "x4"]), ("Mul", ["outer", "x5"]), ("Tanh", ["x6"]),
                      ("Add", ["unit", "x7"]), ("Mul", ["x1", "x8"]), ("Mul", ["half", "x9"])],
                     gelu_by_tanh),
    "gelu by tanh and Pow": ([("Pow", ["x1", "three"]), ("Mul", ["x2", "cubed"]),
                              ("Add", ["x3", "x1"]), ("Mul", ["x4", "outer"]), ("Tanh", ["x5"]),
                              ("Add", ["x6", "unit"]), ("Mul", ["half", "x1"]),
                              ("Mul", ["x8", "x7"])], gelu_by_tanh),
    "silu": ([("Sigmoid", ["x1"]), ("Mul", ["x1", "x2"])], lambda x: x * sigmoid(x)),
    "silu of a half": ([("Sigmoid", ["x1"]), ("Mul", ["x1", "half"]), ("Mul", ["x2", "x3"])],
                       lambda x: x * sigmoid(x) / 2),
    "mish": ([("Softplus", ["x1"]), ("Tanh", ["x2"]), ("Mul", ["x3", "x1"])],
             lambda x: x * np.tanh(softplus(x))),
    "hard silu": ([("Add", ["x1", "three"]), ("Max", ["x2", "none"]), ("Min", ["six", "x3"]),
                   ("Mul", ["x4", "sixth"])], lambda x: np.clip(x + 3, 0, 6) / 6),
    "softsign": ([("Abs", ["x1"]), ("Add", ["x2", "unit"]), ("Div", ["x1", "x3"])],
                 lambda x: x / (1 + abs(x))),
    "log sigmoid": ([("Sigmoid", ["x1"]), ("Log", ["x2"])], lambda x: np.log(sigmoid(x))),
    "softplus, PyTorch": ([("Mul", ["x1", "two"]), ("Softplus", ["x2"]), ("Div", ["x3", "two"]),
                           ("Greater", ["x2", "twenty"]), ("Where", ["x5", "x1", "x4"])],
                          lambda x: softplus(2 * x) / 2),
    "layer norm": ([*MEAN, ("Pow", ["x3", "two"]), ("ReduceMean", ["x4"]),
                    ("Add", ["x5", "epsilon"]), ("Sqrt", ["x6"]), ("Div", ["x3", "x7"]),
                    ("Mul", ["x8", "g"]), ("Add", ["x9", "b"])],
                   lambda x: normalised(x) * [2, 3] + [1, -1]),
    "layer norm, reciprocal": ([*MEAN, ("Mul", ["x3", "x3"]), ("ReduceMean", ["x4"]),
                                ("Add", ["epsilon", "x5"]), ("Sqrt", ["x6"]),
                                ("Reciprocal", ["x7"]), ("Mul", ["x3", "x8"])], normalised),
    "PReLU, Keras": ([("Relu", ["x1"]), ("Neg", ["x1"]), ("Relu", ["x3"]), ("Mul", ["x4", "g"]),
                      ("Add", ["x2", "x5"])], lambda x: np.where(x > 0, x, [-2, -3] * x)),
    "at least": ([("Max", ["half", "x1"])], lambda x: np.maximum(x, 0.5)),
    "at most": ([("Min", ["x1", "half"])], lambda x: np.minimum(x, 0.5)),
    "between": ([("Clip", ["x1", "minus", "half"])], lambda x: np.clip(x, -1, 0.5)),
    "no limits": ([("Clip", ["x1"])], lambda x: x),
    "negative": ([("Neg", ["x1"])], lambda x: -x),
    "negative twice": ([("Neg", ["x1"]), ("Neg", ["x2"])], lambda x: x),
    "batch norm": ([("Transpose", ["x1"]), ("BatchNormalization", ["x2", "g", "b", "mean", "var"]),
                    ("Transpose", ["x3"])],
                   lambda x: (x - [0.5, 1]) / np.sqrt(np.array([2, 3]) + 1e-5) * [2, 3] + [1, -1]),
}  # fmt: skip
OPTIONS: dict[str, dict[str, Any]] = {
    "ReduceMean": {"axes": [-1]},
    "Transpose": {"perm": [0, 2, 1]},
}


def graph(path: Any, nodes: Nodes, **tensors: Any) -> Any:
    """Write an LSTM and these nodes."""
    last = len(nodes) + 1
    built = [
        node(operator, inputs, ["y" if index == last else f"x{index}"], **OPTIONS.get(operator, {}))
        for index, (operator, inputs) in enumerate(nodes, 2)
    ]
    stored: dict[str, Any] = {name: np.array(number) for name, number in CONSTANTS.items()}
    stored |= {"g": np.array([2.0, 3.0]), "b": np.array([1.0, -1.0]), "none": np.zeros(())}
    stored |= {"mean": np.array([0.5, 1.0]), "var": np.array([2.0, 3.0])}
    return save(path, [*SEQUENCES, *built], stored | tensors, opset=17)


def applied(path: Any) -> Any:
    """Return what the layers behind a file's LSTM make of `X`."""
    found = X
    for layer in read_network(path).layers:
        if not isinstance(layer, Recurrent | Bidirectional):
            found = layer(found)
    return found


@pytest.mark.parametrize("case", FORMULAS)
def test_formulas(case, tmp_path):
    """What the nodes compute one after another, the layers compute."""
    nodes, formula = FORMULAS[case]
    found = applied(graph(tmp_path / "model.onnx", nodes))
    np.testing.assert_allclose(found, formula(X.astype(np.float64)), rtol=1e-5, atol=2e-6)


def test_a_formula_is_one_layer(tmp_path):
    """GELU with its half, and a normalisation with its numbers, leave nothing behind."""
    for case in ("gelu, PyTorch", "gelu, factor first", "gelu by tanh", "layer norm"):
        layers = read_network(graph(tmp_path / "model.onnx", FORMULAS[case][0])).layers
        assert len(layers) == 2


def test_an_affine_formula_keeps_each_scale(tmp_path):
    """A factor that takes back no other stays."""
    nodes = [("Mul", ["x1", "two"]), ("Mul", ["x2", "two"]), ("Mul", ["x3", "half"])]
    np.testing.assert_array_equal(applied(graph(tmp_path / "model.onnx", nodes)), 2 * X)


GELU = FORMULAS["gelu, PyTorch"][0]

REFUSALS: dict[str, tuple[Nodes, str]] = {
    "erf alone": ([("Erf", ["x1"])], "erf: is a Erf; served are"),
    "power": ([("Pow", ["x1", "half"]), ("Tanh", ["x2"])], "pow: is a Pow; served are"),
    "another erf": ([("Div", ["x1", "three"]), *GELU[1:]], "erf: is a Erf; served are"),
    "another sum": ([*GELU[:2], ("Add", ["x3", "half"]), *GELU[3:]], "erf: is a Erf; served are"),
    "softsign of two": ([("Abs", ["x1"]), ("Add", ["x2", "two"]), ("Div", ["x1", "x3"])],
                        "abs: is a Abs"),
    "threshold": ([("Softplus", ["x1"]), ("Greater", ["x1", "six"]), ("Where", ["x3", "x1", "x2"])],
                  "where: chooses by the values themselves"),
    "mean over time": ([("Transpose", ["x1"]), ("ReduceMean", ["x2"])], "works along another axis"),
    "wide": ([("Clip", ["x1", "low", "half"])], "clips to -100 and 0.5; served is from 0 on, or"),
    "turned limits": ([("Clip", ["x1", "half", "minus"])], "clips to 0.5 and -1"),
    "many limits": ([("Clip", ["x1", "g"])], "is a Clip with 2 numbers, not one"),
    "vector limit": ([("Max", ["x1", "g"])], "is a Max with 2 numbers, not one"),
    "statistics": ([("BatchNormalization", ["x1", "g", "b", "mean", "var"])],
                   "works along another axis"),
    "variance": ([*FORMULAS["batch norm"][0][:1],
                  ("BatchNormalization", ["x2", "g", "b", "mean", "bad"])], "that is not positive"),
    "few statistics": ([*FORMULAS["batch norm"][0][:1],
                        ("BatchNormalization", ["x2", "g", "b", "mean", "unit"])],
                       "lacks numbers for each of 2 features"),
    "variance alone": ([*MEAN, ("Mul", ["x3", "x3"]), ("ReduceMean", ["x4"]), ("Sqrt", ["x5"]),
                        ("Div", ["x3", "x6"])], "sub: is a Sub"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_is_no_formula(case, tmp_path):
    """A part that nothing completes, and numbers that are nobody's, are refused by their node."""
    nodes, expected = REFUSALS[case]
    tensors = {"low": np.array(-100.0), "bad": np.array([-1.0, 1.0])}
    with pytest.raises(FormatError) as caught:
        read_network(graph(tmp_path / "model.onnx", nodes, **tensors))
    assert expected in str(caught.value)


def body(*nodes: bytes, output: str = "z") -> bytes:
    """Return a graph in the attribute of a node."""
    return b"".join(field(1, each) for each in nodes) + field(12, field(1, output))


def branches(condition: str, then: bytes, other: bytes, output: str = "y") -> bytes:
    """Return an If."""
    graphs = {"then_branch": then, "else_branch": other}
    parts = [field(1, name) + field(6, graph) + field(20, 5) for name, graph in graphs.items()]
    return node("If", [condition], [output]) + b"".join(field(5, part) for part in parts)


TANH = body(node("Tanh", ["x1"], ["z"]))


def test_an_if_of_sizes(tmp_path):
    """The branch is taken that the sizes choose; PyTorch's `squeeze` is one."""
    size = [node("Shape", ["x1"], ["s"]), node("Gather", ["s", "axis"], ["n"], axis=0)]
    chosen = node("Equal", ["n", "units"], ["c"])
    relu = body(node("Relu", ["x1"], ["z"]))
    tensors = {"axis": np.array(2), "units": np.array(UNITS)}
    nodes = [*SEQUENCES, *size, chosen, branches("c", TANH, relu)]
    names = [x.name for x in read_network(save(tmp_path / "a.onnx", nodes, tensors)).layers]
    assert names == ["lstm", "tanh"]
    tensors["units"] = np.array(UNITS + 1)
    names = [x.name for x in read_network(save(tmp_path / "b.onnx", nodes, tensors)).layers]
    assert names == ["lstm", "relu"]


def test_an_if_that_cannot_be_served(tmp_path):
    """A choice by the values, a branch that is not there, and graphs without end are refused."""
    path = tmp_path / "model.onnx"
    deep = TANH
    for _ in range(9):
        deep = body(branches("one", deep, TANH, output="z"))
    cases = [
        (branches("x1", TANH, TANH), "is an If of something else than sizes"),
        (branches("g", TANH, TANH), "is an If of something else than sizes"),
        (node("If", ["one"], ["y"]), "is an If without its branches"),
        (
            node("If", ["one"], ["y"]) + field(5, attribute("then_branch", 1)),
            "without its branches",
        ),
        (branches("one", deep, TANH), "has graphs inside each other, more than 8"),
        (branches("one", body(node("Tanh", ["q"], ["z"])), TANH), "takes q, which is nowhere"),
        (branches("one", body(output="q"), TANH), "takes q, which is nowhere"),
    ]
    for last, expected in cases:
        save(path, [*SEQUENCES, last], {"g": np.array([2.0, 3.0])})
        with pytest.raises(FormatError) as caught:
            read_network(path)
        assert expected in str(caught.value)


BOTH = lstm_tensors(2) | {
    "two": np.array([2]),
    "three": np.array([3]),
    "four": np.array([4]),
    "last": np.array(-1),
}
JOINED = [
    lstm(direction="bidirectional"),
    node("Transpose", ["Y"], ["t"], perm=[0, 2, 1, 3]),
    node("Reshape", ["t", "shape"], ["j"]),
]


def test_halves_of_both_directions(tmp_path):
    """Features side by side are cut into the two directions, and nowhere else."""
    tensors = BOTH | {"shape": np.array([0, 0, -1]), "axis": np.array([2])}

    def built(name: str, *nodes: bytes) -> Any:
        return save(tmp_path / name, [*JOINED, *nodes], tensors)

    halves = [
        node("Slice", ["j", "zero", "two", "axis"], ["f"]),
        node("Slice", ["j", "two", "four", "axis"], ["b"]),
    ]
    (layer,) = read_network(built("sum.onnx", *halves, node("Add", ["f", "b"], ["y"]))).layers
    assert isinstance(layer, Bidirectional)
    assert (layer.merge_mode, layer.return_sequences) == ("sum", True)
    steps = [
        node("Gather", ["f", "last"], ["g"], axis=0),
        node("Gather", ["b", "first"], ["c"], axis=0),
        node("Concat", ["g", "c"], ["y"], axis=-1),
    ]
    tensors |= {"first": np.array(0)}
    (layer,) = read_network(built("last.onnx", *halves, *steps)).layers
    assert isinstance(layer, Bidirectional)
    assert (layer.merge_mode, layer.return_sequences) == ("concat", False)
    cut = node("Slice", ["j", "one", "three", "axis"], ["y"])
    with pytest.raises(FormatError, match="takes a part of the axis direction and features"):
        read_network(built("cut.onnx", cut))


def test_zeros_of_another_length_are_no_state(tmp_path):
    """PyTorch's exporter writes a projection as an LSTM whose states do not fit it."""
    inputs = [value("x", ["t", "b", 3])]
    states = ("x", "W", "R", "B", "", "h", "c")
    zeros = {"h": np.zeros((1, 1, UNITS)), "c": np.zeros((1, 1, 2 * UNITS))}
    path = save(tmp_path / "model.onnx", [lstm(inputs=states), SQUEEZE], zeros, inputs=inputs)
    with pytest.raises(FormatError, match=r"initial_c of shape \(1, 1, 4\) is not of 2 units"):
        read_network(path)
