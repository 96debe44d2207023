"""`.keras` files that are written without Keras: Keras loads them and gives the same numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lstm_core.errors import FormatError
from lstm_core.formats.read import read_network
from lstm_core.formats.write import write_network
from lstm_core.merge import Merge
from lstm_core.network import Bidirectional, Layer, Network, Recurrent
from lstm_core.pointwise import (
    Activation,
    Affine,
    Dense,
    Embedding,
    LayerNormalization,
    Masking,
    PReLU,
)
from lstm_core.runtime.cpu import CpuRuntime
from lstm_core.spec import LSTMSpec
from lstm_core.weights import initialize
from tests.parity.format_record import load
from tests.unit.graph_networks import INPUT_SIZE, graph, inputs_of

keras = pytest.importorskip("keras")

UNITS = 3
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation")


def lstm(name: str, *, features: int = UNITS, seed: int = 0, **options: Any) -> Recurrent:
    """Return an LSTM; options of the layer and of its spec."""
    fields = {k: options.pop(k) for k in ("go_backwards", "zero_output_for_mask") if k in options}
    spec = LSTMSpec(input_size=features, units=UNITS, **options)
    return Recurrent(name=name, spec=spec, weights=initialize(spec, seed), **fields)


def drawn(*shape: int) -> np.ndarray[Any, Any]:
    """Draw float32 between 0.5 and 1.5."""
    return np.random.default_rng(0).uniform(0.5, 1.5, shape).astype(np.float32)


def number(value: float) -> np.ndarray[Any, Any]:
    """Return `()` float32."""
    return np.array(value, np.float32)


def norm(*, rms_scaling: bool) -> LayerNormalization:
    """Return a layer normalisation."""
    beta = None if rms_scaling else drawn(UNITS)
    return LayerNormalization(
        name="norm", gamma=drawn(UNITS), beta=beta, epsilon=0.01, rms_scaling=rms_scaling
    )


FORWARD = lstm("f", zero_output_for_mask=True)
BOTH = Bidirectional(
    name="both",
    forward=FORWARD,
    backward=replace(FORWARD, name="b", go_backwards=True, weights=initialize(FORWARD.spec, 1)),
    merge_mode="ave",
)
LAST = replace(lstm("last"), return_sequences=False)
ZERO = number(0)

NETWORKS: dict[str, tuple[Layer, ...]] = {
    "masks": (
        Masking(name="m/1", mask_value=0.0),
        lstm("m/1"),
        lstm("m_1", zero_output_for_mask=True),
    ),
    "affine": (
        Affine(name="scaled", center=ZERO, scale=number(2), offset=number(1)),
        lstm("input", forget_bias=0.5, use_bias=False, activation="softsign"),
        Affine(name="bent", center=drawn(UNITS), scale=number(-3), offset=drawn(UNITS)),
    ),
    "functions": (
        lstm("a", recurrent_activation="hard_sigmoid"),
        Activation(name="r", function="relu", parameters={"max_value": 0.2, "negative_slope": 0.1}),
        Activation(name="l", function="leaky_relu", parameters={"negative_slope": 0.01}),
        Activation(name="e", function="elu", parameters={"alpha": 0.5}),
        PReLU(name="p", alpha=drawn(UNITS)),
        Dense(name="d", kernel=drawn(UNITS, 2), bias=None, activation="log_softmax"),
    ),
    "both ways": (BOTH, norm(rms_scaling=False), LAST, PReLU(name="p", alpha=number(0.3))),
    "backwards": (replace(LAST, go_backwards=True), norm(rms_scaling=True)),
}  # fmt: skip


def compare(network: Network, inputs: np.ndarray[Any, Any], path: Path) -> Network:
    """Convert a network; compare Keras's answers with ours, and return what is read back."""
    write_network(network, path)
    again = read_network(path)
    x = inputs[..., 0].astype(np.int32) if network.vocabulary is not None else inputs
    theirs = np.asarray(keras.models.load_model(path)(x, training=False))
    for each in (network, again):
        ours = CpuRuntime(each, 1).predict(inputs)
        assert theirs.shape == ours.shape
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-6)
    return again


@pytest.mark.parametrize("case", NETWORKS)
@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
def test_keras_loads_it(case, tmp_path):
    """Every layer that Keras has, under names that it takes."""
    network = Network("a/b c", UNITS, NETWORKS[case])
    inputs = np.random.default_rng(1).normal(size=(3, 5, UNITS)).astype(np.float32)
    inputs[0, [0, 3]] = inputs[1] = 0
    again = compare(network, inputs, tmp_path / "model.keras")
    assert len({layer.name for layer in again.layers}) == len(again.layers)


@pytest.mark.parametrize("name", ["torch/words.safetensors", "torch/bidirectional.pt"])
def test_files_of_other_frameworks(name, tmp_path):
    """What came from PyTorch goes on in Keras, and is the same model to us."""
    fixture = load(name)
    network = read_network(fixture.path)
    again = compare(network, fixture.inputs, tmp_path / "model.keras")
    assert network.fingerprint == again.fingerprint


@pytest.mark.parametrize("has_masks", [False, True])
def test_graphs(has_masks, tmp_path):
    """Two inputs, merges, a slice and two heads, of which each is at its place in Keras too."""
    steps = [("lstm", 0, 0), ("add", 0, 1), ("lstm", 1, 0), ("dense", 0, 0), ("maximum", 1, 0)]
    if has_masks:
        steps = [("masking", 0, 0), ("concatenate", 0, 2), ("lstm", 0, 0), ("add", 0, 1)]
    else:
        steps += [("slice", 0, 0), ("multiply", 2, 5), ("lstm", 0, 0)]
    steps += [] if has_masks else [("final", 0, 0), ("final", 1, 0)]
    drawn = graph(steps, int(has_masks))
    merged = (replace(x, masks="any") if isinstance(x, Merge) else x for x in drawn.layers)
    network = Network("graph", INPUT_SIZE, tuple(merged), wiring=drawn.wiring)
    inputs = inputs_of(3, 5, 0)
    path = tmp_path / "model.keras"
    write_network(network, path)

    again = read_network(path)

    given = [inputs[..., :3], inputs[..., 3].astype(np.int32)]
    theirs = keras.models.load_model(path)(given)
    for each in (network, again):
        ours = CpuRuntime(each, 1).predict(inputs)
        heads = theirs if isinstance(theirs, list) else [theirs]
        for part, head in zip(each.outputs, heads, strict=True):
            of = ours[..., part.offset : part.offset + part.size]
            last = of if head.ndim == 3 else of[:, -1]
            np.testing.assert_allclose(last, np.asarray(head), rtol=2e-6, atol=2e-6)
    # In Keras's order from here on.
    write_network(again, path)
    assert read_network(path).fingerprint == again.fingerprint


REFUSED: dict[str, tuple[Layer, str]] = {
    "peepholes": (lstm("a", use_peepholes=True), "a: has peepholes, which Keras's LSTM has not"),
    "projection": (lstm("a", projection_size=UNITS), "a: has a projection"),
    "cell clip": (lstm("a", cell_clip=1.0), "a: has a clipped cell state"),
    "gate clip": (lstm("a", gate_clip=1.0), "a: has clipped gates"),
    "hard sigmoid": (lstm("a", recurrent_activation="hard_sigmoid_v1"), "hard_sigmoid of Keras 1"),
    "parameters": (
        Activation(name="a", function="celu", parameters={"alpha": 2.0}),
        "a: is celu with {'alpha': 2.0}, which is no layer of Keras",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_keras_has_no_layer_for(case, tmp_path):
    """The layer is named with the reason, and nothing is written; ours takes it."""
    layer, expected = REFUSED[case]
    network = Network("name", UNITS, (layer, lstm("z")))
    path = tmp_path / "model.keras"
    path.write_bytes(b"what was there")
    with pytest.raises(FormatError) as caught:
        write_network(network, path)
    assert expected in str(caught.value)
    assert path.read_bytes() == b"what was there"
    assert list(tmp_path.iterdir()) == [path]
    write_network(network, tmp_path / "model.safetensors")
    assert read_network(tmp_path / "model.safetensors").fingerprint == network.fingerprint


def test_embedding(tmp_path):
    """Integers stay integers."""
    table = Embedding(name="e", table=drawn(4, UNITS), mask_zero=True)
    network = Network("words", 1, (table, lstm("l")))
    compare(network, np.array([[[0], [3], [1]]], np.float32), tmp_path / "model.keras")
