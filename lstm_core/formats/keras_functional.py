"""The wiring of one functional Keras model: which values its layers take, and what is wrong there.

Knows nodes and masks. Does not know what a layer computes, nor where the models inside come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from lstm_core.formats.keras_config import CONTAINERS, MERGES, Json, LayerConfig
from lstm_core.formats.keras_masks import Mask, is_operation, mask_made
from lstm_core.formats.keras_nodes import (
    CircleError,
    Node,
    NodeKey,
    Nodes,
    Source,
    endpoints,
    is_tensor,
    nodes_of,
    tensors_in,
)

Ends = list[tuple[str, int]]
"""The layer that gives each output of a model, and its value."""


class UnwiredError(Exception):
    """It cannot be told what some layer takes; why stands in the problems."""


class Unfolding(Protocol):
    """The calls of a whole model so far, in the order in which Keras runs them."""

    @property
    def layer_problems(self) -> dict[tuple[str, ...], str]:
        """What is wrong with some layers, by their names."""
        ...

    def add_input(self, layer: LayerConfig) -> int:
        """Append an input of the whole model, and return its value."""
        ...

    def call(self, layer: LayerConfig, takes: Sequence[int], arguments: tuple[Json, ...]) -> Ends:
        """Append a call, or those of a nested model."""
        ...

    def masks_of(self, values: Sequence[int]) -> list[Mask]:
        """Return the masks that Keras hands on with values."""
        ...

    def object(self, problem: str) -> None:
        """Record what is no single layer's fault."""
        ...


class Functional:
    """One functional model."""

    def __init__(
        self,
        unfolding: Unfolding,
        model: LayerConfig,
        layers: Sequence[LayerConfig],
        serialized: Sequence[Mapping[str, Any]],
    ) -> None:
        self._unfolding = unfolding
        self._model = model
        self._layers = {layer.names[-1]: layer for layer in layers}
        self._nodes = nodes_by_name(layers, serialized)
        self._problems: dict[str, str] = {}
        self._values: dict[NodeKey, list[int]] = {}
        self._made: dict[NodeKey, Mask] = {}

    def unfold(self, given: Sequence[int]) -> Ends:
        """Append the calls of the model's layers; see `Unfolding.unfold`."""
        is_wired = self._take_inputs(given)
        outputs = self._nodes.learn_counting(self._model.config)
        order, data = self._order(outputs)
        for key in order:
            if self._layers[key.layer].kind != "InputLayer":
                self._append(key, is_data=key in data)
        ends = [(end.layer, value) for end in outputs if (value := self._value(end)) is not None]
        if is_wired and not self._problems and outputs and len(ends) == len(outputs):
            return ends
        for name, problem in self._problems.items():
            layer = self._layers[name]
            self._unfolding.layer_problems[layer.names] = problem
            if layer.kind == "InputLayer":
                self._unfolding.object(f"{layer.name}: {problem}")
        raise UnwiredError

    def _order(self, outputs: Sequence[Source]) -> tuple[list[NodeKey], set[NodeKey]]:
        """Return the calls in order, and those of them that are needed for more than a mask."""
        if not outputs:
            self._unfolding.object(f"{self._model.name}: has no outputs")
        keys = [key for output in outputs if (key := self._nodes.key(output)) is not None]
        try:
            order = self._nodes.in_order(keys)
        except CircleError as error:
            self._problems[error.key.layer] = "takes what is made of its own output"
            return [], set()
        for name in self._layers.keys() - {key.layer for key in order}:
            if keys and self._layers[name].kind != "InputLayer":
                self._problems[name] = "leads to no output"
        return order, self._nodes.with_data(keys)

    def _take_inputs(self, given: Sequence[int]) -> bool:
        """Give the input layers their values, and return whether that is possible."""
        model, unfolding = self._model, self._unfolding
        inputs = endpoints(model.config.get("input_layers"))
        layers = [self._layers.get(source.layer) for source in inputs]
        entries = [each for each in layers if each is not None and each.kind == "InputLayer"]
        if not model.names:
            given = [unfolding.add_input(layer) for layer in entries]
        if not entries or len(entries) < len(inputs):
            unfolding.object(f"{model.name}: its layers do not begin at input layers")
        elif len(given) != len(entries):
            problem = f"is called with {len(given)} tensors, and has {len(entries)} inputs"
            unfolding.object(f"{model.name}: {problem}")
        for layer, value in zip(entries, given, strict=False):
            self._values[NodeKey(layer.names[-1], 0)] = [value]
        return 0 < len(entries) == len(inputs) == len(given)

    def _append(self, key: NodeKey, *, is_data: bool) -> None:
        """Append a call of a layer, or find out what mask an operation makes."""
        layer, node = self._layers[key.layer], self._nodes[key]
        sources = list(tensors_in(node.args))
        if is_operation(layer.kind):
            parents = [self._nodes.key(source) for source in sources]
            made = [None if parent is None else self._made.get(parent) for parent in parents]
            values = [
                None if parent is None else next(iter(self._values.get(parent, [])), None)
                for parent in parents
            ]
            self._made[key] = mask_made(layer, node.args, values, made)
            if not is_data:
                return
        takes = [value for source in sources if (value := self._value(source)) is not None]
        problem = _call_problem(layer, node) or self._mask_problem(node, takes)
        if problem is not None:
            self._problems.setdefault(key.layer, problem)
        elif len(takes) == len(sources):
            if key.number:
                layer = replace(layer, name=f"{layer.name}#{key.number + 1}")
            arguments = tuple(None if is_tensor(value) else value for value in node.args)
            ends = self._unfolding.call(layer, takes, arguments)
            self._values[key] = [value for _, value in ends]

    def _value(self, source: Source) -> int | None:
        """Return the value of a tensor, or None and a problem; None alone behind another."""
        key = self._nodes.key(source)
        if key is None:
            problem = f"{self._model.name}: its layer {source.layer!r:.80} is missing"
            self._unfolding.object(problem)
            return None
        values = self._values.get(key)
        if values is not None and source.output >= len(values):
            problem = f"gives its output number {source.output} on, a state"
            self._problems.setdefault(source.layer, problem)
            return None
        return None if values is None else values[source.output]

    def _mask_problem(self, node: Node, takes: Sequence[int]) -> str | None:
        """Say what is wrong with the mask that a layer is called with, or return None."""
        given = node.kwargs.get("mask")
        masks = given if isinstance(given, list) else [given]
        if all(mask is None for mask in masks):
            return None
        keys = [self._nodes.key(source) for source in tensors_in(masks)]
        made = [None if key is None else self._made.get(key) for key in keys]
        handed_on = [each for each in self._unfolding.masks_of(takes) if each is not None]
        is_same = made and made == handed_on
        return None if is_same else "is called with a mask that is not that of the layers before it"


def _call_problem(layer: LayerConfig, node: Node) -> str | None:
    """Say what is wrong with how a layer is called, or return None."""
    num_tensors = len(list(tensors_in(node.args)))
    num_arguments = sum(value is not None for value in node.args)
    for argument, value in node.kwargs.items():
        if argument == "training" and value is True:
            return "is called with training=True, which is never served"
        if argument not in {"mask", "training"} and value is not None:
            return f"is called with {argument}, which is not served"
    if is_operation(layer.kind):
        return None if num_tensors else "takes no tensor"
    if num_arguments > 1:
        return f"is called with {num_arguments} arguments, which is not served"
    if num_tensors == 0 or (num_tensors > 1 and layer.kind not in MERGES | CONTAINERS):
        return f"is called with {num_tensors} tensors, not with one"
    return None


def nodes_by_name(layers: Sequence[LayerConfig], serialized: Sequence[Mapping[str, Any]]) -> Nodes:
    """Return the calls of a model's layers."""
    return Nodes(
        {
            layer.names[-1]: (layer.kind, nodes_of(each))
            for layer, each in zip(layers, serialized, strict=True)
        }
    )
