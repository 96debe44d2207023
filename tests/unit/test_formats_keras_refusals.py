"""`read_keras` on models that cannot be served: which part is named, and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lstm_core.errors import FormatError
from lstm_core.formats.keras import read_keras
from tests.unit.keras_files import (
    FEATURES,
    LSTM_ARRAYS,
    entry,
    functional,
    layer,
    lstm,
    lstm_arrays,
    problems,
    read,
    sequential,
    tensor,
    write,
)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"0": np.zeros((3, 9), "f4")}, "lstm: kernel has shape (3, 9), expected (3, 8)"),
        ({"0": np.zeros((4, 8), "f4")}, "lstm: kernel has shape (4, 8), expected (3, 8)"),
        ({"1": np.zeros((2, 8, 1), "f4")}, "lstm: recurrent_kernel has shape (2, 8, 1)"),
        ({"2": np.zeros((), "f4")}, "lstm: bias has shape (), expected (8,)"),
        ({"2": None}, "lstm: its bias is missing: no layers/lstm/cell/vars/2"),
        ({"2": np.full(8, np.nan, "f4")}, "lstm: its bias has values that are not finite"),
        ({"2": np.full(8, 1e39)}, "lstm: its bias has values that are not finite in float32"),
        ({"2": np.zeros(8, "i4")}, "holds int32, not real numbers"),
        ({"2": np.zeros(8, "c8")}, "holds complex64, not real numbers"),
        ({"2": np.array([b"x"] * 8)}, "not real numbers"),
    ],
)
def test_wrong_weights_name_the_layer(changes, problem, tmp_path):
    """A variable that does not fit its config is named with its layer and both shapes."""
    arrays = LSTM_ARRAYS | {f"layers/lstm/cell/vars/{key}": v for key, v in changes.items()}
    arrays = {path: array for path, array in arrays.items() if array is not None}
    (found,) = problems(tmp_path, arrays=arrays)
    assert problem in found


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ((FEATURES,), "served is (batch, time, features)"),
        ((None, 4, FEATURES), "served is (batch, time, features)"),
        ((None, None), "features is None, not a positive integer"),
        ((None, 0), "features is 0, not a positive integer"),
    ],
)
def test_inputs_that_are_no_sequences_of_features(shape, problem, tmp_path):
    """The input's rank and size decide what a step is, so they must be known."""
    (found,) = problems(tmp_path, sequential(entry(*shape), lstm()))
    assert found.startswith("input: ")
    assert problem in found


def test_inputs_of_other_types(tmp_path):
    """Integers need an embedding, and an embedding one integer a step."""
    integers = entry(None, FEATURES)
    integers["config"]["dtype"] = "int32"
    assert "'int32', not real numbers" in problems(tmp_path, sequential(integers, lstm()))[0]
    ragged = entry(None, FEATURES, ragged=True)
    assert "sparse or ragged" in problems(tmp_path, sequential(ragged, lstm()))[0]
    embedding = layer("Embedding", input_dim=4, output_dim=FEATURES, mask_zero=True)
    arrays = LSTM_ARRAYS | {"layers/embedding/vars/0": np.ones((4, FEATURES), "f4")}
    network = read(tmp_path, sequential(entry(None), embedding, lstm()), arrays)
    assert (network.input_size, network.vocabulary) == (1, 4)
    wide = sequential(entry(None, FEATURES), embedding, lstm())
    assert "before an Embedding" in problems(tmp_path, wide, arrays)[0]
    assert "has 0 input layers" in problems(tmp_path, sequential(lstm()))[0]


def test_every_layer_at_fault_is_named_once(tmp_path):
    """One error lists each layer that cannot be read, in order, and nothing that only follows."""
    model = sequential(
        entry(None, FEATURES),
        layer("GRU"),
        lstm(),
        layer("Lambda", function={"class_name": "__lambda__", "config": {"code": "!"}}),
        layer("Dense", units=4, activation={"class_name": "function", "config": "My>act"}),
        lstm(name="shaped", units=5),
        layer("Dense", name="int8", units=1, dtype={"class_name": "QuantizedDTypePolicy"}),
        layer("Dense", name="lora", units=1, lora_rank=2),
        layer("Dense", name="custom") | {"registered_name": "My>Dense", "module": "my"},
        layer("Foo") | {"registered_name": "Foo", "module": "my.code"},
    )
    found = problems(tmp_path, model, LSTM_ARRAYS | lstm_arrays("layers/lstm_1/cell"))
    assert [each.split(":")[0] for each in found] == [
        "gru", "lambda", "dense", "shaped", "int8", "lora", "custom", "foo",
    ]  # fmt: skip
    for each, reason in zip(
        found,
        [
            "is a GRU",
            "Python code, which is never run",
            "its activation My>act is code",
            "kernel has shape (3, 8), expected (3, 20)",
            "QuantizedDTypePolicy",
            "low-rank adapter",
            "My>Dense, a custom layer",
            "my.code.Foo, a custom layer",
        ],
        strict=True,
    ):
        assert reason in each
    # The second kernel may have any number of rows: what comes before it could not be read.
    assert "expected (3, 20)" in found[3]


def test_an_unknown_activation_names_its_layer_once(tmp_path):
    """A recurrent layer's problem stands behind one name, as any other's."""
    (found,) = problems(tmp_path, sequential(entry(None, FEATURES), lstm(activation="cube")))
    assert found.startswith("lstm: unknown activation 'cube'; known: ")


def test_error_tells_the_writer(tmp_path):
    """The message tells which Keras wrote the file, and lists one problem a line."""
    path = write(tmp_path, sequential(entry(None, FEATURES), layer("GRU"), layer("Conv1D")))
    with pytest.raises(FormatError) as caught:
        read_keras(path)
    first, *rest = str(caught.value).splitlines()
    assert first == f"{path} (written by Keras 3.15.1): "
    assert [line[:5] for line in rest] == ["  - g", "  - c"]
    assert caught.value.written_by == "Keras 3.15.1"


@pytest.mark.parametrize(
    ("node", "problem"),
    [
        ({"kwargs": {"initial_state": [1]}}, "lstm: is called with initial_state"),
        ({"kwargs": {"training": True}}, "lstm: is called with training=True"),
        (
            {"kwargs": {"mask": [[True]]}},
            "lstm: is called with a mask that is not that of the layers",
        ),
        ({"args": []}, "lstm: is called with 0 tensors, not with one"),
        ({"args": [tensor(entry(None, 3)), 2]}, "lstm: is called with 2 arguments"),
        ({"args": [tensor(entry(None, 3), 1)]}, "input: gives its output number 1 on, a state"),
        ({"args": [tensor(layer("Gone"))]}, "model: its layer 'gone' is missing"),
        ({"args": [tensor(lstm())]}, "lstm: takes what is made of its own output"),
    ],
)
def test_functional_calls_that_are_refused(node, problem, tmp_path):
    """A call with anything but tensors of layers before it is refused with its reason."""
    source = entry(None, FEATURES)
    call = {"args": [tensor(source)], "kwargs": {"training": False, "mask": None}} | node
    model = functional(source, lstm() | {"inbound_nodes": [call]})
    assert any(found.startswith(problem) for found in problems(tmp_path, model))


def test_strays_are_named(tmp_path):
    """A layer that no output needs is named, not left out in silence."""
    chain = [entry(None, FEATURES), lstm(), layer("Dropout")]
    model = functional(*chain, outputs=["lstm", 0, 0])
    assert problems(tmp_path, model) == ["dropout: leads to no output"]


def test_refused_combinations(tmp_path):
    """What Keras may express and a network may not has its reason."""
    backward = lstm(go_backwards=True)
    cases = [
        (layer("Bidirectional", layer=lstm(), backward_layer=backward), "merge_mode is None"),
        (
            layer("Bidirectional", layer=lstm(), backward_layer=lstm(), merge_mode="sum"),
            "its kernel is missing: no layers/bidirectional/forward_layer/cell/vars/0",
        ),
        (layer("RNN", cell=layer("GRUCell")), "its cell is a GRUCell"),
        (layer("TimeDistributed", layer=lstm()), "cannot serve a LSTM for each time step"),
        (layer("Normalization", axis=[1], mean=None), "works along axis [1]"),
        (layer("Rescaling", scale="1", offset=0), "scale is '1', not a number"),
        (layer("Rescaling", scale=[[1, 2], [3, 4]], offset=0), "scale is not a finite number"),
        (layer("Masking", mask_value=[1, 2]), "mask_value is not one number"),
        (layer("LeakyReLU", negative_slope=True), "negative_slope is True, not a finite number"),
        (layer("LeakyReLU", negative_slope=10**400), "negative_slope is 1000"),
        (layer("Activation", activation="sparsemax"), "unknown activation 'sparsemax'"),
        (lstm(units="4"), "units is '4', not a positive integer"),
        (lstm(go_backwards="no"), "go_backwards is 'no', not true or false"),
        (lstm(return_state=True), "gives its states on"),
    ]
    for case, problem in cases:
        found = problems(tmp_path, sequential(entry(None, FEATURES), case), {})
        assert problem in found[0]


def test_two_layers_of_one_name_are_refused(tmp_path):
    """Names must tell layers apart, as Keras asks for too."""
    found = problems(tmp_path, sequential(entry(None, FEATURES), lstm(name="a"), lstm(name="a")))
    assert found == ["a: is the name of 2 layers"] * 2


def test_sizes_that_do_not_fit_name_the_layer(tmp_path):
    """A vector of another length than the features before it is refused."""
    rescaling = layer("Rescaling", scale=[1, 2, 3, 4], offset=0)
    found = problems(tmp_path, sequential(entry(None, FEATURES), rescaling, lstm()))
    assert found == ["rescaling: takes 4 features, but the layer before it gives 3"]


def test_a_masked_softmax_is_refused(tmp_path):
    """Keras applies the mask to the features there, which is never what was meant."""
    softmax = layer("Softmax", axis=-1)
    masking = layer("Masking", mask_value=0)
    found = problems(tmp_path, sequential(entry(None, FEATURES), masking, softmax, lstm()))
    assert "softmax: Keras applies the time steps' mask" in found[0]
    last = lstm(return_sequences=False)
    assert read(tmp_path, sequential(entry(None, FEATURES), masking, last, softmax)).layers


def called(each: dict[str, Any], *sources: Any) -> dict[str, Any]:
    """Return a serialised layer that is called once on each of some tensors."""
    return each | {"inbound_nodes": [{"args": [source], "kwargs": {}} for source in sources]}


def test_circles_are_named(tmp_path):
    """Two layers that take each other's output are no graph that can run."""
    one, two = lstm(name="one"), lstm(name="two")
    model = functional(entry(None, FEATURES), called(one, tensor(two)), called(two, tensor(one)))
    assert "two: takes what is made of its own output" in problems(tmp_path, model)


def test_models_that_call_each_other_twice_are_bounded(tmp_path):
    """A small file may ask for any number of layers: each model calls the one inside it twice."""
    model = functional(entry(None, FEATURES), layer("Dropout"))
    for depth in range(40):
        inner = {**model, "config": {**model["config"], "name": f"m{depth}"}}
        first = entry(None, FEATURES)
        twice = called(inner, tensor(first), tensor(inner))
        # Among the outputs Keras counts a model's calls from 1.
        model = functional(first, twice, outputs=[f"m{depth}", 2, 0])
    assert "is made of more than 10000 layers" in problems(tmp_path, model)[0]


def test_long_chains_and_wide_ways_end_soon(tmp_path):
    """Thousands of merges, each of which takes the one before it twice: any number of ways."""
    first, last = entry(None, FEATURES), lstm(name="last")
    layers, before = [first, called(last, tensor(first))], last
    for number in range(1500):
        merge = layer("Add", name=f"add{number}")
        pair = [tensor(before), tensor(before)]
        layers.append(merge | {"inbound_nodes": [{"args": [pair], "kwargs": {}}]})
        before = merge
    assert len(read(tmp_path, functional(*layers)).layers) == 1501
