"""From a `.keras` file's config to a chain of layer configs, Sequential or functional.

Owns class names, the wiring of functional models, and where each layer's variables are. Does not
know what a layer computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lstm_core.formats.keras_config import CONTAINERS, Json, LayerConfig, group_names, kind_of

_MAX_LAYERS = 10_000
"""Of one model: many times what a chain has."""
_MAX_NAME_LENGTH = 4096
"""Of a model and those that it is nested in, since each of its layers repeats it."""
_MASK_OPERATIONS = ("keras.src.ops.numpy.NotEqual", "keras.src.ops.numpy.Any")


@dataclass(slots=True)
class Chain:
    """A model's layers in order, nested models unfolded.

    Attributes:
        name: The model's name.
        inputs: The model's input layers.
        layers: The other layers. Where the model is no chain, every layer in the file's order.
        problems: What stands in the way and is no single layer's fault.
        is_chain: Whether the order is that in which the layers run.
    """

    name: str
    inputs: list[LayerConfig] = field(default_factory=list)
    layers: list[LayerConfig] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    is_chain: bool = True


def read_chain(model: Mapping[str, Any]) -> Chain:
    """Unfold a serialised model.

    Args:
        model: The content of `config.json`.
    """
    kind = kind_of(model)
    config = model.get("config")
    name = _name(config) if isinstance(config, dict) else "model"
    if kind not in CONTAINERS or not isinstance(config, dict):
        problem = f"{name}: is a {kind}; only Sequential and functional models are read"
        return Chain(name, problems=[problem])
    return _unfold(LayerConfig(name=name, kind=kind, config=config))


def _unfold(model: LayerConfig) -> Chain:
    serialized = model.config.get("layers")
    if not isinstance(serialized, list) or not all(isinstance(x, dict) for x in serialized):
        problem = f"{model.name}: its config has no list of layers"
        return Chain(model.name, problems=[problem], is_chain=False)
    if len(serialized) > _MAX_LAYERS or len(model.name) > _MAX_NAME_LENGTH:
        problem = f"{model.name:.80}: has more than {_MAX_LAYERS} layers, or too long a name"
        return Chain(model.name[:80], problems=[problem], is_chain=False)
    layers = _layer_configs(serialized, model)
    chain = Chain(model.name)
    if model.kind == "Sequential":
        order = _sequential_order(layers)
    else:
        order = _Graph(model.config, serialized, layers, chain).order()
    for layer in order:
        if layer.kind == "InputLayer":
            chain.inputs.append(layer)
            if layer.problem is not None:
                chain.problems.append(f"{layer.name}: {layer.problem}")
        elif layer.kind in CONTAINERS and layer.problem is None:
            inner = _unfold(layer)
            chain.layers += inner.layers
            chain.problems += inner.problems
            chain.is_chain &= inner.is_chain
        else:
            chain.layers.append(layer)
    return chain


def _layer_configs(serialized: list[dict[str, Any]], model: LayerConfig) -> list[LayerConfig]:
    # The outermost model has no place of its own.
    is_nested = bool(model.names)
    prefix, group = (f"{model.name}/", f"{model.group}/") if is_nested else ("", "")
    groups = group_names([str(x.get("class_name")) for x in serialized])
    return [
        LayerConfig(
            name=prefix + _name(config),
            kind=kind_of(layer),
            config=config,
            group=f"{group}layers/{own_group}",
            names=(*model.names, _name(config)),
        )
        for layer, own_group in zip(serialized, groups, strict=True)
        for config in [layer["config"] if isinstance(layer.get("config"), dict) else {}]
    ]


def _sequential_order(layers: Sequence[LayerConfig]) -> list[LayerConfig]:
    """Return the layers with a problem where their place in a Sequential model is one."""
    counts = Counter(layer.name for layer in layers)
    order = []
    for layer in layers:
        problem = None
        if counts[layer.name] > 1:
            # Keras refuses such a file. It writes a layer that was added twice only once.
            problem = f"is the name of {counts[layer.name]} layers"
        elif layer.config.get("return_state") is True:
            problem = "gives its states on beside its output (return_state)"
        order.append(replace(layer, problem=problem))
    return order


def _name(config: Mapping[str, Any]) -> str:
    return str(config.get("name", "unnamed"))


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of a layer: its arguments, serialised."""

    args: list[Any]
    kwargs: dict[str, Any]


class _Graph:
    """The wiring of one functional model.

    Keras also writes the operations that compute the mask of a `Masking` or `Embedding` into the
    graph, and passes their result to the layers as the argument `mask`. The chain takes such a
    mask only where it is the one that the layers before it would hand on anyway.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        serialized: list[dict[str, Any]],
        layers: list[LayerConfig],
        chain: Chain,
    ) -> None:
        self._config = config
        self._chain = chain
        self._layers = {_name(layer.config): layer for layer in layers}
        self._calls = {
            _name(layer.config): _calls(each)
            for layer, each in zip(layers, serialized, strict=True)
        }
        self._problems: dict[str, str] = {}

    def order(self) -> list[LayerConfig]:
        """Return the layers from input to output, or all of them where they are no chain."""
        names = self._walk_back()
        self._check_masks(names[::-1])
        if names and self._layers[names[-1]].kind != "InputLayer" and not self._problems:
            self._chain.problems.append(f"{self._chain.name}: its layers do not begin at an input")
        is_chain = not self._problems and not self._chain.problems
        masks = {name for name in self._layers if self._mask_origin(name) is not None}
        masks |= {
            source
            for name in masks
            for source, _ in _tensors(self._calls[name][0].args)
            if source in self._layers and self._layers[source].kind in _MASK_OPERATIONS
        }
        masks -= {*names, *self._problems}
        if is_chain and (strays := set(self._layers) - set(names) - masks):
            for name in strays:
                self._problems[name] = "is not on the chain from the input to the output"
            is_chain = False
        self._chain.is_chain = is_chain
        chosen = names[::-1] if is_chain else [name for name in self._layers if name not in masks]
        return [self._with_problem(self._layers[name], self._problems.get(name)) for name in chosen]

    @staticmethod
    def _with_problem(layer: LayerConfig, problem: str | None) -> LayerConfig:
        # That an operation is no layer says more than how it is called.
        return layer if layer.kind.startswith("keras.src.ops.") else replace(layer, problem=problem)

    def _walk_back(self) -> list[str]:
        """Return the names from the output back to an input, as far as they are a chain."""
        outputs = _endpoints(self._config.get("output_layers"))
        inputs = _endpoints(self._config.get("input_layers"))
        for what, ends in (("inputs", inputs), ("outputs", outputs)):
            if len(ends) != 1:
                listed = ", ".join(str(end[0]) for end in ends)
                self._chain.problems.append(
                    f"{self._chain.name}: has {len(ends)} {what} ({listed})"
                )
        if len(outputs) != 1:
            return []
        names: list[str] = []
        name, index = outputs[0]
        while name not in names:
            if name not in self._layers:
                self._chain.problems.append(
                    f"{self._chain.name}: its layer {name!r:.80} is missing"
                )
                break
            if index != 0:
                self._problems[name] = f"gives its output number {index} on, a state"
                break
            names.append(name)
            if self._layers[name].kind == "InputLayer":
                break
            source = self._source(name)
            if source is None:
                break
            name, index = source
        return names

    def _source(self, name: str) -> tuple[str, int] | None:
        """Return the layer that feeds `name` and which of its outputs, or record a problem."""
        calls = self._calls[name]
        if len(calls) != 1:
            self._problems[name] = f"is called {len(calls)} times; only a chain can be served"
            return None
        call = calls[0]
        tensors = list(_tensors(call.args))
        num_arguments = sum(value is not None for value in call.args)
        if len(tensors) != 1:
            self._problems[name] = f"joins {len(tensors)} layers; only a chain can be served"
            return None
        if num_arguments != 1:
            self._problems[name] = f"is called with {num_arguments} arguments, which is not served"
        for argument, value in call.kwargs.items():
            if argument == "training" and value is True:
                self._problems[name] = "is called with training=True, which is never served"
            elif argument not in {"mask", "training"} and value is not None:
                self._problems[name] = f"is called with {argument}, which is not served"
        return tensors[0]

    def _check_masks(self, names: Sequence[str]) -> None:
        expected: tuple[str, Any] | None = None
        for before, name in zip(["", *names], names, strict=False):
            for call in self._calls[name]:
                mask = call.kwargs.get("mask")
                given = [self._mask_origin(source) for source, _ in _tensors(mask)]
                if mask is not None and (expected is None or given != [expected]):
                    self._problems.setdefault(name, "is called with a mask made outside the chain")
            layer = self._layers[name]
            if layer.kind == "Masking":
                expected = (before, layer.config.get("mask_value"))
            elif layer.kind == "Embedding" and layer.config.get("mask_zero") is True:
                expected = (before, 0)

    def _mask_origin(self, name: str) -> tuple[str, Any] | None:
        """Return the layer whose output is compared, and with what, if `name` computes a mask."""
        layer = self._layers.get(name)
        calls = self._calls.get(name)
        if layer is None or not calls or layer.kind not in _MASK_OPERATIONS:
            return None
        tensors = list(_tensors(calls[0].args))
        if len(tensors) != 1:
            return None
        source = tensors[0][0]
        if layer.kind.endswith("Any"):
            is_last_axis = layer.config.get("axis") == -1 and not layer.config.get("keepdims")
            return self._mask_origin(source) if is_last_axis else None
        return (source, calls[0].args[1]) if len(calls[0].args) == 2 else None


def _calls(serialized: Mapping[str, Any]) -> list[_Call]:
    """Return a serialised layer's calls in the graph."""
    nodes = serialized.get("inbound_nodes")
    return [
        _Call(
            args=args if isinstance(args := node.get("args"), list) else [],
            kwargs=kwargs if isinstance(kwargs := node.get("kwargs"), dict) else {},
        )
        for node in (nodes if isinstance(nodes, list) else [])
        if isinstance(node, dict)
    ]


def _endpoints(struct: Json) -> list[tuple[str, int]]:
    """Return each (layer, output number) in lists or dicts of `[layer, node, output number]`."""
    if isinstance(struct, dict):
        return [end for value in struct.values() for end in _endpoints(value)]
    if not isinstance(struct, list):
        return []
    if len(struct) == 3 and isinstance(struct[0], str) and isinstance(struct[2], int):
        return [(struct[0], struct[2])]
    return [end for value in struct for end in _endpoints(value)]


def _tensors(value: Json) -> Iterator[tuple[str, int]]:
    """Yield (layer, output number) of each symbolic tensor in a call's arguments."""
    if isinstance(value, list):
        for each in value:
            yield from _tensors(each)
    elif isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        config = value.get("config")
        history = config.get("keras_history") if isinstance(config, dict) else None
        if isinstance(history, list) and len(history) == 3 and isinstance(history[2], int):
            yield str(history[0]), history[2]
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
