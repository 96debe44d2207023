"""The modules of a TorchScript program as data: their classes by name, their attributes, no code.

Owns what TorchScript's classes and lists are called in its pickle, and what its modules are called
in a document. What the modules do is code, which is neither run nor read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from lstm_core.formats.tensors import StoredTensor
from lstm_core.formats.torch_pickle import Attributed, ObjectClass, Value

MAX_MODULES = 10_000
MAX_NAME = 1000
"""Characters of a module's or a class's name, with those of the modules around it."""

_ROOT = "__torch__."
_MODULES = "torch.nn.modules."
_MANGLED = re.compile(r"\.___torch_mangle_\d+")
_WITHOUT_EFFECT = frozenset({"Dropout", "Dropout1d", "Identity", "AlphaDropout"})
_OTHER_CELLS = frozenset({"GRU", "GRUCell", "RNN", "RNNCell"})
_WEIGHTED = {
    "Embedding": "embedding", "LSTM": "lstm", "LSTMCell": "lstm", "LayerNorm": "layer_norm",
    "Linear": "linear",
}  # fmt: skip
_FUNCTIONS = {
    "CELU": "celu", "ELU": "elu", "GELU": "gelu", "Hardsigmoid": "hard_sigmoid",
    "Hardswish": "hard_silu", "LeakyReLU": "leaky_relu", "LogSigmoid": "log_sigmoid",
    "LogSoftmax": "log_softmax", "Mish": "mish", "ReLU": "relu", "ReLU6": "relu6", "SELU": "selu",
    "SiLU": "silu", "Sigmoid": "sigmoid", "Softmax": "softmax", "Softplus": "softplus",
    "Softsign": "softsign", "Tanh": "tanh",
}  # fmt: skip
"""How a document calls the functions of these modules."""


class ScriptNames(dict[str, Value]):
    """The names that a state dict may ask for, and those of TorchScript."""

    def __init__(self, known: dict[str, Value]) -> None:
        """Begin with `known`."""
        super().__init__(known)
        for kind in ("intlist", "doublelist", "boollist", "tensorlist"):
            self[f"torch.jit._pickle.build_{kind}"] = _listed
        self["torch.jit._pickle.restore_type_tag"] = _tagged

    def __missing__(self, name: str) -> ObjectClass:
        """Return what stands for a class of the program."""
        if not name.startswith(_ROOT):
            raise KeyError(name)
        return ObjectClass(name)


def _listed(items: Value) -> Value:
    return items


def _tagged(value: Value, _type: Value) -> Value:
    return value


def modules_of(program: Attributed) -> Iterator[tuple[str, str, Attributed]]:
    """Yield the name, the class and the attributes of a program's modules, the outer ones first.

    Raises:
        ValueError: They are too many, or too deep inside each other, or their names too long.
    """
    waiting = [("", program)]
    count = 0
    while waiting:
        name, module = waiting.pop()
        count += 1
        if count > MAX_MODULES or max(len(name), len(module.kind)) > MAX_NAME:
            raise ValueError("are too many, or inside each other without end")
        yield name, class_of(module), module
        inner = [
            (_named(name, key), value)
            for key, value in module.attributes.items()
            if isinstance(value, Attributed) and value.kind
        ]
        waiting += inner[::-1]


def _named(module: str, attribute: Value) -> str:
    if not isinstance(attribute, str) or len(attribute) > MAX_NAME:
        raise ValueError("have attributes without a name, or with one too long")
    return f"{module}.{attribute}" if module else attribute


def class_of(module: Attributed) -> str:
    """Return the name of a module's class, without what TorchScript adds."""
    return _MANGLED.sub("", module.kind).removeprefix(_ROOT)


def arrays_of(program: Attributed) -> dict[str, StoredTensor]:
    """Return every array by the name that it would have in a state dict."""
    return {
        _named(name, key): value
        for name, _, module in modules_of(program)
        for key, value in module.attributes.items()
        if isinstance(value, StoredTensor)
    }


def entries_of(program: Attributed) -> dict[str, dict[str, str]]:
    """Return the entry of a document for each module that does something, in their order.

    Raises:
        ValueError: One is another recurrent module than an LSTM; or as `modules_of`.
    """
    entries: dict[str, dict[str, str]] = {}
    for name, full_class, _ in modules_of(program):
        kind = full_class.rpartition(".")[2]
        if not full_class.startswith(_MODULES) or kind in _WITHOUT_EFFECT:
            continue
        if kind in _OTHER_CELLS:
            raise ValueError(f"have {name:.80}, which is a {kind}, not an LSTM")
        if kind in _WEIGHTED:
            entries[name] = {_WEIGHTED[kind]: name}
        elif kind in _FUNCTIONS:
            entries[name] = {"activation": _FUNCTIONS[kind]}
    return entries
