"""A graph behind a real server: two inputs, a side branch, a GRU and a layer of a user's own."""

from __future__ import annotations

import os
import sys

import httpx
import numpy as np
import pytest

from lstm_core.errors import FormatError
from lstm_core.formats.keras import read_keras
from service.__main__ import main
from service.runtimes import RuntimeChoice, open_runtime
from tests.integration.live_server import live_server

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
keras = pytest.importorskip("keras")

MODULE = "tests.integration.keras_layers"
TIME = 6


@pytest.fixture(scope="module")
def model():
    """Two inputs, one of which goes past a GRU; a user's own layers, and one of ours."""
    from lstm_core import LSTM
    from tests.integration.keras_layers import Gain, Hungry

    layers = keras.layers
    one, two = keras.Input((None, 3), name="one"), keras.Input((None, 2), name="two")
    x = layers.Concatenate()([Gain()(one), layers.Dense(2)(two)])
    x = layers.GRU(4, return_sequences=True)(Hungry()(x))
    x = LSTM(5, return_sequences=True)(x)
    side = layers.Dense(3, activation="relu")(two)
    both = layers.Concatenate()([x, side])
    model = keras.Model([one, two], layers.Dense(2, name="out")(both), name="graph")
    random = np.random.default_rng(0)
    for variable in model.trainable_variables:
        variable.assign(random.normal(0, 0.5, variable.shape))
    return model


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    """Its file."""
    path = tmp_path_factory.mktemp("graph") / "graph.keras"
    model.save(path)
    return path


@pytest.fixture(scope="module")
def http(path):
    """A client of a server that serves it."""
    options = ("--model", f"graph={path}", "--keras-modules", MODULE)
    with live_server(*options) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        yield client


def test_a_graph_is_served_as_keras_predicts(model, http):
    """Step by step, as a sequence and by `predict`; and nothing is traced once all were seen."""
    inputs = np.random.default_rng(1).uniform(-1, 1, (3, TIME, 5)).astype(np.float32)
    expected = model.predict([inputs[..., :3], inputs[..., 3:]], verbose=0)

    for number, sequence in enumerate(inputs.tolist()):
        place = f"/v1/models/graph/sessions/{number}"
        steps = [
            http.post(f"{place}/step", json={"inputs": step, "position": t}).json()["outputs"]
            for t, step in enumerate(sequence)
        ]
        whole = http.post(f"{place}-whole/sequence", json={"inputs": sequence}).json()["outputs"]
        np.testing.assert_allclose(steps, expected[number], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(whole, expected[number], rtol=1e-6, atol=1e-6)
    body = {"inputs": inputs.tolist()}
    predicted = http.post("/v1/models/graph/predict", json=body).json()["outputs"]
    np.testing.assert_allclose(predicted, expected, rtol=1e-6, atol=1e-6)

    traces = metric(http, "lstm_graph_traces_total")
    http.post("/v1/models/graph/predict", json={"inputs": inputs[:1, :2].tolist()})
    http.post("/v1/models/graph/sessions/0/sequence", json={"inputs": inputs[0, :3].tolist()})
    assert traces == metric(http, "lstm_graph_traces_total")


def test_named_inputs_by_the_open_inference_protocol(model, http):
    """Each tensor by its name, in whatever order; together they are one time step."""
    told = http.get("/v2/models/graph").json()
    assert [("one", [-1, 3]), ("two", [-1, 2])] == [(t["name"], t["shape"]) for t in told["inputs"]]
    x = np.random.default_rng(2).uniform(-1, 1, (1, TIME, 5)).astype(np.float32)

    def ask(one, two, **parameters):
        tensors = [
            {"name": name, "shape": values.shape, "datatype": "FP32", "data": values.tolist()}
            for name, values in (("two", two), ("one", one))
        ]
        body = {"inputs": tensors, "parameters": parameters}
        return http.post("/v2/models/graph/infer", json=body).json()

    steps = [
        ask(x[:, t, :3], x[:, t, 3:], sequence_id=5, sequence_start=t == 0)["outputs"][0]["data"]
        for t in range(TIME)
    ]
    whole = ask(x[..., :3], x[..., 3:])["outputs"][0]
    expected = model.predict([x[..., :3], x[..., 3:]], verbose=0)
    np.testing.assert_allclose(steps, expected[0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(whole["data"], expected.ravel(), rtol=1e-6, atol=1e-6)
    assert "got [1, 6, 1]" in ask(x[..., :3], x[..., 4:])["error"]
    assert "got [1, 5, 2]" in ask(x[..., :3], x[:, :5, 3:])["error"]


def metric(http, name):
    """Return the lines of a metric."""
    return [line for line in http.get("/metrics").text.splitlines() if line.startswith(name)]


def test_the_choice_and_its_reason_are_shown(http, path, capsys):
    """By the API, a metric and the command line, with the place of each input."""
    document = http.get("/v1/models/graph").json()
    assert "tensorflow" == document["runtime"]
    assert "the CPU runtime cannot take it: gain: is a" in document["runtime_reason"]
    places = [(part["name"], part["offset"], part["size"]) for part in document["inputs"]]
    assert [("one", 0, 3), ("two", 3, 2)] == places
    kernels = {layer["name"]: layer["kernel"] for layer in document["layers"]}
    assert ["block", "tensorflow"] == sorted(filter(None, kernels.values()))
    (line,) = metric(http, "lstm_runtime_info")
    assert 'runtime="tensorflow"' in line

    assert 0 == main(["models", str(path), "--keras-modules", MODULE])

    printed = capsys.readouterr().out
    assert "runtime tensorflow: the CPU runtime cannot take it" in printed
    assert "input two: numbers 3 to 4" in printed


def test_memory_that_runs_out_is_told_and_harms_nobody(http):
    """503, the session as it was; and another one's steps go on."""
    sessions = "/v1/models/graph/sessions"
    first = http.post(f"{sessions}/eater/step", json={"inputs": [1, 1, 1, 1, 1]}).json()

    failed = http.post(f"{sessions}/eater/step", json={"inputs": [1e6, 1, 1, 1, 1]})

    assert (503, "device_memory") == (failed.status_code, failed.json()["code"])
    assert 1 == http.get(f"{sessions}/eater").json()["position"]
    other = http.post(f"{sessions}/other/step", json={"inputs": [1, 1, 1, 1, 1]}).json()
    assert first["outputs"] == other["outputs"]


def test_a_process_without_tensorflow_says_what_to_install(path, monkeypatch):
    """With what else stands in the way of the runtime that is there."""
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    install = r"not installed: pip install 'lstm-service\[tensorflow\]'"
    for choice in (RuntimeChoice(), RuntimeChoice(kind="tensorflow")):
        with pytest.raises(FormatError, match=rf"(?s)gru: is a GRU.*{install}"):
            open_runtime(path, 4, choice, read_keras)


def test_a_layer_that_nobody_registered_is_named(path, tmp_path):
    """And so is a module that is not there."""
    options = RuntimeChoice(kind="tensorflow", keras_modules="no_such_module")
    with pytest.raises(FormatError, match=r"--keras-modules cannot be imported.*no_such_module"):
        open_runtime(path, 4, options, read_keras)

    gone = type("Gone", (keras.layers.Layer,), {"call": lambda _, x: x})
    keras.saving.register_keras_serializable(package="gone")(gone)
    chain = [keras.Input((None, 3)), gone(), keras.layers.GRU(2)]
    keras.Sequential(chain).save(tmp_path / "gone.keras")
    keras.saving.get_custom_objects().pop("gone>Gone")
    with pytest.raises(FormatError, match="nothing is registered as Gone"):
        open_runtime(tmp_path / "gone.keras", 4, RuntimeChoice(), read_keras)


def test_what_the_cpu_runtime_takes_stays_there(tmp_path):
    """TensorFlow is not even asked, and `cpu` refuses what only it could run."""
    layers = keras.layers
    for name, layer in (("chain", layers.LSTM(2)), ("other", layers.GRU(2))):
        keras.Sequential([keras.Input((None, 3)), layer]).save(tmp_path / f"{name}.keras")
    for choice, reason in (
        (RuntimeChoice(), "it takes every layer, and"),
        (RuntimeChoice(kind="cpu"), "it was asked for"),
    ):
        runtime, why = open_runtime(tmp_path / "chain.keras", 4, choice, read_keras)
        assert "cpu" == runtime.kind
        assert why.startswith(reason)
    with pytest.raises(FormatError, match=r"gru.* is a GRU"):
        open_runtime(tmp_path / "other.keras", 4, RuntimeChoice(kind="cpu"), read_keras)
