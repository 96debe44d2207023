"""State dicts on hand-made files: what is taken for a chain, and what each refusal says."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from lstm_core.errors import FormatError
from lstm_core.formats.read import read_network
from lstm_core.network import Recurrent
from lstm_core.pointwise import Activation, LayerNormalization
from tests.unit.torch_files import (
    linear_arrays,
    lstm_arrays,
    mapping,
    save,
    save_arrays,
    state_dict,
    tensor,
)

LSTM = lstm_arrays()


def problem(path: Any) -> str:
    """Return what a file is refused for."""
    with pytest.raises(FormatError) as caught:
        read_network(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def names(path: Any) -> list[str]:
    """Return the names of a file's layers."""
    return [layer.name for layer in read_network(path).layers]


def test_an_lstm_alone(tmp_path):
    """Weights are transposed, the two biases added; the gates have our order already."""
    path = save_arrays(tmp_path / "model.pt", lstm_arrays(""))
    (layer,) = read_network(path).layers
    assert isinstance(layer, Recurrent)
    arrays = {name: array.astype(np.float32) for name, array in lstm_arrays("").items()}
    np.testing.assert_array_equal(layer.weights.kernel, arrays["weight_ih_l0"].T)
    np.testing.assert_array_equal(layer.weights.recurrent_kernel, arrays["weight_hh_l0"].T)
    both = arrays["bias_ih_l0"] + arrays["bias_hh_l0"]
    np.testing.assert_array_equal(layer.weights.bias, both)
    assert layer.return_sequences


def test_one_linear_is_put_where_it_fits(tmp_path):
    """Before or behind the LSTM, whatever its name and place in the file."""
    behind = save_arrays(tmp_path / "behind.pt", linear_arrays("a", 2, 5) | LSTM)
    before = save_arrays(tmp_path / "before.pt", LSTM | linear_arrays("z", 7, 3))
    assert names(behind) == ["lstm", "a"]
    assert names(before) == ["z", "lstm"]
    assert read_network(before).input_size == 7


AMBIGUOUS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "two Linears": (LSTM | linear_arrays("a", 2, 4) | linear_arrays("b", 4, 1), []),
    "fits both": (lstm_arrays(features=2) | linear_arrays("fc", 2, 2), []),
    "fits nowhere": (LSTM | linear_arrays("fc", 9, 9), []),
    "no bias": (LSTM | {"embedding.weight": np.ones((3, 2))}, []),
    "two LSTMs": (LSTM | lstm_arrays("other."), []),
    "a function": (LSTM, ["", "lstm", "act"]),
    "dropout": (LSTM | linear_arrays("fc", 2, 1), ["", "lstm", "dropout", "fc"]),
}


@pytest.mark.parametrize("case", AMBIGUOUS)
def test_what_can_be_several_chains_is_asked_for(case, tmp_path):
    """Nothing is guessed: the message shows a document to begin with, which names every module."""
    arrays, modules = AMBIGUOUS[case]
    found = problem(save_arrays(tmp_path / "model.pt", arrays, modules))
    assert "say so in model.json" in found
    document = json.loads(found[found.index('{"layers"') :])
    targets = {target for layer in document["layers"] for target in layer.values()}
    owners = {name.rpartition(".")[0] for name in arrays}
    functions = {f"<the function of {name}>" for name in modules if name not in {"", *owners}}
    assert owners | functions <= targets
    assert bool(functions) == ("write each function's name" in found)


def test_a_document_beside_the_file(tmp_path):
    """It tells the order, the functions and their parameters, and what ends the sequences."""
    arrays = LSTM | linear_arrays("a", 2, 4) | linear_arrays("b", 4, 1) | {"n.weight": np.ones(3)}
    path = save_arrays(tmp_path / "model.pt", arrays)
    layers = [
        {"layer_norm": "n", "epsilon": 0.5},
        {"lstm": "lstm", "return_sequences": False},
        {"linear": "a"},
        {"activation": "leaky_relu"},
        {"linear": "b"},
    ]
    (tmp_path / "model.json").write_text(json.dumps({"layers": layers}))
    network = read_network(path)
    assert [layer.name for layer in network.layers] == ["n", "lstm", "a", "leaky_relu", "b"]
    assert not network.returns_sequences
    # PyTorch's slope, which is not Keras's.
    first, *_, function, _ = network.layers
    assert isinstance(function, Activation)
    assert {"negative_slope": 0.01} == function.parameters
    assert isinstance(first, LayerNormalization)
    assert first.epsilon == 0.5


DOCUMENTS = {
    "no JSON": ("{", "model.json: is not valid JSON"),
    "deep": ("[" * 100_000, "is not valid JSON"),
    "no layers": ("{}", 'no JSON object with a list of "layers"'),
    "unknown entry": ('{"layers": [], "code": 1}', "unknown entries ['code']"),
    "empty": ('{"layers": []}', "there is no recurrent layer"),
    "kind": ('{"layers": [{"conv": "lstm"}]}', "layers[0]: must have one of lstm, linear"),
    "two kinds": ('{"layers": [{"lstm": "lstm", "linear": "a"}]}', "layers[0]: must have one of"),
    "target": ('{"layers": [{"lstm": 1}]}', "lstm must be a name"),
    "absent": ('{"layers": [{"lstm": "gru"}]}', "gru: is no LSTM of the file; those are ['lstm']"),
    "no such": ('{"layers": [{"linear": "x"}]}', "x: its weight is missing: no x.weight"),
    "option": ('{"layers": [{"lstm": "lstm", "units": 2}]}', "lstm: has unknown options"),
    "flag": ('{"layers": [{"lstm": "lstm", "return_sequences": 0}]}', "must be true or false"),
    "function": ('{"layers": [{"lstm": "lstm"}, {"activation": "eval"}]}', "'eval' is none of"),
    "vast": (f'{{"layers": [{{"layer_norm": "a", "epsilon": 1{"0" * 400}}}]}}', "a finite number"),
    "twice": ('{"layers": [{"lstm": "lstm"}, {"lstm": "lstm"}]}', "lstm: is named twice"),
    "sizes": ('{"layers": [{"linear": "a"}, {"lstm": "lstm"}]}', "takes 3 features"),
    "no size": ('{"layers": [{"activation": "relu"}, {"lstm": "lstm"}]}', "does not tell a size"),
    "no name": ('{"layers": [{"lstm": "lstm"}], "state_dict": []}', "its state_dict is no name"),
    "other": ('{"layers": [{"lstm": "lstm"}], "state_dict": "ema"}', "there is no entry 'ema'"),
    "long": (" " * (2 << 20), "has more than 1048576 bytes"),
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_documents_that_do_not_fit(case, tmp_path):
    """A document is data too, and each mistake in it has its own message."""
    text, expected = DOCUMENTS[case]
    path = save_arrays(tmp_path / "model.pt", LSTM | linear_arrays("a", 2, 4))
    (tmp_path / "model.json").write_text(text)
    assert expected in problem(path)


def recurrent(gates: int) -> dict[str, Any]:
    """Return the parameters of a recurrent module with this number of gates."""
    return {"weight_ih_l0": np.ones((gates * 2, 3)), "weight_hh_l0": np.ones((gates * 2, 2))}


BAD_WEIGHTS: dict[str, tuple[dict[str, Any], str]] = {
    "GRU": (recurrent(3), "lstm: is a GRU, not an LSTM"),
    "RNN": (recurrent(1), "lstm: is an Elman RNN, not an LSTM"),
    "odd": (recurrent(5), "expected (8, 3)"),
    "not finite": (lstm_arrays("") | {"bias_hh_l0": np.full(8, np.nan)}, "not finite"),
    "one bias": ({k: v for k, v in lstm_arrays("").items() if k != "bias_hh_l0"}, "no bias_hh_l0"),
    "second layer": (lstm_arrays("") | {"weight_ih_l1": np.ones((8, 5))}, "no weight_hh_l1"),
    "no LSTM": ({"fc.weight": np.ones((2, 2))}, "there is none with an LSTM's weights"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_weights_that_do_not_fit(case, tmp_path):
    """Other modules are told by their number of gates; a missing or odd array by its name."""
    arrays, expected = BAD_WEIGHTS[case]
    assert expected in problem(save_arrays(tmp_path / "model.pt", arrays))


def test_several_state_dicts(tmp_path):
    """A checkpoint with two of them needs to be told which one."""
    entries = {name: tensor(name, array.shape) for name, array in LSTM.items()}
    opcodes = mapping({"model": state_dict(entries), "ema": state_dict(entries)})
    storages = {name: array.astype("<f4").tobytes() for name, array in LSTM.items()}
    path = save(tmp_path / "model.pt", opcodes, storages)
    assert "there are several, 'model', 'ema'" in problem(path)
    layers = {"layers": [{"lstm": "lstm"}], "state_dict": "ema"}
    (tmp_path / "model.json").write_text(json.dumps(layers))
    assert names(path) == ["lstm"]


def test_a_document_twice(tmp_path):
    """Metadata and a file beside it may differ, so both are one too many."""
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "model.safetensors"
    text = json.dumps({"layers": [{"lstm": "lstm"}]})
    arrays = {name: array.astype(np.float32) for name, array in LSTM.items()}
    safetensors.save_file(arrays, path, {"layers": text})
    assert names(path) == ["lstm"]
    (tmp_path / "model.json").write_text(text)
    assert "both the metadata and model.json" in problem(path)
