"""The calls of a functional Keras model's layers, and the order in which Keras runs them.

Knows how Keras writes a graph into a config. Knows no layer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

from lstm_core.formats.keras_config import CONTAINERS, Json

Key = TypeVar("Key", bound=Hashable)


class Source(NamedTuple):
    """Where a tensor comes from.

    Attributes:
        layer: The layer's name in its model.
        call: Which of its calls, as Keras counts them.
        output: Which of that call's outputs.
    """

    layer: str
    call: int
    output: int


class NodeKey(NamedTuple):
    """One call of a layer: its name in its model, and the number of the call among those saved."""

    layer: str
    number: int


@dataclass(frozen=True, slots=True)
class Node:
    """The arguments of a call, serialised."""

    args: list[Any]
    kwargs: dict[str, Any]

    @property
    def sources(self) -> list[Source]:
        """Where its tensors come from, but for masks."""
        named = {name: value for name, value in self.kwargs.items() if name != "mask"}
        return [*tensors_in(self.args), *tensors_in(named)]


class CircleError(ValueError):
    """A call takes what is made of its own output.

    Attributes:
        key: The call.
    """

    def __init__(self, key: object) -> None:
        super().__init__(str(key))
        self.key: Any = key


def nodes_of(serialized: Mapping[str, Any]) -> list[Node]:
    """Return a serialised layer's calls in the graph."""
    nodes = serialized.get("inbound_nodes")
    return [
        Node(
            args=args if isinstance(args := node.get("args"), list) else [],
            kwargs=kwargs if isinstance(kwargs := node.get("kwargs"), dict) else {},
        )
        for node in (nodes if isinstance(nodes, list) else [])
        if isinstance(node, dict)
    ]


def endpoints(struct: Json) -> list[Source]:
    """Return each source in lists or dicts of `[layer, call, output number]`, as Keras flattens."""
    if isinstance(struct, dict):
        return [end for name in sorted(struct) for end in endpoints(struct[name])]
    if not isinstance(struct, list):
        return []
    if len(struct) == 3 and isinstance(struct[0], str) and all(map(_is_index, struct[1:])):
        return [Source(*struct)]
    return [end for value in struct for end in endpoints(value)]


def tensors_in(value: Json) -> Iterator[Source]:
    """Yield the source of each symbolic tensor in a call's arguments, as Keras flattens them."""
    if isinstance(value, list):
        for each in value:
            yield from tensors_in(each)
    elif is_tensor(value):
        config = value.get("config")
        history = config.get("keras_history") if isinstance(config, dict) else None
        if isinstance(history, list) and len(history) == 3 and all(map(_is_index, history[1:])):
            yield Source(str(history[0]), history[1], history[2])
    elif isinstance(value, dict):
        for name in sorted(value):
            yield from tensors_in(value[name])


def is_tensor(value: Json) -> bool:
    """Whether an argument is a symbolic tensor."""
    return isinstance(value, dict) and value.get("class_name") == "__keras_tensor__"


def _is_index(value: Json) -> bool:
    return type(value) is int and value >= 0


class Nodes:
    """The calls of one model's layers."""

    def __init__(self, layers: Mapping[str, tuple[str, list[Node]]]) -> None:
        """Take the kind and the calls of each layer, by its name in the model."""
        self._layers = layers
        self._first: dict[str, int] = {}

    def __getitem__(self, key: NodeKey) -> Node:
        """Return a call; that of an input layer has no arguments."""
        nodes = self._layers[key.layer][1]
        return nodes[key.number] if nodes else Node([], {})

    def learn_counting(self, model: Mapping[str, Any]) -> list[Source]:
        """Find out how Keras counts the calls of each layer: models may have one before the first.

        Args:
            model: The model's config.

        Returns:
            Where its outputs come from, counted as everywhere else.
        """
        ends = endpoints(model.get("output_layers"))
        if model.get("counts_models") is not True:
            # Keras 3 counts so among the outputs only, and not so in a Sequential model.
            return [
                end._replace(call=end.call - 1) if self._kind(end.layer) == "Functional" else end
                for end in ends
            ]
        highest: dict[str, int] = {}
        everywhere = [
            source
            for _, nodes in self._layers.values()
            for node in nodes
            for source in tensors_in([node.args, node.kwargs])
        ]
        for source in (*ends, *everywhere):
            highest[source.layer] = max(source.call, highest.get(source.layer, 0))
        for name, (kind, nodes) in self._layers.items():
            is_one_more = kind in CONTAINERS and highest.get(name, 0) == len(nodes)
            self._first[name] = int(is_one_more)
        return ends

    def _kind(self, layer: str) -> str:
        return self._layers.get(layer, ("", []))[0]

    def key(self, source: Source) -> NodeKey | None:
        """Return the call that a tensor comes from; None where there is no such call."""
        kind, nodes = self._layers.get(source.layer, ("", []))
        if kind == "InputLayer" or len(nodes) == 1:
            return NodeKey(source.layer, 0)
        number = source.call - self._first.get(source.layer, 0)
        return NodeKey(source.layer, number) if 0 <= number < len(nodes) else None

    def parents(self, key: NodeKey, *, with_masks: bool) -> list[NodeKey]:
        """Return the calls that a call takes tensors from; those that are missing are left out."""
        node = self[key]
        sources = list(tensors_in([node.args, node.kwargs])) if with_masks else node.sources
        return [parent for source in sources if (parent := self.key(source)) is not None]

    def in_order(self, outputs: Sequence[NodeKey]) -> list[NodeKey]:
        """Return the calls that outputs need, in the order in which Keras runs them.

        So states lie in a row as they do on TensorFlow.

        Raises:
            CircleError: There is none.
        """
        parents = partial(self.parents, with_masks=True)
        depths = depths_of(finished_first(outputs, parents)[0], parents, lambda key: key.layer)
        return sorted(depths, key=lambda key: -depths[key])

    def with_data(self, outputs: Sequence[NodeKey]) -> set[NodeKey]:
        """Return the calls that outputs need for more than a mask."""
        found = set(outputs)
        waiting = list(outputs)
        while waiting:
            for parent in self.parents(waiting.pop(), with_masks=False):
                if parent not in found:
                    found.add(parent)
                    waiting.append(parent)
        return found


def finished_first(
    outputs: Sequence[Key], parents: Callable[[Key], Sequence[Key]]
) -> tuple[list[Key], list[Key]]:
    """Go back from outputs, depth first.

    Args:
        outputs: Where to begin.
        parents: What each call takes tensors from.

    Returns:
        The calls, each behind those that it needs itself; and as they are first met.

    Raises:
        CircleError: A call needs itself.
    """
    is_finished: dict[Key, bool] = {}
    finished: list[Key] = []
    for output in outputs:
        waiting = [(output, iter([output]))]
        while waiting:
            key, others = waiting[-1]
            parent = next(others, None)
            if parent is None:
                waiting.pop()
                if waiting:
                    is_finished[key] = True
                    finished.append(key)
            elif parent not in is_finished:
                is_finished[parent] = False
                waiting.append((parent, iter(parents(parent))))
            elif not is_finished[parent]:
                raise CircleError(parent)
    return finished, list(is_finished)


def depths_of(
    finished: Sequence[Key],
    parents: Callable[[Key], Sequence[Key]],
    layer_of: Callable[[Key], object],
) -> dict[Key, int]:
    """Return the depth of each call, the longest way to an output, as Keras comes to them.

    Keras runs calls, and lists layers, from the greatest depth on.

    Args:
        finished: Of `finished_first`.
        parents: As there.
        layer_of: What is called; all calls of one layer are as deep as the deepest before.
    """
    depths: dict[Key, int] = {}
    layer_depths: dict[object, int] = {}
    for key in reversed(finished):
        depth = max(depths.get(key, 0), layer_depths.get(layer_of(key), 0))
        depths[key] = layer_depths[layer_of(key)] = depth
        for parent in parents(key):
            depths[parent] = max(depth + 1, depths.get(parent, 0))
    return depths
