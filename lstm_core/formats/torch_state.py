"""The arrays of a PyTorch state dict, by module. Knows names and shapes, and no layer's meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lstm_core.formats.tensors import Float32, Tensors, read_weight


class StateDict:
    """The arrays of a state dict, by module.

    Attributes:
        arrays: By key, in the file's order.
        modules: The names of each module's parameters, in the file's order.
        without_weights: Modules that are known to be there and have no weights: functions, dropout.
        order: All of these, in the order in which they were defined, where the file tells it.
        entries: What a document says of each, of a program, which tells it; else None.
    """

    def __init__(
        self,
        arrays: Tensors,
        modules: Sequence[str] = (),
        entries: Mapping[str, dict[str, str]] | None = None,
    ) -> None:
        """Sort arrays by module.

        Args:
            arrays: By key.
            modules: All modules' names, where the file tells them.
            entries: As the attribute.
        """
        self.entries = entries
        self.arrays = arrays
        self.modules: dict[str, list[str]] = {}
        for key in arrays:
            module, _, parameter = key.rpartition(".")
            self.modules.setdefault(module, []).append(parameter)
        owners = {""}
        for module in self.modules:
            parts = module.split(".")[:64]
            owners |= {".".join(parts[:count]) for count in range(1, len(parts) + 1)}
        self.without_weights = frozenset(modules) - owners
        defined = [m for m in modules if m in self.modules or m in self.without_weights]
        self.order = list(dict.fromkeys([*defined, *self.modules]))

    def lstms(self) -> list[str]:
        """Return the names of the LSTMs, and of other modules that look like one."""
        return [m for m, names in self.modules.items() if any(map(is_lstm_key, names))]

    def key(self, module: str, parameter: str) -> str:
        """Return the key of a module's parameter."""
        return f"{module}.{parameter}" if module else parameter

    def shape(self, module: str, parameter: str) -> tuple[int, ...]:
        """Return the shape of a module's parameter, `()` where there is none."""
        tensor = self.arrays.get(self.key(module, parameter))
        return () if tensor is None else tensor.shape

    def read(self, module: str, parameter: str, shape: tuple[int | None, ...]) -> Float32:
        """Return a module's parameter; SpecError if it is missing or does not fit."""
        key = self.key(module, parameter)
        return read_weight(self.arrays, key, module or "the module", parameter, shape)


def is_lstm_key(key: str) -> bool:
    """Whether a key is that of an LSTM's first weights."""
    return key.rpartition(".")[2] in {"weight_ih_l0", "weight_ih"}
