"""TorchScript programs on hand-made files: modules as data, and what each refusal says."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from lstm_core.errors import FormatError
from lstm_core.formats.read import read_network
from tests.unit.torch_files import linear_arrays, lstm_arrays, mapping, save, tensor, text

FIXTURES = Path(__file__).parent.parent / "fixtures" / "formats" / "torch"
NN = "torch.nn.modules"
SCRIPT = {"constants.pkl": b""}


def problem(path: Path) -> str:
    """Return what a file is refused for."""
    with pytest.raises(FormatError) as caught:
        read_network(path)
    return str(caught.value)


def module(kind: str, attributes: Mapping[str, bytes]) -> bytes:
    """Return the opcodes of a module."""
    where, _, name = f"__torch__.{kind}".rpartition(".")
    return f"c{where}\n{name}\n".encode() + b")\x81" + mapping(attributes) + b"b"


LSTM = lstm_arrays("")
ARRAYS = LSTM | linear_arrays("fc", 2, 1)


def arrays(names: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the opcodes of arrays, each in a storage of its name."""
    return {name.rpartition(".")[2]: tensor(name, array.shape) for name, array in names.items()}


def program(path: Path, root: bytes, **others: bytes) -> Path:
    """Write a program whose storages are those of `ARRAYS`."""
    storages = {name: array.astype("<f4").tobytes() for name, array in ARRAYS.items()}
    return save(path, root, storages, others=SCRIPT | others)


LSTM_MODULE = module(f"{NN}.rnn.___torch_mangle_3.LSTM", arrays(LSTM))


def net(**attributes: bytes) -> bytes:
    """Return a module of a user's own, with an LSTM."""
    return module("Net", {"training": b"\x89", "lstm": LSTM_MODULE, **attributes})


def test_an_lstm_alone_needs_no_document(tmp_path):
    """One that is the whole program has nothing around it."""
    (layer,) = read_network(program(tmp_path / "model.pt", LSTM_MODULE)).layers
    assert layer.name == "lstm"


def test_what_a_program_is_asked_for(tmp_path):
    """Its code is not read, so it asks for its order, and proposes what its modules are."""
    linear = {name: array for name, array in ARRAYS.items() if name.startswith("fc")}
    root = net(
        drop=module(f"{NN}.dropout.Dropout", {}),
        fc=module(f"{NN}.linear.Linear", arrays(linear)),
        act=module(f"{NN}.activation.___torch_mangle_12.LogSigmoid", {}),
    )
    found = problem(program(tmp_path / "model.pt", root))
    assert "the program of lstm, fc, act does not tell how these follow each other" in found
    assert "nor their options where those are not PyTorch's defaults; say so in" in found
    document = json.loads(found[found.index('{"layers"') :])
    assert document == {
        "layers": [{"lstm": "lstm"}, {"linear": "fc"}, {"activation": "log_sigmoid"}]
    }
    (tmp_path / "model.json").write_text(json.dumps(document))
    names = [layer.name for layer in read_network(tmp_path / "model.pt").layers]
    assert names == ["lstm", "fc", "log_sigmoid"]


def test_an_lstm_inside_another_module_is_asked_for(tmp_path):
    """What a module of a user's own does with its LSTM is code."""
    assert "say so in model.json" in problem(program(tmp_path / "model.pt", net()))


def test_lists_and_types_are_read(tmp_path):
    """Scripted modules have lists, which TorchScript writes by functions of its own."""
    names = b"ctorch.jit._pickle\nrestore_type_tag\n](" + text("a") + b"e" + text("List[str]")
    flat = b"ctorch.jit._pickle\nbuild_tensorlist\n]\x85R"
    root = module(f"{NN}.rnn.LSTM", arrays(LSTM) | {"names": names + b"\x86R", "flat": flat})
    assert read_network(program(tmp_path / "model.pt", root)).state_size == 4


ITSELF = b"c__torch__\nNet\n)\x81q\x01}" + text("m") + b"h\x01sb"
GRU = {
    "weight_ih_l0": tensor("weight_ih_l0", (6, 3), num_items=24),
    "weight_hh_l0": tensor("weight_hh_l0", (6, 2), num_items=16),
}

REFUSALS = {
    "frozen": (module("Net", {}), "one that was frozen keeps them in its code"),
    "GRU": (module(f"{NN}.rnn.GRU", GRU), "which is a GRU, not an LSTM"),
    "another LSTM": (module("mine.LSTM", arrays(LSTM)), "say so in model.json"),
    "code": (net(evil=b"cposix\nsystem\n" + text("true") + b"\x85R"), "asks for posix.system"),
    "a name like one": (b"c__torch__x\nNet\n)\x81}b", "asks for __torch__x.Net, which is code"),
    "call": (b"c__torch__\nNet\n)R", "calls what is no function"),
    "arguments": (b"c__torch__\nNet\n" + text("a") + b"\x85\x81}b", "gives arguments"),
    "object of a dictionary": (b"})\x81", "has a dict in place of a ObjectClass"),
    "itself": (ITSELF, "inside each other without"),
    "long names": (module("Net", {"m" * 1001: LSTM_MODULE}), "or with one too long"),
    "number": (b"c__torch__\nNet\n)\x81}K\x01" + LSTM_MODULE + b"sb", "without a name"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_served(case, tmp_path):
    """Nothing of a program is run, and nothing in it is taken for more than data."""
    root, expected = REFUSALS[case]
    assert expected in problem(program(tmp_path / "model.pt", root))


def test_modules_that_double(tmp_path):
    """Modules that share modules are read so often, and no more."""
    root = b"c__torch__\nNet\n)\x81q\x00"
    for index in range(40):
        inner = b"h" + bytes([index])
        root += b"c__torch__\nNet\n)\x81q" + bytes([index + 1])
        root += b"}(" + text("a") + inner + text("b") + inner + b"ub"
    assert "are too many, or inside each other" in problem(program(tmp_path / "model.pt", root))


def test_classes_belong_to_programs_only(tmp_path):
    """A state dict that asks for one asks for code."""
    path = save(tmp_path / "model.pt", LSTM_MODULE, {})
    assert "asks for __torch__.torch.nn.modules.rnn" in problem(path)


def test_a_program_without_its_document(tmp_path):
    """What PyTorch wrote is proposed as it was, but for the last step, which is code."""
    path = Path(shutil.copy(FIXTURES / "script.pt", tmp_path))
    found = problem(path)
    proposed = json.loads(found[found.index('{"layers"') :])["layers"]
    told = json.loads((FIXTURES / "script.json").read_text())["layers"]
    assert {str(each) for each in proposed} == {
        str({name: value for name, value in each.items() if name != "return_sequences"})
        for each in told
    }
