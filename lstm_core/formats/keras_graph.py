"""From a `.keras` file's config to the calls of its layers, Sequential or functional.

Owns class names, nested models, and where each layer's variables are. Does not know what a layer
computes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lstm_core.errors import SpecError
from lstm_core.formats.keras_config import CONTAINERS, Json, LayerConfig, group_names, kind_of
from lstm_core.formats.keras_functional import Ends, Functional, UnwiredError, nodes_by_name
from lstm_core.formats.keras_masks import Mask, is_operation, mask_behind

_MAX_LAYERS = 10_000
"""Of one model, and calls of all that it is made of: many times what any has."""
_MAX_NAME_LENGTH = 4096
"""Of a model and those that it is nested in, since each of its layers repeats it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of a layer.

    Attributes:
        layer: The layer.
        takes: The numbers of the values that it takes: the model's inputs first, then what each
            call gives. Empty where the graph is not whole.
        arguments: Of an operation, its arguments by position, None for those that are tensors.
    """

    layer: LayerConfig
    takes: tuple[int, ...] = ()
    arguments: tuple[Json, ...] = ()


@dataclass(slots=True)
class Graph:
    """A model's calls in the order in which Keras runs them, nested models unfolded.

    Attributes:
        name: The model's name.
        inputs: The model's input layers.
        calls: The calls of the other layers. Where the graph is not whole, every layer in the
            file's order.
        outputs: The name of each output, and the number of its value.
        problems: What stands in the way and is no single layer's fault.
        is_whole: Whether it is known what each call takes.
    """

    name: str
    inputs: list[LayerConfig] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    outputs: list[tuple[str, int]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    is_whole: bool = True


def read_graph(model: Mapping[str, Any]) -> Graph:
    """Unfold a serialised model.

    Args:
        model: The content of `config.json`.

    Raises:
        SpecError: It has far more layers than any model.
    """
    kind = kind_of(model)
    config = model.get("config")
    name = _name(config) if isinstance(config, dict) else "model"
    if kind not in CONTAINERS or not isinstance(config, dict):
        problem = f"{name}: is a {kind}; only Sequential and functional models are read"
        return Graph(name, problems=[problem], is_whole=False)
    whole = LayerConfig(name=name, kind=kind, config=config)
    unfolding = _Unfolding(name)
    graph = unfolding.graph
    try:
        ends = unfolding.unfold(whole, ())
    except UnwiredError:
        graph.is_whole = False
        graph.calls = [Call(layer=each) for each in _every_layer(whole, unfolding.layer_problems)]
        return graph
    taken: Counter[str] = Counter()
    for layer, value in ends:
        graph.outputs.append((f"{layer}_{taken[layer]}" if taken[layer] else layer, value))
        taken[layer] += 1
    _leave_out_unneeded(graph)
    return graph


def _leave_out_unneeded(graph: Graph) -> None:
    """Drop calls that lead to no output: those for outputs of nested models that nobody takes."""
    num_inputs = len(graph.inputs)
    needed = {value for _, value in graph.outputs}
    for value in range(num_inputs + len(graph.calls) - 1, num_inputs - 1, -1):
        if value in needed:
            needed.update(graph.calls[value - num_inputs].takes)
    numbers = list(range(num_inputs))
    calls: list[Call] = []
    for value, call in enumerate(graph.calls, num_inputs):
        if value in needed:
            calls.append(replace(call, takes=tuple(numbers[each] for each in call.takes)))
        numbers.append(num_inputs + len(calls) - 1)
    graph.calls = calls
    graph.outputs = [(name, numbers[value]) for name, value in graph.outputs]


class _Unfolding:
    """A model's calls so far, and what is wrong with some, by the names of the layer."""

    def __init__(self, name: str) -> None:
        self.graph = Graph(name)
        self.layer_problems: dict[tuple[str, ...], str] = {}
        self._masks: list[Mask] = []
        self._num_layers = 0

    def unfold(self, model: LayerConfig, given: Sequence[int]) -> Ends:
        """Append the calls of a model's layers.

        Args:
            model: The model.
            given: The values that it is called with, none for the whole one.

        Raises:
            UnwiredError: There are problems.
        """
        problem = _unreadable(model)
        if problem is not None:
            self.object(problem)
            raise UnwiredError
        serialized = model.config["layers"]
        self._num_layers += len(serialized)
        if self._num_layers > _MAX_LAYERS:
            raise SpecError(model.name, f"is made of more than {_MAX_LAYERS} layers")
        layers = _layer_configs(serialized, model)
        if model.kind == "Sequential":
            return self._unfold_sequential(model, layers, given)
        return Functional(self, model, layers, serialized).unfold(given)

    def _unfold_sequential(
        self, model: LayerConfig, layers: Sequence[LayerConfig], given: Sequence[int]
    ) -> Ends:
        if not model.names:
            entries = [layer for layer in layers if layer.kind == "InputLayer"]
            given = [self.add_input(layer) for layer in entries]
            if len(given) != 1:
                self.object(f"{model.name}: has {len(given)} input layers; build it with one")
        elif len(given) != 1:
            self.object(f"{model.name}: is called with {len(given)} tensors, not with one")
        if len(given) != 1:
            raise UnwiredError
        current: Ends = [(model.name, given[0])]
        for layer in _with_sequential_problems(layers):
            if layer.kind != "InputLayer":
                ends = self.call(layer, [value for _, value in current], ())
                current = [(layer.names[-1], value) for _, value in ends]
        return current

    def add_input(self, layer: LayerConfig) -> int:
        """Append an input of the whole model, and return its value."""
        self.graph.inputs.append(layer)
        self._masks.append(None)
        return len(self.graph.inputs) - 1

    def call(self, layer: LayerConfig, takes: Sequence[int], arguments: tuple[Json, ...]) -> Ends:
        """Append a call, or those of a nested model."""
        if layer.kind in CONTAINERS and layer.problem is None:
            return self.unfold(layer, takes)
        calls = self.graph.calls
        if len(calls) == _MAX_LAYERS:
            raise SpecError(self.graph.name, f"is made of more than {_MAX_LAYERS} layers")
        calls.append(Call(layer=layer, takes=tuple(takes), arguments=arguments))
        self._masks.append(mask_behind(layer, takes, self.masks_of(takes)))
        return [(layer.name, len(self._masks) - 1)]

    def masks_of(self, values: Sequence[int]) -> list[Mask]:
        """Return the masks that Keras hands on with values."""
        return [self._masks[value] for value in values]

    def object(self, problem: str) -> None:
        """Record what is no single layer's fault."""
        if problem not in self.graph.problems:
            self.graph.problems.append(problem)


def _every_layer(
    model: LayerConfig, problems: Mapping[tuple[str, ...], str]
) -> Iterator[LayerConfig]:
    """Yield every layer of a model but those that only make masks, with what is wrong with it."""
    if _unreadable(model) is not None:
        return
    layers = _layer_configs(model.config["layers"], model)
    only_masks: set[str] = set()
    if model.kind == "Sequential":
        layers = _with_sequential_problems(layers)
    else:
        nodes = nodes_by_name(layers, model.config["layers"])
        outputs = nodes.learn_counting(model.config)
        keys = [key for output in outputs if (key := nodes.key(output)) is not None]
        only_masks = {layer.names[-1] for layer in layers if is_operation(layer.kind)} - {
            key.layer for key in nodes.with_data(keys)
        }
    for layer in layers:
        problem = problems.get(layer.names, layer.problem)
        if layer.kind in CONTAINERS and problem is None:
            yield from _every_layer(layer, problems)
        elif layer.kind != "InputLayer" and layer.names[-1] not in only_masks:
            yield replace(layer, problem=problem)


def _unreadable(model: LayerConfig) -> str | None:
    """Say why there is no list of a model's layers, or return None."""
    serialized = model.config.get("layers")
    if not isinstance(serialized, list) or not all(isinstance(x, dict) for x in serialized):
        return f"{model.name}: its config has no list of layers"
    if len(serialized) > _MAX_LAYERS or len(model.name) > _MAX_NAME_LENGTH:
        return f"{model.name:.80}: has more than {_MAX_LAYERS} layers, or too long a name"
    return None


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


def _with_sequential_problems(layers: Sequence[LayerConfig]) -> list[LayerConfig]:
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
