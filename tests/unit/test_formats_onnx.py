"""ONNX graphs made by hand: the ways through them, and what each refusal says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lstm_core.errors import FormatError
from lstm_core.formats.read import format_at, read_network
from lstm_core.network import Bidirectional, Recurrent
from lstm_core.pointwise import Activation, Affine, Dense
from lstm_core.runtime.cpu import CpuRuntime
from lstm_core.weights import reorder_gates
from tests.unit.onnx_files import (
    FEATURES,
    SQUEEZE,
    UNITS,
    lstm,
    lstm_tensors,
    node,
    save,
    value,
)


def problem(path: Any) -> str:
    """Return what a file is refused for."""
    with pytest.raises(FormatError) as caught:
        read_network(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_an_lstm_comes_with_our_gate_order_and_one_bias(tmp_path):
    """Gates come from i, o, f, c into our order, and both biases are added."""
    path = save(tmp_path / "model.onnx", [lstm(), SQUEEZE])
    network = read_network(path)
    (layer,) = network.layers
    assert format_at(path).name == "an ONNX file"
    assert (network.name, network.written_by) == ("graph", "tests 1")
    assert isinstance(layer, Recurrent)
    arrays = {name: array[0].astype(np.float32) for name, array in lstm_tensors().items()}
    np.testing.assert_array_equal(layer.weights.kernel, reorder_gates(arrays["W"].T, "iofc"))
    half = arrays["B"][: 4 * UNITS] + arrays["B"][4 * UNITS :]
    np.testing.assert_array_equal(layer.weights.bias, reorder_gates(half, "iofc"))


BOTH = lstm_tensors(2)
HALVES = [
    node("Slice", ["Y", "zero", "one", "one"], ["f"]),
    node("Slice", ["Y", "one", "two", "one"], ["b"]),
]
TWO = {"two": np.array([2])}

CHAINS: dict[str, tuple[list[bytes], dict[str, Any], list[Any]]] = {
    "last step by Gather": (
        [lstm(), node("Gather", ["Y", "last"], ["y"], axis=0)],
        {"last": np.array(-1)},
        [(Recurrent, False)],
    ),
    "last state": (
        [lstm(["", "h"]), node("Squeeze", ["h", "zero"], ["y"])],
        {},
        [(Recurrent, False)],
    ),
    "bidirectional by Reshape": (
        [
            lstm(direction="bidirectional"),
            node("Transpose", ["Y"], ["t"], perm=[0, 2, 1, 3]),
            node("Reshape", ["t", "shape"], ["y"]),
        ],
        BOTH | {"shape": np.array([0, 0, -1])},
        [(Bidirectional, True)],
    ),
    "bidirectional by Concat": (
        [lstm(direction="bidirectional"), *HALVES, node("Concat", ["f", "b"], ["y"], axis=3)],
        BOTH | TWO,
        [(Bidirectional, True)],
    ),
    "bidirectional by Add": (
        [lstm(direction="bidirectional"), *HALVES, node("Add", ["f", "b"], ["y"])],
        BOTH | TWO,
        [(Bidirectional, True)],
    ),
    "states of two layers": (
        [
            lstm(["Y", "h1"]),
            node("Squeeze", ["Y", "one"], ["s"]),
            lstm(["", "h2"], ("s", "V", "R", "B")),
            node("Concat", ["h1", "h2"], ["hn"], axis=0),
            node("Gather", ["hn", "last"], ["y"], axis=0),
        ],
        {"last": np.array(-1), "V": lstm_tensors()["R"]},
        [(Recurrent, True), (Recurrent, False)],
    ),
    "states of both directions": (
        [
            lstm(["", "h1"], direction="bidirectional"),
            node("Concat", ["h1", "h1"], ["hn"], axis=0),
            node("Gather", ["hn", "two"], ["f"], axis=0),
            node("Slice", ["hn", "three", "four", "zero"], ["b"]),
            node("Squeeze", ["b", "zero"], ["c"]),
            node("Squeeze", ["f", "zero"], ["g"]),
            node("Concat", ["g", "c"], ["y"], axis=1),
        ],
        BOTH | TWO | {"three": np.array([3]), "four": np.array([4])},
        [(Bidirectional, False)],
    ),
    "gated by itself": (
        [
            lstm(),
            node("Squeeze", ["Y", "one"], ["s"]),
            node("Sigmoid", ["s"], ["g"]),
            node("Mul", ["s", "g"], ["y"]),
        ],
        {},
        [(Recurrent, True), (Activation, None)],
    ),
    "product and sum": (
        [
            node("MatMul", ["x", "K"], ["k"]),
            node("Add", ["k", "b"], ["l"]),
            lstm(inputs=("l", "W", "R", "B")),
            node("Squeeze", ["Y", "one"], ["s"]),
            node("Mul", ["two", "s"], ["m"]),
            node("Sub", ["m", "two"], ["d"]),
            node("Div", ["d", "two"], ["y"]),
        ],
        {"K": np.eye(3), "b": np.ones(3), "two": np.array([2.0, 3.0])},
        [(Dense, None), (Recurrent, True), (Affine, None), (Affine, None), (Affine, None)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CHAINS)
def test_chains(case, tmp_path):
    """The ways in which exporters wire the same layers."""
    nodes, tensors, expected = CHAINS[case]
    network = read_network(save(tmp_path / "model.onnx", nodes, tensors))
    found = [(type(x), getattr(x, "return_sequences", None)) for x in network.layers]
    assert expected == found


def test_states_as_inputs_and_outputs(tmp_path):
    """States that the caller of the graph carries are the session's here."""
    states = [value(name, [1, "b", UNITS]) for name in ("h", "c")]
    inputs = [value("x", ["t", "b", FEATURES]), *states]
    path = save(
        tmp_path / "model.onnx",
        [lstm(["Y", "hn", "cn"], ("x", "W", "R", "B", "", "h", "c")), SQUEEZE],
        inputs=inputs,
        outputs=["y", "hn", "cn"],
    )
    assert read_network(path).state_size == 2 * UNITS


def test_opset_before_13(tmp_path):
    """Axes are attributes there, and Softmax works along the last axis only where it says so."""
    nodes = [lstm(), node("Squeeze", ["Y"], ["s"], axes=[1])]
    path = tmp_path / "model.onnx"
    assert "another axis" in problem(save(path, [*nodes, node("Softmax", ["s"], ["y"])], opset=11))
    last = node("Softmax", ["s"], ["y"], axis=2)
    assert len(read_network(save(path, [*nodes, last], opset=11)).layers) == 2


def sized(axis: str) -> list[bytes]:
    """Return nodes that give one of the sizes as a real number."""
    gather = node("Gather", ["shape", axis], ["whole"], axis=0)
    return [node("Shape", ["s"], ["shape"]), gather, node("Cast", ["whole"], ["size"], to=1)]


BRANCH = [lstm(), node("Squeeze", ["Y", "one"], ["s"]), node("Identity", ["s"], ["t"])]
LENGTHS = ("x", "W", "R", "B", "lengths")
STATES = ("x", "W", "R", "B", "", "ones", "ones")

REFUSALS: dict[str, tuple[list[bytes], dict[str, Any], str]] = {
    "operator": ([lstm(), node("Einsum", ["Y"], ["y"])], {}, "einsum: is a Einsum; served are"),
    "domain": ([lstm(), node("Relu", ["Y"], ["y"], "acme")], {}, "relu: is a acme.Relu"),
    "turned": ([*BRANCH, node("Transpose", ["t"], ["u"], perm=[1, 0, 2]),
                node("Add", ["s", "u"], ["y"])], {}, "whose axes are not in the same order"),
    "beside in time": ([*BRANCH, node("Concat", ["s", "t"], ["y"], axis=0)], {},
                       "joins values along another axis than the features"),
    "turned round": ([*BRANCH, node("Slice", ["s", "minus", "low", "minus", "minus"], ["y"])],
                     {"low": np.array([-9]), "minus": np.array([-1])},
                     "that are not one next to the other"),
    "quotient": ([*BRANCH, node("Div", ["s", "x"], ["y"])], {}, "div: cannot divide values of 2"),
    "product": ([*BRANCH, node("MatMul", ["s", "t"], ["y"])], {}, "matmul: is a MatMul of two"),
    "constant first": ([*BRANCH, node("MatMul", ["M", "s"], ["y"])], {"M": np.ones((2, 2))},
                       "elsewhere than first"),
    "time softmax": ([*BRANCH, node("Softmax", ["s"], ["y"], axis=0)], {}, "another axis than"),
    "batch step": ([*BRANCH, node("Gather", ["s", "zero"], ["y"], axis=1)], {}, "the axis batch"),
    "first step": ([*BRANCH, node("Gather", ["s", "zero"], ["y"], axis=0)], {}, "is not the last"),
    "some steps": ([*BRANCH, node("Slice", ["s", "one", "three", "zero"], ["y"])],
                   {"three": np.array([3])}, "takes a part of the axis time"),
    "last thousands": ([*BRANCH, node("Slice", ["s", "far", "end", "zero"], ["y"])],
                       {"far": np.array([-3000]), "end": np.array([1 << 60])}, "the axis time"),
    "first thousands": ([*BRANCH, node("Slice", ["s", "zero", "far", "zero"], ["y"])],
                        {"far": np.array([3000])}, "takes a part of the axis time"),
    "mean of steps": ([*BRANCH, *sized("zero"), node("Div", ["s", "size"], ["y"])], {},
                      "div: computes with the number of time steps or of sequences"),
    "half of steps": ([*BRANCH, *sized("zero"), node("Mul", ["size", "half"], ["part"]),
                       node("Mul", ["s", "part"], ["y"])], {"half": np.array(0.5)},
                      "mul: computes with the number of time steps or of sequences"),
    "cut features": ([*BRANCH, node("Reshape", ["s", "shape"], ["y"])],
                     {"shape": np.array([-1, 4])}, "cannot become (-1, 4)"),
    "wide vector": ([*BRANCH, node("Add", ["s", "v"], ["y"])], {"v": np.ones((1, 3))},
                    "add: has numbers of the shape (1, 3) for 2 features"),
    "divide by zero": ([*BRANCH, node("Div", ["s", "v"], ["y"])], {"v": np.zeros(2)}, "by zero"),
    "overflow": ([*BRANCH, node("Gemm", ["s", "v"], ["y"], alpha=1e38)],
                 {"v": np.full((2, 1), 9.9)}, "not finite in float32"),
    "first layer": ([lstm(["Y", "h1"]), node("Squeeze", ["Y", "one"], ["s"]),
                     lstm(["", "h2"], ("s", "V", "R", "B")),
                     node("Concat", ["h1", "h2"], ["hn"], axis=0),
                     node("Tanh", ["hn"], ["y"])], {"V": lstm_tensors()["R"]}, "Tanh of a state"),
    "infinite": ([*BRANCH, node("Mul", ["s", "v"], ["y"])], {"v": np.full(2, np.inf)}, "finite"),
    "lengths": ([lstm(inputs=LENGTHS), SQUEEZE], {"lengths": np.array([3])}, "has sequence_lens"),
    "states": ([lstm(inputs=STATES), SQUEEZE], {"ones": np.ones((1, 1, 2))}, "neither zeros nor"),
    "c of another": ([lstm(["Y", "h1", "c1"]), node("Squeeze", ["Y", "one"], ["s"]),
                      lstm(["Z"], ("s", "V", "R", "B", "", "zeros", "c1")),
                      node("Squeeze", ["Z", "one"], ["y"])],
                     {"V": lstm_tensors()["R"], "zeros": np.zeros((1, 1, 2))},
                     "its initial_c is neither zeros nor an input of the graph"),
    "c of another, turned": ([lstm(["Y", "h1", "c1"]), node("Squeeze", ["Y", "one"], ["s"]),
                              node("Transpose", ["c1"], ["t"], perm=[0, 1, 2]),
                              lstm(["Z"], ("s", "V", "R", "B", "", "zeros", "t")),
                              node("Squeeze", ["Z", "one"], ["y"])],
                             {"V": lstm_tensors()["R"], "zeros": np.zeros((1, 1, 2))},
                             "its initial_c is neither zeros nor an input of the graph"),
    "coupled": ([lstm(input_forget=1), SQUEEZE], {}, "couples the input and forget gates"),
    "direction": ([lstm(direction="both"), SQUEEZE], {}, "its direction is 'both'"),
    "reverse": ([lstm(direction="reverse"), SQUEEZE], {}, "an LSTM that runs backwards only"),
    "not joined": ([lstm(direction="bidirectional"), node("Relu", ["Y"], ["y"])], BOTH,
                   "the directions of an LSTM are not joined"),
    "one half": ([lstm(direction="bidirectional"), HALVES[0], node("Relu", ["f"], ["y"])],
                 BOTH | TWO, "one direction of an LSTM goes its own way"),
    "both last": ([lstm(direction="bidirectional"), node("Gather", ["Y", "last"], ["y"])],
                  BOTH | {"last": np.array(-1)}, "of which the backward one has taken only one"),
    "both last, behind a layer": ([lstm(direction="bidirectional"), *HALVES,
                                   node("Concat", ["f", "b"], ["j"], axis=3),
                                   node("Tanh", ["j"], ["t"]),
                                   node("Gather", ["t", "last"], ["y"])],
                                  BOTH | TWO | {"last": np.array(-1)}, "of which the backward one"),
    "other order": ([lstm(direction="bidirectional"), *HALVES,
                     node("Transpose", ["b"], ["t"], perm=[2, 1, 0, 3]),
                     node("Concat", ["f", "t"], ["y"], axis=3)], BOTH | TWO, "not in the same"),
    "activations": ([lstm(activations=["Sigmoid", "Tanh"]), SQUEEZE], {}, "has 2 activations"),
    "function": ([lstm(activations=["Sigmoid", "Tanh", "Relu"]), SQUEEZE], {}, "two activations"),
    "slope": ([lstm(activations=["HardSigmoid", "Tanh", "Tanh"], activation_alpha=[0.3]), SQUEEZE],
              {}, "HardSigmoid with [0.3"),
    "selu": ([lstm(), node("Selu", ["Y"], ["y"], alpha=2.0)], {}, "is a Selu of 2.0, 1.05"),
    "clip": ([lstm(clip=-1.0), SQUEEZE], {}, "gate_clip: must be positive"),
    "units": ([lstm(hidden_size=5), SQUEEZE], {}, "hidden_size tells another number"),
    "kernel": ([lstm(), SQUEEZE], {"W": np.ones((1, 8, 4))}, "its W has the shape (1, 8, 4)"),
    "no LSTM": ([node("Relu", ["x"], ["y"])], {}, "there is no recurrent layer"),
    "nowhere": ([lstm(inputs=("x", "W", "R", "nowhere")), SQUEEZE], {}, "takes nowhere, which is"),
    "attribute": ([lstm(direction=1), SQUEEZE], {}, "its attribute direction is not what it"),
    "axis": ([lstm(), node("Squeeze", ["Y", "nine"], ["y"])], {"nine": np.array([9])}, "no axis 9"),
}  # fmt: skip


def test_the_number_of_features_is_no_open_size(tmp_path):
    """It is the same for each session, so that a graph may compute with it."""
    nodes = [*BRANCH, *sized("two"), node("Div", ["s", "size"], ["y"])]
    *_, layer = read_network(save(tmp_path / "model.onnx", nodes, {"two": np.array([2])})).layers
    assert isinstance(layer, Affine)
    assert layer.scale == 1 / UNITS


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_served(case, tmp_path):
    """Each node that stands in the way is named, with the reason."""
    nodes, tensors, expected = REFUSALS[case]
    assert expected in problem(save(tmp_path / "model.onnx", nodes, tensors))


def test_values_that_meet_and_several_outputs(tmp_path):
    """Each layer is there once, however many ways lead on from it, and each output has its name."""
    nodes = [
        *BRANCH,
        node("Sub", ["s", "t"], ["zeros"]),
        node("Concat", ["s", "x"], ["both"], axis=-1),
        node("Split", ["both"], ["a", "b", "y"], axis=-1, split=[1, 1, UNITS + FEATURES - 2]),
        node("Max", ["s", "t"], ["most"]),
    ]
    network = read_network(save(tmp_path / "model.onnx", nodes, outputs=["y", "most", "a"]))
    assert [(part.name, part.size) for part in network.outputs] == [
        ("y", UNITS + FEATURES - 2), ("most", UNITS), ("a", 1)
    ]  # fmt: skip
    assert network.num_recurrent == 1
    inputs = np.random.default_rng(0).normal(size=(2, 3, FEATURES)).astype(np.float32)
    told = CpuRuntime(network, 1).predict(inputs)
    h = told[..., UNITS + FEATURES - 2 : -1]
    np.testing.assert_array_equal(told[..., : UNITS + FEATURES - 2], np.concatenate(
        [h, inputs], axis=-1)[..., 2:])  # fmt: skip
    np.testing.assert_array_equal(told[..., -1], h[..., 0])


def test_an_lstm_whose_last_step_is_taken_too(tmp_path):
    """It is there once, with one state, whether all its steps come first or the last one does."""
    squeezed = node("Squeeze", ["h", "zero"], ["s"])
    last = node("Tanh", ["s"], ["last"])
    for outputs in (["y", "last"], ["last", "y"]):
        nodes = [lstm(["Y", "h"]), SQUEEZE, squeezed, last]
        network = read_network(save(tmp_path / "model.onnx", nodes, outputs=outputs))
        assert network.state_size == 2 * UNITS
        assert [(part.name, part.size) for part in network.outputs] == [(x, UNITS) for x in outputs]
        assert [network.has_time[v] for _, v in network.wiring.outputs] == [
            name == "y" for name in outputs
        ]
    chosen = node("Gather", ["y", "end"], ["chosen"], axis=0)
    difference = node("Sub", ["s", "chosen"], ["d"])
    nodes = [lstm(["Y", "h"]), SQUEEZE, squeezed, last, chosen, difference]
    path = save(tmp_path / "model.onnx", nodes, {"end": np.array(-1)}, outputs=["d", "last"])
    network = read_network(path)
    inputs = np.random.default_rng(0).normal(size=(2, 3, FEATURES)).astype(np.float32)
    told = CpuRuntime(network, 1).predict(inputs)
    assert network.state_size == 2 * UNITS
    assert told.shape == (2, 2 * UNITS)
    assert not told[:, :UNITS].any()
    assert told[:, UNITS:].all()


def test_several_inputs(tmp_path):
    """What LSTMs begin with are states; all else that outputs depend on lies side by side."""
    states = [value(name, [1, "b", UNITS]) for name in ("h", "c")]
    reals = [value(name, ["t", "b", FEATURES]) for name in ("z", "x", "unused")]
    inputs = [states[0], reals[0], value("words", ["t", "b"], 7), *reals[1:], states[1]]
    nodes = [
        node("Gather", ["table", "words"], ["e"]),
        node("Sigmoid", ["z"], ["gate"]),
        node("Mul", ["x", "gate"], ["gated"]),
        node("Add", ["gated", "e"], ["sum"]),
        node("Div", ["sum", "z"], ["quotient"]),
        node("Identity", ["h"], ["h0"]),
        lstm(["Y", "hn"], ("sum", "W", "R", "B", "", "h0", "c")),
        SQUEEZE,
    ]
    table = np.random.default_rng(1).normal(size=(5, FEATURES))
    path = save(
        tmp_path / "model.onnx",
        nodes,
        {"table": table},
        inputs=inputs,
        outputs=["y", "sum", "hn", "quotient"],
    )
    network = read_network(path)
    assert [(part.name, part.size, part.vocabulary) for part in network.inputs] == [
        ("z", FEATURES, None), ("words", 1, 5), ("x", FEATURES, None)
    ]  # fmt: skip
    z, x = np.random.default_rng(0).normal(size=(2, 2, 3, FEATURES)).astype(np.float32)
    words = np.array([[0, 4, 2], [3, 1, 0]])
    told = CpuRuntime(network, 1).predict(
        np.concatenate([z, words[..., None], x], axis=-1).astype(np.float32)
    )
    expected = x / (1 + np.exp(-z)) + table[words]
    ends = UNITS + FEATURES
    np.testing.assert_allclose(told[..., UNITS:ends], expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(told[..., ends:], expected / z, rtol=2e-6, atol=1e-6)
    assert network.state_size == 2 * UNITS


def test_any_number_of_ways_is_followed_once(tmp_path):
    """Thousands of sums of a value with itself are as many layers; more merges are refused."""
    nodes = [*BRANCH, node("Max", ["s", "t"], ["m0"])]
    nodes += [node("Max", [f"m{n}", f"m{n}"], [f"m{n + 1}"]) for n in range(1000)]
    path = save(tmp_path / "model.onnx", nodes, outputs=["m1000"])
    assert len(read_network(path).layers) == 1002
    nodes += [node("Concat", ["m1000", "m1000"], ["c0"], axis=-1)]
    nodes += [node("Concat", [f"c{n}", f"c{n}"], [f"c{n + 1}"], axis=-1) for n in range(64)]
    found = problem(save(tmp_path / "model.onnx", nodes, outputs=["c64"]))
    assert "gives more than 4194304 values a time step" in found


INPUTS = {
    "text": (value("x", ["t", "b", FEATURES], 8), "is of no type that is served"),
    "rank": (value("x", ["t", "b", 2, 3]), "has 4 axes"),
    "open": (value("x", ["t", "b", "f"]), "does not tell the number of its features"),
    "narrow": (value("x", ["t", "b", 5]), "its W has the shape"),
}


@pytest.mark.parametrize("case", INPUTS)
def test_inputs_that_cannot_be_served(case, tmp_path):
    """A graph takes `(…, features)` of a known number."""
    given, expected = INPUTS[case]
    path = save(tmp_path / "model.onnx", [lstm(), SQUEEZE], inputs=[given])
    assert expected in problem(path)


def test_a_maker_without_a_name(tmp_path):
    """A model is known whichever of its fields stands second."""
    path = tmp_path / "model.onnx"
    for start in (b"\x12", b"\x1a", b"\x22", b"\x32"):
        path.write_bytes(b"\x08\x08" + start + b"\x01x")
        assert format_at(path).name == "an ONNX file"
