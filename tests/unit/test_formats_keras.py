"""`read_keras` on hand-made files: what is read out of them."""

from __future__ import annotations

import io

import h5py
import numpy as np

from lstm_core.formats.keras_config import group_names
from lstm_core.network import Recurrent
from tests.unit.keras_files import (
    FEATURES,
    LSTM_ARRAYS,
    UNITS,
    Json,
    entry,
    functional,
    layer,
    lstm,
    lstm_arrays,
    problems,
    read,
    sequential,
    tensor,
)


def test_sequential_model(tmp_path):
    """A Sequential file becomes a network with the weights where Keras puts them."""
    network = read(tmp_path)
    assert (network.name, network.input_size, network.output_size) == ("model", FEATURES, UNITS)
    (only,) = network.layers
    assert isinstance(only, Recurrent)
    np.testing.assert_array_equal(only.weights.kernel, LSTM_ARRAYS["layers/lstm/cell/vars/0"])
    assert only.return_sequences


def test_arguments_that_are_left_out_are_kerass_defaults(tmp_path):
    """A config without activations means tanh and sigmoid; null means none."""
    (default,) = read(tmp_path).layers
    (linear,) = read(tmp_path, sequential(entry(None, FEATURES), lstm(activation=None))).layers

    assert isinstance(default, Recurrent)
    assert isinstance(linear, Recurrent)
    assert (default.spec.activation, default.spec.recurrent_activation) == ("tanh", "sigmoid")
    assert linear.spec.activation == "linear"


def test_functional_chain(tmp_path):
    """A functional file is read along its wiring, whatever the order of its layers."""
    chain = [entry(None, FEATURES), lstm(name="first"), layer("Dropout"), lstm(name="second")]
    model = functional(*chain)
    arrays = LSTM_ARRAYS | lstm_arrays("layers/lstm_1/cell", UNITS)
    network = read(tmp_path, model, arrays)
    assert [each.name for each in network.layers] == ["first", "second"]
    model["config"]["layers"].reverse()
    arrays = lstm_arrays("layers/lstm/cell", UNITS) | lstm_arrays("layers/lstm_1/cell")
    assert [each.name for each in read(tmp_path, model, arrays).layers] == ["first", "second"]


def test_own_layer_has_its_weights_on_itself(tmp_path):
    """Our own layer is known by its registered name, and has no cell."""
    own = lstm() | {"module": "lstm_core.layers.lstm", "registered_name": "lstm_core>LSTM"}
    model = sequential(entry(None, FEATURES), own)
    assert read(tmp_path, model, lstm_arrays("layers/lstm")).state_size == 2 * UNITS
    own["config"]["time_major"] = True
    assert "time_major=True" in problems(tmp_path, model, lstm_arrays("layers/lstm"))[0]


def test_group_names_are_those_that_keras_gives():
    """HDF5 groups are Keras's snake case of the class, with an index from the second on."""
    assert group_names(["LSTM", "PReLU", "LSTM", "SpatialDropout1D", "LSTM", "LeakyReLU"]) == [
        "lstm",
        "p_re_lu",
        "lstm_1",
        "spatial_dropout1d",
        "lstm_2",
        "leaky_re_lu",
    ]


def test_bfloat16_and_float64_weights_become_float32(tmp_path):
    """Weights of other floating types are read as float32; bfloat16 is stored as two raw bytes."""
    arrays = {path: array.astype(np.float64) for path, array in LSTM_ARRAYS.items()}
    buffer = io.BytesIO()
    kernel = LSTM_ARRAYS["layers/lstm/cell/vars/0"]
    with h5py.File(buffer, "w") as file:
        for path, array in arrays.items():
            file[path] = array
        del file["layers/lstm/cell/vars/0"]
        halves = (kernel.view(np.uint32) >> 16).astype(np.uint16).view("V2")
        file.create_dataset("layers/lstm/cell/vars/0", data=halves).attrs["dtype"] = "bfloat16"
    network = read(tmp_path, model__weights__h5=buffer.getvalue())
    weights = network.recurrent[0].weights
    assert weights.kernel.dtype == weights.recurrent_kernel.dtype == np.float32
    np.testing.assert_allclose(weights.kernel, kernel, rtol=2**-7)


def test_nested_models_are_unfolded(tmp_path):
    """A nested model's layers and variables are found below its own name."""
    inner = sequential(entry(None, UNITS), lstm(), name="inner")
    arrays = LSTM_ARRAYS | lstm_arrays("layers/sequential/layers/lstm/cell", UNITS)
    network = read(tmp_path, sequential(entry(None, FEATURES), lstm(), inner), arrays)
    assert [part.layer for part in network.state_layout[::2]] == ["lstm", "inner/lstm"]
    model = functional(entry(None, FEATURES), lstm(), inner)
    assert read(tmp_path, model, arrays).fingerprint == network.fingerprint


def mask_graph(value: float) -> Json:
    """Return a functional model as Keras writes it behind a Masking of zero."""
    module = {"module": "keras.src.ops.numpy"}
    source, masking, last = entry(None, FEATURES), layer("Masking", mask_value=0.0), lstm()
    compare = layer("NotEqual", name="compare") | module
    compare["inbound_nodes"] = [{"args": [tensor(source), value], "kwargs": {}}]
    reduce = layer("Any", name="any", axis=-1, keepdims=False) | module
    reduce["inbound_nodes"] = [{"args": [tensor(compare)], "kwargs": {}}]
    masking["inbound_nodes"] = [{"args": [tensor(source)], "kwargs": {}}]
    last["inbound_nodes"] = [{"args": [tensor(masking)], "kwargs": {"mask": tensor(reduce)}}]
    return functional(source, compare, masking, reduce, last)


def test_mask_operations_in_a_functional_graph(tmp_path):
    """Keras's own mask operations are no layers, and must make the mask that there is."""
    network = read(tmp_path, mask_graph(0.0))
    assert [each.name for each in network.layers] == ["masking", "lstm"]
    found = problems(tmp_path, mask_graph(1.0))
    assert found[0].startswith("lstm: is called with a mask that is not that of the layers")


def test_mask_operations_as_the_output_are_refused(tmp_path):
    """An operation on the chain is not taken for a mask."""
    model = mask_graph(0.0)
    for each in model["config"]["layers"]:
        if each["config"]["name"] == "compare":
            each["inbound_nodes"] = [{"args": [tensor(lstm()), 0], "kwargs": {}}]
        if each["config"]["name"] == "lstm":
            each["inbound_nodes"] = [{"args": [tensor(layer("Masking"))], "kwargs": {}}]
    model["config"]["output_layers"] = ["any", 0, 0]
    assert problems(tmp_path, model) == [
        "compare: is the operation NotEqual, which is no layer",
        "any: is the operation Any, which is no layer",
    ]
