"""One serialised Keras layer: its class, where its variables are, and its arguments, checked.

Knows how Keras writes names, functions, numbers and precisions into a config. Knows no layer.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lstm_core.errors import SpecError
from lstm_core.pointwise import FUNCTIONS

Float32 = npt.NDArray[np.float32]
Json = Any
"""What `json.loads` gives, not checked yet."""

CONTAINERS = frozenset({"Sequential", "Functional"})
MERGES = frozenset({"Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract"})
"""Layers that take several tensors, in a list."""

_ALIASES = {
    "swish": "silu",
    "hard_swish": "hard_silu",
    "log_softmax_v2": "log_softmax",  # `tf.nn.log_softmax`, as Keras 2 writes it
    "lstm_core>hard_sigmoid_v1": "hard_sigmoid_v1",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerConfig:
    """One layer of the chain, as its file describes it.

    Attributes:
        name: Its name, behind those of the models that it is nested in.
        kind: Its class: `LSTM` for one of Keras's layers, `package>Name` for a registered one, else
            with its module.
        config: Its arguments.
        group: Path of its variables' HDF5 group.
        names: The names of the models that it is nested in, the outermost left out, and its own.
        problem: Why its place in the graph cannot be served, or None.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    group: str = ""
    names: tuple[str, ...] = ()
    problem: str | None = None

    def flag(self, field: str, *, default: bool | None = None) -> bool:
        """Return a boolean argument; SpecError if it is something else."""
        value = self.config.get(field, default)
        if not isinstance(value, bool):
            raise SpecError(self.name, f"{field} is {value!r:.80}, not true or false")
        return value

    def integer(self, field: str) -> int:
        """Return a positive integer argument; SpecError if it is something else."""
        value = self.config.get(field)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SpecError(self.name, f"{field} is {value!r:.80}, not a positive integer")
        return value

    def part(self, field: str) -> LayerConfig:
        """Return a layer or cell given as an argument; SpecError if it is something else."""
        return self.part_of(self.config.get(field))

    def part_of(self, serialized: Json) -> LayerConfig:
        """Return a serialised part of this layer, under this layer's name."""
        if not isinstance(serialized, dict) or not isinstance(serialized.get("config"), dict):
            raise SpecError(self.name, "its config lacks the layer that it wraps")
        return LayerConfig(name=self.name, kind=kind_of(serialized), config=serialized["config"])


def kind_of(serialized: Mapping[str, Any]) -> str:
    """Return the class of a serialised object, told apart by module from others of that name."""
    module, name = serialized.get("module"), str(serialized.get("class_name"))
    registered = serialized.get("registered_name")
    if ">" in str(registered):
        return str(registered)
    if module == "keras.layers" or str(module).startswith("keras.src.layers."):
        return name
    if name in CONTAINERS and re.match(r"keras(\.|$)", str(module)):
        return name
    return f"{module or 'custom'}.{name}"


def snake_case(class_name: str) -> str:
    """Return a class's name as Keras writes it in HDF5 groups."""
    name = re.sub(r"\W+", "", class_name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def group_names(class_names: Sequence[str]) -> list[str]:
    """Return the HDF5 group of each object of a list: its class, and an index from the second."""
    seen: Counter[str] = Counter()
    groups = []
    for class_name in class_names:
        name = snake_case(class_name)
        groups.append(f"{name}_{seen[name]}" if seen[name] else name)
        seen[name] += 1
    return groups


def activation_name(layer: LayerConfig, value: Json) -> str:
    """Return the name in `activations` of a serialised Keras activation.

    Raises:
        SpecError: It is code, a layer, or a function that is not known here.
    """
    if value is None:
        return "linear"
    name = value
    if isinstance(value, dict):
        is_function = value.get("class_name") == "function"
        name = value.get("config") if is_function else value.get("class_name")
        if not is_function or (">" in str(name) and str(name) not in _ALIASES):
            raise SpecError(
                layer.name, f"its activation {name or 'a lambda'} is code or a layer, not a name"
            )
    if not isinstance(name, str) or (name := _ALIASES.get(name, name)) not in FUNCTIONS:
        known = ", ".join(sorted(FUNCTIONS))
        raise SpecError(layer.name, f"unknown activation {name!r:.80}; known: {known}")
    return name


def check_precision(layer: LayerConfig) -> None:
    """Refuse a layer whose weights are not plain real numbers.

    Raises:
        SpecError: It is quantised, or has a low-rank adapter.
    """
    policy = layer.config.get("dtype", "float32")
    if isinstance(policy, dict):
        is_plain, settings = policy.get("class_name") == "DTypePolicy", policy.get("config")
        policy = policy.get("class_name")
        if is_plain and isinstance(settings, dict):
            policy = settings.get("name")
    is_plain_float = re.fullmatch(r"(mixed_)?b?float(16|32|64)", str(policy))
    if not is_plain_float or layer.config.get("quantization_config") is not None:
        raise SpecError(layer.name, f"is quantised or not in floating point (dtype {policy!r:.80})")
    if layer.config.get("lora_rank") is not None:
        raise SpecError(layer.name, "has a low-rank adapter (LoRA); merge it before saving")


def vector(layer: LayerConfig, field: str, values: npt.NDArray[Any]) -> Float32:
    """Return `()` or `(features,)` finite float32 of an array with no other long axis."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float32)
    is_one_axis = rounded.size == max(rounded.shape, default=1)
    if not is_one_axis or rounded.size == 0 or not np.isfinite(rounded).all():
        raise SpecError(layer.name, f"{field} is not a finite number, or one for each feature")
    return rounded.reshape(()) if rounded.size == 1 else rounded.reshape(-1)


def number(layer: LayerConfig, field: str, value: Json) -> float:
    """Return a finite number given for `field`; SpecError if it is something else."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not abs(value) <= sys.float_info.max:  # an int may be beyond, too
        raise SpecError(layer.name, f"{field} is {value!r:.80}, not a finite number")
    return float(value)


def numbers(layer: LayerConfig, field: str) -> Float32:
    """Return an argument that is a number, a list of them or a serialised array."""
    value = layer.config.get(field)
    if isinstance(value, dict) and value.get("class_name") in ("__numpy__", "__tensor__"):
        content = value.get("config")
        value = content.get("value") if isinstance(content, dict) else None
    try:
        array = np.asarray(value)
    except ValueError:
        array = np.asarray(None)
    if array.dtype.kind not in "iuf":
        raise SpecError(layer.name, f"{field} is {value!r:.80}, not a number or a list of them")
    return vector(layer, field, array)
