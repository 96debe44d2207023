"""A model's inputs and outputs as parts of a time step's values.

Knows a graph's form, and no tensor's value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import keras

from lstm_core.errors import SpecError
from lstm_core.network import TensorPart
from lstm_core.runtime.tensorflow_graph import Arguments, Graph
from lstm_core.runtime.tensorflow_layers import is_recurrent

Tensor: TypeAlias = Any
Operation: TypeAlias = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An input or output of a model.

    Attributes:
        part: Where it lies among a time step's values.
        shape: Its shape without batch and time.
        has_time: Whether it has a time axis; if not, there is one value for a sequence.
        dtype: TensorFlow's name for what its values are.
    """

    part: TensorPart
    shape: tuple[int, ...]
    has_time: bool
    dtype: str


def input_ports(graph: Graph) -> tuple[tuple[Port, ...], int | None]:
    """Return a model's inputs, and the number of time steps that it was built for.

    An input has a time axis if its shape leaves that open, or if recurrent layers run over as many
    steps as its first axis has; two axes without features are enough where integers are embedded.

    Raises:
        SpecError: A size other than batch and time is open, or the inputs are of different lengths.
    """
    lengths, vocabularies = _look_through(graph)
    has_time = [_has_time(tensor, lengths, id(tensor) in vocabularies) for tensor in graph.inputs]
    known = {
        tensor.shape[1]
        for tensor, is_timed in zip(graph.inputs, has_time, strict=True)
        if is_timed and tensor.shape[1] is not None
    }
    if len(known) > 1:
        problem = f"has inputs of {' and '.join(map(str, sorted(known)))} time steps"
        raise SpecError(graph.model.name, problem)
    return _ports(graph.inputs, has_time, vocabularies), next(iter(known), None)


def output_ports(graph: Graph, has_time: Sequence[bool]) -> tuple[Port, ...]:
    """Return a model's outputs, of which some have a time axis.

    Raises:
        SpecError: A size other than batch and time is open.
    """
    return _ports(graph.outputs, has_time, {})


def _ports(
    tensors: Sequence[Tensor], has_time: Sequence[bool], vocabularies: dict[int, int]
) -> tuple[Port, ...]:
    """Lay tensors side by side, each under a name of its own."""
    ports: list[Port] = []
    offset = 0
    for tensor, is_timed in zip(tensors, has_time, strict=True):
        base = name = tensor._keras_history.operation.name  # noqa: SLF001 - as `output_names` does
        number = 0
        while any(port.part.name == name for port in ports):
            number += 1
            name = f"{base}_{number}"
        shape = tuple(tensor.shape[2 if is_timed else 1 :])
        if None in shape:
            problem = f"has shape {tuple(tensor.shape)}; only batch and time may be open"
            raise SpecError(name, problem)
        part = TensorPart(
            name=name,
            offset=offset,
            size=math.prod(shape),
            vocabulary=vocabularies.get(id(tensor)),
        )
        offset += part.size
        ports.append(Port(part=part, shape=shape, has_time=is_timed, dtype=str(tensor.dtype)))
    return tuple(ports)


def _look_through(graph: Graph) -> tuple[set[int | None], dict[int, int]]:
    """Return how long the axes are that recurrent layers run over, and how many words inputs have.

    Returns:
        Lengths, None for an open one; and for each input that is embedded, by its id, the number of
        integers that it may be.
    """
    lengths: set[int | None] = set()
    vocabularies: dict[int, int] = {}
    inputs = {id(tensor) for tensor in graph.inputs}

    def call(operation: Operation, arguments: Arguments | None, symbolic: Any) -> Any:
        assert arguments is not None
        if is_recurrent(operation):
            lengths.add(arguments.first.shape[1])
        if isinstance(operation, keras.layers.Embedding) and id(arguments.first) in inputs:
            key = id(arguments.first)
            vocabularies[key] = min(operation.input_dim, vocabularies.get(key, math.inf))
        return symbolic

    graph.run(graph.inputs, call)
    return lengths, vocabularies


def _has_time(tensor: Tensor, lengths: set[int | None], is_embedded: bool) -> bool:
    shape = tensor.shape
    if len(shape) < 2:
        return False
    if len(shape) == 2 and not is_embedded:
        return shape[1] is None
    return shape[1] is None or shape[1] in lengths
