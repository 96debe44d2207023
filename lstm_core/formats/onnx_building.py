"""Builds an ONNX graph in memory, out of another program's, so that it can be followed as one.

Checks nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from lstm_core.formats.onnx_model import Array, Graph, Input, Node, Tensor

_OPSET = 17


class GraphBuilder:
    """A graph that grows."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._nodes: list[Node] = []
        self._stored: dict[str, Tensor] = {}
        self._inputs: list[Input] = []

    def add(
        self,
        name: str,
        operator: str,
        inputs: Iterable[str],
        outputs: Sequence[str] = (),
        attributes: dict[str, Any] | None = None,
    ) -> str:
        """Add a node, and return the name of its first output, its own where none is given."""
        node = Node(
            operator=operator,
            name=name,
            inputs=tuple(inputs),
            outputs=tuple(outputs) or (name,),
            attributes=attributes or {},
        )
        self._nodes.append(node)
        return node.outputs[0]

    def store(self, name: str, values: int | Sequence[int]) -> str:
        """Store integers, and return their name; ValueError if one has more than 64 bits."""
        try:
            array = np.array(values, np.int64)
        except OverflowError as error:
            raise ValueError(f"{name:.80} has an integer of more than 64 bits") from error
        return self.store_array(name, array.shape, lambda: array)

    def store_array(self, name: str, shape: tuple[int, ...], load: Callable[[], Array]) -> str:
        """Store an array that is read when it is asked for, and return its name."""
        self._stored[name] = Tensor(shape=shape, load=load)
        return name

    def add_input(self, given: Input) -> str:
        """Add an input, and return its name."""
        self._inputs.append(given)
        return given.name

    def built(self, name: str, writer: str, outputs: Sequence[str]) -> Graph:
        """Return the graph.

        Args:
            name: Its name.
            writer: What wrote the file.
            outputs: Names of what it gives.
        """
        return Graph(
            name=name,
            opset=_OPSET,
            written_by=writer,
            nodes=tuple(self._nodes),
            initializers=self._stored,
            inputs=tuple(self._inputs),
            outputs=tuple(outputs),
        )
