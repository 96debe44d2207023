"""The graph of objects in a checkpoint of TensorFlow 2: which object's variable is which tensor.

Owns that graph's encoding. Does not know what the objects are.

References:
    `tensorflow/core/protobuf/trackable_object_graph.proto`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lstm_core.errors import FormatError
from lstm_core.formats.protobuf import Message
from lstm_core.formats.tensorflow_bundle import Bundle
from lstm_core.formats.tensors import StoredTensor
from lstm_core.formats.variables import Variables

_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One object.

    Attributes:
        children: The number of each object that it refers to, by the reference's name.
        full_name: What TensorFlow calls it where it is a variable, else empty.
        key: Its name in the checkpoint where it is a variable, else empty.
    """

    children: Mapping[str, int]
    full_name: str
    key: str


def has_objects(bundle: Bundle) -> bool:
    """Return whether a checkpoint tells of objects."""
    return _GRAPH in bundle.tensors


def read_objects(bundle: Bundle) -> list[Node]:
    """Return every object of a checkpoint; the first is the one that was saved.

    Raises:
        FormatError: There are none, or they are damaged.
    """
    try:
        nodes = [_node(each) for each in Message(memoryview(bundle.text(_GRAPH))).messages(1)]
    except KeyError as error:
        problem = "tells of no objects: it is no checkpoint of TensorFlow 2"
        raise FormatError(str(bundle.prefix), [problem]) from error
    except (OSError, ValueError) as error:
        raise FormatError(str(bundle.prefix), [f"its graph of objects {error}"]) from error
    if not nodes or any(
        not 0 <= child < len(nodes) for node in nodes for child in node.children.values()
    ):
        raise FormatError(str(bundle.prefix), ["its graph of objects is damaged"])
    return nodes


def _node(message: Message) -> Node:
    values = [each for each in message.messages(2) if each.text(1) == "VARIABLE_VALUE"]
    return Node(
        children={each.text(2): each.integer(1) for each in message.messages(1)},
        full_name=values[0].text(2) if values else "",
        key=values[0].text(3) if values else "",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedVariables(Variables):
    """A layer's variables as attributes of its object.

    Attributes:
        layer: The layer's name, for messages.
        bundle: The checkpoint.
        objects: Every object.
        place: The references from the first object to the layer, for messages.
        node: The number of the layer's object, or None where the file has none.
    """

    layer: str
    bundle: Bundle
    objects: list[Node]
    place: str
    node: int | None

    def child(self, part: str, index: int = 0) -> TrackedVariables:
        """Return the place of a part: the object of that name, or of that number among cells."""
        children = self._children
        is_numbered = part not in children and str(index) in children
        name = str(index) if is_numbered else part
        return TrackedVariables(
            layer=self.layer,
            bundle=self.bundle,
            objects=self.objects,
            place=f"{self.place}.{name}",
            node=children.get(name),
        )

    def find(self, index: int, name: str) -> StoredTensor:  # noqa: ARG002
        """Return the variable of that name."""
        found = self._children.get(name)
        key = "" if found is None else self.objects[found].key
        if not key:
            raise KeyError(f"{self.place}.{name}")
        return self.bundle.stored(key)

    @property
    def _children(self) -> Mapping[str, int]:
        return {} if self.node is None else self.objects[self.node].children
