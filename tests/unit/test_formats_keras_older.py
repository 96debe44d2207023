"""Models of Keras before 3: structure, and every refusal.

That good ones give their framework's numbers is shown in `tests/parity/test_formats_files.py`.
"""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lstm_core.errors import FormatError
from lstm_core.network import Bidirectional, Recurrent
from lstm_core.pointwise import Activation, Dense
from tests.unit.keras_files import JUNK, paths_of
from tests.unit.keras_h5_files import (
    ENTRY,
    FEATURES,
    UNITS,
    WEIGHTS,
    called,
    layer,
    lstm,
    lstm_arrays,
    problems,
    read,
    sequential,
    write_h5,
)


def test_hard_sigmoid_is_that_of_its_day(tmp_path):
    """In a layer, a cell and a Dense, before Keras 3; Keras 3's own is another function."""
    chain = [ENTRY, lstm(recurrent_activation="hard_sigmoid")]
    chain.append(layer("Dense", units=1, activation="hard_sigmoid"))
    dense = {"dense/kernel:0": np.ones((UNITS, 1), "f4"), "dense/bias:0": np.ones(1, "f4")}
    weights = {**WEIGHTS, "dense": dense}
    for version, name in (("2.4.0", "hard_sigmoid_v1"), ("3.1.0", "hard_sigmoid")):
        shape = "batch_shape" if version.startswith("3") else "batch_input_shape"
        chain[0] = layer("InputLayer", dtype="float32", **{shape: [None, None, FEATURES]})
        first, last = read(tmp_path, sequential(*chain), weights, version).layers
        assert isinstance(first, Recurrent)
        assert isinstance(last, Dense)
        assert (first.spec.recurrent_activation, last.activation) == (name, name)


@pytest.mark.parametrize(
    "model",
    [
        sequential(lstm(batch_input_shape=[None, None, FEATURES])),
        {"class_name": "Sequential", "config": [lstm(batch_input_shape=[None, 5, FEATURES])]},
        {
            "class_name": "Model",
            "config": {
                "name": "model",
                "layers": [
                    called("input", ENTRY),
                    called("lstm", lstm(), "input"),
                ],
                "input_layers": [["input", 0, 0]],
                "output_layers": [["lstm", 0, 0]],
            },
        },
        {
            "class_name": "Sequential",
            "config": {
                "name": "model",
                "layers": [lstm()],
                "build_input_shape": [None, None, FEATURES],
            },
        },
    ],
    ids=["first layer's shape", "list of layers", "functional", "built shape"],
)
def test_ways_of_saying_what_comes_in(model, tmp_path):
    """Every form that Keras 1 and 2 had makes the same network."""
    same = read(tmp_path, sequential(ENTRY, lstm()))
    assert read(tmp_path, model).fingerprint == same.fingerprint


def test_layers_of_one_name_in_two_models(tmp_path):
    """The names of the variables of a nested model tell its layers apart."""
    inner = sequential(lstm(name="a"), lstm(name="lstm", units=3), name="inner")
    arrays = lstm_arrays("a/lstm_cell", UNITS) | lstm_arrays("lstm/lstm_cell_1", UNITS, 3)
    network = read(tmp_path, sequential(ENTRY, lstm(), inner), {**WEIGHTS, "inner": arrays})
    assert [each.name for each in network.layers] == ["lstm", "inner/a", "inner/lstm"]
    last = network.recurrent[-1]
    np.testing.assert_array_equal(last.weights.kernel, arrays["lstm/lstm_cell_1/kernel:0"])
    found = problems(write_h5(tmp_path, sequential(ENTRY, lstm(), inner), {**WEIGHTS, "inner": {}}))
    assert found[0] == "inner/a: its kernel is missing: no variable number 1 of this layer"


def test_a_direction_without_a_config_is_the_other_reversed(tmp_path):
    """`Bidirectional` of Keras 2 names one layer, and its arrays come forward, then backward."""
    arrays = lstm_arrays("both/forward_lstm/c") | lstm_arrays("both/backward_lstm/c")
    unnamed = {f"{i}": array for i, array in enumerate(arrays.values())}
    model = sequential(ENTRY, layer("Bidirectional", name="both", layer=lstm(), merge_mode="sum"))
    networks = [read(tmp_path, model, {"both": each}) for each in (arrays, unnamed)]
    assert len({network.fingerprint for network in networks}) == 1
    (both,) = networks[0].layers
    assert isinstance(both, Bidirectional)
    assert (both.forward.go_backwards, both.backward.go_backwards) == (False, True)


def test_keras_1_names_and_gates(tmp_path):
    """Twelve arrays an LSTM, i, c, f, o, become three; a file without a version is of that time."""
    random = np.random.default_rng(0)
    arrays = {
        f"lstm_{what}_{gate}": random.normal(size=shape).astype(np.float32)
        for gate in "icfo"
        for what, shape in (("W", (FEATURES, UNITS)), ("U", (UNITS, UNITS)), ("b", (UNITS,)))
    }
    old = {"name": "lstm", "output_dim": UNITS, "inner_activation": "linear", "activation": "relu"}
    model = sequential(ENTRY, {"class_name": "LSTM", "config": old})
    (only,) = read(tmp_path, model, {"lstm": arrays}, version=None).recurrent
    assert (only.spec.activation, only.spec.recurrent_activation) == ("relu", "linear")
    forget = only.weights.kernel[:, UNITS : 2 * UNITS]
    np.testing.assert_array_equal(forget, arrays["lstm_W_f"])
    batch = layer("BatchNormalization", mode=0, epsilon=1e-3)
    both = write_h5(tmp_path, sequential(ENTRY, model["config"]["layers"][1], batch),
                    {"lstm": arrays}, "1.2.2")  # fmt: skip
    assert "is a BatchNormalization of Keras 1" in problems(both)[0]
    arrays["lstm_W_f"] = arrays["lstm_W_f"][:1]
    (found,) = problems(write_h5(tmp_path, model, {"lstm": arrays}, version="1.2.2"))
    assert found.startswith("lstm: kernel has shape ()")


def test_parameters_under_their_old_names(tmp_path):
    """LeakyReLU's slope and the threshold of a layer that Keras 3 no longer has."""
    tail = [layer("LeakyReLU", alpha=0.25), layer("ThresholdedReLU", theta=0.5)]
    network = read(tmp_path, sequential(ENTRY, lstm(), *tail))
    leaky, thresholded = network.layers[1:]
    assert isinstance(leaky, Activation)
    assert isinstance(thresholded, Activation)
    assert leaky.parameters == {"negative_slope": 0.25}
    assert (thresholded.function, thresholded.parameters) == ("relu", {"threshold": 0.5})


@pytest.mark.parametrize(
    ("chain", "problem"),
    [
        ([layer("GRU")], "gru: is a GRU"),
        ([layer("Mine>Layer")], "is a Mine>Layer, a custom layer"),
        ([layer("Lambda")], "Python code, which is never run"),
        ([layer("LSTM", units=UNITS, name="gone")], "gone: its kernel is missing"),
        ([layer("Masking", mask_value=0.0), layer("Rescaling", scale=2.0, offset=0.0)],
         "drops the mask"),
        ([layer("CuDNNLSTM", units=UNITS, name="lstm")], "bias has shape (8,), expected (16,)"),
        ([layer("Bidirectional", merge_mode="sum")], "lacks the layer"),
        ([lstm(return_state=True)], "gives its states on"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_named(chain, problem, tmp_path):
    """The reasons are those of Keras 3's files, and what was otherwise then."""
    assert problem in problems(write_h5(tmp_path, sequential(ENTRY, *chain)))[0]


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        ("{", "model_config cannot be read"),
        ("[" * 60_000, "model_config cannot be read"),
        ("[]", "is no JSON object"),
        ("{}", "only Sequential and functional models are read"),
        (sequential(), "has 0 input layers"),
        ({"class_name": "Sequential", "config": {"layers": 1}}, "no list of layers"),
    ],
)
def test_damaged_configurations(model, problem, tmp_path):
    """A configuration that is none is a FormatError."""
    assert problem in problems(write_h5(tmp_path, model))[0]


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_junk_in_a_config_never_raises_anything_else(data, tmp_path):
    """Whatever stands at any place of a config of Keras 1 or 2, nothing but FormatError comes."""
    cells = [layer("LSTMCell", units=UNITS), layer("LSTMCell", units=1)]
    chain = [
        layer("Bidirectional", layer=lstm(), merge_mode="sum"),
        layer("RNN", cell=layer("StackedRNNCells", cells=cells), return_sequences=True),
        layer("TimeDistributed", layer=layer("Dense", units=2, activation="hard_sigmoid")),
        lstm(dtype={"class_name": "Policy", "config": {"name": "mixed_float16"}}),
    ]
    names = ["input", *(each["config"]["name"] for each in chain)]
    nodes = [
        called(name, each, before)
        for name, each, before in zip(names[1:], chain, names, strict=False)
    ]
    functional = {
        "name": "model",
        "layers": [called("input", ENTRY), *nodes],
        "input_layers": [["input", 0, 0]],
        "output_layers": [["lstm", 0, 0]],
    }
    graph = {"class_name": "Functional", "config": functional}
    model = data.draw(st.sampled_from([graph, sequential(ENTRY, *chain), sequential(*chain)]))
    model = json.loads(json.dumps(model))
    path = data.draw(st.sampled_from(paths_of(model)))
    parent = model
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = data.draw(JUNK)
    version = data.draw(st.sampled_from(["1.2.2", "2.4.0", "3.0.0"]))
    with contextlib.suppress(FormatError):
        read(tmp_path, model, version=version)
